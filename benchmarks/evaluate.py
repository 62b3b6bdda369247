"""How much faster is the suite of outputs than asking one program at a time, without a cache?

Prints one JSON object. The student is the ``paper`` preset with random weights: nothing is trained, since only the
number of tokens read and written matters. Two students are imitated:

- ``wrong``: never agrees with the true answer and never ends, so every program costs all the tokens that the paper's
  protocol allows (20 or 30): the worst case;
- ``right``: writes the true answer (here: its own first 8 tokens are taken to be the truth), as a trained student
  mostly does.

The reference is the plain loop: one program, the whole text read again for every token. Its texts are compared with
the suite's, so the ratio is between two roads to the same result. Run it on a machine that does nothing else:

    python benchmarks/evaluate.py [--programs N] [--reference N] [--threads N] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import torch

from gradatim.evaluate import SUITES
from gradatim.evaluate.output import PAPER_LIMIT
from gradatim.programs import generate
from gradatim.student.architecture import create
from gradatim.student.decode import complete
from gradatim.student.load import LoadedStudent
from gradatim.student.tokenizer import character_tokenizer, encode_table, texts_of

ROUNDS = 3
ANSWER = 8
"""Tokens of the imitated right answer, its end included: TinyPy's answers have about as many characters."""


def plainly(student: LoadedStudent, prompts: Sequence[str], limit: int) -> list[str]:
    """The reference: greedy, one prompt at a time, no cache."""
    texts = []
    for prompt in prompts:
        numbers = student.tokenizer(prompt)["input_ids"]
        start = len(numbers)
        with torch.no_grad():
            while len(numbers) < start + limit:
                logits = student.model(torch.tensor([numbers], device=student.model.device), use_cache=False).logits
                numbers.append(int(logits[0, -1].argmax()))
        texts.append(student.tokenizer.decode(numbers[start:]))
    return texts


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def both_roads(student: LoadedStudent, prompts: Sequence[str], few: int, limit: int, drafted: bool) -> dict[str, float]:
    """Programs per second by each road, in turn, so that neighbours on a busy machine count little."""
    model, tokenizer = student.model, student.tokenizer
    truth = complete(model, tokenizer, prompts, limits=limit)
    drafts = [one.text for one in truth] if drafted else None
    plain, ours = [], []
    for _ in range(ROUNDS):
        seconds, texts = timed(lambda: plainly(student, prompts[:few], limit))
        assert texts == [one.text for one in truth[:few]]
        plain.append(few / seconds)
        seconds, again = timed(lambda: complete(model, tokenizer, prompts, limits=limit, drafts=drafts))
        assert again == truth
        ours.append(len(prompts) / seconds)
    ratio = statistics.median(fast / slow for fast, slow in zip(ours, plain, strict=True))
    return {"plain_per_s": round(max(plain), 2), "ours_per_s": round(max(ours), 1), "ratio": round(ratio, 1)}


def measure(student: LoadedStudent, samples: pa.Table, few: int) -> dict[str, Any]:
    """Both roads for both imitated students, then every suite."""
    prompts = samples["prompt"].to_pylist()
    found: dict[str, Any] = {
        "wrong": both_roads(student, prompts, few, PAPER_LIMIT, drafted=False),
        "right": both_roads(student, prompts, few, ANSWER, drafted=True),
    }
    for name in SUITES.names():
        for protocol in ("greedy", "paper"):
            suite = SUITES.get(name)(protocol=protocol, limit=len(prompts))
            seconds, result = timed(lambda suite=suite: suite(student, samples, seed=0))
            found[f"{name}_{protocol}_per_s"] = round(result.counts["all"]["all"].total / seconds, 1)
    characters = sum(map(len, texts_of(samples)))
    seconds, _ = timed(lambda: encode_table(student.tokenizer, samples))
    found["encode_characters_per_s"] = round(characters / seconds)
    return found


def main() -> None:
    """Generate, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=256)
    parser.add_argument("--reference", type=int, default=4, help="programs for the slow road")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    samples = generate(given.programs, seed=1).table
    tokenizer = character_tokenizer(texts_of(samples))
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = create("paper", vocabulary=len(tokenizer), context=256, special=special, seed=0)
    student = LoadedStudent(model.to(given.device).eval(), tokenizer)
    about = {"device": given.device, "threads": given.threads, "programs": samples.num_rows}
    found = {**about, "parameters": model.num_parameters(), **measure(student, samples, given.reference)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
