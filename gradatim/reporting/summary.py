"""The rows of a study's result, its headline sentence, and the formatting of numbers.

``summarise`` turns ``StudyData`` into rows: accuracy per seed, mean, and difference to the baseline and to the
controls; further suites; groups (levels, bands, twins). The page, the Markdown table and the terminal table show the
same rows. ``headline`` states the result and claims no more than the statistics allow: fewer than five seeds are
reported as too few, and a gain is not attributed to the ordering unless it beats the control with the same
learning-rate restarts, nor to the training method when the arm has more distinct samples or tokens than the baseline
and does not beat an arm that has as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import TYPE_CHECKING, Literal

from ..evaluation.statistics import (
    ENOUGH_SEEDS,
    Difference,
    Interval,
    arm_interval,
    compare,
    detectable_difference,
    seeds_needed,
    wilson_interval,
)
from ..stage import Counts, SuiteResult
from .data import RunData, StudyData
from .verdicts import item_scores

if TYPE_CHECKING:
    from ..evaluation.crossed import ItemScores

Verdict = Literal["helped", "hurt", "undecided", "too few", "single", "empty"]
NONE = "–"


@dataclass(frozen=True)
class Headline:
    """The result in one ``sentence``, with ``support`` sentences; ``verdict`` is its machine-readable form."""

    verdict: Verdict
    sentence: str
    support: tuple[str, ...] = ()


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.7458 → '74.6 %' (with a no-break space)."""
    return NONE if share is None else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points, signed: −0.012 → '−1.2'."""
    if difference is None:
        return NONE
    text = f"{100 * difference:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def interval_of_points(interval: Interval | None) -> str:
    """An interval in percentage points: '+0.4 to +3.1'."""
    return NONE if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def interval_scope(summary: Summary) -> str:
    """The populations that intervals and p values generalise to."""
    if summary.covers_items:
        return "seeds and test items"
    return "seeds (not over test items: the runs have no verdicts per sample)"


def p_value(p: float | None) -> str:
    """A p value: '< 0.001', three digits below 0.1, else two."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(number: float | None) -> str:
    """An integer with separators; from a million on abbreviated: 1 080 000 → '1.08 M'."""
    if number is None:
        return NONE
    for size, sign in ((1e9, "G"), (1e6, "M")):
        if abs(number) >= size:
            return f"{number / size:.3g}\u00a0{sign}"
    return f"{number:,.0f}"


def headline(summary: Summary) -> Headline:
    """The main result in one sentence, with the sentences that qualify it."""
    finished = [row for row in summary.rows if row.mean is not None]
    if not finished:
        return Headline("empty", "No run is finished yet; there is nothing to compare.")
    compared = [row for row in finished if row.difference and row.difference.mean is not None]
    tested = [row for row in compared if row.role == "arm"] or compared
    if not tested:
        scores = "; ".join(f"{row.title}: {_metric(summary)} {percent(row.mean)}{_seeds(row)}" for row in finished)
        return Headline("single", f"{scores}.", ("No comparison: that needs a baseline and another arm.",))
    enough = [row for row in tested if row.difference and not row.difference.too_few]
    if not enough:
        return _too_few(summary, max(tested, key=_mean))
    best = max(enough, key=_mean)
    better = [row for row in tested if row.difference and row.difference.significant() and _mean(row) > 0]
    worse = [row for row in tested if row.difference and row.difference.significant() and _mean(row) < 0]
    arms = [row for row in better if row.role == "arm"]
    if arms:
        verdicts = [_helped(summary, row, better, worse) for row in sorted(arms, key=_mean, reverse=True)]
        return next((verdict for verdict in verdicts if verdict.verdict == "helped"), verdicts[0])
    if better:
        sentence = f"No arm with an order is compared; {better[0].title}, a control, scores {_compared(better[0])}."
        return Headline("undecided", sentence, _sentences(better[1:]))
    if worse:
        worst = min(worse, key=_mean)
        sentence = f"{_subject(summary)} hurt: {worst.title} scores {_compared(worst)}; no arm is significantly better."
        return Headline("hurt", sentence, _sentences([row for row in worse if row is not worst]))
    sentence = (
        f"{_subject(summary)} made no significant difference: the best arm, {best.title}, scores {_compared(best)}."
    )
    return Headline("undecided", sentence, ("This is no proof of no effect: see the interval.", *power_lines(summary)))


