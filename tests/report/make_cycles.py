"""A made-up run of several cycles in the layout of a real one, for looking at the report and for its tests.

Writes what ``gradatim run`` leaves of a recipe with cycles, without training: tables of counts, feedback, a teacher
that was paid, and the questions that came of it. ``texts`` replaces all that a student, a teacher or a data set wrote.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradatim.distillation import FEEDBACK
from gradatim.stage import BandProgress, Counts, Fitted, StageResult, StageSpec, SuiteResult

BANDS = ("easy", "medium", "hard")
TOKENS = 40_000


def make_cycles(
    folder: Path,
    *,
    seed: int = 1,
    right: Sequence[int] = (20, 35, 50),
    tests: int = 100,
    stages: int = 1,
    dry: str | None = None,
    texts: str | None = None,
) -> Path:
    """Write a finished run of ``len(right)`` cycles of ``stages`` stages; ``right[c]`` of ``tests`` after cycle c."""
    last = len(right) - 1
    _write(folder / "recipe.yaml", f"title: {json.dumps(texts or 'In cycles')}\nseed: {seed}\ncycles: {len(right)}\n")
    for number, passed in enumerate(right):
        place = folder / f"cycle-{number:02d}"
        _write(place / "table.json", _table(number, dry if number == last else None, texts))
        for index in range(stages):
            result = _result(number, index, stages, passed, tests)
            _write(place / f"stage-{index:02d}-{result.spec.name}" / "result.json", asdict(result))
        if number < last:
            _write(place / "feedback.json", _feedback(number, texts))
            pq.write_table(_asked(texts), place / "feedback.parquet")
        if number:
            (place / "corpus").mkdir(parents=True)
            pq.write_table(_learnt(number, texts), place / "corpus" / "train.parquet")
    _write(
        folder / "finished.json", {"cycles": len(right), "stages": stages * len(right), **({"dry": dry} if dry else {})}
    )
    return folder


def _result(number: int, index: int, stages: int, passed: int, tests: int) -> StageResult:
    band = (number * stages + index) % 3
    only = tuple(float(place == band) for place in range(3)) if stages > 1 else (1.0, 1.0, 1.0)
    counts = {"all": {"all": Counts(passed, tests)}, "level": {"1.1": Counts(passed, tests)}}
    done = (number * stages + index + 1) / 10
    progress = {
        name: BandProgress(loss=2 - done / (place + 1), right=done / 4, samples=9) for place, name in enumerate(BANDS)
    }
    return StageResult(
        cycle=number,
        index=index,
        spec=StageSpec(f"{index + 1:02d}-{BANDS[band]}" if stages > 1 else "all", only, TOKENS),
        samples=100,
        composition={name: round(100 * share) for name, share in zip(BANDS, only, strict=True)},
        fitted=Fitted(10, TOKENS, 1000, 0, 1.0, 2.0, "00"),
        evaluations=[SuiteResult("output", "greedy", counts)],
        progress=progress if stages > 1 else {},
    )


def _table(number: int, dry: str | None, texts: str | None) -> dict:
    rest = {"learnt": 100 * number, "new": 100, "refused": {texts or "same_program": 7} if number else {}, "dry": dry}
    paid = {"requests": 30, "cached": 10, "prompt_tokens": 3000, "completion_tokens": 600, "cost": 0.25,
            "failed": {"500": 2}, "paid": {"cost": 0.2}}  # fmt: skip
    delivery = {"student": 40 * bool(number), "mutation": 50, "teacher": 0, "none": 10, "given": 0,
                "proved_right": {"student": 3, "mutation": 0}}  # fmt: skip
    return {
        "rows": 100 * (number + 1),
        "test_rows": 100,
        "bands": {"names": list(BANDS), "edges": [2.0, 4.0], "counts": [50, 30, 20]},
        "facts": {"source": {**rest, "teacher": paid if number else {}}, "delivery": delivery},
    }


def _feedback(number: int, texts: str | None) -> dict:
    grades = {"easy": 10 + 10 * number, "middle": 5, "hard": 30, "unjudged": 4}
    judged = {"requests": 49, "cached": 0, "prompt_tokens": 4900, "completion_tokens": 980, "cost": 0.5, "failed": {}}
    unread = {"unjudged": {texts or "the teacher gave no points that could be read": 4}}
    return {"grades": grades, "levels": {texts or "1.1": grades}, "judges": {"rubric": unread}, "teacher": judged}


def _asked(texts: str | None) -> pa.Table:
    rows = [
        {"id": f"old-{place}", "prompt": texts or f"print({place})\n# output\n", "answer": texts or f"# {place}\n",
         "tests": None, "language": "python", "level": texts or "1.1", "category": None, "attempt": texts or "# 9\n",
         "draw": 0, "finish": "eos", "verdict": "passed" if place % 2 else "failed",
         "reason": texts or "it prints something else", "score": float(place % 2),
         "grade": "easy" if place % 2 else "hard"}
        for place in range(6)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=FEEDBACK)


def _learnt(number: int, texts: str | None) -> pa.Table:
    """What was learnt before, with parents of its own, and then the new questions."""
    old = [{"parent": "old-0", "prompt": "print('of an older cycle')\n", "answer": "#\n"}] * (100 * number)
    new = [
        {
            "parent": f"old-{place % 6}",
            "prompt": texts or f"print({place} + 1)\n# output\n",
            "answer": texts or f"# {place + 1}\n",
        }
        for place in range(100)
    ]
    return pa.Table.from_pylist(old + new)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
