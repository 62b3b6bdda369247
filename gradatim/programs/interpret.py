"""Interpreter of TinyPy programs: their output, and the values they compute with positions in the text.

It walks Python's own syntax tree: assignments to names, ``print``, if/elif/else, ``for … in range(…)``, ``while``,
arithmetic, comparisons and and/or/not on numbers. It computes with Python's operators, so that it prints what CPython
prints; it has no access to the machine and always ends, so that it may run a model's output. It is independent of the
generator, which never calls it, and no sandbox for Python at large: a program that is not TinyPy is refused with the
line.

``values_of`` records the intermediate values of a run (variable lookups, results of operations and comparisons,
branches taken), each at a character of the text, as labels for trace supervision. A position that is reached several
times, in a loop, has one value for each time.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from ..errors import DataError

_BITS = 4096  # larger integers are refused: repeated squaring would fill the memory

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.And: "and",
    ast.Or: "or",
    ast.Not: "not",
    ast.USub: "-",
    ast.UAdd: "+",
}
"""The operators of TinyPy as they are written."""

Observe = Callable[[ast.expr | ast.stmt, Any], None]


def run_program(text: str, *, max_steps: int = 10_000, observe: Observe | None = None) -> str:
    """The output of the TinyPy program ``text`` as CPython prints it, each line ended by a newline; comments are
    ignored.

    ``observe`` receives each expression with its value, and then its statement: each assignment with the assigned
    value, each ``print`` with its line, each ``if`` and ``elif`` that is reached with the truth of its condition, and
    each turn of a ``for`` with the value of its variable. The call of ``range`` is received once before each turn and
    once at the end of the loop, with the next number: the one to be compared with the bound.

    Raises ``DataError``, with the line, when the text is not TinyPy, when the program raises (division by zero, a
    name that is not defined), and when it takes more than ``max_steps`` statements and loop turns.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        line = getattr(fault, "lineno", None)
        raise DataError(f"this is not a Python program: {fault}", where=_where(line)) from None
    machine = _Machine(max_steps, observe)
    try:
        machine.run(tree.body)
    except (ArithmeticError, NameError, TypeError, ValueError, RecursionError) as failure:
        message = f"the program raises {type(failure).__name__}: {failure}"
        raise DataError(message, where=_where(machine.line)) from None
    return "".join(machine.printed)


def commented(printed: str) -> str:
    """Printed text as a sample's answer: each line becomes ``# line``.

    >>> commented("7\\n-1\\n")
    '# 7\\n# -1\\n'
    """
    return "".join([f"# {line}\n" for line in printed.splitlines()])


def _where(line: int | None) -> str:
    return "program" if line is None else f"program, line {line}"


