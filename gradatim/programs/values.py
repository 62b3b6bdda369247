"""Which values does a TinyPy program compute on its way, and where in its text do they become known?

A program that prints 12 has looked names up, added, compared and chosen a branch before. ``values_of`` runs it by the
interpreter of this package and notes each of these at a character of the text, so that a student can be asked for them
while it reads (``student.marks``). A place that is reached several times, in a loop, keeps its first value.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from itertools import accumulate

from .interpret import run_program

__all__ = ["Number", "Values", "values_of"]

Number = bool | int | float


@dataclass(frozen=True)
class Values:
    """What was computed, by place in the text (0 is the first character).

    ``operands``: at a name that is read, what it stands for. ``results``: at the last character of an operation, a
    comparison or a condition, what it comes to; at the colon behind ``if`` and ``elif``, and at the first character of
    ``else``, whether that branch is taken.
    """

    operands: dict[int, Number] = field(default_factory=dict)
    results: dict[int, Number] = field(default_factory=dict)


def values_of(text: str) -> Values:
    """The values of the TinyPy program ``text``; raises ``DataError`` as ``run_program`` does.

    >>> values_of("a = 3\\nprint(a + 1)\\n")
    Values(operands={12: 3}, results={16: 4})
    """
    found = Values()
    lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]

    def saw(node: ast.AST, value: Number) -> None:
        if isinstance(node, ast.Name):
            found.operands.setdefault(lines[node.lineno - 1] + node.col_offset, value)
        elif isinstance(node, ast.If):
            found.results.setdefault(after(node.test, ":"), value)
            if node.orelse and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)):
                found.results.setdefault(after(node.body[-1], "else"), not value)
        elif isinstance(node, ast.BinOp | ast.Compare | ast.BoolOp | ast.UnaryOp):
            found.results.setdefault(end(node) - 1, value)

    def end(node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return lines[node.end_lineno - 1] + node.end_col_offset

    def after(node: ast.expr | ast.stmt, word: str) -> int:
        return text.index(word, end(node))

    run_program(text, saw=saw)
    return found
