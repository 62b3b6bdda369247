"""Machine-readable results: the comparison of a study as JSON, all counts as rows, predictions by item.

The JSON has accuracies and differences as fractions beside the counts they come from. Its form is stable: keys are
added, none is removed or renamed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.statistics import Difference, Interval
from ..files import open_input, replacing
from .data import StudyData
from .headline import headline
from .items import items
from .summary import ArmRow, summarise

COUNTS = (
    "arm", "seed", "cycle", "stage", "name", "run_tokens", "suite", "protocol", "group", "value", "passed", "total",
)  # fmt: skip
"""Columns of ``count_rows``."""
PREDICTIONS = ("id", "arm", "seed", "suite", "protocol", "passed", "level", "band", "prompt", "expected", "prediction")
"""Columns of ``prediction_rows``."""


def results(study: StudyData) -> dict[str, Any]:
    """The comparison: headline, accuracy and difference of each arm, controls, further metrics, missing runs."""
    summary = summarise(study)
    top = headline(summary)
    return {
        "title": study.title,
        "verdict": top.verdict,
        "sentence": top.sentence,
        "support": list(top.support),
        "metric": {"suite": summary.suite, "protocol": summary.protocol, "unit": summary.unit},
        "baseline": study.baseline,
        "majority": summary.majority,
        "arms": [_arm(row, summary.incomparable.get(row.arm, ())) for row in summary.rows],
        "controls": {
            control: [{"arm": row.arm, **(_difference(row) or {})} for row in rows]
            for control, rows in summary.against.items()
        },
        "metrics": [{"name": measure.name, "means": dict(measure.means)} for measure in summary.measures],
        "notes": list(study.notes),
        "missing": list(study.missing),
    }


def _arm(row: ArmRow, obstacles: Sequence[str]) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "title": row.title,
        "role": row.role,
        "mean": row.mean,
        "interval": _interval(row.interval),
        "seeds": [{"seed": score.seed, "passed": score.passed, "total": score.total} for score in row.scores],
        "difference": _difference(row.difference),
        "not_comparable": list(obstacles),
    }


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {
        "mean": difference.mean,
        "interval": _interval(difference.interval),
        "p": difference.p,
        "p_holm": difference.p_holm,
        "significant": difference.significant(),
        "seeds": dict(zip(map(str, difference.seeds), difference.differences, strict=True)),
        "undefined": difference.undefined,
    }


def count_rows(study: StudyData) -> Iterator[dict[str, Any]]:
    """The counts of every evaluation after every stage of every run, a row for each value of each group."""
    for run in study.runs:
        tokens = 0
        for stage in run.stages:
            tokens += stage.fitted.tokens
            for result in stage.evaluations:
                for group, counts in result.counts.items():
                    for value, number in counts.items():
                        yield dict(
                            zip(
                                COUNTS,
                                (
                                    run.arm, run.seed, stage.cycle, stage.index, stage.spec.name, tokens, result.suite,
                                    result.protocol, group, value, number.passed, number.total,
                                ),
                                strict=True,
                            )
                        )  # fmt: skip


def prediction_rows(study: StudyData) -> Iterator[dict[str, Any]]:
    """The outcome of every run on every known item of the main metric, with the prediction where it is stored."""
    summary = summarise(study)
    for item in items(study, summary):
        for (arm, seed), passed in item.passed.items():
            labels = [item.labels.get(name) for name in ("level", "band")]
            row = (
                item.id, arm, seed, summary.suite, summary.protocol, passed, *labels, item.prompt, item.expected,
                item.predictions.get((arm, seed)),
            )  # fmt: skip
            yield dict(zip(PREDICTIONS, row, strict=True))


PREDICTION_FORMATS = (".csv", ".jsonl")


def write_predictions(study: StudyData, path: Path) -> None:
    """Write ``prediction_rows`` as CSV or JSON Lines, by the suffix of ``path``, atomically."""
    rows = prediction_rows(study)
    text = as_csv(PREDICTIONS, rows) if path.suffix.lower() == ".csv" else as_jsonl(rows)
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def is_predictions(path: Path) -> bool:
    """Whether the file is one of ``write_predictions``."""
    with open_input(path) as file:
        line = file.readline(1 << 20).decode("utf-8", "replace").strip()
    if path.suffix.lower() == ".csv":
        return line == ",".join(PREDICTIONS)
    try:
        return list(json.loads(line)) == list(PREDICTIONS)
    except ValueError:
        return False


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV (RFC 4180) with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
