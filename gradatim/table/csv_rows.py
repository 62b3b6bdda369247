"""Which rows does a table of delimited text hold (.csv, .tsv)?

The first line names the columns. The delimiter is the one of comma, semicolon and tab that this line has most of,
since spreadsheets write the three under one ending. Quoting is that of RFC 4180; a value may hold line breaks. An empty
cell is a missing value. A row with more or fewer cells than the header, with a quote that is never closed, or with
bytes that are no UTF-8 is rejected by the number of its first line. Nothing is converted: every value is text
(``Chunk.untyped``).

The standard library's reader is used: Arrow's drops everything after an open quote without an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice

from ..errors import DataError
from .opened import Chunk, Reject, opened

__all__ = ["csv_rows"]

_LARGEST = 1 << 30
"""Characters of one cell; the library's own limit of 128 Ki is less than a long program."""

Row = tuple[int, list[str | None]]


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


def _cells(lines: _Decoded, delimiter: str, width: int, reject: Reject) -> Iterator[Row]:
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