def _too_few(summary: Summary, best: ArmRow) -> Headline:
    assert best.difference is not None
    seeds = best.difference.seeds
    base = next(row for row in summary.rows if row.role == "baseline")
    lead = f"{best.title} is ahead of the baseline:"
    if _mean(best) <= 0:
        kind = "arm" if summary.several_cycles else "ordering"
        lead = f"No {kind} beats the baseline; best is {best.title}:"
    claim = f"{len(seeds)} seeds are" if len(seeds) != 1 else "1 seed is"
    sentence = (
        f"{lead} {_metric(summary)} {_mean_over(best, seeds)} vs. {_mean_over(base, seeds)} for "
        f"{base.title} ({points(_mean(best))}\u00a0points), but {claim} too few to claim a difference."
    )
    return Headline("too few", sentence, (*_control(summary, best.arm), *power_lines(summary)))


def power_lines(summary: Summary, seeds: int | None = None) -> list[str]:
    """The differences that the study can detect with its seeds or with ``seeds``, and the seeds that others need.

    From the pooled standard deviation of the paired differences; empty with fewer than two seeds in each arm. Fewer
    seeds than ``ENOUGH_SEEDS`` count as that many, since fewer support no claim.
    """
    differences = [row.difference for row in summary.rows if row.difference]
    varying = [row.differences for row in differences if row.p is not None]
    if not varying:
        return []
    freedom = sum(len(values) - 1 for values in varying)
    spread = math.sqrt(sum(variance(values) * (len(values) - 1) for values in varying) / freedom)
    seeds = max(seeds or max(len(row.seeds) for row in differences), ENOUGH_SEEDS)
    parts = [row.item_variance for row in differences if row.item_variance is not None]
    items = fmean(parts) if parts else 0.0
    smallest = detectable_difference(spread, seeds, len(differences), item_variance=items)
    words = {0.01: "1 point", 0.02: "2 points", 0.05: "5 points"}
    needed = [
        (goal, seeds_needed(goal, spread, len(differences), item_variance=items)) for goal in words if goal < smallest
    ]
    plans = [f"{words[goal]} at {max(number, ENOUGH_SEEDS)} seeds" for goal, number in needed if number]
    return [
        f"With {seeds} seeds and this spread over seeds, a true difference of {100 * smallest:.1f} points is found in "
        f"8 of 10 studies, after Holm{''.join(f'; {plan}' for plan in plans)}."
    ]


def _helped(summary: Summary, best: ArmRow, better: Sequence[ArmRow], worse: Sequence[ArmRow]) -> Headline:
    """The verdict on ``best``, one of the arms that are significantly better than the baseline."""
    controls = [row for rows in summary.against.values() for row in rows if row.arm == best.arm]
    remaining = _sentences([row for row in (*better, *worse) if row is not best])
    support = (*remaining, *_control(summary, best.arm))
    base = next(row.arm for row in summary.rows if row.role == "baseline")
    restarts = summary.restarts.get(best.arm, 0) - summary.restarts.get(base, 0)
    if best.arm in summary.excess and not _beats_all(summary.matched[best.arm]):
        sentence = (
            f"{best.title} scores {_compared(best)}, but its {' and '.join(summary.excess[best.arm])} may be the cause."
        )
        return Headline("undecided", sentence, (*support, *_matched(summary, best.arm)))
    if restarts > 0 and not controls:
        confound = (
            f"Its learning rate restarts {restarts} times more often than the baseline's, which alone may explain the "
            "gain: add a control arm with as many restarts (schedule: baseline, restarts).",
        )
        sentence = (
            f"{best.title} scores {_compared(best)}, but {_subject(summary).lower()} is not shown to be the cause."
        )
        return Headline("undecided", sentence, (*support, *confound))
    if not controls or _beats_all(controls):
        return Headline("helped", f"{_subject(summary)} helped: {best.title} scores {_compared(best)}.", support)
    sentence = f"{best.title} scores {_compared(best)}, but {_subject(summary).lower()} is not shown to be the cause."
    return Headline("undecided", sentence, support)


