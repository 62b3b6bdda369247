"""Has something become slow that was fast, as far as a noisy machine can tell?

    python benchmarks/regression.py [--only NAME …] [--rounds R] [--store]

Each check times two roads in turn, the reference and ours, and takes the median over the rounds of their ratio, which
is about the same on a fast and on a slow machine; greater is better. One line for each is printed, and a line that
begins with ``warning:`` where the ratio is below the stored one (``ratios.json``) by more than its tolerance. A warning
is no failure: the exit code is 0 unless a check itself breaks. Measure again on a quiet machine before believing one.
``--store`` writes the ratios found into ``ratios.json``, tolerances kept: say in the log why they changed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COMMAND_PROGRAMS = 16_000
"""Programs for a whole command: enough that its start is not all of it."""

STORED = Path(__file__).with_name("ratios.json")

Road = Callable[[], object]
Roads = tuple[Road, Road, Callable[[], float]]  # the reference, ours, and the clock that both are timed by


def yardstick(rounds: int = 200_000) -> int:
    """A fixed loop of plain Python: the work that the machine's speed is read from."""
    state, words = 1, {}
    for place in range(rounds):
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
        words[state % 64] = f"{place}"
    return len(words)


def om_beside_radon(programs: int = 300) -> Roads:
    """The Overall Metric beside radon's two halves of it."""
    from radon.metrics import h_visit
    from radon.visitors import ComplexityVisitor

    from gradatim.difficulty import DIFFICULTIES
    from gradatim.difficulty.python_source import scored_text
    from gradatim.programs import generate

    table = generate(programs, seed=1).table
    texts = list(map(scored_text, table["prompt"].to_pylist(), table["answer"].to_pylist()))
    om = DIFFICULTIES.get("om")()

    def radon() -> object:
        return [ComplexityVisitor.from_code(text).total_complexity + h_visit(text).total.difficulty for text in texts]

    return radon, lambda: om(table), time.process_time


def score_command_beside_radon() -> Roads:
    """``gradatim score`` of a Parquet file to another, from the start of Python, beside radon's loop over the texts.

    In processor time, that of children included: the command may share its work among processes, and neighbours count
    little. The start weighs heavier here than in a large file; ``benchmarks/score.py --command`` measures that.
    """
    import tempfile

    from gradatim.programs import generate
    from gradatim.table import write_table

    radon, _, _ = om_beside_radon(COMMAND_PROGRAMS)
    folder = tempfile.TemporaryDirectory()  # held by the road below, removed with it
    write_table(generate(COMMAND_PROGRAMS, seed=1).table, Path(folder.name, "in.parquet"))
    command = [sys.executable, "-m", "gradatim", "score", str(Path(folder.name, "in.parquet"))]

    def score() -> object:
        return subprocess.run(
            [*command, "--out", str(Path(folder.name, "out.parquet")), "--force"], check=True, capture_output=True
        )

    return radon, score, all_processor_time


