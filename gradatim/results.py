"""JSON encoding of results, and the description of a cycle's corpus.

Results are dataclasses in memory and JSON in the run folder. They hold counts, not percentages; the reports compute
those. ``describe`` gives the counts of a corpus for the report.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from .corpus import Corpus
from .design import Design, DesignOutcome
from .schedule import Bands
from .stage import BandProgress, Fitted, StageResult, StageSpec, SuiteResult


def encode(result: Fitted | SuiteResult | StageResult) -> dict[str, Any]:
    """Plain JSON values of a result."""
    return asdict(result)


def decode_fitted(value: Mapping[str, Any]) -> Fitted:
    """Inverse of ``encode``. All decoders raise ``ValueError`` for a value of another shape."""
    fitted: Fitted = _adapter(Fitted).validate_python(value)
    _check_counts(fitted.steps, fitted.tokens, fitted.parameters, fitted.dropped)
    return fitted


def decode_suite(value: Mapping[str, Any]) -> SuiteResult:
    """Inverse of ``encode``."""
    suite: SuiteResult = _adapter(SuiteResult).validate_python(value)
    for groups in suite.counts.values():
        for counts in groups.values():
            _check_counts(counts.passed, counts.total - counts.passed)
    for total, count in suite.scores.values():
        if not (count >= 0 and math.isfinite(total)):
            raise ValueError("a score is out of its range")
    return suite


def decode_spec(value: Mapping[str, Any]) -> StageSpec:
    """Inverse of ``encode``; keys missing from older results have their defaults."""
    spec: StageSpec = _adapter(StageSpec).validate_python(value)
    _check_counts(spec.tokens)
    return spec


def decode_progress(value: Mapping[str, Any]) -> dict[str, Any]:
    """Fields ``progress`` and ``probed`` of a ``StageResult`` from the value recorded by ``inference.probe``."""
    progress = {name: _adapter(BandProgress).validate_python(band) for name, band in value.get("progress", {}).items()}
    return {"progress": progress, "probed": int(value.get("probed", 0))}


def decode_stage(value: Mapping[str, Any]) -> StageResult:
    """Inverse of ``encode``; keys missing from older results have their defaults."""
    stage = StageResult(
        **{
            **value,
            "spec": decode_spec(value["spec"]),
            "fitted": decode_fitted(value["fitted"]),
            "evaluations": tuple(decode_suite(suite) for suite in value["evaluations"]),
            **decode_progress(value),
        }
    )
    _check_counts(*_adapter(list[int]).validate_python([stage.cycle, stage.index, stage.samples]))
    _check_counts(*_adapter(dict[str, int]).validate_python(stage.composition).values())
    return stage


@functools.cache
def _adapter(kind: Any) -> Any:
    return TypeAdapter(kind)


def _check_counts(*counts: int) -> None:
    """Raise ``ValueError`` for values that are no counts."""
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
        "faults": [list(fault) for fault in outcome.faults],
        "teacher": dict(outcome.used),
    }


def decode_design(value: Mapping[str, Any]) -> Design:
    """Decode the design; replies and faults are not decoded."""
    cycles = tuple(tuple(decode_spec(spec) for spec in cycle["stages"]) for cycle in value["cycles"])
    return Design(value["reason"], cycles, value["kept"])


def describe(corpus: Corpus, bands: Bands, difficulty: npt.NDArray[np.float64], metric: str) -> dict[str, Any]:
    """Content of ``table.json``: counts of a cycle's corpus and the histogram of the difficulty that defines the bands.

    ``commonest``: the most frequent answer in training and the number of test samples it answers, a baseline.
    """
    train = corpus.table("train")
    levels = train.column("level").value_counts().to_pylist()
    scored = difficulty[np.isfinite(difficulty)]
    answers = train.column("answer").value_counts().to_pylist()
    commonest = min(answers, key=lambda answer: (-answer["counts"], answer["values"]))["values"]
    tested = corpus.table("test").column("answer").to_pylist().count(commonest)
    heights, edges = np.histogram(scored, bins=40)
    return {
        "corpus": corpus.folder.name,
        "rows": train.num_rows,
        "test_rows": corpus.table("test").num_rows,
        "validation_rows": corpus.table("validation").num_rows,
        "commonest": {"answer": commonest, "test": tested},
        "characters": int(corpus.lengths().sum()),
        "levels": {str(level["values"]): level["counts"] for level in levels if level["values"] is not None},
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
