"""How hard does the data itself say that a sample is?

A number that stands in a column already: TinyPy's level, a label by hand, a score from another tool. What is no
number (empty, "unknown") has no score, as elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..options import strict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["given"]


@dataclass(frozen=True)
class Given:
    """The numbers of one column of the samples."""

    column: str

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        """``RecipeError`` when the samples have no such column; a mapping leaves only those that it names."""
        if self.column not in samples.column_names:
            raise RecipeError(
                "the data has no such column",
                where="difficulty.column",
                given=repr(self.column),
                allowed=f"a column of numbers among {', '.join(samples.column_names)}",
                hint=f"name it in the column mapping: data.columns.{self.column}: {self.column}",
            )
        import numpy as np

        return np.array([_number(value) for value in samples.column(self.column).to_pylist()], np.float64)


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
    return number if math.isfinite(number) else float("nan")


@strict("the difficulty 'given'")
def given(*, column: str = "level") -> Given:
    """The number that stands in a column of the data: a label of your own, or TinyPy's level."""
    return Given(column)
