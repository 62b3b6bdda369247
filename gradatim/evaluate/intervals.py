"""How far may a measured share be from the true one, and how is a suite's result told to other programs?

``wilson`` is about the *test items*: how much the share would move with other items of the same kind. It says
nothing about how much it would move with another training seed; comparing arms over seeds is the report's.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any

from ..stage import Counts, SuiteResult

__all__ = ["summary", "wilson"]

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
