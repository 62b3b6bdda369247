"""Results on the single test items: predictions of all arms side by side, and wins and losses against the baseline.

An evaluation holds a few complete predictions (its examples) and the verdict on every item (``verdicts``). Runs of
version 0.1 have the examples alone: their items are shown, but examples are chosen by their outcome, so that nothing is
counted from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import GradatimError, RunFolderError
from ..evaluation.statistics import mcnemar
from .data import RunData, StudyData
from .summary import Summary
from .verdicts import evaluation_samples, evaluations, read_verdicts

MOST_ITEMS = 60
"""Items on the page."""
LABELS = ("level", "band", "category")

Run = tuple[str, int]
"""Arm and seed."""


@dataclass(frozen=True)
class Item:
    """One test item. ``passed`` and ``predictions`` are by (arm, seed); a run without an entry is not known."""

    id: str
    prompt: str
    expected: str
    labels: Mapping[str, str]
    passed: Mapping[Run, bool]
    predictions: Mapping[Run, str]

    @property
    def disputed(self) -> bool:
        """Whether some runs pass the item and others fail it."""
        return len(set(self.passed.values())) > 1


@dataclass
class _Collected:
    prompt: str = ""
    expected: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    passed: dict[Run, bool] = field(default_factory=dict)
    predictions: dict[Run, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """``arm`` and the baseline with one seed on the same items: ``won`` by the arm alone, ``lost`` by it alone.

    ``p``: exact McNemar test (``statistics.mcnemar``), a statement on these two models, not on the arms.
    """

    arm: str
    title: str
    seed: int
    both: int
    won: int
    lost: int
    neither: int

    @property
    def total(self) -> int:
        return self.both + self.won + self.lost + self.neither

    @property
    def p(self) -> float:
        return mcnemar(self.won, self.lost)


def items(study: StudyData, summary: Summary) -> tuple[Item, ...]:
    """The items of the main metric, disputed ones first, then in the order of appearance.

    Items without a known text, of files that are gone, are left out.
    """
    collected: dict[str, _Collected] = {}
    for run in study.runs:
        result = run.evaluation(summary.suite, summary.protocol) if run.finished else None
        for example in result.examples if result else ():
            _add(collected.setdefault(str(example.get("id")), _Collected()), (run.arm, run.seed), example)
    for run in study.runs:
        for name, passed in (verdicts(run, summary) or {}).items():
            collected.setdefault(name, _Collected()).passed[run.arm, run.seed] = passed
    _add_texts(collected, study, summary)
    known = [
        Item(name, item.prompt, item.expected, item.labels, item.passed, item.predictions)
        for name, item in collected.items()
        if item.prompt or item.expected
    ]
    return tuple(sorted(known, key=lambda item: not item.disputed))


def _add_texts(collected: Mapping[str, _Collected], study: StudyData, summary: Summary) -> None:
    """Add the prompts and answers of items without an example, from the samples of the first run that has them."""
    if all(item.prompt or item.expected for item in collected.values()):
        return
    for run in study.runs:
        result = run.evaluation(summary.suite, summary.protocol) if run.finished else None
        try:
            samples = evaluation_samples(run.folder, result.split) if result and run.folder else None
        except (RunFolderError, OSError):
            continue
        if samples is None:
            continue
        names = [name for name in ("id", "prompt", "answer", *LABELS) if name in samples.column_names]
        for row in samples.select(names).to_pylist():
            item = collected.get(str(row.get("id")))
            if item is not None and not item.prompt and not item.expected:
                item.prompt, item.expected = str(row.get("prompt") or ""), str(row.get("answer") or "")
                item.labels |= {name: str(row[name]) for name in LABELS if row.get(name) is not None}
        return


def _add(item: _Collected, run: Run, example: Mapping[str, Any]) -> None:
    item.prompt, item.expected = str(example.get("prompt", "")), str(example.get("expected", ""))
    item.passed[run] = bool(example.get("passed"))
    item.predictions[run] = str(example.get("attempt", ""))
    item.labels |= {name: str(example[name]) for name in LABELS if example.get(name) not in (None, "none")}


def shown_items(listed: Sequence[Item]) -> tuple[Item, ...]:
    """At most ``MOST_ITEMS`` items, those with the most predictions first among the disputed and among the others."""
    order = sorted(listed, key=lambda item: (not item.disputed, -len(item.predictions)))
    return tuple(order[:MOST_ITEMS])


def verdicts(run: RunData, summary: Summary) -> Mapping[str, bool] | None:
    """Whether the run passes each item of the main metric, by id; None for a run without verdicts on all items."""
    if run.folder is None or not run.finished:
        return None
    last = run.stages[-1]
    try:
        label = next(
            entry.label
            for entry in evaluations(run.folder)
            if (entry.cycle, entry.stage) == (last.cycle, last.index) and entry.has_verdicts
            and (entry.result.suite, entry.result.protocol) == (summary.suite, summary.protocol)
        )  # fmt: skip
        table = read_verdicts(run.folder, label, cycle=last.cycle, stage=last.index)
    except (StopIteration, GradatimError, OSError):
        return None
    columns = (table[name].to_pylist() for name in ("id", "outcome", "total"))
    return {name: outcome == "passed" for name, outcome, total in zip(*columns, strict=True) if total}


def comparisons(study: StudyData, summary: Summary) -> Iterator[Comparison]:
    """Wins and losses of each comparable arm against the baseline, seed by seed, over the items of both runs."""
    base = {run.seed: verdicts(run, summary) for run in study.finished(study.baseline or "")}
    for row in summary.rows:
        if row.arm == study.baseline or row.arm in summary.incomparable:
            continue
        for run in study.finished(row.arm):
            first, second = verdicts(run, summary), base.get(run.seed)
            if first and second:
                pairs = [(first[name], second[name]) for name in first.keys() & second.keys()]
                counts = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))
                yield Comparison(row.arm, row.title, run.seed, *counts)
