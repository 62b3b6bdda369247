"""How is a study said in plain words?

The sentence at the top of a report, and how numbers are written: percentages of accuracies, *points* for their
differences, a true minus sign. The sentence claims no more than the statistics allow: under five seeds it says
that they are too few; an ordering that does not beat the control with the same learning-rate restarts is not said
to be what helped. It computes nothing.

Which numbers does every view of a study show?

Turns ``StudyData`` into rows: each arm's accuracy per seed, its mean, and its difference to the baseline; the same
against the controls; the other suites; the groups (levels, bands, twins). The page, the Markdown table and the
terminal read these rows, so that they can never disagree. It reads no files and chooses no words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from ..stage import Counts, SuiteResult
from .data import RunData, StudyData
from .statistics import Difference, Interval, compare, t_interval, wilson

__all__ = [
    "HEADLINE",
    "ArmRow",
    "Headline",
    "Measure",
    "Score",
    "Summary",
    "count",
    "group_scores",
    "groups",
    "headline",
    "interval_of_points",
    "p_value",
    "percent",
    "points",
    "score_of",
    "stage_scores",
    "summarise",
]


Verdict = Literal["helped", "hurt", "undecided", "too few", "single", "empty"]
NONE = "–"


@dataclass(frozen=True)
class Headline:
    """``sentence`` says what came out, ``support`` what goes with it; ``verdict`` is the same for programs."""

    verdict: Verdict
    sentence: str
    support: tuple[str, ...] = ()


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.7458 → '74.6 %' (with a space that does not break)."""
    return NONE if share is None else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points, signed: −0.012 → '−1.2'."""
    if difference is None:
        return NONE
    text = f"{100 * difference:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def interval_of_points(interval: Interval | None) -> str:
    """Both ends in percentage points: '+0.4 to +3.1'."""
    return NONE if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p_value(p: float | None) -> str:
    """A p value with as many digits as it deserves."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(number: float | None) -> str:
    """A whole number with separators; millions and more are shortened: 1 080 000 → '1.08 M'."""
    if number is None:
        return NONE
    for size, sign in ((1e9, "G"), (1e6, "M")):
        if abs(number) >= size:
            return f"{number / size:.3g}\u00a0{sign}"
    return f"{number:,.0f}"


def headline(summary: Summary) -> Headline:
    """What a reader should take away, in one sentence, and what must be said beside it."""
    done = [row for row in summary.rows if row.mean is not None]
    if not done:
        return Headline("empty", "No run is finished yet, so there is nothing to compare.")
    compared = [row for row in done if row.difference and row.difference.mean is not None]
    tested = [row for row in compared if row.role == "arm"] or compared
    if not tested:
        said = "; ".join(f"{row.title} {_does(summary)} {percent(row.mean)}{_seeds(row)}" for row in done)
        return Headline("single", f"{said}.", ("Nothing is compared: that takes a baseline and another arm.",))
    enough = [row for row in tested if row.difference and not row.difference.too_few]
    if not enough:
        return _too_few(summary, max(tested, key=_mean))
    best = max(enough, key=_mean)
    better = [row for row in tested if row.difference and row.difference.significant() and _mean(row) > 0]
    worse = [row for row in tested if row.difference and row.difference.significant() and _mean(row) < 0]
    if better:
        return _helped(summary, better, worse)
    if worse:
        worst = min(worse, key=_mean)
        sentence = (
            f"{_subject(summary)} hurt: {worst.title} scores {_beside(worst)}, and no arm is significantly better."
        )
        return Headline("hurt", sentence, _others([row for row in worse if row is not worst]))
    difference = "made no significant difference: the best arm"
    sentence = f"{_subject(summary)} {difference}, {best.title}, scores {_beside(best)}."
    return Headline("undecided", sentence, ("That is no proof that there is none; see how wide the interval is.",))


