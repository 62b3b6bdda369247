"""Time of one training in one process and in two: the ratio, and whether the results agree.

    python benchmarks/processes.py [--recipe NAME] [--tokens N] [--rounds N]

Prints one JSON object. The variants train the same recipe in turn, on the same samples:

- ``one``: one process of one thread;
- ``threads``: one process of two threads;
- ``processes``: ``gradatim run --processes 2``, one thread each.

``seconds`` is the training time that the runs record, without start, samples and evaluation.
``one_over_processes`` and ``threads_over_processes``: seconds of that variant over those of two processes, in each
round and as the median. ``difference`` is the largest relative difference of a logged loss of two processes to that of
one; an error unless steps and tokens are equal. Two cores must be idle: processes wait for each other at every step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gradatim.processes import available_cores

VARIANTS = {"one": (1, 1), "threads": (1, 2), "processes": (2, 1)}
"""Processes and threads of each."""


def train(folder: Path, options: argparse.Namespace, processes: int, threads: int) -> list[dict[str, Any]]:
    """Train in ``folder``; the results of the stages."""
    changes = (
        f"budget.tokens={options.tokens}",
        f"data.count={options.programs}",
        "data.split.validation=100",
        "data.split.test=100",
        "train.evaluations_per_stage=1",
        "evaluate.suites=[]",
        "train.checkpoint_seconds=100000",
        f"threads={threads}",
    )
    command = [sys.executable, "-m", "gradatim", "run", options.recipe, "--out", str(folder), "--json"]
    command += ["--processes", str(processes), *(word for change in changes for word in ("--set", change))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return [json.loads(path.read_text())["fitted"] for path in sorted(folder.glob("cycle-*/stage-*/result.json"))]


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every row of the metrics that has a loss."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["run_tokens"], row["loss"]) for row in rows if row.get("loss") is not None]


def difference(first: Path, second: Path) -> float:
    """Largest relative difference of the losses; ``ValueError`` when steps or tokens differ."""
    pairs = list(zip(losses(first), losses(second), strict=True))
    if any(steps != second_steps for (steps, _), (second_steps, _) in pairs):
        raise ValueError("the variants have different steps")
    return max(abs(loss - second_loss) / loss for (_, loss), (_, second_loss) in pairs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--recipe", default="curriculum/baseline")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="budget of a training")
    parser.add_argument("--programs", type=int, default=20_000, help="samples")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    largest = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(options.rounds):
            for name, (processes, threads) in VARIANTS.items():
                folder = Path(temporary) / f"{name}-{number}"
                stages = train(folder, options, processes, threads)
                seconds[name].append(sum(stage["seconds"] for stage in stages))
                print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
            largest = max(largest, difference(Path(temporary) / f"one-{number}", folder))
    result: dict[str, Any] = {
        "recipe": options.recipe,
        "tokens": options.tokens,
        "cores": available_cores(),
        "seconds": {name: [round(value, 1) for value in values] for name, values in seconds.items()},
        "difference": largest,
    }
    for name in ("one", "threads"):
        ratios = [
            round(variant / reference, 2)
            for variant, reference in zip(seconds[name], seconds["processes"], strict=True)
        ]
        result[f"{name}_over_processes"] = {"ratio": statistics.median(ratios), "ratios": ratios}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
