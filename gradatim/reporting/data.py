"""Frozen records of runs and studies, read from run folders by ``collect``.

They hold recorded values and simple lookups; percentages, intervals and tests belong to ``summary``. An unfinished
run has fewer stages; it is shown but never compared, since part of a curriculum is another curriculum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..stage import StageResult, SuiteResult


@dataclass(frozen=True)
class Arm:
    """One training configuration of the study; ``title`` is shown to readers."""

    name: str
    title: str


@dataclass(frozen=True)
class Point:
    """One row of the metrics: mean loss in nats per token after ``run_tokens`` tokens of the run."""

    run_tokens: int
    cycle: int
    stage: int
    loss: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True)
class Bands:
    """``counts[i]`` samples in band ``names[i]``; ``edges`` are the inner thresholds, one fewer than bands."""

    names: tuple[str, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """A histogram: ``counts[i]`` samples have a difficulty in [``edges[i]``, ``edges[i + 1]``)."""

    metric: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TableFacts:
    """Counts of a cycle's samples; ``facts`` is a nested mapping of counts (dropped, duplicates, twins).

    ``corpus`` identifies the samples: equal identifiers, equal test sets. ``guessed``: the number of test samples that
    the most frequent training answer solves.
    """

    rows: int | None = None
    test_rows: int | None = None
    guessed: int | None = None
    corpus: str | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    bands: Bands | None = None
    histogram: Histogram | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExampleQuestion:
    """A question with the student's completion, and the new question of the next cycle derived from it.

    ``verdict``, ``reason`` and ``grade`` come from the judges; ``cycle`` is that of the completion.
    """

    cycle: int
    question: str
    answer: str
    attempt: str
    verdict: str
    reason: str
    grade: str
    new_question: str
    new_answer: str
    level: str | None = None


@dataclass(frozen=True)
class CycleFacts:
    """Counts of one cycle.

    Samples: ``rows``, ``new`` ones, ``refused`` ones by cause, ``dry`` (the reason for fewer than requested),
    ``rejected`` answers by source (``none``: samples without one), ``outcomes`` of candidates for them by source.
    Questions after the cycle: by ``grades``, and by ``levels`` and grade; ``unjudged`` ones by judge and cause.
    ``teacher``: requests, tokens and cost by purpose.
    """

    number: int
    rows: int | None = None
    new: int | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    dry: str | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    grades: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unjudged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: tuple[ExampleQuestion, ...] = ()


@dataclass(frozen=True)
class DesignedStage:
    """One stage of a designed schedule. ``share``: of the remaining budget; ``bands``: as text."""

    cycle: int
    name: str
    share: float
    tokens: int
    bands: str
    order: str
    objective: str | None


@dataclass(frozen=True)
class Designed:
    """The stages that a teacher wrote for ``cycle`` and all later ones; ``kept``: the plan is unchanged. ``faults``:
    the errors of an unusable earlier reply."""

    cycle: int
    reason: str
    kept: bool
    stages: tuple[DesignedStage, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunData:
    """One arm trained with one seed; ``stages`` are the finished ones, ``complete``: no more will follow.

    ``cycles``: counts by cycle, for runs with several; ``dry``: the reason for an early end; ``designs``: the designs
    of an LLM-designed schedule; ``folder``: the run folder.
    """

    arm: str
    seed: int
    recipe: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Point, ...] = ()
    tables: tuple[TableFacts, ...] = ()
    stages: tuple[StageResult, ...] = ()
    complete: bool = False
    cycles: tuple[CycleFacts, ...] = ()
    dry: str | None = None
    designs: tuple[Designed, ...] = ()
    folder: Path | None = None

    @property
    def last_stages(self) -> Mapping[int, int]:
        """The index in ``stages`` of the last stage of each cycle."""
        return {stage.cycle: index for index, stage in enumerate(self.stages)}

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its results are readable."""
        return self.complete and bool(self.stages)

    @property
    def tokens(self) -> int:
        """Loss tokens of the finished stages."""
        return sum(stage.fitted.tokens for stage in self.stages)

    @property
    def samples(self) -> int | None:
        """Distinct training samples of all cycles; None when the first cycle's are not recorded."""
        if not self.tables or self.tables[0].rows is None:
            return None
        return self.tables[0].rows + sum(cycle.new or 0 for cycle in self.cycles if cycle.number > 0)

    def evaluation(self, suite: str, protocol: str, stage: int = -1) -> SuiteResult | None:
        """The result of ``suite`` after ``stage`` (default: the last one), None without a result."""
        if not self.stages:
            return None
        for result in self.stages[stage].evaluations:
            if (result.suite, result.protocol) == (suite, protocol):
                return result
        return None


@dataclass(frozen=True)
class StudyData:
    """Arms × seeds. ``baseline`` is None without a reference; ``notes`` are warnings for the reader.

    ``restarts``: the number of optimizer and learning-rate restarts of each arm, where known.
    """

    title: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunData, ...]
    baseline: str | None = None
    controls: tuple[str, ...] = ()
    restarts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def several_cycles(self) -> bool:
        """Whether any run has more than one cycle."""
        return any(run.cycles for run in self.runs)

    def of(self, arm: str) -> tuple[RunData, ...]:
        """The runs of ``arm`` in the order of seeds."""
        return tuple(sorted((run for run in self.runs if run.arm == arm), key=lambda run: run.seed))

    def finished(self, arm: str) -> tuple[RunData, ...]:
        """The finished runs of ``arm``, which may be compared."""
        return tuple(run for run in self.of(arm) if run.finished)

    def title_of(self, arm: str) -> str:
        """The title of ``arm``."""
        return next((entry.title for entry in self.arms if entry.name == arm), arm)

    @property
    def missing(self) -> tuple[str, ...]:
        """A line for each planned run that is not finished."""
        runs = {(run.arm, run.seed): run for run in self.runs}
        lines = []
        for arm in self.arms:
            for seed in self.seeds:
                run = runs.get((arm.name, seed))
                if run is None:
                    lines.append(f"{arm.title}, seed {seed}: not started")
                elif not run.finished:
                    stages = "1 stage" if len(run.stages) == 1 else f"{len(run.stages)} stages"
                    lines.append(f"{arm.title}, seed {seed}: {stages} finished")
        return tuple(lines)

    def evaluations(self) -> Sequence[tuple[str, str]]:
        """The (suite, protocol) pairs of the finished runs, in order of appearance."""
        pairs: dict[tuple[str, str], None] = {}
        for run in self.runs:
            if run.finished:
                for result in run.stages[-1].evaluations:
                    pairs.setdefault((result.suite, result.protocol))
        return tuple(pairs)
