"""Weighted row sampling for mixture stages.

For a stage with a ``Mixture`` the passes of a batcher are *slices* of the stage's time; ``WeightedSampler.slice`` gives
the rows of a slice. Low-discrepancy sampling: visit k of a row happens when its expected number of visits passes k + u,
u ~ U(0, 1) drawn anew for each visit. With equal weights every row is therefore visited once in each pass, in a new
order, as in a shuffled stage.

A slice is a pure function of its number, so the position of a batcher stays two integers and a mixture can be resumed.
The shares of a mixture are shares of tokens, like the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError, RecipeError
from ..stage import Stage

__all__ = ["WeightedSampler", "make_sampler", "refuse_windows"]


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SLICE_SIZE = 4096
"""Approximate upper bound of the samples in a slice; the same number as a batcher packs at a time."""

MIN_SLICES = 32
"""Least number of slices of a stage with enough batches: the mixture is constant within a slice."""


@dataclass(frozen=True)
class WeightedSampler:
    """Rows with weights that change linearly. ``first`` and ``last`` (float64, aligned with ``rows``) are the expected
    visits of a stage whose mixture stayed as at its beginning, or as at its end.
    """

    rows: Ints
    first: Floats
    last: Floats
    slices: int
    seed: int

    def slice(self, number: int) -> Ints:
        """The rows of slice ``number`` (from 0), in random order; past the stage's end as at its end."""
        start, stop = (self._expected(edge / self.slices) for edge in (number, number + 1))
        visit = np.floor(start).astype(np.int64)
        slices = []
        while (open_ := visit < stop).any():
            due = visit + _uniform(self.seed, self.rows, visit)
            slices.append(self.rows[open_ & (due >= start) & (due < stop)])
            visit = visit + 1
        rows = np.concatenate(slices) if slices else self.rows[:0]
        return np.random.default_rng([self.seed, number, 0]).permutation(rows)

    def _expected(self, time: float) -> Floats:
        """Expected visits of each row until ``time``, 1 being the end of the stage."""
        within = min(time, 1.0)
        visits = self.first * within + (self.last - self.first) * within**2 / 2
        return np.asarray(visits + self.last * (time - within))


def make_sampler(stage: Stage, rows: Ints, sizes: Ints, batch: int) -> WeightedSampler | None:
    """The sampler of the ``rows`` of ``stage`` that fit a line; None for a stage without a mixture.

    ``sizes``: loss tokens of each of ``rows``; ``batch``: approximate loss tokens of a batch. Raises ``DataError`` when
    no row remains of all groups that have a share at the beginning, or at the end.
    """
    if stage.mixture is None:
        return None
    fitting = np.isin(stage.rows, rows, assume_unique=True)
    groups, weights = stage.mixture.groups[fitting], stage.mixture.weights[fitting]
    mass = np.bincount(groups, weights * sizes, minlength=len(stage.mixture.start))
    ends = []
    for shares in (stage.mixture.start, stage.mixture.end):
        present = np.where(mass > 0, shares, 0.0)
        if not present.sum() > 0:
            raise DataError(
                "no sample of the mixture fits into the context",
                where=f"stage {stage.spec.name}",
                hint="a larger train.length and student.context",
            )
        rate = np.divide(present / present.sum(), mass, out=np.zeros_like(mass), where=mass > 0)
        ends.append(stage.spec.tokens * rate[groups] * weights)
    visits = (ends[0].sum() + ends[1].sum()) / 2
    slices = min(max(visits / SLICE_SIZE, MIN_SLICES), stage.spec.tokens / (4 * batch))
    return WeightedSampler(stage.rows[fitting], ends[0], ends[1], max(int(slices), 1), stage.seed)


def refuse_windows(stage: Stage) -> None:
    """Raise ``RecipeError`` for a mixture stage: random crops of the text have no rows."""
    if stage.mixture is not None:
        raise RecipeError(
            "a schedule that draws samples with weights needs whole samples",
            where="train.batching",
            given="windows",
            allowed="packed",
        )


def _uniform(seed: int, rows: Ints, visit: Ints) -> Floats:
    """A number in [0, 1) for each visit of each row: a hash of seed, row and visit (the finaliser of SplitMix64)."""
    mixed = np.full(rows.shape, seed, dtype=np.uint64)
    for number in (rows, visit):
        mixed = mixed + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) / (1 << 53))
