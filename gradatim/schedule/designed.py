"""The schedule that a teacher designs: its bounds, and the placeholder before the design.

A teacher writes the stages of this schedule from statistics of the samples (``design``), within bounds that the recipe
sets. A factory receives only bands and a budget, so it returns a ``Designed``, whose ``next`` raises until
``with_stages`` has turned it into a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RecipeError
from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .continuous import check_range
from .matrix import SCHEDULES, Matrix, order_and_options

__all__ = ["Designed", "designed"]

NEEDS = Needs(band_loss=True)
"""Measurements for a revision of the design: losses on validation samples, never on the test set."""
MOST_STAGES = 100


@dataclass(frozen=True)
class Designed:
    """A schedule before its design; ``next`` raises. The options are those of ``designed``.

    ``tokens``: this cycle's even share of the budget, which the design may divide otherwise. ``orders``: {name:
    options}.
    """

    bands: tuple[str, ...]
    tokens: int
    objectives: tuple[str, ...]
    orders: Mapping[str, Mapping[str, Any]]
    stages: int
    revise: bool
    needs: Needs = NEEDS

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """Raise ``RecipeError``: there is no design yet."""
        raise RecipeError(
            "the stages of this schedule come from a teacher, and there is no design yet",
            where="schedule.name: designed",
            hint="`gradatim run`, which requests it; elsewhere a schedule without a teacher",
        )

    def with_stages(self, stages: Sequence[StageSpec]) -> Matrix:
        """The schedule with its stages, which were checked when the design was parsed."""
        return Matrix(tuple(stages), self.needs)

    @property
    def needs_whole_samples(self) -> str | None:
        """The reason why a possible stage cannot be trained on random crops, None when all can."""
        order = next((name for name in self.orders if name != "shuffled"), None)
        return None if order is None else f"the order {order!r} is one of samples"


@SCHEDULES.register("designed")
@strict("the schedule 'designed'")
def designed(
    bands: tuple[str, ...],
    tokens: int,
    *,
    objectives: Sequence[str] = (),
    orders: Sequence[str | dict[str, Any]] = ("shuffled",),
    stages: int = 8,
    revise: bool = True,
) -> Designed:
    """A teacher designs the stages from statistics of the samples, within the same budget.

    It may use at most ``stages`` stages a cycle and, for each, shares of the bands, one of ``orders`` and one of
    ``objectives`` beside the recipe's own. With ``revise`` the design may be changed before each later cycle, given the
    results on the validation samples. Needs a teacher that is a language model, with room for a whole table in
    ``teacher.max_tokens`` (about 60 a stage).
    """
    check_range("stages", stages, 1, MOST_STAGES)
    if not orders:
        raise RecipeError(
            "a stage needs at least one possible order",
            where="schedule.orders",
            given="an empty list",
            hint="[shuffled]",
        )
    named_orders = [order_and_options(order, None, "schedule.orders") for order in orders]
    for option, values in (("orders", [name for name, _ in named_orders]), ("objectives", list(objectives))):
        if len(set(values)) != len(values):
            raise RecipeError("a name occurs twice", where=f"schedule.{option}", given=", ".join(values))
    needs = NEEDS if revise else Needs()
    return Designed(bands, tokens, tuple(objectives), dict(named_orders), stages, revise, needs)
