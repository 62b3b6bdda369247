"""What do the rows of a dataset that is not a table of ours say about themselves?

``difficulties`` takes numbers as they are, or has a metric score the texts it finds in the rows; ``categories`` numbers
the values of a column, for orders that go by them. Row i of the result is row i of the data, whatever could not be
scored (NaN). Nothing is dropped here and nothing tokenized.

Is this the data that a curriculum was made for?

Two datasets of one length look alike to a sampler, which hands out row numbers. ``digests`` gives a digest for each
column, so that data can be compared with what a checkpoint or a trainer holds. Tables, ``datasets.Dataset`` and arrays
are digested whole, up to ``MOST_BYTES``; rows of lists up to ``MOST_ROWS``; beyond that, and for datasets that compute
their rows, a sample of them at even distances, the first and the last among them. A column that is another at each
reading (augmentation) has no digest, nor has a plain range, which holds no data; a value without a plain form counts by
its type.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from ..difficulty import DIFFICULTIES, score, unscored_note
from ..errors import DataError
from ..stage import Event, Events, ignore_events
from ..table import make_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["UNNAMED", "categories", "differing", "difficulties", "digests"]


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


MOST_BYTES = 1 << 28
MOST_ROWS = 16_384
COMPUTED = 64
"""Rows of a dataset that computes them, since one may take as long as it likes."""
BLOCK = 4096

UNNAMED = "rows"
"""The name of rows that have no columns."""


def digests(data: Any) -> dict[str, str]:
    """By column, a digest of its values; rows without columns are one column ``UNNAMED``."""
    if isinstance(data, range):
        return {}
    if hasattr(data, "column_names"):
        return _of_table(data)
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return _of_array(data)
    if isinstance(data, list | tuple):
        return _of_rows(data, _spread(len(data), MOST_ROWS))
    rows = _spread(len(data), COMPUTED)
    first, second = _of_rows(data, rows), _of_rows(data, rows)
    return {name: digest for name, digest in first.items() if second.get(name) == digest}


def differing(kept: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The columns of ``kept`` that differ ``here``, or are missing; none when one of the two has no digest at all."""
    return [name for name in kept if kept[name] != here.get(name)] if here else []


def _spread(count: int, most: int) -> Sequence[int]:
    """Up to ``most`` places among ``count``, at even distances, from the first to the last."""
    if count <= most:
        return range(count)
    return sorted({place * (count - 1) // (most - 1) for place in range(most)})


def _of_rows(data: Any, rows: Sequence[int]) -> dict[str, str]:
    columns: dict[str, Any] = {}
    for place in rows:
        row = data[place]
        for name, value in row.items() if isinstance(row, Mapping) else ((UNNAMED, row),):
            line = f"{place}\0{_plain(value)}\n".encode("utf-8", "replace")
            columns.setdefault(str(name), hashlib.sha256()).update(line)
    return {name: digest.hexdigest()[:16] for name, digest in columns.items()}


def _plain(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=_listed)
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists; of anything else its type, since its text may be another each time."""
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__


def _of_array(data: Any) -> dict[str, str]:
    import numpy as np

    if not isinstance(data, np.ndarray):  # a tensor, perhaps on another device
        data = np.array(data.tolist())
    if data.dtype.hasobject:
        return _of_rows(data, _spread(len(data), MOST_ROWS))
    step = max(1, data.nbytes // MOST_BYTES)
    return {UNNAMED: _sha([str((data.dtype, data.shape)).encode(), np.ascontiguousarray(data[::step]).tobytes()])}


def _of_table(data: Any) -> dict[str, str]:
    found: dict[str, Any] = {name: hashlib.sha256() for name in data.column_names}
    for table in _blocks(data):
        for name in found:
            for part in _buffers(table.column(name)):
                found[name].update(part)
    return {name: digest.hexdigest()[:16] for name, digest in found.items()}


def _blocks(data: Any) -> Iterator[pa.Table]:
    """Tables of ``BLOCK`` rows: all of them, or as many at even distances as ``MOST_BYTES`` allow."""
    arrow = data if hasattr(data, "schema") else data.with_format("arrow")
    size = int(getattr(data, "nbytes", None) or getattr(getattr(data, "data", None), "nbytes", 0) or 1)
    blocks = -(-len(data) // BLOCK)
    for block in _spread(blocks, max(2, int(blocks * min(1.0, MOST_BYTES / size)))):
        start = block * BLOCK
        stop = min(start + BLOCK, len(data))
        yield arrow.slice(start, stop - start) if hasattr(data, "schema") else arrow[start:stop]


def _buffers(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values in a form that depends on neither chunks nor offsets, nor on how strings are kept."""
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    batch = pa.record_batch([array], names=["values"])
    yield bytes(batch.serialize())
    yield str(array.type).encode()


def _sha(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
