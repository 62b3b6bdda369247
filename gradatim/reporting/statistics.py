"""Is the difference between two arms more than chance?

The unit of a study is the *seed*: arms are compared on the same seeds, data and test set, so the statistic is the
mean of the differences paired by seed, with Student's t interval over seeds. Arms are several questions asked at
once, so their p values are corrected by Holm's step-down method. The Wilson interval over test items answers a
different question (how well one trained model would do on other programs of the same kind); it is given per run
and never pooled over seeds, because that would take one lucky seed for thousands of independent trials.

Everything here is pure and knows nothing of files. Accuracies are fractions in [0, 1]; so are differences.
What cannot be computed is ``None`` with a reason in words, never a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev

__all__ = ["ENOUGH_SEEDS", "Difference", "Interval", "compare", "holm", "paired_difference", "t_interval", "wilson"]


ENOUGH_SEEDS = 5
"""Under this many seeds a study is shown but claims nothing: the t interval hangs on a guess of the spread."""


@dataclass(frozen=True)
class Interval:
    """``low`` to ``high``, both included, made so that a share ``level`` of such intervals holds the truth."""

    low: float
    high: float
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """How an arm differs from another, paired by seed.

    ``differences[i]`` is arm − other at ``seeds[i]``, over the seeds that both have. ``mean`` is None without a
    common seed; ``interval`` and ``p`` (two-sided) are None when they are undefined, and ``undefined`` says why.
    ``p_holm`` is the p value corrected over all the comparisons of its table. ``too_few`` is true under
    ``ENOUGH_SEEDS`` seeds: whatever p says, nothing may be claimed then.
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
        """True when enough seeds were run and the corrected p lies under ``alpha``."""
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
    low = (middle - spread) / scale if passed else 0.0  # at the ends exactly, not up to rounding
    high = (middle + spread) / scale if passed < total else 1.0
    return Interval(low, high, level)


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval for the mean of ``values``; None under two values or when they do not vary."""
    spread = _spread(values)
    if spread is None:
        return None
    from scipy.stats import t  # imported here: half a second that a reader without a study should not pay

    reach = float(t.ppf(0.5 + level / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    middle = fmean(values)
    return Interval(middle - reach, middle + reach, level)


def paired_difference(
    arm: str, against: str, scores: Mapping[str, Mapping[int, float]], level: float = 0.95
) -> Difference:
    """``arm`` − ``against`` over the seeds that both have. ``scores[name][seed]`` is an accuracy.

    One seed gives a difference but no interval; two or more give Student's t interval and two-sided p. Differences
    that are all alike leave both undefined: p would be 0 or 0/0, and neither is evidence.
    """
    ours, theirs = scores.get(arm, {}), scores.get(against, {})
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    values = tuple(ours[seed] - theirs[seed] for seed in seeds)
    found = Difference(arm, against, seeds, values, mean=fmean(values) if values else None)
    if not values:
        return replace(found, undefined="no seed is finished in both")
    if len(values) == 1:
        return replace(found, undefined="one seed gives no interval")
    spread = _spread(values)
    if spread is None:
        return replace(found, undefined="the same in every seed: no interval")
    from scipy.stats import t

    statistic = fmean(values) / (spread / math.sqrt(len(values)))
    p = min(1.0, 2 * float(t.sf(abs(statistic), len(values) - 1)))
    return replace(found, interval=t_interval(values, level), p=p)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction (1979): the k-th smallest of m p values is multiplied by m − k + 1.

    A later value is never smaller than an earlier one, and none exceeds 1. An undefined p stays undefined, yet
    counts in m: a comparison that was planned is a question asked, even while its runs are unfinished.
    """
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    floor = 0.0
    for rank, (p, name) in enumerate(known):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = floor
    return corrected


def compare(
    scores: Mapping[str, Mapping[int, float]], arms: Sequence[str], against: str, level: float = 0.95
) -> tuple[Difference, ...]:
    """Each of ``arms`` but ``against`` itself, compared with ``against``; p corrected over them all by Holm."""
    found = [paired_difference(arm, against, scores, level) for arm in arms if arm != against]
    corrected = holm({difference.arm: difference.p for difference in found})
    return tuple(replace(difference, p_holm=corrected[difference.arm]) for difference in found)


def _spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation, or None when it is undefined or nothing but rounding."""
    if len(values) < 2:
        return None
    spread = stdev(values)
    return spread if spread > 1e-12 * max(1.0, *(abs(value) for value in values)) else None
