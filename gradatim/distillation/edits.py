"""Single edits of source code that introduce one mistake.

An ``Edit`` replaces one span of bytes and names its kind of mistake; layout and comments of the text stay. The tables
list which operators are commonly confused. ``python_mutations`` (Python's syntax tree) and ``treesitter_mutations``
find edits, ``mutations`` chooses among them.
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
"""Wrong operators by correct operator. Shifts are left out: in C++ they are mostly streams."""

BOUNDARIES: dict[str, str] = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclass(frozen=True)
class Edit:
    """Bytes ``start`` to ``end`` of a source become ``text``: one mistake of its ``kind``."""

    start: int
    end: int
    text: bytes
    kind: Kind


def apply(source: bytes, edit: Edit) -> bytes:
    """Apply one edit to ``source``."""
    return source[: edit.start] + edit.text + source[edit.end :]


def swaps(start: int, end: int, operator: str) -> Iterator[Edit]:
    """Edits that replace the operator at this span by each one of the tables."""
    if operator in BOUNDARIES:
        yield Edit(start, end, BOUNDARIES[operator].encode(), "boundary")
    for replacement in OPERATORS.get(operator, ()):
        yield Edit(start, end, replacement.encode(), "operator")


def numbers(start: int, end: int, values: Iterable[int | float], kind: Kind) -> Iterator[Edit]:
    """Edits that replace the number at this span by each of ``values``."""
    for value in values:
        yield Edit(start, end, repr(value).encode(), kind)
