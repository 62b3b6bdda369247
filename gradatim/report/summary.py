"""Which numbers does every view of a study show?

Turns ``StudyData`` into rows: each arm's accuracy per seed, its mean, and its difference to the baseline; the same
against the controls; the other suites; the groups (levels, bands, twins). The page, the Markdown table and the
terminal read these rows, so that they can never disagree. It reads no files and chooses no words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ..stage import Counts, SuiteResult
from .data import RunData, StudyData
from .statistics import Difference, Interval, compare, t_interval, wilson

__all__ = [
    "HEADLINE",
    "ArmRow",
    "Measure",
    "Score",
    "Summary",
    "group_scores",
    "groups",
    "score_of",
    "stage_scores",
    "summarise",
]

HEADLINE = ("output", "greedy")
"""The suite and protocol that decide: the whole output right, greedy decoding."""


TWINS = {"new": "programs new in every form", "twin": "programs with a renamed twin in training"}
"""What the values of the column ``twin`` mean (see ``table.split``)."""


@dataclass(frozen=True)
class Score:
    """One run on one set of test items."""

    seed: int
    passed: int
    total: int

    @property
    def share(self) -> float:
        return self.passed / self.total

    @property
    def interval(self) -> Interval | None:
        """Wilson's interval over test items: about this one model on other programs, not about the arm."""
        return wilson(self.passed, self.total)


@dataclass(frozen=True)
class ArmRow:
    """One line of the result table. ``interval`` is Student's over seeds; ``role`` is baseline, control or arm."""

    arm: str
    title: str
    role: str
    scores: tuple[Score, ...]
    mean: float | None
    interval: Interval | None
    difference: Difference | None


@dataclass(frozen=True)
class Measure:
    """A secondary number: its mean over the finished seeds of each arm. It is described, never tested."""

    name: str
    means: Mapping[str, float | None]


@dataclass(frozen=True)
class Summary:
    """All that is compared. ``against`` maps each control to the differences of the arms from it.

    ``several_cycles``: whether what is compared is more than an order of the same samples.
    """

    suite: str
    protocol: str
    rows: tuple[ArmRow, ...]
    against: Mapping[str, tuple[Difference, ...]]
    measures: tuple[Measure, ...]
    restarts: Mapping[str, int] = field(default_factory=dict)
    several_cycles: bool = False

    def row(self, arm: str) -> ArmRow:
        """The row of ``arm``; ``KeyError`` when there is none."""
        for row in self.rows:
            if row.arm == arm:
                return row
        raise KeyError(arm)


def summarise(study: StudyData) -> Summary:
    """The rows of ``study``, the baseline first, over finished runs only.

    The deciding metric is ``HEADLINE``; where no run has it, the first one that some run has.
    """
    kinds = study.evaluations()
    suite, protocol = HEADLINE if HEADLINE in kinds or not kinds else kinds[0]
    scores = {arm.name: _scores(study.finished(arm.name), suite, protocol) for arm in study.arms}
    shares = {arm: {score.seed: score.share for score in found} for arm, found in scores.items()}
    order = sorted((arm.name for arm in study.arms), key=lambda arm: arm != study.baseline)  # stable: baseline first
    differences = compare(shares, order, study.baseline) if study.baseline else ()
    to_baseline = {difference.arm: difference for difference in differences}
    tested = [arm for arm in order if _role(study, arm) == "arm"]
    return Summary(
        suite=suite,
        protocol=protocol,
        rows=tuple(_row(study, arm, scores[arm], to_baseline.get(arm)) for arm in order),
        against={control: compare(shares, tested, control) for control in study.controls if tested},
        measures=tuple(_measures(study, order)),
        restarts=study.restarts,
        several_cycles=study.several_cycles,
    )


def groups(study: StudyData, suite: str, protocol: str) -> dict[str, tuple[str, ...]]:
    """Each group that the suite was split by (``level``) with its values: bands easiest first, else sorted."""
    values: dict[str, dict[str, None]] = {}
    for run in study.runs:
        found = run.evaluation(suite, protocol) if run.finished else None
        for group, counts in (found.counts if found else {}).items():
            values.setdefault(group, {}).update(dict.fromkeys(counts))
    values.pop("all", None)
    bands = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    return {
        group: tuple(sorted(found, key=lambda value: (bands.index(value) if value in bands else len(bands), value)))
        for group, found in values.items()
    }


def group_scores(study: StudyData, suite: str, protocol: str, group: str) -> dict[str, dict[str, tuple[Score, ...]]]:
    """``[arm][value]`` → the score of each finished seed on the test items of that value."""
    values = groups(study, suite, protocol).get(group, ())
    return {
        arm.name: {value: _scores(study.finished(arm.name), suite, protocol, group, value) for value in values}
        for arm in study.arms
    }


def stage_scores(run: RunData, suite: str, protocol: str) -> tuple[tuple[int, Score], ...]:
    """After each stage of ``run`` that was evaluated: tokens learnt so far, and the score."""
    found, tokens = [], 0
    for index, stage in enumerate(run.stages):
        tokens += stage.fitted.tokens
        score = score_of(run.seed, run.evaluation(suite, protocol, index))
        if score is not None:
            found.append((tokens, score))
    return tuple(found)


def score_of(seed: int, evaluation: SuiteResult | None) -> Score | None:
    """The whole set's score; None when the suite was not asked or had no items."""
    counts = _counts(evaluation, "all", "all")
    return Score(seed, counts.passed, counts.total) if counts and counts.total else None


def _row(study: StudyData, arm: str, scores: tuple[Score, ...], difference: Difference | None) -> ArmRow:
    shares = [score.share for score in scores]
    mean = fmean(shares) if shares else None
    return ArmRow(arm, study.title_of(arm), _role(study, arm), scores, mean, t_interval(shares), difference)


def _role(study: StudyData, arm: str) -> str:
    if arm == study.baseline:
        return "baseline"
    return "control" if arm in study.controls else "arm"


def _scores(
    runs: Sequence[RunData], suite: str, protocol: str, group: str = "all", value: str = "all"
) -> tuple[Score, ...]:
    found = ((run.seed, _counts(run.evaluation(suite, protocol), group, value)) for run in runs)
    return tuple(Score(seed, counts.passed, counts.total) for seed, counts in found if counts and counts.total)


def _counts(evaluation: SuiteResult | None, group: str, value: str) -> Counts | None:
    return evaluation.counts.get(group, {}).get(value) if evaluation else None


def _measures(study: StudyData, arms: Sequence[str]) -> list[Measure]:
    measures = []
    for suite, protocol in study.evaluations():
        shares = {arm: [s.share for s in _scores(study.finished(arm), suite, protocol)] for arm in arms}
        measures.append(Measure(f"{suite}, {protocol}", _means(shares)))
        found = groups(study, suite, protocol).get("twin", ())
        for value in found:
            split = {
                arm: [s.share for s in _scores(study.finished(arm), suite, protocol, "twin", value)] for arm in arms
            }
            measures.append(Measure(f"{suite}, {protocol}, {TWINS.get(value, value)}", _means(split)))
        results = {arm: [run.evaluation(suite, protocol) for run in study.finished(arm)] for arm in arms}
        names = {name: None for found in results.values() for result in found if result for name in result.scores}
        for name in names:
            values = {
                arm: [
                    result.scores[name][0] / result.scores[name][1]
                    for result in found
                    if result and name in result.scores and result.scores[name][1]
                ]
                for arm, found in results.items()
            }
            measures.append(Measure(f"{suite}, {protocol}, {name}", _means(values)))
    return measures


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {arm: fmean(found) if found else None for arm, found in values.items()}
