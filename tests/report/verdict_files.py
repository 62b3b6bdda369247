"""Verdict files in made-up run folders, in the layout of real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gradatim.results import encode, write_verdicts
from gradatim.stage import Counts, SuiteResult, Verdicts


def verdicts_of(solved: Sequence[bool], names: Sequence[str] | None = None) -> Verdicts:
    """One unit per item: ``solved[i]`` is the verdict on item i."""
    ids = tuple(names or (f"item-{number}" for number in range(len(solved))))
    outcomes = tuple("passed" if right else "failed" for right in solved)
    return Verdicts(ids, tuple(range(len(ids))), outcomes, tuple(map(int, solved)), (1,) * len(ids))


def write_evaluation(stage: Path, solved: Sequence[bool], label: str = "output") -> None:
    """Write the counts and verdicts of an evaluation by ``output`` into the folder of a stage."""
    stage.mkdir(parents=True, exist_ok=True)
    counts = {"all": {"all": Counts(sum(solved), len(solved))}}
    result = SuiteResult("output", "greedy", counts)
    write_verdicts(verdicts_of(solved), stage / f"evaluation-{label}.parquet")
    (stage / f"evaluation-{label}.json").write_text(json.dumps(encode(result)))
