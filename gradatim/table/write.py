"""Atomic writing of tables to files.

Formats: Parquet (zstd, row groups of a fixed size independent of the batches, so the same samples give the same bytes),
JSON lines (one object per sample with all columns; a metric that is not finite is null), and text (prompt and answer
only, samples separated by a blank line). The content goes to a temporary file, which is flushed and renamed, so readers
see the old file or the new one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..files import open_input, replacing
from .schema import COLUMNS, type_of
from .text import divide, sample_blocks, sample_lines

__all__ = ["ROWS", "check_format", "is_written", "replacing", "write_stream", "write_table"]

ROWS = 65_536  # samples in a row group, and by default in a batch


def write_table(table: pa.Table, path: Path | str) -> None:
    """Write ``table`` to ``path``: .parquet, .jsonl (or .json: the same lines) or .txt. See ``write_stream``."""
    write_stream(table.to_batches(max_chunksize=ROWS), path, schema=table.schema)


def write_stream(
    batches: Iterable[pa.RecordBatch | pa.Table], path: Path | str, schema: pa.Schema | None = None
) -> int:
    """Write ``batches``, all with the columns of the first, to ``path``, and return the number of samples.

    A missing folder is created. ``schema`` is needed for an empty table. Raises ``DataError`` for an unknown format,
    for batches whose columns differ, and for samples that text cannot represent; ``StorageFailed`` when the disk is
    full or not writable. An existing file is unchanged after an error.
    """
    path = Path(path)
    check_format(path)
    writer = _WRITERS[path.suffix.lower()]
    stream = iter(batches)
    if schema is None:
        first = next(stream, None)
        if first is None:
            raise DataError("there are no samples to write", where=path)
        schema, stream = first.schema, chain([first], stream)
    with replacing(path) as file:
        return writer(file, _regrouped(stream, schema, path), schema, path)


def check_format(path: Path) -> None:
    """Raise ``DataError`` when no format has the suffix of ``path``."""
    if path.suffix.lower() not in _WRITERS:
        raise DataError("no format has this ending", where=path, given=path.suffix or "none", allowed=_endings())


def _endings() -> str:
    return ", ".join(_WRITERS)


def is_written(path: Path) -> bool:
    """Whether this module wrote ``path``: its columns begin with the schema's, in the same order.

    In text the first sample must be a program, the line ``# output`` and only comments.
    """
    suffix = path.suffix.lower()
    with open_input(path) as file:
        if suffix == ".parquet":
            return list(pq.ParquetFile(file).schema_arrow.names[: len(COLUMNS)]) == list(COLUMNS)
        if suffix == ".txt":
            _, block = next(sample_blocks(file), (0, b""))
            pair = divide(block.decode())
            return pair is not None and all(line.startswith("#") for line in pair[1].splitlines())
        row = json.loads(next(file, b"null"))
        return isinstance(row, dict) and list(row)[: len(COLUMNS)] == list(COLUMNS)


def _regrouped(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, path: Path) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ``ROWS`` (the last may be shorter), dictionaries of labels in order of appearance."""
    buffer: list[pa.Table] = []
    buffer_rows = 0
    for batch in batches:
        if batch.schema.names != schema.names:
            raise DataError(
                "batches of one file must have the same columns",
                where=path,
                given=", ".join(batch.schema.names),
                allowed=", ".join(schema.names),
            )
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        buffer.append(table.cast(schema))
        buffer_rows += table.num_rows
        while buffer_rows >= ROWS:
            rows = pa.concat_tables(buffer)
            yield _one_batch(rows.slice(0, ROWS))
            buffer, buffer_rows = [rows.slice(ROWS)], buffer_rows - ROWS
    if buffer_rows:
        yield _one_batch(pa.concat_tables(buffer))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type).combine_chunks().dictionary_encode().cast(field.type)
        else:
            column = column.combine_chunks()
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _write_parquet(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=ROWS)
            rows += batch.num_rows
    return rows


def _write_json_lines(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    metrics = [field.name for field in schema if type_of(field.name) == pa.float64()]
    rows = 0
    for batch in batches:
        for row in batch.to_pylist():
            for name in metrics:  # JSON has no NaN; a null metric is read as NaN
                row[name] = row[name] if row[name] is not None and math.isfinite(row[name]) else None
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        rows += batch.num_rows
    return rows


def _write_text(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows, code_only = 0, False
    for batch in batches:
        pairs = zip(batch["prompt"].to_pylist(), batch["answer"].to_pylist(), strict=True)
        for row, (prompt, answer) in enumerate(pairs, start=rows):
            code_only = prompt == "" if not row else code_only
            lines = sample_lines(prompt, answer, code_only)
            if lines is None:
                raise DataError(
                    "this sample cannot be restored from the text format",
                    where=f"{path}, row {row}",
                    given=repr((prompt + answer)[:60]),
                    allowed="lines up to '# output' and further lines, none of them blank; or only code in all rows",
                    hint="write .jsonl or .parquet",
                )
            file.write(lines)
        rows += batch.num_rows
    return rows


_Writer = Callable[[Any, Iterator[pa.RecordBatch], pa.Schema, Path], int]
_WRITERS: dict[str, _Writer] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
    ".json": _write_json_lines,
    ".txt": _write_text,
}
