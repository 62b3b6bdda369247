"""Which rows does a file of JSON hold: one object a line, or one array of objects?

Lines are streamed. An array is read whole, since JSON has no end before its last bracket; its rows are counted as its
items, from 1. A file is an array when its text begins with a bracket and parses as one list; lines that are lists
themselves are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from ..errors import DataError
from .opened import Chunk, Reject, opened

__all__ = ["json_rows"]

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
