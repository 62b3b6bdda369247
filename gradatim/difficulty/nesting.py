"""How deep do blocks stand inside blocks?

The greatest number of compound statements around any statement: 0 for straight code, 1 for the body of one ``if``,
2 for a loop in it. ``elif`` is at the depth of its ``if``. Brackets inside expressions are not counted.
"""

from __future__ import annotations

import ast

from ..options import strict
from .program import PerTree

__all__ = ["depth", "nesting"]

_BLOCKS = ("body", "orelse", "finalbody")


def depth(tree: ast.Module) -> float:
    """The greatest depth of any statement of ``tree``."""
    deepest = 0
    stack: list[tuple[ast.AST, int]] = [(statement, 0) for statement in tree.body]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        for arm in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            stack.extend((statement, level + 1) for statement in arm.body)
        for block in _BLOCKS:
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                stack.extend((statement, level + (not _is_elif(node, block, statement))) for statement in inner)
    return float(deepest)


def _is_elif(node: ast.AST, block: str, statement: ast.stmt) -> bool:
    # The tree writes `elif` as an `if` inside `else`; only its column tells the two apart.
    return (
        block == "orelse"
        and isinstance(node, ast.If)
        and isinstance(statement, ast.If)
        and statement.col_offset == node.col_offset
    )


@strict("the difficulty 'nesting'")
def nesting() -> PerTree:
    """How deep blocks stand inside blocks."""
    return PerTree(depth)