def _beats_all(differences: Sequence[Difference]) -> bool:
    """Whether there are differences and all are significant gains."""
    return bool(differences) and all(row.significant() and (row.mean or 0) > 0 for row in differences)


def _matched(summary: Summary, arm: str) -> list[str]:
    """A sentence per arm with as many samples and tokens as ``arm``, or the advice to add one."""
    sentences = [
        f"Difference to {summary.row(row.against).title}, which has as many: {points(row.mean)} points"
        f"{', too few seeds' if row.too_few else ', significant' if row.significant() else ', not significant'}."
        for row in summary.matched[arm]
        if row.mean is not None
    ]
    return sentences or ["Add a control with as many distinct samples and tokens, drawn at random in one cycle."]


def _control(summary: Summary, arm: str) -> list[str]:
    """A sentence per control: learning-rate restarts alone may explain a gain."""
    sentences = []
    for control, differences in summary.against.items():
        for row in differences:
            if row.arm == arm and row.mean is not None:
                verdict = "" if row.too_few else ", significant" if row.significant() else ", not significant"
                sentences.append(
                    f"Difference to {summary.row(control).title}, a control without an order: "
                    f"{points(row.mean)} points{verdict}."
                )
    return sentences


def _sentences(rows: Sequence[ArmRow]) -> tuple[str, ...]:
    return tuple(f"{row.title} scores {_compared(row)}." for row in rows)


def _compared(row: ArmRow) -> str:
    """The difference to the baseline in words, with its interval and p value."""
    difference: Difference | None = row.difference
    assert difference is not None
    mean = _mean(row)
    direction = "above" if mean >= 0 else "below"
    p = f"p = {p_value(difference.p_holm)}".replace("p = <", "p <")
    test = f"95\u00a0%\u00a0interval {interval_of_points(difference.interval)}, {p} after Holm"
    return f"{abs(100 * mean):.1f} points {direction} the baseline ({test})"


def _subject(summary: Summary) -> str:
    """The factor that is compared: with several cycles the arms also differ in their data."""
    return "The training method" if summary.several_cycles else "The ordering"


def _metric(summary: Summary) -> str:
    """The name of the main metric."""
    if (summary.suite, summary.protocol) == HEADLINE:
        return "exact-match accuracy"
    return f"accuracy on {summary.suite} ({summary.protocol})"


def _mean_over(row: ArmRow, seeds: Sequence[int]) -> str:
    """The accuracy over the paired seeds, so that the two accuracies differ by the reported difference."""
    return percent(fmean(score.share for score in row.scores if score.seed in seeds))


def _seeds(row: ArmRow) -> str:
    size = f" on {count(row.scores[0].total)} test programs"
    return f"{size} (mean of {len(row.scores)} seeds)" if len(row.scores) > 1 else size


def _mean(row: ArmRow) -> float:
    assert row.difference is not None
    assert row.difference.mean is not None
    return row.difference.mean


HEADLINE = ("output", "greedy")
"""The suite and protocol of the main result: exact match of the whole output with greedy decoding."""


TWINS = {"new": "excluding equivalents of training programs", "twin": "equivalents of training programs"}
"""Titles of the values of the column ``twin`` (see ``table.splits``)."""


@dataclass(frozen=True)
class Score:
    """The score of one run on one set of test items."""

    seed: int
    passed: int
    total: int

    @property
    def share(self) -> float:
        return self.passed / self.total

    @property
    def interval(self) -> Interval | None:
        """Wilson interval over test items: it covers this one model on other programs, not the arm."""
        return wilson_interval(self.passed, self.total)


@dataclass(frozen=True)
class ArmRow:
    """One row of the result table; ``role`` is baseline, control or arm.

    ``interval``: Student's t over seeds and, where the runs have verdicts, over test items (``evaluation.crossed``).
    """

    arm: str
    title: str
    role: str
    scores: tuple[Score, ...]
    mean: float | None
    interval: Interval | None
    difference: Difference | None


