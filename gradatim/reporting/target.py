"""Tokens and training seconds to a target accuracy, and their ratios between arms.

A run is examined after its stages and, with ``evaluate.every``, during them. It reaches a target at the first point of
the linear interpolation between examinations with that accuracy. A run that ends below the target is *censored*: its
value is above its last one. One whose first examination is above the target is censored from the left.

Arms are compared by the ratio of their values, paired by seed, on the logarithmic scale: Student's t interval over
seeds, p corrected by Holm. With censored runs only bounds of a pair's ratio are known. If every pair has an upper bound
(the arm always reaches the target), the mean of these bounds is at least the mean log ratio, so the upper end of its
interval holds for the ratio too, which has no lower end then; p is that of the bounds, and undefined where their mean
favours the other arm. Lower bounds are treated alike. Pairs that have neither leave interval and p undefined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Literal

from ..evaluation.statistics import ENOUGH_SEEDS, Interval, holm, paired_difference, t_interval
from .data import AccuracyPoint, RunData, StudyData
from .summary import NONE, count, p_value

Unit = Literal["tokens", "seconds"]


@dataclass(frozen=True)
class Reach:
    """The value (tokens or seconds) at which a run reaches a target: between ``low`` and ``high``, equal when known.

    ``high`` is infinite for a run that ends below the target at ``low``.
    """

    seed: int
    low: float
    high: float

    @property
    def reached(self) -> bool:
        return self.high < math.inf

    @property
    def exact(self) -> bool:
        """Whether the value is interpolated between two examinations."""
        return self.low == self.high


@dataclass(frozen=True)
class Ratio:
    """The ratio of the values of ``arm`` to those of ``against``, paired by seed; below 1 the arm is faster.

    ``mean``: geometric mean over ``seeds``. ``kind``: ``exact``, or ``at most`` and ``at least`` when censored pairs
    give bounds. ``interval``: 95 %, its end 0 or infinite where only a bound is known. ``censored``: the number of
    pairs with a censored run. ``undefined``: the reason for a missing mean, interval or p.
    """

    arm: str
    against: str
    seeds: tuple[int, ...]
    censored: int = 0
    kind: Literal["exact", "at most", "at least"] = "exact"
    mean: float | None = None
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    undefined: str | None = None

    @property
    def too_few(self) -> bool:
        return len(self.seeds) < ENOUGH_SEEDS

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether there are enough seeds and the corrected p is below ``alpha``."""
        return not self.too_few and self.p_holm is not None and self.p_holm < alpha


@dataclass(frozen=True)
class TargetRow:
    """One arm: the values of its finished seeds, and the ratio to the baseline (None for the baseline itself)."""

    arm: str
    title: str
    reaches: tuple[Reach, ...]
    ratio: Ratio | None

    @property
    def reached(self) -> int:
        """The number of seeds that reach the target."""
        return sum(reach.reached for reach in self.reaches)

    @property
    def mean(self) -> float | None:
        """The geometric mean over seeds; None unless every seed has an interpolated value."""
        if not self.reaches or not all(reach.exact for reach in self.reaches):
            return None
        return math.exp(fmean(math.log(max(reach.low, 1e-9)) for reach in self.reaches))


@dataclass(frozen=True)
class Target:
    """Values to one target accuracy, a fraction in (0, 1], for the arms of a study, the baseline first."""

    accuracy: float
    unit: Unit
    suite: str
    protocol: str
    rows: tuple[TargetRow, ...]


def reach(points: Sequence[AccuracyPoint], target: float, unit: Unit, seed: int) -> Reach | None:
    """The first crossing of ``target`` by ``points``, in the order of tokens; None without points."""
    before: AccuracyPoint | None = None
    for point in points:
        value = float(getattr(point, unit))
        if point.share >= target:
            if before is None:
                return Reach(seed, 0.0, value)
            start = float(getattr(before, unit))
            crossing = start + (value - start) * (target - before.share) / (point.share - before.share)
            return Reach(seed, crossing, crossing)
        before = point
    return None if before is None else Reach(seed, float(getattr(before, unit)), math.inf)


