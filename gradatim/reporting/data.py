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
from .terms import budget_of, terms_of_runs


@dataclass(frozen=True)
class Arm:
    """One training configuration of the study; ``title`` is shown to readers."""

    name: str
    title: str


@dataclass(frozen=True)
class Point:
    """One row of the metrics after ``run_tokens`` loss tokens of the run; losses are means in nats per token.

    ``loss``: the training objective; ``answer_loss``: that of the answer tokens alone, where it is logged beside the
    objective. ``validation_loss`` is over all tokens, ``validation_answer_loss`` over the answer tokens.
    ``reward``: the mean per agent step of a policy.
    """

    run_tokens: int
    cycle: int
    stage: int
    loss: float | None = None
    validation_loss: float | None = None
    answer_loss: float | None = None
    validation_answer_loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    reward: float | None = None


@dataclass(frozen=True)
class Examination:
    """Counts of one suite during a stage, after ``run_tokens`` tokens of the run."""

    run_tokens: int
    cycle: int
    stage: int
    suite: str
    protocol: str
    passed: int | float
    total: int


@dataclass(frozen=True)
class AccuracyPoint:
    """Accuracy of a run after ``tokens`` loss tokens and ``seconds`` of training."""

    tokens: int
    seconds: float
    passed: int | float
    total: int

    @property
    def share(self) -> float:
        return self.passed / self.total


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

    Samples: ``rows`` for training, ``learnt`` ones of earlier cycles among them, ``new`` ones, some of which may be
    equivalent to held-out samples and are then not trained on, ``refused`` ones by cause, ``dry`` (the reason for
    fewer than requested), ``rejected`` answers by source (``none``: samples without one), ``outcomes`` of
    candidates for them by source.
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
    learnt: int | None = None

    @property
    def new_samples(self) -> int:
        """New training samples: without those equivalent to held-out ones, where the counts are recorded."""
        if not self.new or self.rows is None or self.learnt is None:
            return self.new or 0
        return max(self.rows - self.learnt, 0)


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

    ``settings``: the recipe's values by section, in present names. ``test_set``: a digest of the test samples, None
    without their file. ``study``: the path of the study that the run belongs to. ``cycles``: counts by cycle, for runs
    with several; ``dry``: the reason for an early end; ``designs``: the designs of an LLM-designed schedule.
    ``initial``: the results of the model before training. ``examinations``: evaluations during the stages;
    ``folder``: the run folder.
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    test_set: str | None = None
    study: str | None = None
    examinations: tuple[Examination, ...] = ()
    folder: Path | None = None
    initial: tuple[SuiteResult, ...] = ()

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
    def progress(self) -> str:
        """The progress of a run that is not finished, in words: stages, tokens of the budget, the last loss."""
        done = f"{len(self.stages)} stages finished" if len(self.stages) != 1 else "1 stage finished"
        if not self.curve:
            return done if self.stages else "started"
        last = self.curve[-1]
        loss = next((point.loss for point in reversed(self.curve) if point.loss is not None), None)
        total = budget_of(self.settings)
        share = f" of {total:,} ({last.run_tokens / total:.0%})" if total else ""
        stage = f"cycle {last.cycle}, stage {last.stage + 1}" if last.cycle else f"stage {last.stage + 1}"
        parts = [done] if self.stages else []
        parts += [f"in {stage}", f"{last.run_tokens:,}{share} {terms_of_runs([self.settings]).budget}"]
        return ", ".join(parts if loss is None else [*parts, f"loss {loss:.3g}"])

    @property
    def samples(self) -> int | None:
        """Distinct training samples of all cycles; None when the first cycle's are not recorded."""
        if not self.tables or self.tables[0].rows is None:
            return None
        return self.tables[0].rows + sum(cycle.new_samples for cycle in self.cycles if cycle.number > 0)

    def accuracies(self, suite: str, protocol: str) -> tuple[AccuracyPoint, ...]:
        """Accuracy over training, during and after the finished stages, in the order of tokens.

        Seconds within a stage are its training seconds (evaluation excluded), shared out by tokens.
        """
        points, tokens, seconds = [], 0, 0.0
        for index, stage in enumerate(self.stages):
            spent, duration = max(stage.fitted.tokens, 1), stage.fitted.seconds
            points += [
                AccuracyPoint(
                    row.run_tokens, seconds + duration * (row.run_tokens - tokens) / spent, row.passed, row.total
                )
                for row in self.examinations
                if (row.cycle, row.stage, row.suite, row.protocol) == (stage.cycle, stage.index, suite, protocol)
                and row.total
                and tokens < row.run_tokens < tokens + spent
            ]
            tokens, seconds = tokens + stage.fitted.tokens, seconds + duration
            result = self.evaluation(suite, protocol, index)
            counts = result.counts.get("all", {}).get("all") if result else None
            if counts is not None and counts.total:
                points.append(AccuracyPoint(tokens, seconds, counts.passed, counts.total))
        return tuple(points)

    def evaluation(self, suite: str, protocol: str, stage: int = -1) -> SuiteResult | None:
        """The result of ``suite`` after ``stage`` (default: the last one), None without a result."""
        return self._of(self.stages[stage].evaluations, suite, protocol) if self.stages else None

    def initial_evaluation(self, suite: str, protocol: str) -> SuiteResult | None:
        """The result of ``suite`` before training, None without a result."""
        return self._of(self.initial, suite, protocol)

    @staticmethod
    def _of(results: Sequence[SuiteResult], suite: str, protocol: str) -> SuiteResult | None:
        return next((result for result in results if (result.suite, result.protocol) == (suite, protocol)), None)


@dataclass(frozen=True)
class StudyData:
    """Arms × seeds. ``baseline`` is None without a reference; ``notes`` are warnings for the reader.

    ``restarts``: the number of optimizer and learning-rate restarts of each arm, where known. ``planned``: the (arm,
    seed) of all runs, those that have not started included. ``targets``: accuracies in (0, 1] to which the reports give
    tokens and seconds (``target``).
    """

    title: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunData, ...]
    baseline: str | None = None
    controls: tuple[str, ...] = ()
    restarts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    planned: tuple[tuple[str, int], ...] = ()
    targets: tuple[float, ...] = ()

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
        """A line for each planned run that is not finished, with its progress."""
        runs = {(run.arm, run.seed): run for run in self.runs}
        lines = []
        for arm, seed in self.planned:
            run = runs.get((arm, seed))
            if run is None:
                lines.append(f"{self.title_of(arm)}, seed {seed}: not started")
            elif not run.finished:
                lines.append(f"{self.title_of(arm)}, seed {seed}: {run.progress}")
        return tuple(lines)

    def evaluations(self) -> Sequence[tuple[str, str]]:
        """The (suite, protocol) pairs of the finished runs, in order of appearance."""
        pairs: dict[tuple[str, str], None] = {}
        for run in self.runs:
            if run.finished:
                for result in run.stages[-1].evaluations:
                    pairs.setdefault((result.suite, result.protocol))
        return tuple(pairs)
