"""What do the rows of a dataset that is not a table of ours say about themselves?

``difficulties`` takes numbers as they are, or has a metric score the texts it finds in the rows; ``categories`` numbers
the values of a column, for orders that go by them. Row i of the result is row i of the data, whatever could not be
scored (NaN). Nothing is dropped here and nothing tokenized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from ..difficulty import DIFFICULTIES, score, unscored_note
from ..errors import DataError
from ..stage import Event, Events, ignore_events
from ..table import make_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["categories", "difficulties"]


def difficulties(data: Sized, difficulty: Any, events: Events = ignore_events) -> npt.NDArray[np.float64]:
    """float64, shape (len(data),): ``difficulty`` itself, or what the metric of that name finds.

    NaN for a row whose answer or prompt is missing. ``events``: a note gives the number of rows that a metric cannot
    score, and the causes.
    """
    import numpy as np

    if isinstance(difficulty, str):
        named = {difficulty: DIFFICULTIES.get(difficulty, where="difficulty")()}
        table, missing = _texts(data)
        scores = np.array(score(table, named)[0][difficulty].to_numpy(), dtype=np.float64)
        scores[missing] = np.nan
        if note := unscored_note(difficulty, named[difficulty], table, scores, "are left out"):
            events(Event("note", "curriculum", text=note))
        return scores
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


def _texts(data: Any) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """A table of prompts and answers, and which rows lack one of them: they have empty texts in the table."""
    import numpy as np

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
    columns = {"answer": list(data) if answer is None else _column(data, answer)}
    if answer not in (None, "text") and "prompt" in names:
        columns["prompt"] = _column(data, "prompt")
    missing = np.zeros(len(data), bool)
    for name, values in columns.items():
        missing |= np.fromiter((value is None for value in values), bool, len(values))
        columns[name] = ["" if value is None else value for value in values]
    return make_table(columns), missing


def _names(data: Any) -> list[str]:
    """The columns of a table or a ``datasets.Dataset``, or of rows that are mappings; none for anything else."""
    if hasattr(data, "column_names"):
        return list(data.column_names)
    return list(data[0]) if len(data) and isinstance(data[0], Mapping) else []


def _column(data: Any, name: str) -> list[Any]:
    if hasattr(data, "column_names"):
        column = data[name]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    return [data[at].get(name) for at in range(len(data))]