def _too_few(summary: Summary, best: ArmRow) -> Headline:
    assert best.difference is not None
    seeds = best.difference.seeds
    base = next(row for row in summary.rows if row.role == "baseline")
    lead = f"{best.title} is ahead in this study: it"
    if _mean(best) <= 0:
        other = "arm" if summary.several_cycles else "ordering"
        lead = f"No {other} beats the baseline in this study: the best, {best.title},"
    claim = f"{len(seeds)} seeds are" if len(seeds) != 1 else "1 seed is"
    sentence = (
        f"{lead} {_does(summary)} {_over(best, seeds)} of the test programs, against {_over(base, seeds)} for "
        f"{base.title} ({points(_mean(best))}\u00a0points), but {claim} too few to claim anything."
    )
    return Headline("too few", sentence, tuple(_control(summary, best.arm)))


def _helped(summary: Summary, better: Sequence[ArmRow], worse: Sequence[ArmRow]) -> Headline:
    best = max(better, key=_mean)
    control = [d for found in summary.against.values() for d in found if d.arm == best.arm]
    others = _others([row for row in (*better, *worse) if row is not best])
    support = (*others, *_control(summary, best.arm))
    base = next(row.arm for row in summary.rows if row.role == "baseline")
    more = summary.restarts.get(best.arm, 0) - summary.restarts.get(base, 0)
    if more > 0 and not control:
        lacking = (
            f"Its learning rate restarts {more} times more often than the baseline's, which alone may explain the "
            "gain: a baseline with as many restarts belongs in the study (schedule: baseline, restarts).",
        )
        sentence = (
            f"{best.title} scores {_beside(best)}, but {_subject(summary).lower()} is not shown to be the reason."
        )
        return Headline("undecided", sentence, (*support, *lacking))
    if all(difference.significant() and (difference.mean or 0) > 0 for difference in control):
        return Headline("helped", f"{_subject(summary)} helped: {best.title} scores {_beside(best)}.", support)
    sentence = f"{best.title} scores {_beside(best)}, but {_subject(summary).lower()} is not shown to be the reason."
    return Headline("undecided", sentence, support)


def _control(summary: Summary, arm: str) -> list[str]:
    """How the arm fares against each control: learning-rate restarts alone may explain a gain."""
    said = []
    for control, differences in summary.against.items():
        for found in differences:
            if found.arm == arm and found.mean is not None:
                verdict = "" if found.too_few else ", significant" if found.significant() else ", not significant"
                said.append(
                    f"Against {summary.row(control).title}, a control that is not ordered, "
                    f"the difference is {points(found.mean)} points{verdict}."
                )
    return said


def _others(rows: Sequence[ArmRow]) -> tuple[str, ...]:
    return tuple(f"{row.title} scores {_beside(row)}." for row in rows)


def _beside(row: ArmRow) -> str:
    found: Difference | None = row.difference
    assert found is not None
    mean = _mean(row)
    way = "above" if mean >= 0 else "below"
    sure = f"95\u00a0%\u00a0interval {interval_of_points(found.interval)}, p = {p_value(found.p_holm)} after Holm"
    return f"{abs(100 * mean):.1f} points {way} the baseline ({sure.replace('p = <', 'p <')})"


def _subject(summary: Summary) -> str:
    """What arms differ in: with several cycles also in what they are taught."""
    return "The way of teaching" if summary.several_cycles else "The ordering"


def _does(summary: Summary) -> str:
    if (summary.suite, summary.protocol) == HEADLINE:
        return "predicts the whole output of"
    return f"passes {summary.suite} ({summary.protocol}) on"


def _over(row: ArmRow, seeds: Sequence[int]) -> str:
    """The accuracy over the seeds that are paired, so that the two numbers told differ by the third."""
    return percent(fmean(score.share for score in row.scores if score.seed in seeds))


def _seeds(row: ArmRow) -> str:
    of = f" of {count(row.scores[0].total)} test programs"
    return f"{of} (mean of {len(row.scores)} seeds)" if len(row.scores) > 1 else of


def _mean(row: ArmRow) -> float:
    assert row.difference is not None
    assert row.difference.mean is not None
    return row.difference.mean


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
