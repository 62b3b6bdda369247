"""What do schedules have in common that look at the student, or move continuously?

They cut the budget into equal *parts*, one stage each, and decide the next stage from what the results so far say. So
they stay pure functions of the history, and a run that is resumed decides the same again. All parts of a run belong to
one course of training: with ``train.restart: false`` optimizer and learning rate go on from part to part, which is what
the recipe should say. ``replay`` is the share of a stage's tokens that goes back to what was learnt before.

Only pieces stand here; each schedule has a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RecipeError
from ..stage import Needs, Schedule, StageResult, StageSpec
from .preview import preview

__all__ = ["check_range", "focused", "met", "needs_of", "needs_whole_samples", "part_name", "with_replay"]


def needs_of(schedule: Schedule) -> Needs:
    """What has to be measured after each stage of ``schedule``; nothing for one that does not say."""
    needs = getattr(schedule, "needs", None)
    return needs if isinstance(needs, Needs) else Needs()


def needs_whole_samples(schedule: Schedule, bands: Sequence[str]) -> str | None:
    """Why ``schedule`` cannot be learnt from crops at random places of a text, None when it can."""
    for spec in [*preview(schedule, bands), *preview(schedule, bands, probed=1)]:
        if spec.draws:
            return f"the stage {spec.name!r} draws samples with weights"
        if spec.order != "shuffled":
            return f"the order {spec.order!r} is one of samples"
    return None


def check_range(name: str, value: float, low: float, high: float, *, open_at_high: bool = False) -> None:
    """Raises ``RecipeError`` unless ``low <= value <= high`` (``< high`` when it is open there)."""
    if not low <= value <= high or (open_at_high and value == high):
        allowed = f"from {low:g} to {'below ' if open_at_high else ''}{high:g}"
        raise RecipeError("an option out of range", where=f"schedule.{name}", given=value, allowed=allowed)


def part_name(part: int, parts: int, what: str) -> str:
    """The name of a stage: its number, so that names differ and sort, and what it is about."""
    return f"{part + 1:0{len(str(parts))}d}-{what}"


def met(history: Sequence[StageResult], bands: int) -> set[int]:
    """The bands that some stage so far has used."""
    return {band for result in history for band in range(bands) if result.spec.fractions[band]}


def with_replay(weights: Sequence[float], met: set[int], replay: float) -> tuple[float, ...]:
    """A share ``replay`` of the mixture goes evenly to the bands that were met before; nothing while there are none."""
    if not replay or not met:
        return tuple(map(float, weights))
    back = replay / len(met)
    return tuple((1 - replay) * weight + (back if band in met else 0.0) for band, weight in enumerate(weights))


def focused(name: str, band: int, bands: int, tokens: int, met: set[int], replay: float) -> StageSpec:
    """A stage about one band, with a share ``replay`` for the other bands met before."""
    alone = [float(each == band) for each in range(bands)]
    weights = with_replay(alone, met - {band}, replay)
    if weights == tuple(alone):
        return StageSpec(name, weights, tokens)
    return StageSpec(name, tuple(float(weight > 0) for weight in weights), tokens, mixture=(weights, weights))