def to_target(
    study: StudyData, accuracy: float, suite: str = "output", protocol: str = "greedy", unit: Unit = "tokens"
) -> Target:
    """Tokens (or training seconds) to ``accuracy``, over the finished runs of each arm."""
    order = sorted((arm.name for arm in study.arms), key=lambda arm: arm != study.baseline)
    reaches = {arm: _reaches(study.finished(arm), accuracy, suite, protocol, unit) for arm in order}
    others = [arm for arm in order if study.baseline and arm != study.baseline]
    ratios = {ratio.arm: ratio for ratio in compare_reaches(reaches, others, str(study.baseline))}
    rows = tuple(TargetRow(arm, study.title_of(arm), reaches[arm], ratios.get(arm)) for arm in order)
    return Target(accuracy, unit, suite, protocol, rows)


def _reaches(runs: Sequence[RunData], accuracy: float, suite: str, protocol: str, unit: Unit) -> tuple[Reach, ...]:
    reaches = (reach(run.accuracies(suite, protocol), accuracy, unit, run.seed) for run in runs)
    return tuple(value for value in reaches if value is not None)


def compare_reaches(
    reaches: Mapping[str, Sequence[Reach]], arms: Sequence[str], against: str, level: float = 0.95
) -> tuple[Ratio, ...]:
    """The ratio of each of ``arms`` to ``against`` over their common seeds, Holm-corrected over all."""
    ratios = [_ratio(arm, against, reaches.get(arm, ()), reaches.get(against, ()), level) for arm in arms]
    corrected = holm({ratio.arm: ratio.p for ratio in ratios})
    return tuple(replace(ratio, p_holm=corrected[ratio.arm]) for ratio in ratios)


def _ratio(arm: str, against: str, first: Sequence[Reach], second: Sequence[Reach], level: float) -> Ratio:
    other = {reach.seed: reach for reach in second}
    pairs = [(reach, other[reach.seed]) for reach in sorted(first, key=lambda reach: reach.seed) if reach.seed in other]
    seeds = tuple(reach.seed for reach, _ in pairs)
    censored = sum(not (one.exact and two.exact) for one, two in pairs)
    ratio = Ratio(arm, against, seeds, censored)
    if not pairs:
        return replace(ratio, undefined="no seed is finished in both")
    highs = [_log(one.high) - _log(two.low) for one, two in pairs]
    lows = [_log(one.low) - _log(two.high) for one, two in pairs]
    if all(math.isfinite(value) for value in highs):
        kind: Literal["exact", "at most", "at least"] = "at most" if censored else "exact"
        return _estimated(ratio, kind, highs, level)
    if all(math.isfinite(value) for value in lows):
        return _estimated(ratio, "at least", lows, level)
    return replace(ratio, undefined="runs of both arms end below the target: a lower target, or more tokens")


def _estimated(ratio: Ratio, kind: Literal["exact", "at most", "at least"], logs: list[float], level: float) -> Ratio:
    """``ratio`` with the mean, interval and p of ``logs``, which are log ratios or bounds of one side."""
    values = {"logs": dict(enumerate(logs)), "zero": dict.fromkeys(range(len(logs)), 0.0)}
    test = paired_difference("logs", "zero", values, level)
    mean, p, undefined = fmean(logs), test.p, test.undefined
    interval = t_interval(logs, level)
    low, high = (interval.low, interval.high) if interval is not None else (-math.inf, math.inf)
    if kind == "at most":
        low = -math.inf
    elif kind == "at least":
        high = math.inf
    if (kind == "at most" and mean >= 0) or (kind == "at least" and mean <= 0):
        p, undefined = None, "the bounds from censored runs do not tell which arm is faster"
    shown = None if interval is None else Interval(_exp(low), _exp(high), level)
    return replace(ratio, kind=kind, mean=math.exp(mean), interval=shown, p=p, undefined=undefined)


def _log(value: float) -> float:
    return -math.inf if value <= 0 else math.log(value) if value < math.inf else math.inf


def _exp(value: float) -> float:
    return math.inf if value == math.inf else math.exp(value)


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of an arm after ``tokens``: the mean over seeds with Student's t interval (None for one seed)."""

    tokens: float
    mean: float
    interval: Interval | None
    seeds: int


