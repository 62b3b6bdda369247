"""Which arguments do several verbs share, and how are they explained?

Annotated types for ``typer``: a verb's signature says which it takes. Nothing is imported for them that takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

__all__ = ["Changes", "Json", "Workers", "words"]

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be given many times."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON of a stable shape instead of tables.")]
Workers = Annotated[int, typer.Option(min=1, help="How many processes share the work.")]


def words(given: Sequence[str]) -> list[str]:
    """Names that were given one by one, with commas, or both: ``["a,b", "c"]`` is a, b and c."""
    return [name.strip() for each in given for name in each.split(",") if name.strip()]
