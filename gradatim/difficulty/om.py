"""How hard is a program by the paper's Overall Metric?

OM = (CC + HD) / 2 (arXiv 2407.10194), CC the file's cyclomatic complexity and HD its Halstead difficulty
(n1 / 2)(N2 / n2), both exactly as radon gives them: the paper's levels (easy < 2 <= medium < 4 <= hard) only mean
something on radon's scale. That scale counts no assignment, call or keyword as an operator, so a program made of
plain loops has HD = 0 and passes for easy; ``halstead``, which counts tokens, sees more and is the better default
outside the paper's protocol. One walk over the tree finds both; ``cyclomatic`` is its first half.
"""

from __future__ import annotations

import ast
from typing import Any

from ..options import strict
from .program import PerTree

__all__ = ["figures", "om", "overall_metric"]

# What may surprise in radon's counts, and is kept. Of CC:
# - a module-level function adds its decisions, a method its decisions + 1, a class those of its body; a function or
#   class inside a function adds nothing, nor does a class inside a class;
# - decorators, default values, annotations and base classes are not looked at, nor what an assert tests;
# - `try … except*` and `with` are no decisions; a bare name or `_` among its cases makes a match one path less.
# Of HD:
# - only the five kinds of `_operation` are operations: no assignment, call, subscript or keyword is;
# - operands are told apart within the name of the innermost function, so an `x` in `f` and one in `g` are two, but
#   two functions of one name share theirs; a name, an attribute and a string constant spelt alike are one operand,
#   as are 1, 1.0 and True; any other operand (a call, a sum) is unlike every other;
# - decorators, default values and annotations of functions are not looked at, those of classes are.

_UNCOUNTED, _MODULE, _CLASS, _FUNCTION = range(4)  # where a walk is, as far as CC cares
Scope = tuple[list[Any], int, str | None]  # nodes, where they are for CC, the innermost function's name for HD

_PLAIN = (type(None), bool, int, str)
_BARE = tuple(kind for kind in vars(ast).values() if isinstance(kind, type) and not getattr(kind, "_fields", True))
_INERT = frozenset(
    (ast.Name, ast.Constant, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.alias, *_BARE, *_PLAIN)
)  # what stands in a node's fields and has no nodes below it
_SCOPES = frozenset((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assert))
_OPERATIONS = frozenset((ast.BinOp, ast.Compare, ast.BoolOp, ast.AugAssign, ast.UnaryOp))
_DECISIONS = frozenset((ast.AsyncFor, ast.For, ast.If, ast.IfExp, ast.Match, ast.Try, ast.While, ast.comprehension))


def figures(tree: ast.Module) -> tuple[int, float]:
    """(CC, HD) of a whole file, as radon 6 counts them; HD is 0 for a program without operations."""
    complexity, used = 1, 0
    operators: set[type] = set()
    operands: set[tuple[str | None, object]] = set()
    scopes: list[Scope] = [(tree.body, _MODULE, None)]
    for nodes, inside, function in scopes:  # grows while it is walked
        stack = list(nodes)
        while stack:
            node = stack.pop()
            kind = node.__class__
            if kind in _OPERATIONS:
                signs, parts = _operation(node, kind)
                operators.update([sign.__class__ for sign in signs])
                used += len(parts)
                operands.update([(function, _spelling(part)) for part in parts])
                if kind is ast.BoolOp and inside:
                    complexity += len(parts) - 1
                stack.extend([part for part in parts if part.__class__ not in _INERT])
            elif kind in _SCOPES:
                scopes.extend(_inner(node, kind, inside, function))
                complexity += (kind is ast.Assert and inside > 0) or (inside == _CLASS and kind is not ast.ClassDef)
            else:
                if kind in _DECISIONS and inside:
                    complexity += _decisions(node, kind)
                _push_children(node, stack)
    return complexity, len(operators) * used / float(2 * len(operands)) if operands else 0.0


def _operation(node: Any, kind: type) -> tuple[list[Any], list[Any]]:
    """Operators and operands; the operands are also all that is below the node."""
    if kind is ast.BinOp:
        return [node.op], [node.left, node.right]
    if kind is ast.Compare:
        return node.ops, [node.left, *node.comparators]
    if kind is ast.BoolOp:
        return [node.op], node.values
    if kind is ast.AugAssign:
        return [node.op], [node.target, node.value]
    return [node.op], [node.operand]


def _spelling(operand: Any) -> object:
    """What tells an operand from others: its text or value, or itself."""
    kind = operand.__class__
    if kind is ast.Name:
        return operand.id
    if kind is ast.Constant:
        return operand.value
    return operand.attr if kind is ast.Attribute else operand


def _decisions(node: Any, kind: type) -> int:
    if kind is ast.If or kind is ast.IfExp:
        return 1
    if kind is ast.comprehension:
        return 1 + len(node.ifs)
    if kind is ast.Try:
        return len(node.handlers) + bool(node.orelse)
    if kind is ast.Match:
        catches_all = any(getattr(case.pattern, "pattern", False) is None for case in node.cases)
        return max(0, len(node.cases) - catches_all)
    return 1 + bool(node.orelse)


def _inner(node: Any, kind: type, inside: int, function: str | None) -> list[Scope]:
    """The scopes that a definition (or an assert, whose test CC does not see) opens."""
    if kind is ast.Assert:
        return [([node.test, node.msg] if node.msg else [node.test], _UNCOUNTED, function)]
    if kind is ast.ClassDef:
        body = (node.body, _CLASS if inside == _MODULE else _UNCOUNTED, function)
        return [body, ([*node.bases, *node.keywords, *node.decorator_list], _UNCOUNTED, function)]
    return [(node.body, _FUNCTION if inside in (_MODULE, _CLASS) else _UNCOUNTED, node.name)]


def _push_children(node: ast.AST, stack: list[Any]) -> None:
    for field in node._fields:
        value = getattr(node, field, None)
        kind = value.__class__
        if kind is list:
            stack.extend([child for child in value if child.__class__ not in _INERT])  # type: ignore[union-attr]
        elif kind not in _INERT:
            stack.append(value)


def overall_metric(tree: ast.Module) -> float:
    """(CC + HD) / 2 of a whole file; the least value is 0.5."""
    return sum(figures(tree)) / 2


@strict("the difficulty 'om'")
def om() -> PerTree:
    """The paper's Overall Metric: mean of cyclomatic complexity and Halstead difficulty, as radon counts them."""
    return PerTree(overall_metric)
