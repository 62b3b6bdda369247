"""How is a file of rows opened, and in what form do its rows come?

``opened`` unpacks gzip and turns what the system refuses into a ``DataError``. A ``Chunk`` is a run of rows under the
file's own column names; ``Reject`` receives what is no row at all.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import DataError
from ..files import Input, open_input, unpacked

__all__ = ["Chunk", "Reject", "opened"]

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
