"""File formats as streams of chunks of rows: Parquet, JSON, CSV, TinyPy text and ``datasets``.

A ``Chunk`` has the numbers of its rows and their columns under the file's names, as Arrow arrays (Parquet,
``datasets``) or plain lists. ``reject`` receives the lines that are not rows. Files that cannot be opened raise
``DataError``. The mapping of columns and the checks of values are in ``read``.

* Parquet: one file, or all files of a folder in the order of their names, with consecutive row numbers.
* JSON: one object per line, streamed, or one array of objects, read at once. A file is an array when its text begins
  with a bracket and parses as one list. Rows of an array are numbered as items, from 1.
* CSV: the first line names the columns; the delimiter is the most frequent of comma, semicolon and tab in it. Quoting
  as in RFC 4180; an empty cell is a missing value; all values are text (``Chunk.untyped``). A row with another number
  of cells than the header, an unclosed quote or invalid UTF-8 is rejected under its first line. The reader is the
  standard library's, since Arrow's drops the rest of the file after an unclosed quote without an error.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, did_you_mean
from ..files import Input, check_input, is_hub, open_input, parquet_files, unpacked
from .mapped import SLICE_ROWS
from .rows import divide, sample_blocks

Reject = Callable[[int, str, str], None]  # row number, cause, content


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file; ``numbers`` count from 1 (lines in text, CSV and JSON lines, otherwise rows).

    ``untyped``: the format has no types (CSV), so that numbers are text.
    """

    numbers: Sequence[int]
    columns: dict[str, list[Any] | pa.Array | pa.ChunkedArray]
    untyped: bool = False


@contextlib.contextmanager
def opened(path: str) -> Iterator[Input]:
    """Open the regular file ``path`` for reading, decompressed if its name ends in .gz."""
    try:
        with open_input(path) as file:
            yield unpacked(file) if path.lower().endswith(".gz") else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("this gzip file is damaged or incomplete", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


_LARGEST = 1 << 30
"""Limit on the characters of a cell; the default of 128 Ki is less than a long program."""

CsvRow = tuple[int, list[str | None]]


def csv_rows(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """Rows of the CSV file ``path`` in chunks of at most ``rows``. Raises ``DataError`` for an unusable header."""
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST))
    with opened(path) as file:
        lines = _Decoded(file)
        first = next((line for line in lines if line.strip()), "")
        delimiter = max(",;\t", key=first.count)
        names = _names(next(csv.reader([first], delimiter=delimiter), []), path)
        cells = _cells(lines, delimiter, len(names), reject)
        while batch := list(islice(cells, rows)):
            values = [list(column) for column in zip(*(row for _, row in batch), strict=True)]
            yield Chunk([number for number, _ in batch], dict(zip(names, values, strict=True)), untyped=True)


