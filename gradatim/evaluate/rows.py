"""Which objects does a file of problems or samples hold, and which of its lines are none?

JSON lines or one JSON array, packed with gzip or not. A line that is no JSON object is handed back with its number
and the reason, never dropped and never fatal; a file that cannot be read at all is a ``DataError``. What the objects
mean is decided by ``problems`` and ``samples``. Tables for training have a reader of their own (``table.read``), which
also knows Parquet and columns.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, did_you_mean
from ..files import read_input
from ..table.read import UNPARSED, Rejected

__all__ = ["read_lists", "read_rows", "shown", "told"]

_SHOWN = 80


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Rejected]:
    """(line, object) for each object of ``path``, in order, and a ``Rejected`` for what is none.

    In an array, lines are counted as its items, from 1. Raises ``DataError`` when the file is missing, unreadable, or
    an array that is torn.
    """
    content = _content(path)
    if content.lstrip()[:1] == b"[" and (items := _array(content)) is not None:
        found: Iterator[Any] = iter(items)
    else:
        found = (_parsed(line) for line in content.split(b"\n"))
    for number, value in enumerate(found, start=1):
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, Rejected):
            yield Rejected(number, value.cause, value.content)
        elif value is not None:
            yield Rejected(number, "not a JSON object", shown(value))


def told(row: Rejected) -> str:
    """What tells a rejected row from others, in brackets: nothing of a line that is no JSON, whose file may be any."""
    return "" if row.cause.removeprefix("problem: ") in UNPARSED else f" ({row.content})"


def read_lists(path: Path) -> list[list[Any]] | None:
    """The items of a JSON array whose items are all lists themselves; None for any other file."""
    content = _content(path)
    start = content.lstrip()
    if start[:1] != b"[" or start[1:].lstrip()[:1] != b"[":
        return None
    items = _array(content)
    return items if items is not None and all(isinstance(item, list) for item in items) else None


def shown(value: object) -> str:
    """A short account of ``value`` on one line that is safe to print."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _content(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise DataError(what, where=path, hint=did_you_mean(path.name, near))
    try:
        # By its first bytes, not by its name: what a browser has unpacked keeps the ending.
        return read_input(path, unpack=True)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("this is not a whole gzip file", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


def _array(content: bytes) -> list[Any] | None:
    """The items of a JSON array; None when it is none, and lines that begin with a bracket are just lines."""
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def _parsed(line: bytes) -> Any:
    """The value of a line, None when it is blank, ``Rejected`` when it is no JSON."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(0, "not UTF-8", shown(line[:_SHOWN].decode("utf-8", "backslashreplace")))
    except (ValueError, RecursionError):
        return Rejected(0, "not JSON", shown(line.decode(errors="replace")))
    return Rejected(0, "not a JSON object", "null") if value is None else value
