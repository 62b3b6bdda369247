"""What does a report know of a run and of a study?

Frozen records, filled by ``collect`` from run folders and read by everything else here. They hold what the folders
say and nothing computed beyond simple look-ups: percentages, intervals and tests belong to ``summary``. A run that
has not finished is a run with fewer stages; it is shown but never compared, because half of a curriculum is not
the curriculum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..stage import StageResult, SuiteResult

__all__ = [
    "Arm",
    "Bands",
    "CycleFacts",
    "Designed",
    "DesignedStage",
    "Histogram",
    "Lesson",
    "Point",
    "RunData",
    "StudyData",
    "TableFacts",
]


@dataclass(frozen=True)
class Arm:
    """One way of training that the study compares; ``title`` is what readers see."""

    name: str
    title: str


@dataclass(frozen=True)
class Point:
    """One row of the metrics: mean loss in nats per token after ``run_tokens`` tokens of the whole run."""

    run_tokens: int
    cycle: int
    stage: int
    loss: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True)
class Bands:
    """``counts[i]`` samples lie in band ``names[i]``; ``edges`` are the inner thresholds, one fewer than bands."""

    names: tuple[str, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """``counts[i]`` samples have a difficulty from ``edges[i]`` up to ``edges[i + 1]``."""

    metric: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TableFacts:
    """What is known of a cycle's samples; ``facts`` is a nested mapping of counts (dropped, duplicates, twins).

    ``corpus`` names the samples: equal names, equal test sets.
    ``guessed`` test samples are right when the commonest answer of the training samples is always given.
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
class Lesson:
    """What the student made of a question, and the new question that the next cycle has after it.

    ``verdict``, ``reason`` and ``grade`` are the judges'; ``cycle`` is the one that the student was asked in.
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
    """How one cycle was taught, in counts.

    Its samples: ``rows``, ``new`` of them, ``refused`` by cause, ``dry`` (why there are fewer than wanted), ``faulty``
    answers by where they came from (``none``: samples without one), ``thrown`` away by cause and place. What the
    student was asked after it: questions by ``grades``, and by ``levels`` and grade; ``unjudged`` views by judge and
    cause. ``teacher`` counts requests, tokens, cost by what they were for.
    """

    number: int
    rows: int | None = None
    new: int | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    dry: str | None = None
    faulty: Mapping[str, int] = field(default_factory=dict)
    thrown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    grades: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unjudged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lessons: tuple[Lesson, ...] = ()


@dataclass(frozen=True)
class DesignedStage:
    """One stage that a teacher wrote. ``share`` is of the budget that was left; ``bands`` are in words."""

    cycle: int
    name: str
    share: float
    tokens: int
    bands: str
    order: str
    objective: str | None


@dataclass(frozen=True)
class Designed:
    """What a teacher wrote before ``cycle`` for it and all after it; ``kept``: the plan as it was. ``faults`` are those
    of a reply before, which could not be used."""

    cycle: int
    reason: str
    kept: bool
    stages: tuple[DesignedStage, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunData:
    """One arm trained with one seed; ``stages`` are those that are done, ``complete`` says that no more will come.

    ``cycles`` tells how each cycle was taught, of a run that has more than one; ``dry`` why it ended before the last;
    ``designs`` what a teacher wrote who designed the schedule.
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

    @property
    def last_stages(self) -> Mapping[int, int]:
        """The place in ``stages`` of the last one of each cycle."""
        return {stage.cycle: place for place, stage in enumerate(self.stages)}

    @property
    def finished(self) -> bool:
        """The run says that it is complete, and its results can be read."""
        return self.complete and bool(self.stages)

    @property
    def tokens(self) -> int:
        """Tokens that received a gradient in the stages that are done."""
        return sum(stage.fitted.tokens for stage in self.stages)

    def evaluation(self, suite: str, protocol: str, stage: int = -1) -> SuiteResult | None:
        """What ``suite`` found after ``stage`` (the last by default), or None when it was not asked."""
        if not self.stages:
            return None
        for found in self.stages[stage].evaluations:
            if (found.suite, found.protocol) == (suite, protocol):
                return found
        return None


@dataclass(frozen=True)
class StudyData:
    """Arms × seeds. ``baseline`` is None when there is nothing to compare with; ``notes`` are for the reader.

    ``restarts``: how often each arm's optimizer and learning rate begin anew, where that is known.
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
        """Whether some run has more than one cycle."""
        return any(run.cycles for run in self.runs)

    def of(self, arm: str) -> tuple[RunData, ...]:
        """The runs of ``arm``, by seed."""
        return tuple(sorted((run for run in self.runs if run.arm == arm), key=lambda run: run.seed))

    def finished(self, arm: str) -> tuple[RunData, ...]:
        """The runs of ``arm`` that may be compared."""
        return tuple(run for run in self.of(arm) if run.finished)

    def title_of(self, arm: str) -> str:
        """What readers call ``arm``."""
        return next((known.title for known in self.arms if known.name == arm), arm)

    @property
    def missing(self) -> tuple[str, ...]:
        """Runs that are asked for and not finished, each in words."""
        found = {(run.arm, run.seed): run for run in self.runs}
        lines = []
        for arm in self.arms:
            for seed in self.seeds:
                run = found.get((arm.name, seed))
                if run is None:
                    lines.append(f"{arm.title}, seed {seed}: not started")
                elif not run.finished:
                    stages = "1 stage" if len(run.stages) == 1 else f"{len(run.stages)} stages"
                    lines.append(f"{arm.title}, seed {seed}: {stages} done so far")
        return tuple(lines)

    def evaluations(self) -> Sequence[tuple[str, str]]:
        """Each (suite, protocol) that some finished run was asked, in the order met."""
        met: dict[tuple[str, str], None] = {}
        for run in self.runs:
            if run.finished:
                for found in run.stages[-1].evaluations:
                    met.setdefault((found.suite, found.protocol))
        return tuple(met)