@dataclass(frozen=True)
class Measure:
    """A secondary metric: its mean over the finished seeds of each arm; descriptive, never tested."""

    name: str
    means: Mapping[str, float | None]


@dataclass(frozen=True)
class Summary:
    """The comparison of a study. ``against`` maps each control to the differences of the arms to it.

    ``several_cycles``: whether the arms differ in more than the order of the same samples. ``excess``: per arm that has
    more of it than the baseline, the quantities in words; ``matched``: its differences to the arms of one cycle that
    have as much of them. ``covers_items``: whether intervals also cover other test items; without verdicts per sample
    they cover other seeds only.
    """

    suite: str
    protocol: str
    rows: tuple[ArmRow, ...]
    against: Mapping[str, tuple[Difference, ...]]
    measures: tuple[Measure, ...]
    restarts: Mapping[str, int] = field(default_factory=dict)
    several_cycles: bool = False
    excess: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    matched: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)
    covers_items: bool = False

    def row(self, arm: str) -> ArmRow:
        """The row of ``arm``; raises ``KeyError`` without one."""
        for row in self.rows:
            if row.arm == arm:
                return row
        raise KeyError(arm)


def summarise(study: StudyData) -> Summary:
    """The rows of ``study``, the baseline first, over finished runs only.

    The main metric is ``HEADLINE``, or the first one that a run has.
    """
    kinds = study.evaluations()
    suite, protocol = HEADLINE if HEADLINE in kinds or not kinds else kinds[0]
    scores = {arm.name: _scores(study.finished(arm.name), suite, protocol) for arm in study.arms}
    shares = {arm: {score.seed: score.share for score in rows} for arm, rows in scores.items()}
    order = sorted((arm.name for arm in study.arms), key=lambda arm: arm != study.baseline)  # stable: baseline first
    items = item_scores(study, suite, protocol)
    differences = compare(shares, order, study.baseline, items=items) if study.baseline else ()
    to_baseline = {difference.arm: difference for difference in differences}
    tested = [arm for arm in order if _role(study, arm) == "arm"]
    quantities = {arm: _quantities(study, arm) for arm in order}
    excess = {
        arm: more for arm in tested if study.baseline and (more := _excess(quantities[arm], quantities[study.baseline]))
    }
    return Summary(
        suite=suite,
        protocol=protocol,
        rows=tuple(_row(study, arm, scores[arm], to_baseline.get(arm), items) for arm in order),
        against={control: compare(shares, tested, control, items=items) for control in study.controls if tested},
        measures=tuple(_measures(study, order)),
        restarts=study.restarts,
        covers_items=items is not None,
        several_cycles=study.several_cycles,
        excess={arm: tuple(names.values()) for arm, names in excess.items()},
        matched={
            arm: tuple(
                compare(shares, [arm], other, items=items)[0]
                for other in order
                if other not in (arm, study.baseline)
                and all(quantities[other].get(name, 0) >= TOLERANCE * quantities[arm][name] for name in names)
                and not any(run.cycles for run in study.finished(other))
            )
            for arm, names in excess.items()
        },
    )


TOLERANCE = 0.98
"""Quantities of two arms that differ by less than 2 % count as equal: batches round the tokens of a budget."""


def _quantities(study: StudyData, arm: str) -> dict[str, float]:
    """What an arm may have more of than another: mean distinct samples and mean training tokens of its runs."""
    runs = study.finished(arm)
    samples = [run.samples for run in runs if run.samples is not None]
    tokens = [run.tokens for run in runs]
    return {
        **({"distinct training samples": fmean(samples)} if samples else {}),
        **({"training tokens": fmean(tokens)} if tokens else {}),
    }


def _excess(arm: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, str]:
    """The quantities of which ``arm`` has more than the baseline: name to words."""
    return {
        name: f"{value / baseline[name]:.3g} times as many {name}"
        for name, value in arm.items()
        if baseline.get(name) and TOLERANCE * value > baseline[name]
    }


