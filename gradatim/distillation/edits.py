"""What is one small mistake in a text of code?

An ``Edit`` replaces one span of bytes by others and says what kind of mistake that is; the rest of the text, with its
layout and its comments, stays as it was. The tables say which operator people write for which. Where edits are found
is the business of ``python_code`` (by Python's own syntax tree) and ``other_code`` (by tree-sitter), which of them are
used that of ``mutate``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["BOUNDARIES", "KINDS", "OPERATORS", "Edit", "Kind", "apply", "numbers", "swaps"]


Kind = Literal["operator", "constant", "boundary", "variable", "branch"]
KINDS: tuple[Kind, ...] = get_args(Kind)

OPERATORS: dict[str, tuple[str, ...]] = {
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+",),
    "/": ("*",),
    "//": ("/", "*"),
    "%": ("*",),
    "**": ("*",),
    "==": ("!=",),
    "!=": ("==",),
    "===": ("!==",),
    "!==": ("===",),
    "<": (">",),
    ">": ("<",),
    "<=": (">=",),
    ">=": ("<=",),
    "&": ("|",),
    "|": ("&",),
    "^": ("|",),
    "&&": ("||",),
    "||": ("&&",),
    "and": ("or",),
    "or": ("and",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
    "+=": ("-=",),
    "-=": ("+=",),
    "*=": ("+=",),
    "/=": ("*=",),
    "//=": ("/=",),
    "%=": ("/=",),
}
"""Which operators are written for which. Shifts are left out: in C++ they are mostly streams."""

BOUNDARIES: dict[str, str] = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclass(frozen=True)
class Edit:
    """Bytes ``start`` to ``end`` of a source become ``text``: one mistake of its ``kind``."""

    start: int
    end: int
    text: bytes
    kind: Kind


def apply(source: bytes, edit: Edit) -> bytes:
    """``source`` with the one edit made."""
    return source[: edit.start] + edit.text + source[edit.end :]


def swaps(start: int, end: int, operator: str) -> Iterator[Edit]:
    """The operator at this span, written wrongly in each way that the tables know."""
    if operator in BOUNDARIES:
        yield Edit(start, end, BOUNDARIES[operator].encode(), "boundary")
    for other in OPERATORS.get(operator, ()):
        yield Edit(start, end, other.encode(), "operator")


def numbers(start: int, end: int, values: Iterable[int | float], kind: Kind) -> Iterator[Edit]:
    """Other numbers in the place of the one at this span."""
    for value in values:
        yield Edit(start, end, repr(value).encode(), kind)