class _Machine:
    """The state of a running program: its variables, its output, the remaining steps and the current line."""

    def __init__(self, steps: int, observe: Observe | None) -> None:
        self.observe = observe
        self.names: dict[str, Any] = {}
        self.printed: list[str] = []
        self.allowed = self.remaining = steps
        self.line = 1

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.line = statement.lineno
            self.step()
            self.statement(statement)

    def step(self) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            raise DataError(f"the program does not end within {self.allowed} steps", where=_where(self.line))

    def statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = assigned = self.value(value)
                self.report(statement, assigned)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=arguments, keywords=[])):
                self.printed.append(" ".join([str(self.value(argument)) for argument in arguments]) + "\n")
                self.report(statement, self.printed[-1])
            case ast.If(test=test, body=body, orelse=otherwise):
                holds = bool(self.value(test))
                self.report(statement, holds)
                self.run(body if holds else otherwise)
            case ast.While(test=test, body=body, orelse=otherwise):
                while self.value(test):
                    self.step()
                    self.run(body)
                self.run(otherwise)
            case ast.For(
                target=ast.Name(id=name),
                iter=ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]),
                body=body,
                orelse=otherwise,
            ):
                numbers = range(*[self.value(argument) for argument in arguments])
                for number in numbers:
                    self.step()
                    self.report(statement.iter, number)
                    self.names[name] = number
                    self.report(statement, number)
                    self.run(body)
                self.report(statement.iter, numbers.start + len(numbers) * numbers.step)
                self.run(otherwise)
            case ast.Pass():
                pass
            case _:
                self.refuse(statement)

    def report(self, node: ast.expr | ast.stmt, value: Any) -> None:
        if self.observe is not None:
            self.observe(node, value)

    def value(self, node: ast.expr) -> Any:
        value = self.computed(node)
        self.report(node, value)
        return value

    def computed(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return value
            case ast.Name(id=name):
                if name not in self.names:
                    raise NameError(f"name {name!r} is not defined")
                return self.names[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self.bounded(_BINARY[type(op)](self.value(left), self.value(right)))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _UNARY[type(op)](self.value(operand))
            case ast.BoolOp(op=op, values=values):
                return self.either(values, isinstance(op, ast.Or))
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _COMPARE for op in ops):
                return self.chain(self.value(left), ops, rights)
        return self.refuse(node)

    def either(self, values: list[ast.expr], stop_at: bool) -> Any:
        """The value at which ``or`` (the first true one) or ``and`` (the first false one) stops, else the last."""
        for node in values:
            value = self.value(node)
            if bool(value) is stop_at:
                break
        return value

    def chain(self, operand: Any, ops: list[ast.cmpop], rights: list[ast.expr]) -> bool:
        for op, node in zip(ops, rights, strict=True):
            next_operand = self.value(node)
            if not _COMPARE[type(op)](operand, next_operand):
                return False
            operand = next_operand
        return True

    def bounded(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > _BITS:
            raise DataError(f"a number grows beyond {_BITS} bits", where=_where(self.line))
        return value

    def refuse(self, node: ast.stmt | ast.expr) -> Any:
        raise DataError(
            "this is not TinyPy",
            where=_where(node.lineno),
            given=ast.unparse(node).split("\n")[0],
            allowed="assignments, print, if, for over range, while, arithmetic, comparisons, and, or, not",
        )


Number = bool | int | float


@dataclass(frozen=True)
class Values:
    """Computed values by position in the text (0 is the first character), in the order of evaluation.

    ``operands``: at a name that is read, its value. ``results``: at the last character of an operation, a comparison or
    a condition, its result; at the colon after ``if`` and ``elif``, and at the first character of ``else``, whether
    that branch is taken. A position in a loop has a value for each turn in which it is evaluated.
    """

    operands: dict[int, list[Number]] = field(default_factory=dict)
    results: dict[int, list[Number]] = field(default_factory=dict)


def values_of(text: str) -> Values:
    """The values of the TinyPy program ``text``; raises ``DataError`` as ``run_program`` does.

    >>> values_of("a = 3\\nprint(a + 1)\\n")
    Values(operands={12: [3]}, results={16: [4]})
    """
    values = Values()
    lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    nodes: dict[tuple[int, int], ast.AST] = {}

    def record(values_at: dict[int, list[Number]], position: int, node: ast.AST, value: Number) -> None:
        # Two expressions may end at one character, as a condition and its last comparison: the first one has it.
        if nodes.setdefault((id(values_at), position), node) is node:
            values_at.setdefault(position, []).append(value)

    def observe(node: ast.AST, value: Number) -> None:
        if isinstance(node, ast.Name):
            record(values.operands, lines[node.lineno - 1] + node.col_offset, node, value)
        elif isinstance(node, ast.If):
            record(values.results, after(node.test, ":"), node, value)
            if node.orelse and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)):
                record(values.results, after(node.body[-1], "else"), node, not value)
        elif isinstance(node, ast.BinOp | ast.Compare | ast.BoolOp | ast.UnaryOp):
            record(values.results, end(node) - 1, node, value)

    def end(node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return lines[node.end_lineno - 1] + node.end_col_offset

    def after(node: ast.expr | ast.stmt, word: str) -> int:
        return text.index(word, end(node))

    run_program(text, observe=observe)
    return values
