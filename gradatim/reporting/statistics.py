"""Paired comparisons of arms over seeds: differences, t intervals, Holm correction, Wilson intervals.

The unit of analysis is the *seed*: arms share seeds, data and test set, so the statistic is the mean difference paired
by seed, with Student's t interval over seeds. The p values of several arms are corrected by Holm's step-down method.
The Wilson interval over test items covers one trained model on other programs of the same kind; it is given per run
and never pooled over seeds, which would count the items of one seed as independent trials.

Pure functions. Accuracies and differences are fractions in [0, 1]. An undefined value is ``None`` with a reason in
words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev

__all__ = ["ENOUGH_SEEDS", "Difference", "Interval", "compare", "holm", "paired_difference", "t_interval", "wilson"]


ENOUGH_SEEDS = 5
"""With fewer seeds no difference is claimed: the t interval depends on a poor estimate of the variance."""


@dataclass(frozen=True)
class Interval:
    """A closed interval from ``low`` to ``high`` with coverage ``level``."""

    low: float
    high: float
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """The difference of two arms, paired by seed.

    ``differences[i]`` is ``arm`` − ``against`` at ``seeds[i]``, over their common seeds. ``mean`` is None without a
    common seed; ``interval`` and ``p`` (two-sided) are None when undefined, with the reason in ``undefined``.
    ``p_holm`` is p corrected over all comparisons of the table. ``too_few`` is true below ``ENOUGH_SEEDS`` seeds:
    no difference may be claimed then, whatever p is.
    """

    arm: str
    against: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
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


def wilson(passed: int, total: int, level: float = 0.95) -> Interval | None:
    """The score interval of Wilson (1927) for ``passed`` of ``total`` test items; None when there are no items."""
    if not 0 <= passed <= total:
        raise ValueError(f"passed must lie between 0 and total, not {passed} of {total}")
    if total == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = passed / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    middle = share + z * z / (2 * total)
    low = (middle - spread) / scale if passed else 0.0  # exact at the ends, without rounding error
    high = (middle + spread) / scale if passed < total else 1.0
    return Interval(low, high, level)


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval for the mean of ``values``; None with fewer than two values or without variance."""
    spread = _spread(values)
    if spread is None:
        return None
    from scipy.stats import t  # imported here: takes half a second, and single runs need no interval

    reach = float(t.ppf(0.5 + level / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    middle = fmean(values)
    return Interval(middle - reach, middle + reach, level)


def paired_difference(
    arm: str, against: str, scores: Mapping[str, Mapping[int, float]], level: float = 0.95
) -> Difference:
    """``arm`` − ``against`` over their common seeds. ``scores[name][seed]`` is an accuracy.

    One seed gives a difference without an interval; two or more give Student's t interval and a two-sided p.
    Identical differences leave both undefined: p would be 0 or 0/0, and neither is evidence.
    """
    first, second = scores.get(arm, {}), scores.get(against, {})
    seeds = tuple(sorted(first.keys() & second.keys()))
    values = tuple(first[seed] - second[seed] for seed in seeds)
    difference = Difference(arm, against, seeds, values, mean=fmean(values) if values else None)
    if not values:
        return replace(difference, undefined="no seed is finished in both")
    if len(values) == 1:
        return replace(difference, undefined="one seed gives no interval")
    spread = _spread(values)
    if spread is None:
        return replace(difference, undefined="the same in every seed: no interval")
    from scipy.stats import t

    statistic = fmean(values) / (spread / math.sqrt(len(values)))
    p = min(1.0, 2 * float(t.sf(abs(statistic), len(values) - 1)))
    return replace(difference, interval=t_interval(values, level), p=p)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction (1979): the k-th smallest of m p values is multiplied by m − k + 1.

    Corrected values are non-decreasing and at most 1. An undefined p stays undefined but counts in m, since the
    comparison was planned, even while its runs are unfinished.
    """
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    defined = sorted((p, name) for name, p in p_values.items() if p is not None)
    floor = 0.0
    for rank, (p, name) in enumerate(defined):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = floor
    return corrected


def compare(
    scores: Mapping[str, Mapping[int, float]], arms: Sequence[str], against: str, level: float = 0.95
) -> tuple[Difference, ...]:
    """The difference of each of ``arms`` to ``against`` (but of ``against`` itself), Holm-corrected over all."""
    differences = [paired_difference(arm, against, scores, level) for arm in arms if arm != against]
    corrected = holm({difference.arm: difference.p for difference in differences})
    return tuple(replace(difference, p_holm=corrected[difference.arm]) for difference in differences)


def _spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None when undefined or below rounding error."""
    if len(values) < 2:
        return None
    spread = stdev(values)
    return spread if spread > 1e-12 * max(1.0, *(abs(value) for value in values)) else None