def groups(study: StudyData, suite: str, protocol: str) -> dict[str, tuple[str, ...]]:
    """The groups of the suite's results (``level``, ``band``) with their values, bands from easy to hard."""
    values: dict[str, dict[str, None]] = {}
    for run in study.runs:
        result = run.evaluation(suite, protocol) if run.finished else None
        for group, counts in (result.counts if result else {}).items():
            values.setdefault(group, {}).update(dict.fromkeys(counts))
    values.pop("all", None)
    bands = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    return {
        group: tuple(sorted(names, key=lambda value: (bands.index(value) if value in bands else len(bands), value)))
        for group, names in values.items()
    }


def group_scores(study: StudyData, suite: str, protocol: str, group: str) -> dict[str, dict[str, tuple[Score, ...]]]:
    """``[arm][value]`` → the scores of the finished seeds on the test items of that value."""
    values = groups(study, suite, protocol).get(group, ())
    return {
        arm.name: {value: _scores(study.finished(arm.name), suite, protocol, group, value) for value in values}
        for arm in study.arms
    }


def stage_scores(run: RunData, suite: str, protocol: str) -> tuple[tuple[int, Score], ...]:
    """(training tokens so far, score) after each evaluated stage of ``run``."""
    scores, tokens = [], 0
    for index, stage in enumerate(run.stages):
        tokens += stage.fitted.tokens
        score = score_of(run.seed, run.evaluation(suite, protocol, index))
        if score is not None:
            scores.append((tokens, score))
    return tuple(scores)


def score_of(seed: int, evaluation: SuiteResult | None) -> Score | None:
    """The score on all items; None without a result or without items."""
    counts = _counts(evaluation, "all", "all")
    return Score(seed, counts.passed, counts.total) if counts and counts.total else None


def _row(
    study: StudyData,
    arm: str,
    scores: tuple[Score, ...],
    difference: Difference | None,
    items: ItemScores | None = None,
) -> ArmRow:
    shares = {score.seed: score.share for score in scores}
    mean = fmean(shares.values()) if shares else None
    interval = arm_interval(arm, shares, items)
    return ArmRow(arm, study.title_of(arm), _role(study, arm), scores, mean, interval, difference)


def _role(study: StudyData, arm: str) -> str:
    if arm == study.baseline:
        return "baseline"
    return "control" if arm in study.controls else "arm"


def _scores(
    runs: Sequence[RunData], suite: str, protocol: str, group: str = "all", value: str = "all"
) -> tuple[Score, ...]:
    counted = ((run.seed, _counts(run.evaluation(suite, protocol), group, value)) for run in runs)
    return tuple(Score(seed, counts.passed, counts.total) for seed, counts in counted if counts and counts.total)


def _counts(evaluation: SuiteResult | None, group: str, value: str) -> Counts | None:
    return evaluation.counts.get(group, {}).get(value) if evaluation else None


def _measures(study: StudyData, arms: Sequence[str]) -> list[Measure]:
    measures = []
    for suite, protocol in study.evaluations():
        shares = {arm: [s.share for s in _scores(study.finished(arm), suite, protocol)] for arm in arms}
        measures.append(Measure(f"{suite}, {protocol}", _means(shares)))
        for value in groups(study, suite, protocol).get("twin", ()):
            split = {
                arm: [s.share for s in _scores(study.finished(arm), suite, protocol, "twin", value)] for arm in arms
            }
            measures.append(Measure(f"{suite}, {protocol}, {TWINS.get(value, value)}", _means(split)))
        results = {arm: [run.evaluation(suite, protocol) for run in study.finished(arm)] for arm in arms}
        names = {name: None for row in results.values() for result in row if result for name in result.scores}
        for name in names:
            values = {
                arm: [
                    result.scores[name][0] / result.scores[name][1]
                    for result in row
                    if result and name in result.scores and result.scores[name][1]
                ]
                for arm, row in results.items()
            }
            measures.append(Measure(f"{suite}, {protocol}, {name}", _means(values)))
    return measures


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {arm: fmean(shares) if shares else None for arm, shares in values.items()}
