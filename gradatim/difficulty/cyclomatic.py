"""How many independent paths does a program have?

McCabe's cyclomatic complexity of a whole file: 1 + its decisions, counted exactly as radon's
``ComplexityVisitor.total_complexity`` counts them, habits included, because the Overall Metric of arXiv 2407.10194
rests on it (see ``om``). It counts branches in the text and does not know how often one is taken (``trace`` does).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from ..options import strict
from .program import PerTree, push_children

__all__ = ["cyclomatic", "total_complexity"]

# What may surprise in radon's count, and is kept:
# - a module-level function adds its decisions, a method its decisions + 1, a class those of its body; a function
#   or class inside a function adds nothing, nor does a class inside a class;
# - decorators, default values, annotations and base classes are not looked at, nor what an assert tests;
# - `try … except*` and `with` are no decisions; a bare name or `_` among its cases makes a match one path less.
_MODULE, _CLASS, _FUNCTION = range(3)


def _try(node: Any) -> int:
    return len(node.handlers) + bool(node.orelse)


def _bool(node: Any) -> int:
    return len(node.values) - 1


def _loop(node: Any) -> int:
    return 1 + bool(node.orelse)


def _comprehension(node: Any) -> int:
    return len(node.ifs) + 1


def _match(node: Any) -> int:
    catches_all = any(getattr(case.pattern, "pattern", False) is None for case in node.cases)
    return max(0, len(node.cases) - catches_all)


def _one(node: Any) -> int:
    return 1


_DECISIONS: dict[type, Callable[[Any], int]] = {
    ast.Assert: _one,
    ast.AsyncFor: _loop,
    ast.BoolOp: _bool,
    ast.For: _loop,
    ast.If: _one,
    ast.IfExp: _one,
    ast.Match: _match,
    ast.Try: _try,
    ast.While: _loop,
    ast.comprehension: _comprehension,
}
_DEFINES_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def total_complexity(tree: ast.Module) -> int:
    """1 + the decisions of the module, its functions, classes and methods, as radon 6 counts them."""
    total = 1
    scopes: list[tuple[list[Any], int]] = [(tree.body, _MODULE)]
    for body, inside in scopes:  # grows while it is walked
        stack = list(body)
        while stack:
            node = stack.pop()
            kind = node.__class__
            if kind in _DEFINES_FUNCTION:
                if inside != _FUNCTION:
                    total += inside == _CLASS
                    scopes.append((node.body, _FUNCTION))
                continue
            if kind is ast.ClassDef:
                if inside == _MODULE:
                    scopes.append((node.body, _CLASS))
                continue
            if kind in _DECISIONS:
                total += _DECISIONS[kind](node)
                if kind is ast.Assert:
                    continue
            push_children(node, stack)
    return total


@strict("the difficulty 'cyclomatic'")
def cyclomatic() -> PerTree:
    """Independent paths: 1 + the decisions of the whole file, as radon counts them."""
    return PerTree(total_complexity)
