"""Tables larger than memory: memory-mapped Arrow files.

``mapped_table`` makes a table of record batches. Up to ``MEMORY_BYTES`` it lies in memory; a larger one is written to
an Arrow IPC file in the folder for temporary files (``TMPDIR``) and memory-mapped, as the package ``datasets`` does it.
The file has no name, so that its space is free again when the table is no longer used, and after a killed process.

A memory-mapped table is an ordinary ``pyarrow.Table``. Reading it makes pages of the file resident; ``slices``, by
which tables are read from beginning to end, releases them after each slice, so that the resident memory of a pass does
not grow with the table. ``filter_rows`` and ``take_rows`` are ``Table.filter`` and ``Table.take`` on such slices.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING, TypeVar, cast
from weakref import WeakSet

from ..errors import StorageFailed
from ..lazy import np, pa
from ..record import ADVICE

if TYPE_CHECKING:
    import numpy.typing as npt

MEMORY_BYTES = 64 << 20
"""Size of a table, in bytes of its arrays, above which it is a file."""
SLICE_ROWS = 8192
"""Rows of a slice. The texts of a few slices are in memory at once, some of them several times."""

Rows = TypeVar("Rows", "pa.Table", "pa.ChunkedArray")

_maps: WeakSet[mmap.mmap] = WeakSet()


def mapped_table(batches: Iterable[pa.RecordBatch], schema: pa.Schema | None = None) -> pa.Table:
    """Table of ``batches``, all of one schema, with one dictionary per label column.

    ``schema`` is needed where there may be no batch. Raises ``StorageFailed`` when the temporary file cannot be
    written.
    """
    stream, first, size = iter(batches), list[pa.RecordBatch](), 0
    for batch in stream:
        first.append(batch)
        size += batch.nbytes
        if size > MEMORY_BYTES:
            return _file_table(chain(first, stream), batch.schema)
    return pa.Table.from_batches(first, schema).unify_dictionaries()


def slices(rows: Rows, size: int = SLICE_ROWS) -> Iterator[Rows]:
    """Consecutive slices of at most ``size`` rows of a table or column.

    Pages of memory-mapped tables are released after every ``SLICE_ROWS`` rows.
    """
    for start in range(0, len(rows), size):
        yield cast(Rows, rows.slice(start, size))
        if start // SLICE_ROWS != (start + size) // SLICE_ROWS:
            release_pages()


def release_pages() -> None:
    """Release the resident pages of all memory-mapped tables; the next access reads the file again."""
    for mapping in list(_maps):
        mapping.madvise(mmap.MADV_DONTNEED)


def filter_rows(table: pa.Table, mask: npt.NDArray[np.bool_]) -> pa.Table:
    """Rows of ``table`` where ``mask``, shape (rows,), is true."""
    starts = range(0, table.num_rows, SLICE_ROWS)
    parts = (
        part.filter(pa.array(mask[start : start + SLICE_ROWS]))
        for start, part in zip(starts, slices(table), strict=True)
    )
    return mapped_table((batch for part in parts for batch in part.to_batches()), table.schema)


def take_rows(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """The ``rows`` of ``table``, in that order, in memory."""
    ascending = np.unique(rows)
    ends = np.searchsorted(ascending, np.arange(0, table.num_rows + SLICE_ROWS, SLICE_ROWS))
    parts = [table.schema.empty_table()]
    for index, part in enumerate(slices(table)):
        selection = ascending[ends[index] : ends[index + 1]] - index * SLICE_ROWS
        if selection.size:
            parts.append(part.take(pa.array(selection)))
    return pa.concat_tables(parts).unify_dictionaries().take(pa.array(np.searchsorted(ascending, rows)))


def _file_table(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Memory-mapped table of ``batches``. Labels are numbers in the file, with one dictionary for all batches."""
    labels: dict[str, dict[str, int]] = {field.name: {} for field in schema if pa.types.is_dictionary(field.type)}
    stored = pa.schema([field.with_type(pa.int32()) if field.name in labels else field for field in schema])
    with _storage_errors(), tempfile.TemporaryFile() as file:
        with pa.ipc.new_file(file, stored) as writer:
            for batch in batches:
                arrays = [_numbered(batch[name], labels.get(name)) for name in schema.names]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=stored))
        table = pa.ipc.open_file(_mapped(file)).read_all()
    dictionaries = {name: pa.array(list(words), schema.field(name).type.value_type) for name, words in labels.items()}
    # Column by column: Table.from_arrays would read pages of every chunk to check them.
    for index, field in enumerate(schema):
        if field.name in labels:
            table = table.set_column(index, field, _with_dictionary(table[field.name], dictionaries[field.name]))
    return table


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        raise StorageFailed(
            "the temporary file of a large table cannot be written",
            where=tempfile.gettempdir(),
            given=os.strerror(error.errno),
            hint="export TMPDIR=FOLDER, on a disk with space for the unpacked samples",
        ) from error


def _numbered(array: pa.Array, numbers: dict[str, int] | None) -> pa.Array:
    """``array``, or for labels the number of each in ``numbers``, to which new ones are added."""
    if numbers is None:
        return array
    words = array.dictionary.to_pylist()
    return pa.array([numbers.setdefault(word, len(numbers)) for word in words], pa.int32()).take(array.indices)


def _with_dictionary(numbers: pa.ChunkedArray, dictionary: pa.Array) -> pa.ChunkedArray:
    # A check of the numbers would read every page of the file, and they are known to be valid.
    chunks = [pa.DictionaryArray.from_arrays(chunk, dictionary, safe=False) for chunk in numbers.chunks]
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), dictionary.type))


def _mapped(file: IO[bytes]) -> pa.Buffer:
    file.flush()
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _maps.add(mapping)
    return pa.py_buffer(mapping)