def all_processor_time() -> float:
    """Seconds of all processors that this process and its finished children took, in user and system mode."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def halstead_beside_tokenize() -> Roads:
    """Token-level Halstead beside the standard library reading the same tokens."""
    from gradatim.difficulty import DIFFICULTIES
    from gradatim.programs import generate

    table = generate(1000, seed=1).table
    texts = table["prompt"].to_pylist()
    halstead = DIFFICULTIES.get("halstead")()

    def read() -> object:
        return [sum(1 for _ in tokenize.generate_tokens(io.StringIO(text).readline)) for text in texts]

    return read, lambda: halstead(table), time.process_time


def canonical_beside_tokenize() -> Roads:
    """The canonical form beside the standard library reading the same tokens."""
    from gradatim.programs import canonical, generate

    texts = generate(1000, seed=1).table["prompt"].to_pylist()

    def read() -> object:
        return [sum(1 for _ in tokenize.generate_tokens(io.StringIO(text).readline)) for text in texts]

    return read, lambda: [canonical(text) for text in texts], time.process_time


def generator() -> Roads:
    """5,000 programs in this process, beside the yardstick."""
    from gradatim.programs import generate

    return yardstick, lambda: generate(5000, seed=1), time.process_time


def generator_with_two_workers() -> Roads:
    """The same by two workers, their start included, beside the yardstick; needs two processors to mean something."""
    from gradatim.programs import generate

    return yardstick, lambda: generate(20_000, seed=1, workers=2), time.perf_counter


def plan_beside_its_imports() -> Roads:
    """``gradatim plan`` beside a start of Python that imports what the command line is made of."""

    def start(*words: str) -> Road:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    imports = start("-c", "import typer, rich.table, pydantic, yaml")
    return imports, start("-m", "gradatim", "plan", "smoke/baseline", "--no-data"), time.perf_counter


def batched_evaluation() -> Roads:
    """48 prompts answered together by the smallest student, beside one at a time by the same function."""
    from gradatim.inference.decode import complete
    from gradatim.model.architecture import create

    samples, tokenizer, special = _samples(48)
    model = create("tiny", vocabulary=len(tokenizer), context=256, special=special, seed=0).eval()
    prompts = samples["prompt"].to_pylist()

    def one_by_one() -> object:
        return [complete(model, tokenizer, [prompt], limits=6) for prompt in prompts]

    return one_by_one, lambda: complete(model, tokenizer, prompts, limits=6), time.perf_counter


def step_beside_its_batch() -> Roads:
    """Forward and backward of a small student beside the preparation of the packed batch that it reads."""
    import numpy as np
    import torch

    from gradatim.model.architecture import create
    from gradatim.model.tokenizer import encode_table
    from gradatim.stage import Stage, StageSpec
    from gradatim.training.batches import IGNORE, Packed

    samples, tokenizer, special = _samples(4000)
    encoded = encode_table(tokenizer, samples)
    model = create("small", vocabulary=len(tokenizer), context=256, special=special, seed=0)
    rows = np.arange(samples.num_rows)
    stage = Stage(StageSpec("all", (1.0,), 1), 0, rows, seed=0, first_token=0, run_tokens=1)
    packed = Packed(encoded, stage, size=8, length=256, pad=tokenizer.pad_token_id)
    batch, _ = next(packed.stream(packed.start))
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)

    def steps() -> None:
        for _ in range(4):
            logits = model(inputs, use_cache=False).logits.flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE).backward()
            model.zero_grad()

    def batches() -> None:
        for _ in itertools.islice(packed.stream(packed.start), 4):
            pass

    return steps, batches, time.perf_counter


def _samples(count: int) -> tuple[Any, Any, dict[str, int]]:
    """Programs, a tokenizer for them, and what a model must know of it."""
    from gradatim.model.tokenizer import character_tokenizer, texts_of
    from gradatim.programs import generate

    samples = generate(count, seed=1).table
    tokenizer = character_tokenizer(texts_of(samples))
    return samples, tokenizer, {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}


CHECKS: dict[str, Callable[[], Roads]] = {
    check.__name__: check
    for check in (
        om_beside_radon,
        score_command_beside_radon,
        halstead_beside_tokenize,
        canonical_beside_tokenize,
        generator,
        generator_with_two_workers,
        plan_beside_its_imports,
        batched_evaluation,
        step_beside_its_batch,
    )
}


def ratio_of(roads: Roads, rounds: int) -> float:
    """The median over ``rounds`` of the reference's time over ours; a round before them is not counted."""
    reference, ours, clock = roads

    def timed(work: Road) -> float:
        start = clock()
        work()
        return clock() - start

    ratios = [timed(reference) / timed(ours) for _ in range(rounds + 1)]
    return statistics.median(ratios[1:])


def lines(name: str, found: float, stored: dict[str, float] | None) -> list[str]:
    """What is said of one ratio: a line, and a warning when it fell by more than its tolerance."""
    if stored is None:
        return [f"{name}: {found:.3g} (nothing is stored to compare with; --store)"]
    least = stored["ratio"] * (1 - stored["tolerance"])
    said = [f"{name}: {found:.3g}, stored {stored['ratio']:.3g}, tolerated from {least:.3g}"]
    if found < least:
        said.append(f"warning: {name} fell to {found / stored['ratio']:.0%} of the stored ratio; measure again, alone")
    return said


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", action="store_true", help="write the ratios found into ratios.json")
    parser.add_argument("--ratios", type=Path, default=STORED, help="the file of stored ratios")
    asked = parser.parse_args()
    stored = json.loads(asked.ratios.read_text()) if asked.ratios.exists() else {}
    for name in asked.only:
        found = ratio_of(CHECKS[name](), asked.rounds)
        print("\n".join(lines(name, found, stored.get(name))), flush=True)
        if asked.store:
            tolerance = stored.get(name, {"tolerance": 0.3})["tolerance"]
            stored[name] = {"ratio": float(f"{found:.3g}"), "tolerance": tolerance}
    if asked.store:
        asked.ratios.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
