"""How is a file of rows opened, and in what form do its rows come?

``opened`` unpacks gzip and turns what the system refuses into a ``DataError``. A ``Chunk`` is a run of rows under the
file's own column names; ``Reject`` receives what is no row at all.

Which rows does a table of delimited text hold (.csv, .tsv)?

The first line names the columns. The delimiter is the one of comma, semicolon and tab that this line has most of,
since spreadsheets write the three under one ending. Quoting is that of RFC 4180; a value may hold line breaks. An empty
cell is a missing value. A row with more or fewer cells than the header, with a quote that is never closed, or with
bytes that are no UTF-8 is rejected by the number of its first line. Nothing is converted: every value is text
(``Chunk.untyped``).

The standard library's reader is used: Arrow's drops everything after an open quote without an error.

Which rows does a file of JSON hold: one object a line, or one array of objects?

Lines are streamed. An array is read whole, since JSON has no end before its last bracket; its rows are counted as its
items, from 1. A file is an array when its text begins with a bracket and parses as one list; lines that are lists
themselves are not.

Which rows does a file hold, before anybody says what they mean?

Every format becomes a stream of chunks: the rows' numbers and their columns under the file's own names, as Arrow
arrays (Parquet, ``datasets``) or as plain lists (JSON, CSV, text). Lines that are not rows at all are handed to
``reject``. What cannot be opened is a ``DataError``. Which column means what, and which rows are fit, is decided
in ``read``.
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
from ..files import Input, check_input, open_input, unpacked
from .text import divide, sample_blocks

__all__ = ["FORMATS", "Chunk", "Reject", "chunks_of", "csv_rows", "format_of", "json_rows", "opened"]


Reject = Callable[[int, str, str], None]  # row number, cause, content


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file: ``numbers`` count from 1 (lines in text, CSV and JSON lines, else rows).

    ``untyped``: the format has no types (CSV), so that a number is written as text.
    """

    numbers: Sequence[int]
    columns: dict[str, list[Any] | pa.Array | pa.ChunkedArray]
    untyped: bool = False


@contextlib.contextmanager
def opened(path: str) -> Iterator[Input]:
    """The regular file ``path`` for reading, unpacked when it ends in .gz."""
    try:
        with open_input(path) as file:
            yield unpacked(file) if path.lower().endswith(".gz") else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("this is not a whole gzip file", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


_LARGEST = 1 << 30
"""Characters of one cell; the library's own limit of 128 Ki is less than a long program."""

CsvRow = tuple[int, list[str | None]]


def csv_rows(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """The rows of ``path``, at most ``rows`` in a chunk. Raises ``DataError`` for a header that cannot be used."""
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST))
    with opened(path) as file:
        lines = _Decoded(file)
        first = next((line for line in lines if line.strip()), "")
        delimiter = max(",;\t", key=first.count)
        names = _names(next(csv.reader([first], delimiter=delimiter), []), path)
        cells = _cells(lines, delimiter, len(names), reject)
        while some := list(islice(cells, rows)):
            values = [list(column) for column in zip(*(row for _, row in some), strict=True)]
            yield Chunk([number for number, _ in some], dict(zip(names, values, strict=True)), untyped=True)


class _Decoded:
    """Lines of text, and how many were read; a byte that is no UTF-8 becomes half a surrogate pair."""

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
    """The column names of the header; a column without one, such as the index that pandas writes, is counted."""
    if any("\0" in name or _has_stray_byte(name) for name in header):
        raise DataError("the header is not UTF-8", where=path, hint="save the file as UTF-8")
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError("two columns have the same name", where=path, given=", ".join(twice))
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
            many = lines.number - number + 1
            cause = f"not CSV: {error}" + (f" ({many:,} lines from here on are lost)" if many > 1 else "")
            reject(number, cause, _shown(lines.last.rstrip("\n")))
            continue
        if not row:
            continue
        text = delimiter.join(row)
        if len(row) != width:
            reject(number, f"{len(row)} cells where the header has {width}", _shown(text))
        elif _has_stray_byte(text):
            reject(number, "not UTF-8", _shown(text))
        else:
            yield number, [cell or None for cell in row]


def _has_stray_byte(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text)


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_MARK = b"\xef\xbb\xbf"  # the byte order mark that some editors put first

Row = tuple[int, dict[str, Any]]