class _Decoded:
    """Decoded lines with their count so far; a byte that is not UTF-8 becomes a lone surrogate."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.lines, self.number = iter(lines), 0
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.number += 1
        self.last = line.decode("utf-8-sig" if self.number == 1 else "utf-8", "surrogateescape")
        return self.last


def _names(header: list[str], path: str) -> list[str]:
    """Column names of the header; a column without a name, such as the index that pandas writes, is numbered."""
    if any("\0" in name or _has_stray_byte(name) for name in header):
        raise DataError("the header is not UTF-8", where=path, hint="save the file as UTF-8")
    names = [name.strip() or f"column {index}" for index, name in enumerate(header, start=1)]
    duplicates = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if duplicates:
        raise DataError("two columns have the same name", where=path, given=", ".join(duplicates))
    return names


def _cells(lines: _Decoded, delimiter: str, width: int, reject: Reject) -> Iterator[CsvRow]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            count = lines.number - number + 1
            cause = f"not CSV: {error}" + (f" ({count:,} lines from here on are lost)" if count > 1 else "")
            reject(number, cause, _escaped(lines.last.rstrip("\n")))
            continue
        if not row:
            continue
        text = delimiter.join(row)
        if len(row) != width:
            reject(number, f"{len(row)} cells where the header has {width}", _escaped(text))
        elif _has_stray_byte(text):
            reject(number, "not UTF-8", _escaped(text))
        else:
            yield number, [cell or None for cell in row]


def _has_stray_byte(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text)


def _escaped(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_MARK = b"\xef\xbb\xbf"  # the byte order mark that some editors write

Row = tuple[int, dict[str, Any]]


def json_rows(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """Objects of the JSON file ``path`` in chunks of at most ``rows``. ``DataError`` for an incomplete array."""
    with opened(path) as file:
        head = list(_head(file))
        items = None
        if head and head[-1].removeprefix(_MARK).lstrip().startswith(b"["):
            content = b"".join([*head, file.read()])
            items, head = _array(content, path), content.splitlines(keepends=True)
        objects = _objects(chain(head, file), reject) if items is None else _items(items, reject)
        while batch := list(islice(objects, rows)):
            names = dict.fromkeys(name for _, row in batch for name in row)
            columns = {name: [row.get(name) for _, row in batch] for name in names}
            yield Chunk([number for number, _ in batch], dict(columns))


def _head(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines up to the first that is not blank."""
    for line in lines:
        yield line
        if line.removeprefix(_MARK).strip():
            return


def _array(content: bytes, path: str) -> list[Any] | None:
    """Items of the array ``content``; None for lines that begin with a bracket."""
    try:
        # A byte that is not UTF-8 becomes a lone surrogate, so that only its row is rejected.
        items = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        first = content.removeprefix(_MARK).lstrip()
        if first[1:].lstrip()[:1] != b"{" or _is_json(first.split(b"\n", 1)[0]):
            return None
        raise DataError(
            "this JSON array is incomplete", where=path, given=error, hint="one JSON object on each line"
        ) from error
    return items if isinstance(items, list) else None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _items(items: list[Any], reject: Reject) -> Iterator[Row]:
    for number, item in enumerate(items, start=1):
        if isinstance(item, dict):
            yield number, item
        else:
            reject(number, "not a JSON object", json.dumps(item))


def _objects(lines: Iterable[bytes], reject: Reject) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            reject(number, "not UTF-8", line.decode("utf-8", "backslashreplace").rstrip("\n"))
        except (ValueError, RecursionError):
            reject(number, "not JSON", line.decode().rstrip("\n"))
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                reject(number, "not a JSON object", line.decode().rstrip("\n"))


def format_of(path: str) -> str:
    """Format of ``path`` by its suffix, or by its kind for folders and hub names; ``DataError`` for others."""
    if is_hub(path):
        return "datasets"
    file = Path(path.partition("#")[0] if "#" in path and not Path(path).exists() else path)
    if not file.exists():
        names = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError("there is no such file", where=path, hint=did_you_mean(file.name, names))
    if file.is_dir():
        return "parquet" if parquet_files(file) else "datasets"
    endings = [ending.lower() for ending in file.suffixes]
    ending = endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else "".join(endings[-1:])
    if ending not in _ENDINGS:
        raise DataError(
            "no format has this ending",
            where=path,
            given=ending or "none",
            allowed=", ".join([*_ENDINGS, "hub:NAME", "hub-stream:NAME"]),
        )
    return _ENDINGS[ending]


