"""What stages would a schedule make, if nothing were known of the student?

``preview`` walks a schedule with placeholder results. That is exact for a matrix; for a schedule that looks at results
it is what happens while there are none. Nothing is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import RecipeError
from ..stage import Fitted, Schedule, StageResult, StageSpec
from .bands import Bands

__all__ = ["preview"]


MOST_STAGES = 1000
"""``preview`` gives up here: a schedule that goes on for longer never ends."""


def preview(schedule: Schedule, bands: Bands | Sequence[str], *, probed: int = 0) -> list[StageSpec]:
    """The stages of ``schedule``, walked with placeholder results (loss NaN, no evaluations).

    ``bands`` may be names alone when there is no data yet; every band then counts as empty. ``probed`` tells schedules
    that so many rows were probed after each stage: their stages are then of the kind they have once that is so, and
    cannot be realised.
    Exact for schedules that do not look at results; for an adaptive one, what it does when nothing is known.
    Raises ``RecipeError`` when it has not ended after 1000 stages.
    """
    names = bands.names if isinstance(bands, Bands) else tuple(bands)
    sizes = bands.sizes if isinstance(bands, Bands) else (0,) * len(names)
    history: list[StageResult] = []
    while spec := schedule.next(history):
        if len(history) >= MOST_STAGES:
            raise RecipeError(f"the schedule has not ended after {MOST_STAGES} stages", where="schedule")
        taken = [math.ceil(share * size) for share, size in zip(spec.fractions, sizes, strict=False)]
        untrained = Fitted(steps=0, tokens=spec.tokens, parameters=0, dropped=0, loss=math.nan, seconds=0.0, weights="")
        history.append(
            StageResult(
                cycle=0,
                index=len(history),
                spec=spec,
                samples=sum(taken),
                composition=dict(zip(names, taken, strict=False)),
                fitted=untrained,
                probed=probed,
            )
        )
    return [result.spec for result in history]
