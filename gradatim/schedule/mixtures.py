"""Mixtures of all bands whose shares follow the measured state of the model.

The budget is divided into equal parts of one stage each. The first part is in random order. Every later part trains on
all bands again; a band's share of the tokens is its share of the samples times a factor that depends on the model's
results on the band's validation samples, never on the test set:

* ``mixture``: the share of wrong answers, to a power. Bands that the model has mastered give their tokens to others.
* ``progress``: the decrease of the validation loss per token of the band (learning progress; Oudeyer et al. 2007,
  Graves et al., arXiv 1704.03003).
* ``target``: a Gaussian function of the pass rate around a mean that moves from easy to hard over the run.

``floor`` bounds the factor from below: the band of the smallest factor keeps that part of its share in random order.
A share of less than a tenth of the tokens lets a level be forgotten that has been learned by volume. With ``floor: 1``
all of them are random order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .adaptive import BAND_LOSS, AdaptiveSchedule, even_parts
from .matrix import SCHEDULES, Segments, check_range, stage_name

Floor = Annotated[
    float, Field(description="Minimum share of a band's tokens, as a fraction of its share in random order.")
]


@dataclass(frozen=True)
class BandMixture(AdaptiveSchedule):
    """A schedule of mixtures of all bands; ``bands`` are names, ``budgets`` the tokens of the parts."""

    bands: tuple[str, ...]
    budgets: tuple[int, ...]
    floor: float
    needs: Needs = BAND_LOSS

    @abstractmethod
    def _factors(self, index: int, history: Sequence[StageResult]) -> list[float | None]:
        """The factor of each band for part ``index``, 0 or more; None for a band without measurements."""

    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """A stage on all bands, in random order until something has been measured."""
        everything = (1.0,) * len(self.bands)
        shares = self.shares(index, history)
        name = stage_name(index, len(self.budgets), "mixture" if shares else "all")
        return StageSpec(name, everything, self.budgets[index], mixture=(shares, shares) if shares else None)

    def shares(self, index: int, history: Sequence[StageResult]) -> tuple[float, ...] | None:
        """Each band's share of the tokens of part ``index``; None for random order."""
        factors = self._factors(index, history) if history else []
        measured = [factor for factor in factors if factor is not None]
        if not measured or max(measured) <= 0:
            return None
        # A band without measurements keeps the mean factor, hence about its share in random order.
        mean = math.fsum(measured) / len(measured)
        relative = [(mean if factor is None else factor) for factor in factors]
        prior = self.sample_shares(history[-1])
        weights = [share * factor for share, factor in zip(prior, relative, strict=True)]
        if not sum(weights):
            return None
        return with_floor([weight / math.fsum(weights) for weight in weights], [self.floor * share for share in prior])

    def sample_shares(self, result: StageResult) -> list[float]:
        """Each band's share of the samples of a finished stage; equal shares where they were not counted."""
        samples = [result.composition.get(band, 0) for band in self.bands]
        return [count / sum(samples) for count in samples] if any(samples) else [1 / len(self.bands)] * len(self.bands)


def with_floor(shares: Sequence[float], floors: Sequence[float]) -> tuple[float, ...]:
    """``shares`` raised to ``floors`` where they are below; the others are scaled down so that the sum stays 1.

    The result is the fixed point: a share that scaling would bring below its floor is raised as well. Both sequences
    have one number per band, from 0; ``shares`` add up to 1, ``floors`` to at most 1.
    """
    raised: set[int] = set()
    while True:
        free = 1.0 - math.fsum(floors[band] for band in raised)
        rest = math.fsum(share for band, share in enumerate(shares) if band not in raised)
        scale = free / rest if rest else 0.0
        below = {band for band, share in enumerate(shares) if band not in raised and share * scale < floors[band]}
        if not below:
            break
        raised |= below
    result = [floors[band] if band in raised else share * scale for band, share in enumerate(shares)]
    total = math.fsum(result)
    return tuple(share / total for share in result)


@dataclass(frozen=True)
class ErrorMixture(BandMixture):
    """See ``mixture``."""

    power: float = 1.0

    def _factors(self, index: int, history: Sequence[StageResult]) -> list[float | None]:
        progress = history[-1].progress
        return [(1 - progress[band].right) ** self.power if band in progress else None for band in self.bands]


