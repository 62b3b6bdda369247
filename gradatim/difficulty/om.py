"""How hard is a program by the paper's Overall Metric?

OM = (CC + HD) / 2 (arXiv 2407.10194), CC the file's cyclomatic complexity and HD its Halstead difficulty
(n1 / 2)(N2 / n2), both exactly as radon gives them: the paper's levels (easy < 2 <= medium < 4 <= hard) only mean
something on radon's scale. That scale counts no assignment, call or keyword as an operator, so a program made of
plain loops has HD = 0 and passes for easy; ``halstead``, which counts tokens, sees more and is the better default
outside the paper's protocol.
"""

from __future__ import annotations

import ast
from typing import Any

from ..options import strict
from .cyclomatic import total_complexity
from .program import PerTree, push_children

__all__ = ["halstead_difficulty", "om", "overall_metric"]

# What may surprise in radon's count, and is kept:
# - only the five kinds of `_operation` are operations: no assignment, call, subscript or keyword is;
# - operands are told apart within the name of the innermost function, so an `x` in `f` and one in `g` are two, but
#   two functions of one name share theirs; a name, an attribute and a string constant spelt alike are one operand,
#   as are 1, 1.0 and True; any other operand (a call, a sum) is unlike every other;
# - decorators, default values and annotations of functions are not looked at, those of classes are.


def _operation(node: Any) -> tuple[list[Any], list[Any]] | None:
    """Operators and operands of a node; None for a node that is no operation in radon's eyes."""
    kind = node.__class__
    if kind is ast.BinOp:
        return [node.op], [node.left, node.right]
    if kind is ast.Compare:
        return node.ops, [node.left, *node.comparators]
    if kind is ast.BoolOp:
        return [node.op], node.values
    if kind is ast.AugAssign:
        return [node.op], [node.target, node.value]
    if kind is ast.UnaryOp:
        return [node.op], [node.operand]
    return None


_SPELLING = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value"}


def halstead_difficulty(tree: ast.Module) -> float:
    """(n1 / 2)(N2 / n2) over the tree's operations, as radon 6 counts them; 0 for a program without operands."""
    operators: set[type] = set()
    operands: set[tuple[str | None, object]] = set()
    total = 0
    scopes: list[tuple[list[Any], str | None]] = [(tree.body, None)]
    for body, function in scopes:  # grows while it is walked
        stack = list(body)
        while stack:
            node = stack.pop()
            kind = node.__class__
            if kind is ast.FunctionDef or kind is ast.AsyncFunctionDef:
                scopes.append((node.body, node.name))
                continue
            operation = _operation(node)
            if operation is not None:
                operators.update([op.__class__ for op in operation[0]])
                total += len(operation[1])
                for operand in operation[1]:
                    spelling = _SPELLING.get(operand.__class__)
                    operands.add((function, operand if spelling is None else getattr(operand, spelling)))
            push_children(node, stack)
    return len(operators) * total / float(2 * len(operands)) if operands else 0.0


def overall_metric(tree: ast.Module) -> float:
    """(CC + HD) / 2 of a whole file; the least value is 0.5."""
    return (total_complexity(tree) + halstead_difficulty(tree)) / 2


@strict("the difficulty 'om'")
def om() -> PerTree:
    """The paper's Overall Metric: mean of cyclomatic complexity and Halstead difficulty, as radon counts them."""
    return PerTree(overall_metric)
