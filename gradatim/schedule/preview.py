"""Inspection of a schedule without training: its stages, and the measurements that it needs.

``preview`` walks a schedule with placeholder results. That is exact for a matrix; for an adaptive schedule it gives the
stages that follow while no results are available.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import RecipeError
from ..stage import Fitted, Needs, Schedule, StageResult, StageSpec
from .bands import Bands

__all__ = ["needs_of", "needs_whole_samples", "preview"]


MOST_STAGES = 1000
"""Limit of ``preview``; a longer schedule is taken to be endless."""


def preview(schedule: Schedule, bands: Bands | Sequence[str], *, probed: int = 0) -> list[StageSpec]:
    """The stages of ``schedule``, with placeholder results (loss NaN, no evaluations).

    ``bands`` may be names alone when there are no data yet; every band then counts as empty. With ``probed`` > 0 the
    placeholder results contain a probe of so many rows: the stages then have the form of probed ones, and their rows
    cannot be selected. Raises ``RecipeError`` when the schedule has not ended after 1000 stages.
    """
    names = bands.names if isinstance(bands, Bands) else tuple(bands)
    sizes = bands.sizes if isinstance(bands, Bands) else (0,) * len(names)
    history: list[StageResult] = []
    while spec := schedule.next(history):
        if len(history) >= MOST_STAGES:
            raise RecipeError(f"the schedule has not ended after {MOST_STAGES} stages", where="schedule")
        counts = [math.ceil(share * size) for share, size in zip(spec.fractions, sizes, strict=False)]
        untrained = Fitted(steps=0, tokens=spec.tokens, parameters=0, dropped=0, loss=math.nan, seconds=0.0, weights="")
        history.append(
            StageResult(
                cycle=0,
                index=len(history),
                spec=spec,
                samples=sum(counts),
                composition=dict(zip(names, counts, strict=False)),
                fitted=untrained,
                probed=probed,
            )
        )
    return [result.spec for result in history]


def needs_of(schedule: Schedule) -> Needs:
    """The measurements after each stage that ``schedule`` declares; none without an attribute ``needs``."""
    needs = getattr(schedule, "needs", None)
    return needs if isinstance(needs, Needs) else Needs()


def needs_whole_samples(schedule: Schedule, bands: Sequence[str]) -> str | None:
    """The reason why ``schedule`` cannot be trained on random crops of a text, None when it can."""
    for spec in [*preview(schedule, bands), *preview(schedule, bands, probed=1)]:
        if spec.draws:
            return f"the stage {spec.name!r} draws samples with weights"
        if spec.order != "shuffled":
            return f"the order {spec.order!r} is one of samples"
    return None
