"""What do the rows of a dataset that is not a table of ours say about themselves?

``difficulties`` takes numbers as they are, or has a metric score the texts it finds in the rows; ``categories`` numbers
the values of a column, for orders that go by them. Row i of the result is row i of the data, whatever could not be
scored (NaN). Nothing is dropped here and nothing tokenized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from ..difficulty import DIFFICULTIES, score
from ..errors import DataError
from ..table import make_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["categories", "difficulties"]


def difficulties(data: Sized, difficulty: Any) -> npt.NDArray[np.float64]:
    """float64, shape (len(data),): ``difficulty`` itself, or what the metric of that name finds."""
    import numpy as np

    if isinstance(difficulty, str):
        named = {difficulty: DIFFICULTIES.get(difficulty, where="difficulty")()}
        scored = score(_texts(data), named)[0]
        return np.asarray(scored[difficulty].to_numpy(), dtype=np.float64)
    scores = np.asarray(difficulty, dtype=np.float64)
    if scores.shape != (len(data),):
        raise DataError(
            "there must be one difficulty for each row",
            where="difficulty",
            given=f"shape {scores.shape} for {len(data)} rows",
        )
    return scores


def categories(data: Any, column: str) -> npt.NDArray[np.int64]:
    """int64, shape (len(data),): rows with one value in ``column`` have one number. Raises ``DataError``."""
    import numpy as np

    names = _names(data)
    if column not in names:
        raise DataError("there is no such column", where="schedule.category", given=column, allowed=", ".join(names))
    values, numbers = np.unique([str(value) for value in _column(data, column)], return_inverse=True)
    if len(values) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there are no categories to go through",
            where="schedule.category",
            given=", ".join(values),
        )
    return numbers.astype(np.int64)


def _texts(data: Any) -> pa.Table:
    """A table of prompts and answers."""
    names = _names(data)
    answer = next((name for name in ("answer", "completion", "text") if name in names), None)
    if answer is None and not (len(data) and isinstance(data[0], str)):
        raise DataError(
            "a metric needs texts, and the data has none it knows",
            where="difficulty",
            given=f"columns {', '.join(names)}" if names else "rows without names",
            allowed="strings, or columns prompt and answer (or completion), or text",
            hint="one number per row instead of a metric's name",
        )
    if answer is None:
        return make_table({"answer": list(data)})
    prompted = {"prompt": _column(data, "prompt")} if "prompt" in names and answer != "text" else {}
    return make_table({**prompted, "answer": _column(data, answer)})


def _names(data: Any) -> list[str]:
    """The columns of a table or a ``datasets.Dataset``, or of rows that are mappings; none for anything else."""
    if hasattr(data, "column_names"):
        return list(data.column_names)
    return list(data[0]) if len(data) and isinstance(data[0], Mapping) else []


def _column(data: Any, name: str) -> list[Any]:
    if hasattr(data, "column_names"):
        column = data[name]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    return [data[at][name] for at in range(len(data))]
