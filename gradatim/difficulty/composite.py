"""How hard is a program by several metrics at once?

arXiv 2407.10194 is reported to build its difficulty from length, control flow and unfamiliarity, without published
weights; ``composite`` is that by default, in equal parts: ``size``, ``cyclomatic`` and ``rarity``. Each part is
first put on one scale over the table that is scored: ``z`` (mean 0, standard deviation 1) or ``rank`` (share of
the table that is easier, equal ones in the middle), then weighted and added. The figure orders samples of one
table; it does not compare tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import RecipeError
from ..options import strict
from ..stage import Difficulty

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["composite", "standardised"]

Scale = Literal["z", "rank"]
THREE_PARTS = {"size": 1.0, "cyclomatic": 1.0, "rarity": 1.0}


@dataclass(frozen=True)
class Composite:
    """The weighted mean of other difficulties, each put on ``scale`` first."""

    parts: tuple[tuple[float, Difficulty], ...]
    scale: Scale

    @property
    def reads_programs(self) -> bool:
        """Whether a part of it needs a program to read."""
        return any(getattr(part, "reads_programs", False) for _, part in self.parts)

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        import numpy as np

        total = sum(weight for weight, _ in self.parts)
        scores = np.zeros(samples.num_rows)
        for weight, part in self.parts:
            scores += weight / total * standardised(part(samples, workers=workers), self.scale)
        return scores


def standardised(scores: npt.NDArray[np.float64], scale: Scale) -> npt.NDArray[np.float64]:
    """``scores`` on a common scale; NaN stays NaN and takes no part; equal scores everywhere become the middle."""
    import numpy as np

    known = scores[~np.isnan(scores)]
    if not known.size:
        return scores
    if scale == "z":
        spread = float(known.std())
        return (scores - float(known.mean())) / (spread if spread > 0 else 1.0)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / known.size
    return np.where(np.isnan(scores), np.nan, middle[place])


@strict("the difficulty 'composite'")
def composite(*, weights: Mapping[str, float] | None = None, scale: Scale = "z") -> Composite:
    """Length, control flow and unfamiliarity (or any metrics, by name) weighted into one figure.

    ``weights``: {metric: positive weight}. A sample that one part cannot score has no score.
    """
    from . import DIFFICULTIES  # here, because the registry lists this module

    chosen = dict(THREE_PARTS if weights is None else weights)
    if not chosen or not all(0 < weight < math.inf for weight in chosen.values()) or "composite" in chosen:
        raise RecipeError(
            "the weights do not make a composite",
            where="composite.weights",
            given=chosen,
            allowed="positive weights of metrics other than 'composite'",
        )
    where = "composite.weights"
    return Composite(tuple((weight, DIFFICULTIES.get(name, where)()) for name, weight in chosen.items()), scale)
