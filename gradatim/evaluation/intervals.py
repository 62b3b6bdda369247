"""Confidence intervals of shares, pass@k, and the JSON form of a suite's result.

``wilson`` concerns the *test items*: the variation of a share over other items of the same kind, not over training
seeds; the report compares arms over seeds.

pass@k of one problem is estimated as by Chen et al. (2107.03374, section 2.1): with c correct of n samples,
1 - C(n-c, k) / C(n, k) is the share of the subsets of size k with a correct one. That is unbiased, unlike
1 - (1 - c/n)^k. The score is the mean over problems.

Its interval concerns the *problems*: Wilson's (JASA 1927) for an equivalent number of yes-or-no problems, as surveys
compute it for shares of unequal units (Korn and Graubard 1998): value (1 - value) / (squared standard error), corrected
for the few problems that the error is estimated from (Student's t). A bootstrap needs a seed, has no width when every
problem or none is solved, and is too narrow for few problems; Wilson's interval stays within [0, 1]. Problems with one
sample (n = 1, k = 1) get Wilson's interval itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, prod, sqrt
from statistics import NormalDist, fmean
from typing import Any

from ..errors import UserError
from ..stage import Counts, SuiteResult

__all__ = ["Estimate", "Tally", "estimate", "pass_at_k", "summary", "wilson"]


_NONE = Counts(0, 0)


def wilson(passed: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (JASA 1927) for the share ``passed / total``, as (low, high) within [0, 1].

    ``passed`` may also be a sum of values in [0, 1]: their variance is at most that of a count with the same mean,
    so the interval is then conservative. Without items it is (0, 1). Raises
    ``ValueError`` for a ``passed`` outside [0, total] or a ``confidence`` outside (0, 1).
    """
    if not 0 <= passed <= total:
        raise ValueError(f"{passed} of {total} is not a share")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = passed / total
    center = share + z * z / (2 * total)
    half_width = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the exact bound is the share itself; rounding must not put it on the wrong side.
    low = 0.0 if passed == 0 else max(0.0, (center - half_width) / scale)
    high = 1.0 if passed == total else min(1.0, (center + half_width) / scale)
    return low, high


def summary(result: SuiteResult) -> dict[str, Any]:
    """Plain numbers of a result, in the stable form of ``--json``.

    ``{"counts": {"passed", "failed", "timeout", "invalid", "total"}, "scores": {name: {"value", "low", "high"}}}``.
    A prompt longer than the student's context counts as failed, a sample that cannot be evaluated (a character outside
    the vocabulary, no correct answer) as invalid; both are in the total. ``accuracy`` is passed / total unless the
    result has a score of that name; the result's other scores follow. Intervals are 95 %.
    """
    overall = result.counts["all"]["all"]
    ends = result.counts.get("outcome", {})
    invalid, timeout = (ends.get(name, _NONE).total for name in ("invalid", "timeout"))
    scores = {"accuracy": (float(overall.passed), overall.total), **result.scores}
    return {
        "counts": {
            "passed": overall.passed,
            "failed": overall.total - overall.passed - timeout - invalid,
            "timeout": timeout,
            "invalid": invalid,
            "total": overall.total,
        },
        "scores": {name: _estimate(*score) for name, score in scores.items()},
    }


def _estimate(total_value: float, count: int) -> dict[str, float]:
    low, high = wilson(total_value, count)
    return {"value": total_value / count if count else 0.0, "low": low, "high": high}


@dataclass(frozen=True)
class Tally:
    """Counts of one problem's samples: judged ones, and correct ones among them."""

    samples: int
    right: int


@dataclass(frozen=True)
class Estimate:
    """pass@k over problems, with its 95 % interval.

    ``problems`` had k samples or more; ``short`` names the others, which are not in the mean. ``equivalent`` is the
    number of yes-or-no problems with an equal interval: ``wilson(value * equivalent, equivalent)``.
    """

    k: int
    value: float
    low: float
    high: float
    problems: int
    equivalent: int
    short: tuple[str, ...] = ()


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased estimate for one problem, in [0, 1]. Raises ``ValueError`` unless 0 <= right <= samples >= k >= 1.

    A product of ratios instead of two binomials (the paper's figure 3), which could overflow.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {right} right in {samples} samples does not exist")
    if samples - right < k:
        return 1.0
    return 1.0 - prod(1.0 - k / count for count in range(samples - right + 1, samples + 1))


def estimate(tallies: Mapping[str, Tally], k: int, confidence: float = 0.95) -> Estimate:
    """pass@k, the mean over the problems of ``tallies`` with at least k samples.

    Raises ``UserError`` when there is none.
    """
    enough = [tally for tally in tallies.values() if tally.samples >= k]
    if k < 1 or not enough:
        maximum = max((tally.samples for tally in tallies.values()), default=0)
        raise UserError(
            f"pass@{k} needs a problem with {max(k, 1)} or more samples",
            where="k",
            given=f"at most {maximum} samples of a problem",
            allowed=f"1 to {maximum}" if maximum else None,
        )
    values = [pass_at_k(tally.samples, tally.right, k) for tally in enough]
    equivalent = _equivalent(values, [tally.samples for tally in enough], k, confidence)
    value = fmean(values)
    low, high = wilson(min(value * equivalent, equivalent), equivalent, confidence)
    short = tuple(name for name, tally in tallies.items() if tally.samples < k)
    return Estimate(k, value, low, high, len(enough), equivalent, short)


def _equivalent(values: Sequence[float], samples: Sequence[int], k: int, confidence: float) -> int:
    """Number of yes-or-no problems with the standard error of these values; at least 1.

    At most the number of disjoint groups of k samples: values that are equal by chance would otherwise have no error.
    """
    count, value = len(values), fmean(values)
    if all(share in (0.0, 1.0) for share in values):
        return count
    groups = sum(number // k for number in samples)
    variance = sum((share - value) ** 2 for share in values) / max(count - 1, 1)
    equivalent = count * value * (1 - value) / variance if variance > 0 else groups
    return max(1, floor(min(equivalent, groups) * _small_sample_factor(count, confidence)))


def _small_sample_factor(problems: int, confidence: float) -> float:
    """(z / t)²: correction for a standard error that is estimated from few problems."""
    if problems < 2:
        return 1.0
    tail = (1 + confidence) / 2
    return (NormalDist().inv_cdf(tail) / _student_t(tail, problems - 1)) ** 2


def _student_t(tail: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, tail))
