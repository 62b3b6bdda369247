"""Difficulty that combines several metrics.

arXiv 2407.10194 is reported to build its difficulty from length, control flow and unfamiliarity, without published
weights; ``composite`` combines ``size``, ``cyclomatic`` and ``rarity`` with equal weights by default. Each metric is
first put on one scale over the scored table, ``z`` (mean 0, standard deviation 1) or ``rank`` (share of the table that
is easier, ties in the middle), then weighted and added. The score orders the samples of one table; it does not compare
tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import RecipeError
from ..options import strict
from ..stage import Difficulty
from .score import DIFFICULTIES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["composite", "standardised"]

Scale = Literal["z", "rank"]
EQUAL_WEIGHTS = {"size": 1.0, "cyclomatic": 1.0, "rarity": 1.0}


@dataclass(frozen=True)
class Composite:
    """The weighted mean of other difficulties, each put on ``scale`` first."""

    metrics: tuple[tuple[float, Difficulty], ...]
    scale: Scale

    @property
    def reads_programs(self) -> bool:
        """Whether one of the metrics reads programs."""
        return any(getattr(metric, "reads_programs", False) for _, metric in self.metrics)

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        import numpy as np

        total = sum(weight for weight, _ in self.metrics)
        scores = np.zeros(samples.num_rows)
        for weight, metric in self.metrics:
            scores += weight / total * standardised(metric(samples, workers=workers), self.scale)
        return scores


def standardised(scores: npt.NDArray[np.float64], scale: Scale) -> npt.NDArray[np.float64]:
    """``scores`` on a common scale. NaN is ignored and stays NaN; if all scores are equal, each becomes the middle."""
    import numpy as np

    valid = scores[~np.isnan(scores)]
    if not valid.size:
        return scores
    if scale == "z":
        spread = float(valid.std())
        return (scores - float(valid.mean())) / (spread if spread > 0 else 1.0)
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / valid.size
    return np.where(np.isnan(scores), np.nan, middle[rank])


@strict("the difficulty 'composite'")
def composite(*, weights: Mapping[str, float] | None = None, scale: Scale = "z") -> Composite:
    """Length, control flow and unfamiliarity (or any metrics, by name) weighted into one score.

    ``weights``: {metric: positive weight}. A sample without a score by one of them has no score.
    """
    metrics = dict(EQUAL_WEIGHTS if weights is None else weights)
    if not metrics or not all(0 < weight < math.inf for weight in metrics.values()) or "composite" in metrics:
        raise RecipeError(
            "the weights do not make a composite",
            where="composite.weights",
            given=metrics,
            allowed="positive weights of metrics other than 'composite'",
        )
    where = "composite.weights"
    return Composite(tuple((weight, DIFFICULTIES.get(name, where)()) for name, weight in metrics.items()), scale)