def chunks_of(path: str, format: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """Chunks of ``path`` of at most ``rows`` rows. Raises ``DataError`` for an unreadable file."""
    if format not in FORMATS:
        raise DataError(
            "there is no such format",
            where=path,
            given=format,
            allowed=", ".join(FORMATS),
            hint=did_you_mean(format, FORMATS),
        )
    yield from FORMATS[format](path, rows, reject)


def _text(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    with opened(path) as file:
        samples = _text_samples(path, file, reject)
        while batch := list(islice(samples, rows)):
            numbers, prompts, answers = (list(column) for column in zip(*batch, strict=True))
            yield Chunk(numbers, {"prompt": prompts, "answer": answers})


def _text_samples(path: str, lines: Iterable[bytes], reject: Reject) -> Iterator[tuple[int, str, str]]:
    code_only: bool | None = None  # determined by the first sample
    for number, block in sample_blocks(lines):
        if block.split(b"\n", 1)[0].endswith(b"\r"):
            raise DataError(
                "the line ends are those of Windows", where=f"{path}, line {number}", hint="sed -i 's/\\r$//'"
            )
        try:
            text = block.decode()
        except UnicodeDecodeError:
            reject(number, "not UTF-8", block.decode("utf-8", "backslashreplace"))
            continue
        pair = divide(text)
        code_only = pair is None if code_only is None else code_only
        if code_only:
            yield number, "", text
        elif pair is not None:
            yield number, *pair
        else:
            reject(number, "no line '# output'", text)


def _parquet(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    first = 1
    for file in [str(file) for file in parquet_files(Path(path))] or [path]:
        for chunk in _parquet_file(file, rows, first):
            yield chunk
            first += len(chunk.numbers)


def _parquet_file(path: str, rows: int, first: int) -> Iterator[Chunk]:
    """Chunks of one file, whose first row has the number ``first``."""
    done = 0
    try:
        check_input(path)
        with pq.ParquetFile(path, pre_buffer=False) as file:  # buffers are kept until the file is closed
            for batch in file.iter_batches(min(rows, SLICE_ROWS)):
                batch.validate(full=True)  # Parquet's checks miss text that is not UTF-8
                yield _arrow_chunk(path, first + done, batch)
                done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f"{path}, after row {done}" if done else path
        raise DataError("this is not a readable Parquet file", where=where, given=error) from error


def _datasets(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    first = 1
    for table in _dataset(path).with_format("arrow").iter(batch_size=rows):
        yield _arrow_chunk(path, first, table)
        first += table.num_rows


def _arrow_chunk(path: str, first: int, rows: pa.Table | pa.RecordBatch) -> Chunk:
    names = rows.schema.names
    duplicates = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if duplicates:
        raise DataError("two columns have the same name", where=path, given=", ".join(duplicates))
    return Chunk(range(first, first + rows.num_rows), dict(zip(names, rows.columns, strict=True)))


def _dataset(path: str) -> Any:
    """Local or hub dataset of ``path``: FOLDER, FOLDER#SPLIT, hub:NAME, hub:NAME:CONFIG#SPLIT, hub-stream:NAME….

    A streamed dataset is not stored in the cache of ``datasets``: its rows are read once, in order.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "the package 'datasets' is needed", where=path, hint="pip install 'gradatim[datasets]'"
        ) from error
    source, _, split = (path, "", "") if Path(path).exists() else path.partition("#")
    try:
        if is_hub(source):
            prefix, _, rest = source.partition(":")
            name, _, config = rest.partition(":")
            dataset = datasets.load_dataset(name, config or None, streaming=prefix == "hub-stream")
        else:
            dataset = datasets.load_from_disk(source)
    # RuntimeError: datasets with a loading script, which is not run.
    except (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException) as error:
        raise DataError("the dataset cannot be read", where=path, given=error) from error
    if isinstance(dataset, datasets.Dataset) and not split:
        return dataset
    splits = list(dataset) if isinstance(dataset, dict) else []
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        hint = did_you_mean(split, splits) or (f"{source}#{splits[0]}" if splits else source)
        raise DataError(
            "the split is missing or unknown",
            where=path,
            given=split or "none",
            allowed=", ".join(splits) or "none",
            hint=hint,
        )
    return dataset[split]


FORMATS: dict[str, Callable[[str, int, Reject], Iterator[Chunk]]] = {
    "parquet": _parquet,
    "jsonl": json_rows,
    "csv": csv_rows,
    "text": _text,
    "datasets": _datasets,
}
_ENDINGS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
