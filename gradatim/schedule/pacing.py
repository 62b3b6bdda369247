"""How much of the difficulty is the student ready for, without bands?

Competence-based curriculum learning (Platanios et al., arXiv 1903.09848): at the share t of the budget the student is
given the easiest c(t) of the samples, c rising from ``start`` to 1 at ``until``. The bands play no part.

    c(t) = (t/until · (1 - start^p) + start^p) ^ (1/p)       p = 1 linear, 2 root, 1/2 convex
"""

from __future__ import annotations

from typing import Literal

from ..options import strict
from ..stage import StageSpec
from .adaptive import check_range, part_name
from .matrix import SCHEDULES, Matrix, split_budget

__all__ = ["Pace", "competence", "pacing"]

Pace = Literal["linear", "root", "convex"]
_POWERS = {"linear": 1.0, "root": 2.0, "convex": 0.5}


def competence(time: float, pace: Pace, start: float, until: float) -> float:
    """The share of the samples, easiest first, that is open at the share ``time`` of the budget."""
    power = _POWERS[pace]
    grown = min(time / until, 1.0) * (1 - start**power) + start**power
    return min(float(grown ** (1 / power)), 1.0)


def check_pace(start: float, until: float, parts: int) -> None:
    """Raises ``RecipeError`` for what is no pace."""
    check_range("start", start, 1e-6, 1)
    check_range("until", until, 1e-6, 1)
    check_range("parts", parts, 1, 1000)


@SCHEDULES.register("pacing")
@strict("the schedule 'pacing'")
def pacing(
    bands: tuple[str, ...],
    tokens: int,
    *,
    pace: Pace = "root",
    start: float = 0.1,
    until: float = 0.5,
    parts: int = 20,
    replay: float = 0.0,
) -> Matrix:
    """The easiest samples first, and more as a competence grows: linear, root, convex (1903.09848).

    The budget is cut into ``parts``; a part has what is open at its beginning. Without ``replay`` that is drawn evenly,
    as published; with it, a part is about what has newly opened, and the share ``replay`` of its tokens goes to all
    that was open before. From ``until`` on everything is open.
    """
    check_pace(start, until, parts)
    check_range("replay", replay, 0, 1, open_at_high=True)
    rows, before = [], 0.0
    for part, budget in enumerate(split_budget(tokens, [1.0] * parts)):
        high = competence(part / parts, pace, start, until)
        fresh = bool(replay) and 0 < before < high
        rows.append(
            StageSpec(
                part_name(part, parts, f"upto-{100 * high:.0f}"),
                (1.0,) * len(bands),
                budget,
                low=before if fresh else 0.0,
                high=high,
                replay=replay if fresh else 0.0,
            )
        )
        before = high
    return Matrix(tuple(rows))