@SCHEDULES.register("mixture")
@strict("the schedule 'mixture'")
def mixture(
    bands: tuple[str, ...],
    tokens: int,
    *,
    power: Annotated[
        float,
        Field(description="Exponent of the error rate: 0 is random order, above 1 concentrates on the worst band."),
    ] = 1.0,
    floor: Floor = 0.5,
    parts: Segments = 20,
) -> ErrorMixture:
    """All bands in every part, with shares that follow the measured error rate.

    A band's share of the tokens is its share of the samples times (error rate)^``power``, and at least ``floor`` times
    its share of the samples.
    """
    check_range("power", power, 0, 10)
    check_range("floor", floor, 0, 1)
    check_range("parts", parts, 1, 1000)
    return ErrorMixture(bands, even_parts(tokens, parts), floor, power=power)


@dataclass(frozen=True)
class ProgressMixture(BandMixture):
    """See ``progress``."""

    window: int = 3

    def _factors(self, index: int, history: Sequence[StageResult]) -> list[float | None]:
        return [self._progress(position, band, history) for position, band in enumerate(self.bands)]

    def _progress(self, position: int, band: str, history: Sequence[StageResult]) -> float | None:
        """Decrease of a band's loss over the last ``window`` parts, in nats per token of the band; None without two
        measurements.
        """
        recent = [result for result in history if band in result.progress][-self.window - 1 :]
        if len(recent) < 2:
            return None
        tokens = math.fsum(result.spec.tokens * self._share(position, result) for result in recent[1:])
        decrease = recent[0].progress[band].loss - recent[-1].progress[band].loss
        return max(decrease, 0.0) / max(tokens, 1.0)

    def _share(self, position: int, result: StageResult) -> float:
        """The share of a band in the tokens of a finished stage."""
        if result.spec.mixture is not None:
            return result.spec.mixture[0][position]
        return self.sample_shares(result)[position]


@SCHEDULES.register("progress")
@strict("the schedule 'progress'")
def progress(
    bands: tuple[str, ...],
    tokens: int,
    *,
    window: Annotated[int, Field(description="Number of recent parts over which progress is measured.")] = 3,
    floor: Floor = 0.5,
    parts: Segments = 20,
) -> ProgressMixture:
    """All bands in every part, with shares that follow the learning progress per token.

    A band's share of the tokens is its share of the samples times the decrease of its validation loss per token of the
    band over the last ``window`` parts, and at least ``floor`` times its share of the samples. A band that is being
    forgotten counts as one without progress and keeps the minimum.
    """
    check_range("window", window, 1, 1000)
    check_range("floor", floor, 0, 1)
    check_range("parts", parts, 1, 1000)
    return ProgressMixture(bands, even_parts(tokens, parts), floor, window=window)


@dataclass(frozen=True)
class TargetMixture(BandMixture):
    """See ``target``."""

    start: float = 0.7
    end: float = 0.4
    width: float = 0.25

    def _factors(self, index: int, history: Sequence[StageResult]) -> list[float | None]:
        parts = len(self.budgets)
        mean = self.start + (self.end - self.start) * (index / (parts - 1) if parts > 1 else 0.0)
        known = history[-1].progress
        return [
            math.exp(-((known[band].right - mean) ** 2) / (2 * self.width**2)) if band in known else None
            for band in self.bands
        ]


@SCHEDULES.register("target")
@strict("the schedule 'target'")
def target(
    bands: tuple[str, ...],
    tokens: int,
    *,
    start: Annotated[float, Field(description="Pass rate with the greatest weight at the beginning.")] = 0.7,
    end: Annotated[float, Field(description="Pass rate with the greatest weight at the end.")] = 0.4,
    width: Annotated[float, Field(description="Standard deviation of the Gaussian, in pass rate.")] = 0.25,
    floor: Floor = 0.5,
    parts: Segments = 20,
) -> TargetMixture:
    """All bands in every part, with shares that follow a Gaussian function of the pass rate.

    Its mean moves linearly from ``start`` to ``end`` over the run: from bands that the model mostly answers to those
    that it mostly fails. Each band keeps at least ``floor`` times its share of the samples.
    """
    check_range("start", start, 0, 1)
    check_range("end", end, 0, 1)
    check_range("width", width, 0.01, 10)
    check_range("floor", floor, 0, 1)
    check_range("parts", parts, 1, 1000)
    return TargetMixture(bands, even_parts(tokens, parts), floor, start=start, end=end, width=width)
