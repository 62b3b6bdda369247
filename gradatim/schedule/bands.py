"""Bands: one difficulty column cut into slices, easiest first.

``make_bands`` cuts at thresholds or at quantiles of the column itself. Rows without a score belong to no band: they are
counted (``Bands.unscored``) and no stage uses them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..errors import DataError, RecipeError
from ..lazy import np

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores: TypeAlias = npt.NDArray[np.float64]


PAPER_THRESHOLDS = (2.0, 4.0)
"""Thresholds of arXiv 2407.10194 on its Overall Metric (``om``): easy < 2 <= medium < 4 <= hard."""


@dataclass(frozen=True)
class Bands:
    """The difficulty axis cut into slices. Band i holds ``edges[i-1] <= difficulty < edges[i]``.

    ``index``: int8, shape (rows,): the band of each row of the table, -1 for a row that has no score (NaN).
    """

    names: tuple[str, ...]
    edges: tuple[float, ...]
    index: npt.NDArray[np.int8]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples per band."""
        return tuple(int((self.index == band).sum()) for band in range(len(self.names)))

    @property
    def unscored(self) -> int:
        """Number of rows without a score, which no stage uses."""
        return int((self.index < 0).sum())

    def assign(self, difficulty: Scores) -> npt.NDArray[np.int8]:
        """The band of each value of another table (a test set) under the same edges; a band may stay empty."""
        return _assign(difficulty, self.edges)


def make_bands(
    difficulty: Scores,
    *,
    thresholds: Sequence[float] | None = None,
    quantiles: Sequence[float] | None = None,
    names: Sequence[str] = ("easy", "medium", "hard"),
) -> Bands:
    """Cut ``difficulty`` (float64, shape (rows,), NaN = unscored) at ``thresholds`` or at ``quantiles`` of itself.

    A value on a threshold belongs to the harder band. Equal values are never separated: a quantile cuts between two
    distinct values, where the share below is nearest to the quantile. With neither given the bands are made as equal as
    ties allow.

    Raises ``RecipeError`` when the cuts are out of order or do not match ``names``, ``DataError`` when a band would be
    empty.
    """
    scores = np.asarray(difficulty, dtype=np.float64)
    cuts = check_cuts(thresholds, quantiles, names)
    scored = np.sort(scores[~np.isnan(scores)])
    if not scored.size:
        raise DataError(
            "no sample has a difficulty",
            where="bands",
            given=f"{scores.size} rows without a score",
            hint="another metric, or `gradatim score` to see why the samples cannot be scored",
        )
    edges = tuple(cuts) if thresholds is not None else _quantile_edges(scored, cuts)
    bands = Bands(tuple(names), edges, _assign(scores, edges))
    _check_filled(bands, scored)
    return bands


def check_cuts(
    thresholds: Sequence[float] | None, quantiles: Sequence[float] | None, names: Sequence[str]
) -> list[float]:
    """The cuts of ``make_bands``: the thresholds, the quantiles, or quantiles for bands of equal size.

    Raises ``RecipeError`` when they are out of order or do not match ``names``; needs no difficulties.
    """
    if thresholds is not None and quantiles is not None:
        raise RecipeError("bands are cut at thresholds or at quantiles, not both", where="bands")
    are_quantiles = thresholds is None
    kind = "quantiles" if are_quantiles else "thresholds"
    if quantiles is None:
        quantiles = [cut / len(names) for cut in range(1, len(names))]
    cuts = [float(cut) for cut in (quantiles if thresholds is None else thresholds)]
    if not names or len(set(names)) != len(names):
        raise RecipeError("bands need distinct names", where="bands.names", given=list(names))
    if len(cuts) != len(names) - 1:
        raise RecipeError(
            f"{len(names)} bands need {len(names) - 1} {kind}",
            where=f"bands.{kind}",
            given=f"{list(cuts)} for {', '.join(names)}",
        )
    if any(not low < high for low, high in itertools.pairwise(cuts)) or not all(map(math.isfinite, cuts)):
        raise RecipeError(f"{kind} must rise", where=f"bands.{kind}", given=list(cuts), hint=f"{sorted(set(cuts))}")
    if are_quantiles and any(not 0 < cut < 1 for cut in cuts):
        raise RecipeError("quantiles must lie between 0 and 1", where="bands.quantiles", given=list(cuts))
    return cuts


def _quantile_edges(scored: Scores, quantiles: Sequence[float]) -> tuple[float, ...]:
    """One edge per quantile, each the least value of the band above it; ``scored`` is sorted."""
    values, below = np.unique(scored, return_index=True)
    if values.size <= len(quantiles):
        raise DataError(
            f"{values.size} distinct difficulties cannot fill {len(quantiles) + 1} bands",
            where="bands.quantiles",
            given=f"difficulties from {values[0]:g} to {values[-1]:g}",
            hint="fewer bands, or a metric with more distinct values",
        )
    edges: list[float] = []
    first = 1
    for done, quantile in enumerate(quantiles, start=1):
        last = values.size - (len(quantiles) - done)
        nearest = int(np.argmin(np.abs(below[first:last] / scored.size - quantile))) + first
        edges.append(float(values[nearest]))
        first = nearest + 1
    return tuple(edges)


def _assign(difficulty: Scores, edges: Sequence[float]) -> npt.NDArray[np.int8]:
    index = np.searchsorted(np.asarray(edges, dtype=np.float64), difficulty, side="right").astype(np.int8)
    index[np.isnan(difficulty)] = -1
    return index


def _check_filled(bands: Bands, scored: Scores) -> None:
    empty = [name for name, size in zip(bands.names, bands.sizes, strict=True) if not size]
    if empty:
        raise DataError(
            f"no sample falls into the band{'s' if len(empty) > 1 else ''} {', '.join(map(repr, empty))}",
            where="bands",
            given=f"edges {list(bands.edges)}, difficulties from {scored[0]:g} to {scored[-1]:g}",
            hint="edges inside that range, quantiles instead of thresholds, fewer bands, or harder data",
        )
