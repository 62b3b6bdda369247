"""Which samples are there twice?

``dedupe`` keeps the first of every set of equal samples, by the text a model learns or by id. Texts are compared
by 128 bits of BLAKE2b, in slices, so that a table that just fits in memory still does: among a billion texts, the
chance that any two collide is 1 in 10^20. Programs that are equal but for the names of their variables are the
business of ``split``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import UserError, did_you_mean
from .schema import texts

__all__ = ["Deduped", "dedupe"]

_SLICE = 65_536


@dataclass(frozen=True)
class Deduped:
    """The table without its duplicates, in its order, and how many rows were dropped."""

    table: pa.Table
    dropped: int


def dedupe(table: pa.Table, by: Literal["text", "id"] = "text") -> Deduped:
    """``table`` with the first sample of each text (prompt and answer) or of each id.

    By ``id`` one answer is kept for each question; by ``text`` several answers to one question stay.
    """
    if by not in ("text", "id"):
        raise UserError(
            "duplicates cannot be found that way",
            given=by,
            allowed="text, id",
            hint=did_you_mean(by, ("text", "id")),
        )
    if not table.num_rows:
        return Deduped(table, 0)
    first = first_rows(texts(table) if by == "text" else table["id"])
    if len(first) == table.num_rows:
        return Deduped(table, 0)
    return Deduped(table.take(pa.array(first)), table.num_rows - len(first))


def first_rows(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The rows (ascending) where each distinct text of ``column`` appears first."""
    digests = [
        hashlib.blake2b(text.encode(), digest_size=16).digest()
        for start in range(0, len(column), _SLICE)
        for text in column.slice(start, _SLICE).to_pylist()
    ]
    codes = pa.array(digests, pa.binary(16)).dictionary_encode().indices.to_numpy()
    # Codes count up in order of appearance, so a row is a first one when its code exceeds all before it.
    highest = np.maximum.accumulate(codes)
    return np.flatnonzero(np.concatenate(([True], codes[1:] > highest[:-1])))
