"""Intervals of mean accuracies over seeds and test items: both are random, and crossed.

Arms are evaluated with several seeds on the same items. Over other seeds *and* other items of the same kind, the mean
accuracy varies by both: seeds differ in what they learn, items in difficulty. Student's t over seeds has the first part
only. The variance here is that of two-way clustered data (Cameron, Gelbach and Miller 2011): the seeds' part plus the
items' part minus the part that both count, where items of one form (programs equal up to names) are one cluster. The
degrees of freedom follow Satterthwaite (1946). For a paired difference of arms the values are differences per item, so
what both arms find hard cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lazy import np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class ItemScores:
    """The verdicts of the runs of a study on common items.

    ``values[arm][seed]``: one float64 in [0, 1] per item, in the same order for all runs; ``forms``: int64 code of the
    form of each item, equal for items that count as one.
    """

    values: Mapping[str, Mapping[int, npt.NDArray[np.float64]]]
    forms: npt.NDArray[np.int64]


@dataclass(frozen=True)
class CrossedError:
    """The variance of a mean over seeds and items; ``items``: the items' part; ``freedom``: degrees of freedom."""

    variance: float
    items: float
    freedom: float


def crossed_error(values: npt.NDArray[np.float64], forms: npt.NDArray[np.int64]) -> CrossedError | None:
    """The variance of the mean of ``values`` (seeds × items) over other seeds and other items.

    ``forms`` (int64, one per item) are the clusters of items. None with fewer than two seeds or two forms. The items'
    part is never negative, so the variance is at least that of the seeds alone.
    """
    seeds, items = values.shape
    _, codes = np.unique(forms, return_inverse=True)
    groups = int(codes.max(initial=-1)) + 1
    if seeds < 2 or groups < 2:
        return None
    mean, by_seed, by_item = values.mean(), values.mean(axis=1), values.mean(axis=0)
    seed_part = float(by_seed.var(ddof=1)) / seeds
    totals = np.bincount(codes, by_item - mean, groups)
    item_part = groups / (groups - 1) * float((totals**2).sum()) / items**2
    residuals = values - by_seed[:, None] - by_item[None, :] + mean
    cells = np.stack([np.bincount(codes, row, groups) for row in residuals])
    both = seeds * groups / ((seeds - 1) * (groups - 1)) * float((cells**2).sum()) / (seeds * items) ** 2
    extra = max(0.0, item_part - both)
    variance = seed_part + extra
    parts = seed_part**2 / (seeds - 1) + extra**2 / (groups - 1)
    return CrossedError(variance, extra, variance**2 / parts if parts else float(seeds - 1))
