"""How far may a measured share be from the true one, and how is a suite's result told to other programs?

``wilson`` is about the *test items*: how much the share would move with other items of the same kind. It says
nothing about how much it would move with another training seed; comparing arms over seeds is the report's.

How likely is it that one of k samples is right, and how sure can one be of that?

pass@k of one problem is estimated as Chen et al. do (2107.03374, section 2.1): of n samples c are right, and
1 - C(n-c, k) / C(n, k) is the share of the subsets of k that hold a right one. That is unbiased, where
1 - (1 - c/n)^k is not. The score is the mean over problems.

The interval is about the *problems*: how far the mean would move with other problems of the same kind. It is
Wilson's (JASA 1927) for an equivalent number of yes-or-no problems, as surveys do it for shares whose units are not
plain coin throws (Korn and Graubard 1998): that number is value (1 - value) / (squared standard error), corrected for
the few problems from which the error is known (Student's t). Why not a bootstrap: it needs a seed, has no width when
every problem is solved or none is, and is too narrow for few problems; Wilson's keeps within [0, 1]. Problems that
were answered once each (n = 1, k = 1) are coin throws, and get Wilson's interval itself.

Nothing here runs or reads samples.
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
    so the interval is then wider than need be, never too narrow. Nothing measured says nothing: (0, 1). Raises
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
    middle = share + z * z / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the exact bound is the share itself; rounding must not put it on the wrong side.
    low = 0.0 if passed == 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if passed == total else min(1.0, (middle + reach) / scale)
    return low, high


def summary(result: SuiteResult) -> dict[str, Any]:
    """The stable shape of ``--json``: plain numbers only.

    ``{"counts": {"passed", "failed", "timeout", "invalid", "total"}, "scores": {name: {"value", "low", "high"}}}``.
    A prompt longer than the student's context counts as failed, a sample that cannot be asked at all (a character
    the tokenizer does not know, no true answer) as invalid; both are in the total. ``accuracy`` is passed / total
    unless the result says how sure it is of it; the result's other scores follow. Intervals are 95 %.
    """
    whole = result.counts["all"]["all"]
    ends = result.counts.get("outcome", {})
    invalid, timeout = (ends.get(name, _NONE).total for name in ("invalid", "timeout"))
    scores = {"accuracy": (float(whole.passed), whole.total), **result.scores}
    return {
        "counts": {
            "passed": whole.passed,
            "failed": whole.total - whole.passed - timeout - invalid,
            "timeout": timeout,
            "invalid": invalid,
            "total": whole.total,
        },
        "scores": {name: _estimate(*score) for name, score in scores.items()},
    }


def _estimate(total_value: float, count: int) -> dict[str, float]:
    low, high = wilson(total_value, count)
    return {"value": total_value / count if count else 0.0, "low": low, "high": high}


@dataclass(frozen=True)
class Tally:
    """What came of one problem's samples: how many were judged, and how many of these are right."""

    samples: int
    right: int


@dataclass(frozen=True)
class Estimate:
    """pass@k over problems, with its 95 % interval.

    ``problems`` had k samples or more; ``short`` names the others, which are not in the mean. ``equivalent`` is the
    number of yes-or-no problems that would leave the same doubt: ``wilson(value * equivalent, equivalent)``.
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

    A product of ratios instead of two binomials (the paper's figure 3), so that no number overflows.
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
        most = max((tally.samples for tally in tallies.values()), default=0)
        raise UserError(
            f"pass@{k} needs a problem with {max(k, 1)} or more samples",
            where="k",
            given=f"at most {most} samples of a problem",
            allowed=f"1 to {most}" if most else None,
        )
    values = [pass_at_k(tally.samples, tally.right, k) for tally in enough]
    equivalent = _equivalent(values, [tally.samples for tally in enough], k, confidence)
    value = fmean(values)
    low, high = wilson(min(value * equivalent, equivalent), equivalent, confidence)
    short = tuple(name for name, tally in tallies.items() if tally.samples < k)
    return Estimate(k, value, low, high, len(enough), equivalent, short)


def _equivalent(values: Sequence[float], samples: Sequence[int], k: int, confidence: float) -> int:
    """How many yes-or-no problems leave as much doubt as these values do; at least 1.

    Never more than there are disjoint groups of k samples: problems that came out alike by chance would otherwise
    leave no doubt at all.
    """
    count, value = len(values), fmean(values)
    if all(each in (0.0, 1.0) for each in values):
        return count
    most = sum(number // k for number in samples)
    variance = sum((each - value) ** 2 for each in values) / max(count - 1, 1)
    found = count * value * (1 - value) / variance if variance > 0 else most
    return max(1, floor(min(found, most) * _few(count, confidence)))


def _few(problems: int, confidence: float) -> float:
    """(z / t)²: what an error known from so many problems is worth beside one that is known exactly."""
    if problems < 2:
        return 1.0
    tail = (1 + confidence) / 2
    return (NormalDist().inv_cdf(tail) / _student_t(tail, problems - 1)) ** 2


def _student_t(tail: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, tail))
