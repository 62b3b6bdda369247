"""Which column of a file is which of ours?

``mapping_of`` checks a mapping (ours -> theirs), or makes one of the columns that have our names and those that look
like metrics. CSV has no types: ``typed`` reads numbers where a column is to hold some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ..errors import DataError, did_you_mean
from .instruction import CONTEXT
from .opened import Chunk
from .schema import COLUMNS, LABELS, kind_of

__all__ = ["is_metric", "mapping_of", "typed"]


def mapping_of(columns: Mapping[str, str] | None, chunk: Chunk, there: list[str], where: str) -> dict[str, str]:
    """Ours -> theirs for the columns to take; a ``DataError`` for one that is not ``there``."""
    there = list(dict.fromkeys(there))
    if columns is None:
        taken = {name: name for name in chunk.columns if name in COLUMNS or name in LABELS or is_metric(name, chunk)}
        if "answer" not in taken:
            raise DataError(
                "there is no column 'answer'",
                where=where,
                given=", ".join(there),
                hint=did_you_mean("answer", there)
                or "name it in a column mapping, such as answer: COLUMN under data.columns, or --columns answer=COLUMN",
            )
        return taken
    if "answer" not in columns:
        raise DataError(
            "the column mapping must name the answer",
            where=where,
            given=dict(columns),
            allowed="answer: COLUMN, …",
        )
    named = {ours: theirs for ours, theirs in columns.items() if ours not in CONTEXT}
    if len(named) < len(columns):  # a question is made of what stands before it where the file has none
        named.setdefault("prompt", "prompt")
    for ours, theirs in {**columns, **named}.items():
        if theirs not in there:
            raise DataError(
                f"there is no column {theirs!r} to take as {ours!r}",
                where=where,
                allowed=", ".join(there),
                hint=did_you_mean(theirs, there),
            )
    return named


def is_metric(name: str, chunk: Chunk) -> bool:
    """Whether a column that nobody named looks like a metric: numbers, in CSV texts that are numbers."""
    values = chunk.columns[name]
    if kind_of(name) != "metric":
        return False
    if not isinstance(values, list):
        return bool(pa.types.is_floating(values.type) or pa.types.is_integer(values.type))
    there = [value for value in values if value is not None]
    if chunk.untyped:
        there = [_number(value) for value in there]
    return bool(there) and {type(value) for value in there} <= {float, int}


def _number(text: Any) -> Any:
    """The number that a cell of CSV spells, else the cell."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def typed(name: str, values: list[Any]) -> list[Any]:
    """Cells of CSV as the column ``name`` takes them: an empty prompt is one, numbers are read where they are meant."""
    if name == "prompt":
        return ["" if value is None else value for value in values]
    return [_number(value) for value in values] if kind_of(name) == "metric" else values
