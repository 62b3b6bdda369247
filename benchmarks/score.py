"""How fast is the Overall Metric beside radon, and how fast is every other metric?

    python benchmarks/score.py [--programs N] [--rounds R]

Prints one JSON object. Radon and Gradatim score the same TinyPy programs in turn, in one process, ``rounds``
times; ``ratio`` is the median over the rounds of radon's processor time over ours, so that neighbours on a busy machine
count little. Ours is the whole road from a table's rows to a column; radon's is its own parsing and counting of
ready strings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radon.metrics import h_visit
from radon.visitors import ComplexityVisitor

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.program import scored_text
from gradatim.programs import generate


def radon_om(source: str) -> float:
    """(CC + HD) / 2 as a user of radon gets it."""
    return float(ComplexityVisitor.from_code(source).total_complexity + h_visit(source).total.difficulty) / 2


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
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
