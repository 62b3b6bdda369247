"""How fast is the Overall Metric beside radon, and how fast is every other metric?

    python benchmarks/score.py [--programs N] [--rounds R] [--command]

Prints one JSON object. Radon and Gradatim score the same TinyPy programs in turn, in one process, ``rounds``
times; ``ratio`` is the median over the rounds of radon's processor time over ours, so that neighbours on a busy machine
count little. Ours is the whole road from a table's rows to a column; radon's is its own parsing and counting of
ready strings.

``--command`` measures the whole command instead: ``gradatim score IN.parquet --out OUT.parquet`` from the start of
Python to its end, with start, reading, writing and worker processes, beside radon's loop alone over ready strings.
``cpu_ratio`` compares processor time (user and system, children included), ``ratio`` the clock, which means something
on an idle machine only; ``one_process`` is the same with ``--workers 1``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radon.metrics import h_visit
from radon.visitors import ComplexityVisitor

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.python_source import scored_text
from gradatim.programs import generate
from gradatim.table import read_table, write_table


def radon_om(source: str) -> float:
    """(CC + HD) / 2 as a user of radon gets it."""
    return float(ComplexityVisitor.from_code(source).total_complexity + h_visit(source).total.difficulty) / 2


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds on the clock, processor seconds with those of finished children) of one call."""
    clock, before = time.perf_counter(), os.times()
    work()
    return time.perf_counter() - clock, sum(os.times()[:4]) - sum(before[:4])


def whole_command(programs: int, rounds: int) -> dict[str, object]:
    """Ratios of the command ``gradatim score`` beside radon's loop, measured in turn."""
    table = generate(programs, seed=1).table
    texts = list(map(scored_text, table["prompt"].to_pylist(), table["answer"].to_pylist()))
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "in.parquet"), Path(folder, "out.parquet")
        write_table(table, given)
        command = [sys.executable, "-m", "gradatim", "score", str(given), "--out", str(out), "--force"]
        roads: dict[str, Callable[[], object]] = {
            "radon": lambda: [radon_om(text) for text in texts],
            "command": lambda: subprocess.run(command, check=True, capture_output=True),
            "one_process": lambda: subprocess.run([*command, "--workers", "1"], check=True, capture_output=True),
        }
        turns = [{name: spent(road) for name, road in roads.items()} for _ in range(rounds)]
        assert read_table(out)["om"].to_pylist() == [radon_om(text) for text in texts], "the figures differ"
    found: dict[str, object] = {"programs": programs, "rounds": rounds}
    for name in ("command", "one_process"):
        ratios = [[turn["radon"][which] / turn[name][which] for turn in turns] for which in (0, 1)]
        clock, cpu = (round(statistics.median(each), 2) for each in ratios)
        found[name] = {"ratio": clock, "cpu_ratio": cpu, "cpu_ratios": [round(ratio, 2) for ratio in ratios[1]]}
    seconds_taken = {name: [round(min(turn[name][which] for turn in turns), 2) for which in (0, 1)] for name in roads}
    return {**found, "best_seconds_clock_and_cpu": seconds_taken}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--command", action="store_true", help="measure the whole command")
    asked = parser.parse_args()
    if asked.command:
        print(json.dumps(whole_command(asked.programs, asked.rounds), indent=2))
        return
    table = generate(asked.programs, seed=1).table
    texts = list(map(scored_text, table["prompt"].to_pylist(), table["answer"].to_pylist()))
    om = DIFFICULTIES.get("om")()
    pairs = [
        (seconds(lambda: [radon_om(text) for text in texts]), seconds(lambda: om(table))) for _ in range(asked.rounds)
    ]
    assert om(table).tolist() == [radon_om(text) for text in texts], "the figures differ"
    found = {
        "programs": asked.programs,
        "rounds": asked.rounds,
        "ratio": round(statistics.median(theirs / ours for theirs, ours in pairs), 2),
        "ratios": [round(theirs / ours, 2) for theirs, ours in pairs],
        "radon_per_second": round(asked.programs / min(theirs for theirs, _ in pairs)),
        "per_second": {
            name: round(asked.programs / min(seconds(lambda part=part: part(table)) for _ in range(2)))
            for name, part in ((name, DIFFICULTIES.get(name)()) for name in DIFFICULTIES.names())
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