def json_rows(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """The objects of ``path``, at most ``rows`` in a chunk. Raises ``DataError`` for an array that is torn."""
    with opened(path) as file:
        head = list(_head(file))
        items = None
        if head and head[-1].removeprefix(_MARK).lstrip().startswith(b"["):
            content = b"".join([*head, file.read()])
            items, head = _array(content, path), content.splitlines(keepends=True)
        rows_there = _objects(chain(head, file), reject) if items is None else _items(items, reject)
        while some := list(islice(rows_there, rows)):
            names = dict.fromkeys(name for _, row in some for name in row)
            columns = {name: [row.get(name) for _, row in some] for name in names}
            yield Chunk([number for number, _ in some], dict(columns))


def _head(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines up to the first with text."""
    for line in lines:
        yield line
        if line.removeprefix(_MARK).strip():
            return


def _array(content: bytes, path: str) -> list[Any] | None:
    """The items when ``content`` is one array, None when it is lines that begin with a bracket."""
    try:
        # A byte that is no UTF-8 becomes half a surrogate pair, and its row alone is rejected.
        items = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        first = content.removeprefix(_MARK).lstrip()
        if first[1:].lstrip()[:1] != b"{" or _is_json(first.split(b"\n", 1)[0]):
            return None
        raise DataError(
            "this JSON array is not whole", where=path, given=error, hint="one JSON object on each line"
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
    """The format that the ending of ``path``, or what is there, speaks for; ``DataError`` when none does."""
    if path.startswith("hub:"):
        return "datasets"
    place = Path(path.partition("#")[0] if "#" in path and not Path(path).exists() else path)
    if not place.exists():
        near = [other.name for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError("there is no such file", where=path, hint=did_you_mean(place.name, near))
    if place.is_dir():
        return "datasets"
    endings = [ending.lower() for ending in place.suffixes]
    ending = endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else "".join(endings[-1:])
    if ending not in _ENDINGS:
        raise DataError(
            "no format has this ending",
            where=path,
            given=ending or "none",
            allowed=", ".join([*_ENDINGS, "hub:NAME"]),
        )
    return _ENDINGS[ending]


def chunks_of(path: str, format: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """The chunks of ``path``, of at most ``rows`` rows each. Raises ``DataError`` when it cannot be read."""
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
        found = _divided(path, file, reject)
        while some := list(islice(found, rows)):
            numbers, prompts, answers = (list(column) for column in zip(*some, strict=True))
            yield Chunk(numbers, {"prompt": prompts, "answer": answers})


def _divided(path: str, lines: Iterable[bytes], reject: Reject) -> Iterator[tuple[int, str, str]]:
    code_only: bool | None = None  # settled by the first sample
    for number, block in sample_blocks(lines):
        if block.split(b"\n", 1)[0].endswith(b"\r"):
            raise DataError("the lines end as on Windows", where=f"{path}, line {number}", hint="sed -i 's/\\r$//'")
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
    try:
        check_input(path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                batch.validate(full=True)  # Parquet's own checks do not see text that is not UTF-8
                yield _arrow_chunk(path, first, batch)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        place = f"{path}, after row {first - 1}" if first > 1 else path
        raise DataError("this is not a readable Parquet file", where=place, given=error) from error


def _datasets(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    first = 1
    for table in _dataset(path).with_format("arrow").iter(batch_size=rows):
        yield _arrow_chunk(path, first, table)
        first += table.num_rows


def _arrow_chunk(path: str, first: int, rows: pa.Table | pa.RecordBatch) -> Chunk:
    names = rows.schema.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError("two columns have the same name", where=path, given=", ".join(twice))
    return Chunk(range(first, first + rows.num_rows), dict(zip(names, rows.columns, strict=True)))


def _dataset(path: str) -> Any:
    """The saved or published dataset at ``path``: FOLDER, FOLDER#SPLIT, hub:NAME, hub:NAME:CONFIG#SPLIT."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "datasets are read by the package 'datasets'", where=path, hint="pip install 'gradatim[datasets]'"
        ) from error
    place, _, part = (path, "", "") if Path(path).exists() else path.partition("#")
    try:
        if place.startswith("hub:"):
            name, _, config = place.removeprefix("hub:").partition(":")
            found = datasets.load_dataset(name, config or None)
        else:
            found = datasets.load_from_disk(place)
    # A dataset with a script of its own is a RuntimeError: such scripts are not run.
    except (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException) as error:
        raise DataError("the dataset cannot be read", where=path, given=error) from error
    if isinstance(found, datasets.Dataset) and not part:
        return found
    splits = list(found) if isinstance(found, dict) else []
    if not part and len(splits) == 1:
        part = splits[0]
    if part not in splits:
        hint = did_you_mean(part, splits) or (f"{place}#{splits[0]}" if splits else place)
        raise DataError(
            "which split is meant?",
            where=path,
            given=part or "none",
            allowed=", ".join(splits) or "none",
            hint=hint,
        )
    return found[part]


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
