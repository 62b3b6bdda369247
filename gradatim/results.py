"""How do results stand in a run folder?

Results are dataclasses in memory and JSON at rest; this module turns one into the other and describes a corpus in
the counts that a report draws. Results hold counts, not percentages. Nothing here computes a result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from .corpus import Corpus
from .design import Design, DesignOutcome
from .schedule import Bands
from .stage import BandProgress, Fitted, StageResult, StageSpec, SuiteResult

__all__ = [
    "decode_design",
    "decode_fitted",
    "decode_progress",
    "decode_spec",
    "decode_stage",
    "decode_suite",
    "describe",
    "encode",
    "encode_design",
]


def encode(result: Fitted | SuiteResult | StageResult) -> dict[str, Any]:
    """A result as plain JSON values."""
    return asdict(result)


def decode_fitted(value: Mapping[str, Any]) -> Fitted:
    """The inverse of ``encode``. Like all decoding here, ``ValueError`` when the value has another shape."""
    fitted: Fitted = _adapter(Fitted).validate_python(value)
    _check_counts(fitted.steps, fitted.tokens, fitted.parameters, fitted.dropped)
    return fitted


def decode_suite(value: Mapping[str, Any]) -> SuiteResult:
    """The inverse of ``encode``."""
    suite: SuiteResult = _adapter(SuiteResult).validate_python(value)
    for members in suite.counts.values():
        for each in members.values():
            _check_counts(each.passed, each.total - each.passed)
    for total, count in suite.scores.values():
        if not (count >= 0 and math.isfinite(total)):
            raise ValueError("a score is out of its range")
    return suite


def decode_spec(value: Mapping[str, Any]) -> StageSpec:
    """The inverse of ``encode``; keys that an older result lacks have their defaults."""
    spec: StageSpec = _adapter(StageSpec).validate_python(value)
    _check_counts(spec.tokens)
    return spec


def decode_progress(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields ``progress`` and ``probed`` of a ``StageResult`` from what ``student.progress.measure`` recorded."""
    progress = {name: _adapter(BandProgress).validate_python(each) for name, each in value.get("progress", {}).items()}
    return {"progress": progress, "probed": int(value.get("probed", 0))}


def decode_stage(value: Mapping[str, Any]) -> StageResult:
    """The inverse of ``encode``; keys that an older result lacks have their defaults."""
    stage = StageResult(
        **{
            **value,
            "spec": decode_spec(value["spec"]),
            "fitted": decode_fitted(value["fitted"]),
            "evaluations": tuple(decode_suite(each) for each in value["evaluations"]),
            **decode_progress(value),
        }
    )
    _check_counts(*_adapter(list[int]).validate_python([stage.cycle, stage.index, stage.samples]))
    _check_counts(*_adapter(dict[str, int]).validate_python(stage.composition).values())
    return stage


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_counts(*counts: int) -> None:
    """``ValueError`` for what cannot have been counted."""
    if any(not 0 <= count < 1 << 63 for count in counts):
        raise ValueError("a count is out of its range")


def encode_design(outcome: DesignOutcome) -> dict[str, Any]:
    """The contents of ``design.json``: design, replies and faults. Raises as ``DesignOutcome.require_design`` does."""
    design = outcome.require_design()
    return {
        "reason": design.reason,
        "kept": design.kept,
        "cycles": [{"stages": [asdict(spec) for spec in stages]} for stages in design.cycles],
        "replies": list(outcome.replies),
        "faults": [list(each) for each in outcome.faults],
        "teacher": dict(outcome.used),
    }


def decode_design(value: Mapping[str, Any]) -> Design:
    """What was designed; the way to it stays where it is."""
    cycles = tuple(tuple(decode_spec(spec) for spec in each["stages"]) for each in value["cycles"])
    return Design(value["reason"], cycles, value["kept"])


def describe(corpus: Corpus, bands: Bands, difficulty: npt.NDArray[np.float64], metric: str) -> dict[str, Any]:
    """A cycle's table in counts: ``table.json``, with the histogram of the difficulty the bands are cut from.

    ``commonest`` is the answer most frequent in training and how many test samples it answers: what guessing is worth.
    """
    train = corpus.table("train")
    levels = train.column("level").value_counts().to_pylist()
    scored = difficulty[np.isfinite(difficulty)]
    answers = train.column("answer").value_counts().to_pylist()
    commonest = min(answers, key=lambda each: (-each["counts"], each["values"]))["values"]
    tested = corpus.table("test").column("answer").to_pylist().count(commonest)
    heights, edges = np.histogram(scored, bins=40)
    return {
        "corpus": corpus.folder.name,
        "rows": train.num_rows,
        "test_rows": corpus.table("test").num_rows,
        "validation_rows": corpus.table("validation").num_rows,
        "commonest": {"answer": commonest, "test": tested},
        "characters": int(corpus.lengths().sum()),
        "levels": {str(each["values"]): each["counts"] for each in levels if each["values"] is not None},
        "bands": {
            "metric": metric,
            "names": list(bands.names),
            "edges": list(bands.edges),
            "counts": list(bands.sizes),
            "unscored": bands.unscored,
        },
        "histogram": {"metric": metric, "edges": edges.tolist(), "counts": heights.tolist()},
        "facts": dict(corpus.facts),
    }
