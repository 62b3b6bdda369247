"""How does a shape of the grammar, such as ``(t o t) o t``, become text and its value?

``compile_shape`` turns a shape into a function that draws it, once per drawer, so that no shape is looked at while
programs are drawn. What is drawn is a pair: the text, and a function that computes the value the text has *now*,
with Python's own operators, stopping ``and`` and ``or`` where Python stops. It is called as often as the text is
executed: not at all in a branch not taken, once per turn in a loop. Shapes are read with Python's own parser.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from .grammar import COMPARISONS, OPERATORS
from .slots import Slots

__all__ = ["COMPARE", "Draw", "Drawn", "Thunk", "compile_shape"]

Thunk = Callable[[], Any]
Drawn = tuple[str, Thunk]
Draw = Callable[[], Drawn]

_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPERATORS = tuple((f" {symbol} ", _APPLY[symbol]) for symbol in OPERATORS)
_COMPARISONS = tuple((f" {symbol} ", COMPARE[symbol]) for symbol in COMPARISONS)


def compile_shape(shape: str, slots: Slots) -> Draw:
    """A function that draws ``shape`` from ``slots``; ``ValueError`` when it is not a shape of the grammar."""
    return _compile(ast.parse(shape.replace(" o ", " + "), mode="eval").body, slots)


def _compile(node: ast.expr, slots: Slots) -> Draw:
    match node:
        case ast.Name(id="v"):
            return _bare(slots.variable, slots)
        case ast.Name(id="u"):
            return _bare(slots.any_variable, slots)
        case ast.Name(id="t"):
            return _bare(slots.term, slots)
        case ast.Name(id="c"):
            return _comparison(slots)
        case ast.BinOp(left=ast.Name(id="t"), right=ast.Name(id="t")):
            return _operation(slots)
        case ast.BinOp(left=left, right=right):
            return _nested(_inner(left, slots), _inner(right, slots), slots)
        case ast.BoolOp(op=ast.Or(), values=[left, right]):
            return _either(_compile(left, slots), _compile(right, slots))
        case ast.BoolOp(op=ast.And(), values=[ast.Name() | ast.UnaryOp() as left, ast.Name() | ast.UnaryOp() as right]):
            return _both(_compile(left, slots), _compile(right, slots))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negation(_compile(operand, slots), bracket=isinstance(operand, ast.BoolOp))
    raise ValueError(f"not a shape of the grammar: {ast.unparse(node)}")


def _bare(pick: Callable[[], int], slots: Slots) -> Draw:
    words, values = slots.words, slots.values

    def draw() -> Drawn:
        slot = pick()
        return words[slot], lambda: values[slot]

    return draw


def _operation(slots: Slots) -> Draw:
    words, values, random, count, first = slots.words, slots.values, slots.random, len(_OPERATORS), slots.first
    variable, term = slots.variable, slots.term

    def draw() -> Drawn:
        left, right = term(), term()
        if left < first and right < first:  # `3 + 4` would not depend on the program
            right = variable()
        sign, apply = _OPERATORS[int(random() * count)]
        return words[left] + sign + words[right], lambda: apply(values[left], values[right])

    return draw


def _comparison(slots: Slots) -> Draw:
    words, values, random, count = slots.words, slots.values, slots.random, len(_COMPARISONS)
    variable, term, literal = slots.variable, slots.term, slots.literal

    def draw() -> Drawn:
        left, right = variable(), term()
        if right == left:  # `a < a` asks nothing
            right = literal()
        sign, holds = _COMPARISONS[int(random() * count)]
        return words[left] + sign + words[right], lambda: holds(values[left], values[right])

    return draw


def _nested(draw_left: Draw, draw_right: Draw, slots: Slots) -> Draw:
    random, count = slots.random, len(_OPERATORS)

    def draw() -> Drawn:
        left, left_value = draw_left()
        sign, apply = _OPERATORS[int(random() * count)]
        right, right_value = draw_right()
        return left + sign + right, lambda: apply(left_value(), right_value())

    return draw


def _inner(node: ast.expr, slots: Slots) -> Draw:
    """A part of an operation; one that is an operation itself gets its brackets back."""
    inner = _compile(node, slots)
    if not isinstance(node, ast.BinOp):
        return inner

    def draw() -> Drawn:
        text, value = inner()
        return f"({text})", value

    return draw


def _either(draw_left: Draw, draw_right: Draw) -> Draw:
    def draw() -> Drawn:
        left, left_holds = draw_left()
        right, right_holds = draw_right()
        return f"{left} or {right}", lambda: left_holds() or right_holds()

    return draw


def _both(draw_left: Draw, draw_right: Draw) -> Draw:
    def draw() -> Drawn:
        left, left_holds = draw_left()
        right, right_holds = draw_right()
        return f"{left} and {right}", lambda: left_holds() and right_holds()

    return draw


def _negation(draw_inner: Draw, *, bracket: bool) -> Draw:
    def draw() -> Drawn:
        text, holds = draw_inner()
        return f"not ({text})" if bracket else f"not {text}", lambda: not holds()

    return draw
