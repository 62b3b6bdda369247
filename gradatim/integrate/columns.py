"""Difficulties, categories and digests of the rows of an arbitrary dataset.

``difficulties`` accepts numbers, or scores the texts of the rows with a metric; ``categories`` numbers the values of a
column for orders by category. Row i of the result is row i of the data; a row without a score is NaN, never dropped.

``digests`` gives a digest of each column, so that a checkpoint or a trainer can verify that it has the data of the
curriculum: a sampler yields row numbers alone, and datasets of one length would be indistinguishable. Tables,
``datasets.Dataset`` and arrays are digested completely up to ``MAX_BYTES``, rows of lists up to ``MAX_ROWS``; beyond
that, and for datasets that compute their rows, a sample at even distances including the first and the last row. There
is no digest of a column whose values change between readings (augmentation) nor of a plain range, which holds no data;
a value that JSON cannot represent counts by its type.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..difficulty import DIFFICULTIES, score, unscored_note
from ..errors import DataError
from ..stage import Event, Events, ignore_events
from ..table import make_table


def difficulties(data: Sized, difficulty: Any, events: Events = ignore_events) -> npt.NDArray[np.float64]:
    """float64, shape (len(data),): ``difficulty`` itself, or the scores of the metric of that name.

    NaN for a row whose answer or prompt is missing. ``events``: a note gives the number of rows that a metric cannot
    score, and the causes.
    """
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
    """int64, shape (len(data),): rows with equal values in ``column`` have equal numbers. Raises ``DataError``."""
    names = _names(data)
    if column not in names:
        raise DataError("there is no such column", where="schedule.category", given=column, allowed=", ".join(names))
    values, numbers = np.unique([str(value) for value in _column(data, column)], return_inverse=True)
    if len(values) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there is only one category",
            where="schedule.category",
            given=", ".join(values),
        )
    return numbers.astype(np.int64)


def _texts(data: Any) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """A table of prompts and answers, and a mask of the rows that lack one of them, with empty texts in the table."""
    names = _names(data)
    answer = next((name for name in ("answer", "completion", "text") if name in names), None)
    if answer is None and not (len(data) and isinstance(data[0], str)):
        raise DataError(
            "a metric needs texts, and the data has no column of texts",
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
    """The columns of a table or a ``datasets.Dataset``, or of rows that are mappings; else none."""
    if hasattr(data, "column_names"):
        return list(data.column_names)
    return list(data[0]) if len(data) and isinstance(data[0], Mapping) else []


def _column(data: Any, name: str) -> list[Any]:
    """The values of the column ``name``, None where a row lacks it."""
    if hasattr(data, "column_names"):
        column = data[name]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    return [data[index].get(name) for index in range(len(data))]


MAX_BYTES = 1 << 28
MAX_ROWS = 16_384
COMPUTED = 64
"""Rows that are read of a dataset that computes them, which may be slow."""
BLOCK = 4096

UNNAMED = "rows"
"""The column name of rows without columns."""


def digests(data: Any) -> dict[str, str]:
    """{column: digest of its values}; rows without columns are one column ``UNNAMED``."""
    if isinstance(data, range):
        return {}
    if hasattr(data, "column_names"):
        return _of_table(data)
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return _of_array(data)
    if isinstance(data, list | tuple):
        return _of_rows(data, _spread(len(data), MAX_ROWS))
    rows = _spread(len(data), COMPUTED)
    first, second = _of_rows(data, rows), _of_rows(data, rows)
    return {name: digest for name, digest in first.items() if second.get(name) == digest}


def differing(stored: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """The columns of ``stored`` that differ in ``current`` or are missing; none when ``current`` has no digests."""
    return [name for name in stored if stored[name] != current.get(name)] if current else []


def _spread(count: int, limit: int) -> Sequence[int]:
    """Up to ``limit`` indices below ``count`` at even distances, including the first and the last."""
    if count <= limit:
        return range(count)
    return sorted({index * (count - 1) // (limit - 1) for index in range(limit)})


def _of_rows(data: Any, indices: Sequence[int]) -> dict[str, str]:
    """Digests of the columns of the rows at ``indices``."""
    columns: dict[str, Any] = {}
    for index in indices:
        row = data[index]
        for name, value in row.items() if isinstance(row, Mapping) else ((UNNAMED, row),):
            line = f"{index}\0{_plain(value)}\n".encode("utf-8", "replace")
            columns.setdefault(str(name), hashlib.sha256()).update(line)
    return {name: digest.hexdigest()[:16] for name, digest in columns.items()}


def _plain(value: Any) -> str:
    """``value`` as JSON, or the name of its type."""
    try:
        return json.dumps(value, sort_keys=True, default=_listed)
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists; for other objects their type, since their text may vary."""
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__


def _of_array(data: Any) -> dict[str, str]:
    """The digest of an array or a tensor."""
    if not isinstance(data, np.ndarray):  # a tensor, perhaps on another device
        data = np.array(data.tolist())
    if data.dtype.hasobject:
        return _of_rows(data, _spread(len(data), MAX_ROWS))
    step = max(1, data.nbytes // MAX_BYTES)
    return {UNNAMED: _sha([str((data.dtype, data.shape)).encode(), np.ascontiguousarray(data[::step]).tobytes()])}


def _of_table(data: Any) -> dict[str, str]:
    """Digests of the columns of a table or a ``datasets.Dataset``."""
    hashes: dict[str, Any] = {name: hashlib.sha256() for name in data.column_names}
    for table in _blocks(data):
        for name in hashes:
            for buffer in _buffers(table.column(name)):
                hashes[name].update(buffer)
    return {name: digest.hexdigest()[:16] for name, digest in hashes.items()}


def _blocks(data: Any) -> Iterator[pa.Table]:
    """Tables of ``BLOCK`` rows: all of them, or as many at even distances as ``MAX_BYTES`` allows."""
    arrow = data if hasattr(data, "schema") else data.with_format("arrow")
    size = int(getattr(data, "nbytes", None) or getattr(getattr(data, "data", None), "nbytes", 0) or 1)
    blocks = -(-len(data) // BLOCK)
    for block in _spread(blocks, max(2, int(blocks * min(1.0, MAX_BYTES / size)))):
        start = block * BLOCK
        stop = min(start + BLOCK, len(data))
        yield arrow.slice(start, stop - start) if hasattr(data, "schema") else arrow[start:stop]


def _buffers(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values in a form that is independent of chunks, offsets and the layout of strings."""
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


def _sha(buffers: Sequence[bytes]) -> str:
    """The first 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()[:16]
