"""The rows of a study's result, and the formatting of numbers.

``summarise`` turns ``StudyData`` into rows: accuracy per seed, mean, and difference to the baseline and to the
controls, for arms that are comparable (``comparison``); further suites; groups (levels, bands, twins). The page, the
Markdown table and the terminal table show the same rows, and ``headline`` states the result in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from ..evaluation.statistics import (
    Difference,
    Interval,
    arm_interval,
    compare,
    wilson_interval,
)
from ..stage import Counts, SuiteResult
from .comparison import TOLERANCE, differs_in_numbers_only, obstacles
from .data import RunData, StudyData
from .units import terms_of, unit_of
from .verdicts import item_scores

if TYPE_CHECKING:
    from ..evaluation.crossed import ItemScores

NONE = "–"


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


HEADLINE = ("output", "greedy")
"""The suite and protocol of the main result: exact match of the whole output with greedy decoding."""


TWINS = {"new": "excluding equivalents of training programs", "twin": "equivalents of training programs"}
"""Titles of the values of the column ``twin`` (see ``table.splits``)."""


@dataclass(frozen=True)
class Score:
    """The score of one run on one set of test items."""

    seed: int
    passed: int | float
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
    more of it than the baseline, the quantities in words; ``matched``: its differences to the arms that have as much of
    them, and one cycle or the baseline's recipe but for the number of samples. ``incomparable``: the arms without a
    difference to the baseline, with the reasons. ``majority``: the accuracy of the most frequent training answer.
    ``unit``: the noun of an item of the suite. ``covers_items``: whether intervals also cover other test items, for
    which every run needs verdicts per sample.
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
    incomparable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    majority: float | None = None
    unit: str = "sample"
    covers_items: bool = False

    def row(self, arm: str) -> ArmRow:
        """The row of ``arm``; raises ``KeyError`` without one."""
        for row in self.rows:
            if row.arm == arm:
                return row
        raise KeyError(arm)


def summarise(study: StudyData, metric: tuple[str, str] | None = None) -> Summary:
    """The rows of ``study``, the baseline first, over finished runs only.

    ``metric``: suite and protocol; the main metric without it, which is ``HEADLINE`` or the first one that a run has.
    """
    kinds = study.evaluations()
    suite, protocol = metric or (HEADLINE if HEADLINE in kinds or not kinds else kinds[0])
    scores = {arm.name: _scores(study.finished(arm.name), suite, protocol) for arm in study.arms}
    shares = {arm: {score.seed: score.share for score in rows} for arm, rows in scores.items()}
    order = sorted((arm.name for arm in study.arms), key=lambda arm: arm != study.baseline)  # stable: baseline first
    incomparable = _incomparable(study, order, suite, protocol)
    comparable = [arm for arm in order if arm not in incomparable]
    items = item_scores(study, suite, protocol, comparable)
    differences = compare(shares, comparable, study.baseline, items=items) if study.baseline else ()
    to_baseline = {difference.arm: difference for difference in differences}
    tested = [arm for arm in comparable if _role(study, arm) == "arm"]
    quantities = {arm: _quantities(study, arm) for arm in order}
    excess = {
        arm: more
        for arm in comparable
        if study.baseline and (more := _excess(quantities[arm], quantities[study.baseline]))
    }
    return Summary(
        suite=suite,
        protocol=protocol,
        rows=tuple(_row(study, arm, scores[arm], to_baseline.get(arm), items) for arm in order),
        against={
            control: compare(shares, tested, control, items=items)
            for control in study.controls
            if control in comparable and tested
        },
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
                and (
                    not any(run.cycles for run in study.finished(other))
                    or differs_in_numbers_only(study, other, study.baseline)
                )
            )
            for arm, names in excess.items()
            if study.baseline
        },
        incomparable=incomparable,
        majority=_majority(study) if suite == HEADLINE[0] else None,
        unit=unit_of(study, suite),
    )


def _incomparable(study: StudyData, arms: Sequence[str], suite: str, protocol: str) -> dict[str, tuple[str, ...]]:
    """The arms that are not comparable with the baseline, with the reasons."""
    baseline = study.baseline
    if baseline is None:
        return {}
    reasons = {arm: obstacles(study, arm, baseline, suite, protocol) for arm in arms if arm != baseline}
    return {arm: lines for arm, lines in reasons.items() if lines}


def _majority(study: StudyData) -> float | None:
    """The accuracy of the most frequent training answer on the test set; None if unknown."""
    tables = [table for run in study.runs for table in run.tables[:1]]
    table = next((table for table in tables if table.guessed is not None and table.test_rows), None)
    return (table.guessed or 0) / (table.test_rows or 1) if table else None


def _quantities(study: StudyData, arm: str) -> dict[str, float]:
    """What an arm may have more of than another: mean distinct samples and mean budget of its runs."""
    runs = study.finished(arm)
    samples = [run.samples for run in runs if run.samples is not None]
    tokens = [run.tokens for run in runs]
    return {
        **({"distinct training samples": fmean(samples)} if samples else {}),
        **({terms_of(study).budget: fmean(tokens)} if tokens else {}),
    }


def _excess(arm: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, str]:
    """The quantities of which ``arm`` has more than the baseline: name to words."""
    return {
        name: f"{value / baseline[name]:.3g} times as many {name}"
        for name, value in arm.items()
        if baseline.get(name) and TOLERANCE * value > baseline[name]
    }


def groups(study: StudyData, suite: str, protocol: str) -> dict[str, tuple[str, ...]]:
    """The groups of the suite's results (``level``, ``band``) with their values, bands from easy to hard.

    A group without any label, such as the levels of data that have none, is left out.
    """
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
        if set(names) != {"none"}
    }


def figure_groups(study: StudyData, suite: str, protocol: str) -> tuple[str, ...]:
    """The groups of samples with several values, in which the accuracy is shown."""
    return tuple(
        group
        for group, values in groups(study, suite, protocol).items()
        if group not in ("outcome", "twin") and len(values) > 1
    )


def group_scores(study: StudyData, suite: str, protocol: str, group: str) -> dict[str, dict[str, tuple[Score, ...]]]:
    """``[arm][value]`` → the scores of the finished seeds on the test items of that value."""
    values = groups(study, suite, protocol).get(group, ())
    return {
        arm.name: {value: _scores(study.finished(arm.name), suite, protocol, group, value) for value in values}
        for arm in study.arms
    }


def stage_scores(run: RunData, suite: str, protocol: str) -> tuple[tuple[int, Score], ...]:
    """(training tokens so far, score) before training, if evaluated, and after each evaluated stage of ``run``."""
    scores, tokens = [], 0
    if (initial := score_of(run.seed, run.initial_evaluation(suite, protocol))) is not None:
        scores.append((0, initial))
    for index, stage in enumerate(run.stages):
        tokens += stage.fitted.tokens
        score = score_of(run.seed, run.evaluation(suite, protocol, index))
        if score is not None:
            scores.append((tokens, score))
    return tuple(scores)


def training_gains(study: StudyData, summary: Summary) -> list[str]:
    """A sentence for each arm whose model was evaluated before training: the accuracy before and after it.

    Over the finished seeds with both results; intervals are Wilson's, over test items.
    """
    sentences = []
    for row in summary.rows:
        before, after = _before_and_after(study, row.arm, summary.suite, summary.protocol)
        if before:
            first, last, gain = share_text(before), share_text(after), points(gain_of(before, after))
            sentences.append(f"{row.title}: {first} before training, {last} after it, {gain} points.")
    return sentences


@dataclass(frozen=True)
class SuiteRow:
    """The scores of one arm in one suite: ``before`` training, and ``after`` its end.

    Where the model was evaluated before training, both are those of the seeds with both results; else ``before`` is
    empty.
    """

    arm: str
    suite: str
    protocol: str
    before: tuple[Score, ...]
    after: tuple[Score, ...]


def suite_rows(study: StudyData) -> list[SuiteRow]:
    """The results of every arm in every suite, before training and at the end, over the finished runs."""
    rows = []
    for arm in study.arms:
        for suite, protocol in study.evaluations():
            before, after = _before_and_after(study, arm.name, suite, protocol)
            after = after or _scores(study.finished(arm.name), suite, protocol)
            if after:
                rows.append(SuiteRow(arm.name, suite, protocol, before, after))
    return rows


def _before_and_after(
    study: StudyData, arm: str, suite: str, protocol: str
) -> tuple[tuple[Score, ...], tuple[Score, ...]]:
    """The scores before training and at the end of the finished seeds that have both; empty without any."""
    pairs = [
        (before, after)
        for run in study.finished(arm)
        if (before := score_of(run.seed, run.initial_evaluation(suite, protocol)))
        and (after := score_of(run.seed, run.evaluation(suite, protocol)))
    ]
    return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def share_text(scores: Sequence[Score]) -> str:
    """The mean share with Wilson's interval: ``12.5 % (6.4 % to 22.9 %)``; a dash without scores."""
    return f"{percent(fmean(score.share for score in scores))} ({_wilson(scores)})" if scores else NONE


def gain_of(before: Sequence[Score], after: Sequence[Score]) -> float | None:
    """The difference of the mean shares; None without a score before."""
    if not before:
        return None
    return fmean(score.share for score in after) - fmean(score.share for score in before)


def _wilson(scores: Sequence[Score]) -> str:
    """Wilson's interval of the items of the first seed: all seeds have the same test items."""
    interval = scores[0].interval
    return "–" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"


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
        for value in groups(study, suite, protocol).get("twin", ()) if suite != "episodes" else ():
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
