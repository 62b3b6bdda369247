"""Rows that a run does not use, in words: the notices of the report.

Counts come from the facts of the first cycle's samples, from the training stages and from the evaluations. Programs
that a generator draws again are no loss and have no notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .data import StudyData, TableFacts
from .summary import Summary
from .units import plural

OUTCOMES = {"too_long": "longer than the context", "invalid": "not evaluable", "timeout": "out of time"}
"""Outcomes of items without a verdict on the model, in words."""


def unused_rows(study: StudyData, summary: Summary) -> tuple[str, ...]:
    """A sentence for each kind of row that was dropped before training, in training or in the evaluation."""
    table = next((run.tables[0] for run in study.runs if run.tables), None)
    lines = [*(_data(table) if table else ()), *_training(study), *_evaluation(study, summary)]
    return tuple(dict.fromkeys(lines))


def _data(table: TableFacts) -> Iterator[str]:
    source = _mapping(table.facts.get("source"))
    for cause, number in _mapping(source.get("rejected")).items():
        yield f"{plural(number, 'row')} of the data file dropped: {cause}."
    if (duplicates := source.get("duplicates")) and "asked" not in source:
        yield f"{plural(duplicates, 'duplicate row')} of the data file dropped."
    for sentence, number in _mapping(source.get("remarks")).items():
        yield f"{plural(number, 'row')}: {sentence}."
    if ignored := source.get("ignored"):
        yield f"Columns of the data file that are not used: {', '.join(map(str, ignored))}."
    if unscored := table.facts.get("samples without a difficulty"):
        yield f"{plural(unscored, 'sample')} without a difficulty: in no band, not trained on."


def _training(study: StudyData) -> Iterator[str]:
    dropped = {
        arm.title: max((stage.fitted.dropped for run in study.of(arm.name) for stage in run.stages), default=0)
        for arm in study.arms
    }
    for number in sorted(set(dropped.values()) - {0}):
        titles = [title for title, other in dropped.items() if other == number]
        yield f"{_arms(study, titles)}{plural(number, 'sample')} of a stage too long for the model, not trained on."


def _arms(study: StudyData, titles: list[str]) -> str:
    """The arms that a sentence is about, empty for all."""
    return "" if len(titles) == len(study.arms) else f"{', '.join(titles)}: "


def _evaluation(study: StudyData, summary: Summary) -> Iterator[str]:
    for outcome, words in OUTCOMES.items():
        numbers: dict[str, int] = {}
        for arm in study.arms:
            results = [run.evaluation(summary.suite, summary.protocol) for run in study.finished(arm.name)]
            counts = [result.counts.get("outcome", {}).get(outcome) for result in results if result]
            numbers[arm.title] = max((count.total for count in counts if count), default=0)
        for number in sorted(set(numbers.values()) - {0}):
            titles = [title for title, other in numbers.items() if other == number]
            yield f"{_arms(study, titles)}{plural(number, f'test {summary.unit}')} {words}, counted as wrong."


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}
