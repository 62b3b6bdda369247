"""How do results stand in a run folder?

Results are dataclasses in memory and JSON at rest; this module turns one into the other and describes a corpus in
the counts that a report draws. Results hold counts, not percentages. Nothing here computes a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from .corpus import Corpus
from .design import Asked, Design
from .schedule import Bands
from .stage import BandProgress, Counts, Fitted, StageResult, StageSpec, SuiteResult

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
    """The inverse of ``encode``."""
    return Fitted(**value)


def decode_suite(value: Mapping[str, Any]) -> SuiteResult:
    """The inverse of ``encode``."""
    counts = {
        group: {name: Counts(**each) for name, each in members.items()} for group, members in value["counts"].items()
    }
    scores = {name: (float(total), int(count)) for name, (total, count) in value["scores"].items()}
    return SuiteResult(**{**value, "counts": counts, "scores": scores})


def decode_spec(value: Mapping[str, Any]) -> StageSpec:
    """The inverse of ``encode``; keys that an older result lacks have their defaults."""
    mixture = value.get("mixture")
    return StageSpec(
        **{
            **value,
            "fractions": tuple(value["fractions"]),
            "ends": tuple(value["ends"]),
            "mixture": None if mixture is None else (tuple(mixture[0]), tuple(mixture[1])),
        }
    )


def decode_progress(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields ``progress`` and ``probed`` of a ``StageResult`` from what ``student.progress.measure`` recorded."""
    progress = {name: BandProgress(**each) for name, each in value.get("progress", {}).items()}
    return {"progress": progress, "probed": int(value.get("probed", 0))}


def decode_stage(value: Mapping[str, Any]) -> StageResult:
    """The inverse of ``encode``; keys that an older result lacks have their defaults."""
    return StageResult(
        **{
            **value,
            "spec": decode_spec(value["spec"]),
            "fitted": decode_fitted(value["fitted"]),
            "evaluations": tuple(decode_suite(each) for each in value["evaluations"]),
            **decode_progress(value),
        }
    )


def encode_design(asked: Asked) -> dict[str, Any]:
    """A design with all that was said on the way to it: ``design.json``. Raises as ``Asked.made`` does."""
    design = asked.made()
    return {
        "reason": design.reason,
        "kept": design.kept,
        "cycles": [{"stages": [asdict(spec) for spec in stages]} for stages in design.cycles],
        "replies": list(asked.replies),
        "faults": [list(each) for each in asked.faults],
        "teacher": dict(asked.used),
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
