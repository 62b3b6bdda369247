"""Options shared by several commands, as annotated types for ``typer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import UserError

__all__ = ["Changes", "Columns", "Json", "Workers", "mapping_of", "words"]

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe; repeatable."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=COLUMN",
        help="Column names of the file, comma-separated or repeated, as data.columns in a recipe: "
        "prompt=instruction,answer=output.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON (stable format) instead of tables.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of parallel processes.")]


def words(values: Sequence[str]) -> list[str]:
    """The names in repeated and comma-separated values: ``["a,b", "c"]`` is a, b and c."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def mapping_of(values: Sequence[str] | None) -> dict[str, str] | None:
    """The column mapping of ``--columns``, None without one. Raises ``UserError`` for anything but FIELD=COLUMN."""
    pairs: dict[str, str] = {}
    for word in words(values or ()):
        field, equals, column = (text.strip() for text in word.partition("="))
        if not (field and equals and column) or field in pairs:
            what = "a field is mapped twice" if field in pairs else "a column mapping is written FIELD=COLUMN"
            raise UserError(what, where="--columns", given=word, hint="--columns prompt=instruction,answer=output")
        pairs[field] = column
    return pairs or None
