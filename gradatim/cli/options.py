"""Which arguments do several verbs share, and how are they explained?

Annotated types for ``typer``: a verb's signature says which it takes. Nothing is imported for them that takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import UserError

__all__ = ["Changes", "Columns", "Json", "Workers", "mapping_of", "words"]

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be given many times."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OURS=THEIRS",
        help="What the file's columns are called, with commas or given many times, as under data.columns of a recipe: "
        "prompt=instruction,answer=output.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON of a stable shape instead of tables.")]
Workers = Annotated[int, typer.Option(min=1, help="How many processes share the work.")]


def words(given: Sequence[str]) -> list[str]:
    """Names that were given one by one, with commas, or both: ``["a,b", "c"]`` is a, b and c."""
    return [name.strip() for each in given for name in each.split(",") if name.strip()]


def mapping_of(given: Sequence[str] | None) -> dict[str, str] | None:
    """The column mapping of ``--columns``; None when there is none. ``UserError`` for what is no OURS=THEIRS."""
    pairs: dict[str, str] = {}
    for word in words(given or ()):
        ours, equals, theirs = (part.strip() for part in word.partition("="))
        if not (ours and equals and theirs) or ours in pairs:
            what = "a column is named twice" if ours in pairs else "a column mapping is written OURS=THEIRS"
            raise UserError(what, where="--columns", given=word, hint="--columns prompt=instruction,answer=output")
        pairs[ours] = theirs
    return pairs or None
