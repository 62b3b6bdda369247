"""What may somebody decide who designs a curriculum?

A teacher writes the stages of this schedule once it has seen the samples (``design`` asks it); the recipe says within
which bounds. So a factory, which knows bands and a budget alone, can only give a ``Designed``: a schedule that waits
for its stages and says so when it is asked for one too early. ``Designed.made`` turns it into a matrix as all others
are. Nothing here asks or reads anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RecipeError
from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .continuous import check_range
from .matrix import SCHEDULES, Matrix, order_of

__all__ = ["Designed", "designed"]

NEEDS = Needs(band_loss=True)
"""What the teacher is shown of the student when it revises: validation samples, never the test set."""
MOST_STAGES = 100


@dataclass(frozen=True)
class Designed:
    """A schedule before its design; ``next`` raises. See ``designed`` for what the options mean.

    ``tokens``: this cycle's even share of the budget, which the design may part otherwise. ``orders``: {name: options}.
    """

    bands: tuple[str, ...]
    tokens: int
    objectives: tuple[str, ...]
    orders: Mapping[str, Mapping[str, Any]]
    stages: int
    revise: bool
    needs: Needs = NEEDS

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """``RecipeError``: nobody has designed the stages yet."""
        raise RecipeError(
            "the stages of this schedule are a teacher's, and it has not been asked for them",
            where="schedule.name: designed",
            hint="gradatim run, which asks it; elsewhere a schedule that is known beforehand",
        )

    def made(self, stages: Sequence[StageSpec]) -> Matrix:
        """The schedule with its stages, which were checked when they were read."""
        return Matrix(tuple(stages), self.needs)

    @property
    def needs_whole_samples(self) -> str | None:
        """Why some stage that may be designed cannot be learnt from crops of the text, None when all can."""
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
    """A teacher reads the samples' statistics and writes the stages, within the same budget.

    It may choose at most ``stages`` stages a cycle and, for each, how much of which band, one of ``orders`` and one of
    ``objectives`` beside the recipe's own. With ``revise`` it sees before each later cycle how the student did on the
    validation samples, and may write the rest anew. Needs a teacher that is a language model, with room for a whole
    table in ``teacher.max_tokens`` (about 60 a stage).
    """
    check_range("stages", stages, 1, MOST_STAGES)
    if not orders:
        raise RecipeError("a stage has some order", where="schedule.orders", given="an empty list", hint="[shuffled]")
    known = [order_of(each, None, "schedule.orders") for each in orders]
    for what, given in (("orders", [name for name, _ in known]), ("objectives", list(objectives))):
        if len(set(given)) != len(given):
            raise RecipeError("a name stands there twice", where=f"schedule.{what}", given=", ".join(given))
    needs = NEEDS if revise else Needs()
    return Designed(bands, tokens, tuple(objectives), dict(known), stages, revise, needs)