def accuracy_curves(
    study: StudyData, suite: str = "output", protocol: str = "greedy"
) -> dict[str, tuple[CurvePoint, ...]]:
    """Accuracy over tokens of each arm, interpolated linearly between the examinations of each seed.

    The points are those of the first seed, as far as all finished seeds of the arm have been examined; arms without
    two points are left out.
    """
    curves = {}
    for arm in study.arms:
        runs = [points for run in study.finished(arm.name) if len(points := run.accuracies(suite, protocol)) > 1]
        if not runs:
            continue
        first, last = max(points[0].tokens for points in runs), min(points[-1].tokens for points in runs)
        grid = [point.tokens for point in runs[0] if first < point.tokens < last]
        curves[arm.name] = tuple(
            CurvePoint(tokens, fmean(shares), t_interval(shares), len(shares))
            for tokens in [first, *grid, last]
            for shares in [[_share_at(points, tokens) for points in runs]]
        )
    return curves


def _share_at(points: Sequence[AccuracyPoint], tokens: float) -> float:
    """The accuracy after ``tokens``, between the first and the last of ``points``."""
    for before, after in pairwise(points):
        if tokens <= after.tokens:
            part = (tokens - before.tokens) / max(after.tokens - before.tokens, 1)
            return before.share + part * (after.share - before.share)
    return points[-1].share


@dataclass(frozen=True)
class TargetTable:
    """One target as text, for the page, Markdown and the terminal."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def target_tables(study: StudyData, suite: str = "output", protocol: str = "greedy") -> tuple[TargetTable, ...]:
    """The tables of the study's targets: tokens and training seconds to each."""
    units: tuple[Unit, ...] = ("tokens", "seconds")
    return tuple(
        _table(to_target(study, accuracy, suite, protocol, unit)) for accuracy in study.targets for unit in units
    )


def _table(target: Target) -> TargetTable:
    title = f"{'Tokens' if target.unit == 'tokens' else 'Training seconds'} to {100 * target.accuracy:g}\u00a0%"
    columns = ("arm", "reached", "mean", "per seed", "ratio to the baseline", "95 % interval", "p (Holm)")
    rows = tuple(
        (
            row.title,
            f"{row.reached} of {len(row.reaches)}",
            NONE if row.mean is None else amount(row.mean, target.unit),
            " ".join(_value(reach, target.unit) for reach in row.reaches) or NONE,
            *_compared(row.ratio),
        )
        for row in target.rows
    )
    reasons = {row.ratio.undefined for row in target.rows if row.ratio and row.ratio.undefined and row.ratio.p is None}
    seeds = max((len(row.reaches) for row in target.rows), default=0)
    caveat = f" Fewer than {ENOUGH_SEEDS} seeds: no difference is claimed." if seeds < ENOUGH_SEEDS else ""
    note = (
        f"Accuracy: {target.suite} ({target.protocol}), interpolated between examinations. > : the run ends below the "
        "target (censored); its pairs give a bound of the ratio. Ratios are geometric means paired by seed, with "
        "Student's t interval of their logarithms; below 1 the arm is faster."
    )
    return TargetTable(title, columns, rows, " ".join([note + caveat, *(f"{reason}." for reason in sorted(reasons))]))


def _compared(ratio: Ratio | None) -> tuple[str, str, str]:
    if ratio is None or ratio.mean is None:
        return (NONE, NONE, NONE)
    bound = {"exact": "", "at most": "≤\u00a0", "at least": "≥\u00a0"}[ratio.kind]
    interval = ratio.interval
    ends = NONE if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"
    if interval is not None and ratio.kind == "at most":
        ends = f"up to {interval.high:.2f}"
    if interval is not None and ratio.kind == "at least":
        ends = f"from {interval.low:.2f}"
    return (f"{bound}{ratio.mean:.2f}", ends, p_value(ratio.p_holm))


def _value(reach: Reach, unit: Unit) -> str:
    if not reach.reached:
        return f">\u00a0{amount(reach.low, unit)}"
    return amount(reach.high, unit) if reach.exact else f"≤\u00a0{amount(reach.high, unit)}"


def amount(value: float, unit: Unit) -> str:
    """Tokens with separators or abbreviated from a million on; seconds to three digits."""
    return count(value) if unit == "tokens" else f"{float(f'{value:.3g}'):g}\u00a0s"
