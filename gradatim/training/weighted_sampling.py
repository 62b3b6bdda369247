"""How often does each sample of a stage come up, when the stage is a moving mixture?

A batcher goes through a stage in passes. For a stage with a ``Mixture`` the passes are *slices* of the stage's time,
and ``Draws.slice`` says which rows a slice holds. Rows are not thrown like dice: visit k of a row is due when the
visits expected of it so far pass k + u, u drawn anew for each visit. So no row comes up a second time before it is due,
and with equal weights every row comes once in each pass, in a new order, as in a shuffled stage.

A slice is a pure function of its number, so a batcher's position needs nothing else. Nothing here knows of tokens but
their number in each sample: a mixture is one of tokens, as the budget is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError, RecipeError
from ..stage import Stage

__all__ = ["Draws", "draws_of", "refuse_windows"]


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SLICE = 4096
"""About the most samples in a slice, as many as a batcher packs at a time."""

FEWEST = 32
"""A stage has at least so many slices, when they hold some batches each: within a slice a mixture stands still."""


@dataclass(frozen=True)
class Draws:
    """Rows that come up with weights. ``first`` and ``last`` (float64, aligned with ``rows``) are visits expected per
    stage, if it were all as at its beginning or all as at its end; between the two they move in a straight line.
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
        found = []
        while (open_ := visit < stop).any():
            due = visit + _chance(self.seed, self.rows, visit)
            found.append(self.rows[open_ & (due >= start) & (due < stop)])
            visit = visit + 1
        rows = np.concatenate(found) if found else self.rows[:0]
        return np.random.default_rng([self.seed, number, 0]).permutation(rows)

    def _expected(self, time: float) -> Floats:
        """Visits of each row until ``time``, 1 being the end of the stage."""
        inside = min(time, 1.0)
        grown = self.first * inside + (self.last - self.first) * inside**2 / 2
        return np.asarray(grown + self.last * (time - inside))


def draws_of(stage: Stage, rows: Ints, sizes: Ints, batch: int) -> Draws | None:
    """How the ``rows`` of ``stage`` (those of its rows that fit a line) are drawn; None for a stage without a mixture.

    ``sizes``: of each of ``rows``, the tokens that count for the budget; ``batch``: about how many a batch has. Raises
    ``DataError`` when no row is left of all groups that have a share at the beginning, or at the end.
    """
    if stage.mixture is None:
        return None
    kept = np.isin(stage.rows, rows, assume_unique=True)
    groups, weights = stage.mixture.groups[kept], stage.mixture.weights[kept]
    mass = np.bincount(groups, weights * sizes, minlength=len(stage.mixture.start))
    ends = []
    for shares in (stage.mixture.start, stage.mixture.end):
        there = np.where(mass > 0, shares, 0.0)
        if not there.sum() > 0:
            raise DataError(
                "no sample of the mixture fits into the context",
                where=f"stage {stage.spec.name}",
                hint="a larger train.length and student.context",
            )
        rate = np.divide(there / there.sum(), mass, out=np.zeros_like(mass), where=mass > 0)
        ends.append(stage.spec.tokens * rate[groups] * weights)
    visits = (ends[0].sum() + ends[1].sum()) / 2
    slices = min(max(visits / SLICE, FEWEST), stage.spec.tokens / (4 * batch))
    return Draws(stage.rows[kept], ends[0], ends[1], max(int(slices), 1), stage.seed)


def refuse_windows(stage: Stage) -> None:
    """Raises ``RecipeError`` for a stage that draws its rows: crops at random places of a text know of none."""
    if stage.mixture is not None:
        raise RecipeError(
            "a schedule that draws samples with weights needs whole samples",
            where="train.batching",
            given="windows",
            allowed="packed",
        )


def _chance(seed: int, rows: Ints, visit: Ints) -> Floats:
    """A number in [0, 1) for each visit of each row: a hash of the three (the finaliser of SplitMix64)."""
    mixed = np.full(rows.shape, seed, dtype=np.uint64)
    for part in (rows, visit):
        mixed = mixed + (part.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) / (1 << 53))
