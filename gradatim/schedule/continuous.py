"""Schedules that move continuously from easy to hard samples: ``fade`` by bands, ``pacing`` without them.

``fade``: mixtures of the bands are given at milestones of the budget; between two milestones, which is one stage, each
band's share of the tokens changes linearly.

``pacing``: competence-based curriculum learning (Platanios et al., arXiv 1903.09848). At the share t of the budget
the model is trained on the easiest c(t) of the samples, c rising from ``start`` to 1 at ``until``:

    c(t) = (t/until · (1 - start^p) + start^p) ^ (1/p)       p = 1 linear, 2 root, 1/2 convex

The helpers for stages with replay are shared with the adaptive schedules.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from ..errors import RecipeError
from ..options import strict
from ..stage import StageResult, StageSpec
from .matrix import SCHEDULES, Matrix, split_budget

__all__ = [
    "Pace",
    "band_stage",
    "bands_used",
    "check_pace",
    "check_range",
    "competence",
    "fade",
    "pacing",
    "stage_name",
    "with_replay",
]


def check_range(name: str, value: float, low: float, high: float, *, open_at_high: bool = False) -> None:
    """Raise ``RecipeError`` unless ``low <= value <= high`` (``< high`` when the interval is open there)."""
    if not low <= value <= high or (open_at_high and value == high):
        allowed = f"from {low:g} to {'below ' if open_at_high else ''}{high:g}"
        raise RecipeError("an option out of range", where=f"schedule.{name}", given=value, allowed=allowed)


def stage_name(index: int, count: int, label: str) -> str:
    """The name of a stage: its number, so that names are unique and sort, and a label."""
    return f"{index + 1:0{len(str(count))}d}-{label}"


def bands_used(history: Sequence[StageResult], bands: int) -> set[int]:
    """The bands that earlier stages have used."""
    return {band for result in history for band in range(bands) if result.spec.fractions[band]}


def with_replay(weights: Sequence[float], earlier: set[int], replay: float) -> tuple[float, ...]:
    """The mixture ``weights`` with a share ``replay`` distributed evenly over ``earlier`` bands, if there are any."""
    if not replay or not earlier:
        return tuple(map(float, weights))
    share = replay / len(earlier)
    return tuple((1 - replay) * weight + (share if band in earlier else 0.0) for band, weight in enumerate(weights))


def band_stage(name: str, band: int, bands: int, tokens: int, earlier: set[int], replay: float) -> StageSpec:
    """A stage on one band, with a share ``replay`` for the ``earlier`` bands."""
    single = [float(index == band) for index in range(bands)]
    weights = with_replay(single, earlier - {band}, replay)
    if weights == tuple(single):
        return StageSpec(name, weights, tokens)
    return StageSpec(name, tuple(float(weight > 0) for weight in weights), tokens, mixture=(weights, weights))


@SCHEDULES.register("fade")
@strict("the schedule 'fade'")
def fade(
    bands: tuple[str, ...],
    tokens: int,
    *,
    milestones: Mapping[float, tuple[float, ...]] | None = None,
    replay: float = 0.0,
) -> Matrix:
    """A mixture of the bands that changes linearly between milestones.

    ``milestones``: {share of the budget: weight of each band there}, from 0 to 1; weights need not add up to 1.
    Default: the easiest band alone at first, one band more at each of equal steps, all with equal weight at the end.
    ``replay`` distributes that share at each milestone evenly over the bands used by then.
    """
    check_range("replay", replay, 0, 1, open_at_high=True)
    mixture_at = dict(sorted((milestones or _default(len(bands))).items()))
    _check(mixture_at, len(bands))
    times, mixtures = list(mixture_at), []
    earlier: set[int] = set()
    for weights in mixture_at.values():
        total = sum(weights)
        mixtures.append(with_replay([weight / total for weight in weights], earlier, replay))
        earlier |= {band for band, weight in enumerate(weights) if weight}
    budgets = split_budget(tokens, [end - start for start, end in itertools.pairwise(times)])
    rows = []
    for index, ((start, end), budget) in enumerate(zip(itertools.pairwise(mixtures), budgets, strict=True)):
        used = tuple(float(first > 0 or last > 0) for first, last in zip(start, end, strict=True))
        name = stage_name(index, len(budgets), f"to-{100 * times[index + 1]:.0f}")
        rows.append(StageSpec(name, used, budget, mixture=(start, end)))
    return Matrix(tuple(rows))


def _default(bands: int) -> dict[float, tuple[float, ...]]:
    if bands == 1:
        return {0.0: (1.0,), 1.0: (1.0,)}
    return {step / (bands - 1): (1.0,) * (step + 1) + (0.0,) * (bands - step - 1) for step in range(bands)}


def _check(mixture_at: Mapping[float, tuple[float, ...]], bands: int) -> None:
    times = list(mixture_at)
    if len(times) < 2 or (times[0], times[-1]) != (0, 1):
        raise RecipeError(
            "milestones go from 0 to 1", where="schedule.milestones", given=times, allowed="shares of the budget"
        )
    for time, weights in mixture_at.items():
        if len(weights) != bands or not sum(weights) > 0 or not all(0 <= weight < float("inf") for weight in weights):
            raise RecipeError(
                "a milestone gives every band a weight",
                where=f"schedule.milestones.{time:g}",
                given=list(weights),
                allowed=f"{bands} numbers from 0 up, not all 0",
            )


Pace = Literal["linear", "root", "convex"]
_POWERS = {"linear": 1.0, "root": 2.0, "convex": 0.5}


def competence(time: float, pace: Pace, start: float, until: float) -> float:
    """The share of the samples, easiest first, that is available at the share ``time`` of the budget."""
    power = _POWERS[pace]
    progress = min(time / until, 1.0) * (1 - start**power) + start**power
    return min(float(progress ** (1 / power)), 1.0)


def check_pace(start: float, until: float, parts: int) -> None:
    """Raise ``RecipeError`` for values outside the domain of ``competence``."""
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

    The budget is cut into ``parts``; each trains on the samples available at its beginning. Without ``replay`` these
    are drawn evenly, as published; with it, a part trains on the newly available samples, and the share ``replay`` of
    its tokens goes to the earlier ones. From ``until`` on all samples are available.
    """
    check_pace(start, until, parts)
    check_range("replay", replay, 0, 1, open_at_high=True)
    rows, low = [], 0.0
    for index, budget in enumerate(split_budget(tokens, [1.0] * parts)):
        high = competence(index / parts, pace, start, until)
        with_earlier = bool(replay) and 0 < low < high
        rows.append(
            StageSpec(
                stage_name(index, parts, f"upto-{100 * high:.0f}"),
                (1.0,) * len(bands),
                budget,
                low=low if with_earlier else 0.0,
                high=high,
                replay=replay if with_earlier else 0.0,
            )
        )
        low = high
    return Matrix(tuple(rows))
