"""How do bands fade into each other, with no step between them?

A mixture of the bands is given at some milestones of the budget; between two milestones each band's share of the tokens
moves in a straight line. A stage is the way from one milestone to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ..errors import RecipeError
from ..options import strict
from ..stage import StageSpec
from .adaptive import check_range, part_name, with_replay
from .matrix import SCHEDULES, Matrix, split_budget

__all__ = ["fade"]


@SCHEDULES.register("fade")
@strict("the schedule 'fade'")
def fade(
    bands: tuple[str, ...],
    tokens: int,
    *,
    milestones: Mapping[float, tuple[float, ...]] | None = None,
    replay: float = 0.0,
) -> Matrix:
    """A mixture of the bands that moves in straight lines between milestones.

    ``milestones``: {share of the budget: weight of each band there}, from 0 to 1; weights need not add up to 1. Left
    out: the easiest band alone at first, one band more at each of equal steps, all alike at the end. ``replay`` gives
    that share at each milestone evenly to the bands met by then.
    """
    check_range("replay", replay, 0, 1, open_at_high=True)
    places = dict(sorted((milestones or _default(len(bands))).items()))
    _check(places, len(bands))
    times, mixtures = list(places), []
    seen: set[int] = set()
    for weights in places.values():
        total = sum(weights)
        mixtures.append(with_replay([weight / total for weight in weights], seen, replay))
        seen |= {band for band, weight in enumerate(weights) if weight}
    budgets = split_budget(tokens, [end - start for start, end in itertools.pairwise(times)])
    rows = []
    for part, ((start, end), budget) in enumerate(zip(itertools.pairwise(mixtures), budgets, strict=True)):
        used = tuple(float(first > 0 or last > 0) for first, last in zip(start, end, strict=True))
        name = part_name(part, len(budgets), f"to-{100 * times[part + 1]:.0f}")
        rows.append(StageSpec(name, used, budget, mixture=(start, end)))
    return Matrix(tuple(rows))


def _default(bands: int) -> dict[float, tuple[float, ...]]:
    if bands == 1:
        return {0.0: (1.0,), 1.0: (1.0,)}
    return {at / (bands - 1): (1.0,) * (at + 1) + (0.0,) * (bands - at - 1) for at in range(bands)}


def _check(places: Mapping[float, tuple[float, ...]], bands: int) -> None:
    times = list(places)
    if len(times) < 2 or (times[0], times[-1]) != (0, 1):
        raise RecipeError(
            "milestones go from 0 to 1", where="schedule.milestones", given=times, allowed="shares of the budget"
        )
    for at, weights in places.items():
        if len(weights) != bands or not sum(weights) > 0 or not all(0 <= weight < float("inf") for weight in weights):
            raise RecipeError(
                "a milestone gives every band a weight",
                where=f"schedule.milestones.{at:g}",
                given=list(weights),
                allowed=f"{bands} numbers from 0 up, not all 0",
            )
