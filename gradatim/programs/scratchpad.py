"""Scratchpads: the operations of a TinyPy program one by one, written before each printed line (arXiv 2112.00114).

A model that answers at once computes several operations between two tokens. With a scratchpad it writes each of them,
so that every token needs one look-up or one operation. The lines stand in the answer, in the order of execution:

    # s = 5              an assignment of a literal or a variable, or the next value of a loop's variable
    # 4 * 5 = 20         an operation with the values of its operands
    # y = 20 * 5 = 100   the last operation of an assignment
    # 100 < 7 = False    a comparison; ``not``, ``and`` and ``or`` likewise
    # 100                a printed line

Only steps contain `` = ``, so ``printed_lines`` recovers the output.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from .interpret import run_program

STEP = " = "
"""The mark of a line that is a step. Printed lines of TinyPy are numbers and never contain it."""

_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.And: "and",
    ast.Or: "or",
    ast.Not: "not",
    ast.USub: "-",
    ast.UAdd: "+",
}


def scratchpad_of(text: str) -> str:
    """The answer of the TinyPy program ``text`` with its scratchpad: steps and printed lines as comments.

    Raises ``DataError`` as ``run_program`` does.

    >>> print(scratchpad_of("s = 5\\ny = (4 * s) * s\\nprint(y)\\n"), end="")
    # s = 5
    # 4 * 5 = 20
    # y = 20 * 5 = 100
    # 100
    """
    lines: list[str] = []
    results: dict[int, Any] = {}  # by node, until the operation around it has used them

    def used(*nodes: ast.expr) -> list[Any]:
        """The values of those ``nodes`` that were evaluated: and, or and chained comparisons may stop early."""
        return [results.pop(id(node)) for node in nodes if id(node) in results]

    def observe(node: ast.AST, value: Any) -> None:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                lines.append(_step(used(left, right), [op], value))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                lines.append(_step(used(left, *rights), ops, value))
            case ast.BoolOp(op=op, values=nodes):
                operands = used(*nodes)
                if len(operands) > 1:  # one that stops at its first operand repeats the line of that operand
                    lines.append(_step(operands, [op] * len(operands), value))
            case ast.UnaryOp(op=op, operand=operand):
                lines.append(f"{_SIGNS[type(op)]} {_step(used(operand), [], value)}")
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Constant()):
                lines.append(f"{name}{STEP}{value}")
            case ast.Assign(targets=[ast.Name(id=name)]):
                lines[-1] = f"{name}{STEP}{lines[-1]}"
            case ast.For(target=ast.Name(id=name)):
                lines.append(f"{name}{STEP}{value}")
            case ast.Expr():
                lines.append(value.removesuffix("\n"))
        if isinstance(node, ast.expr):
            results[id(node)] = value

    run_program(text, observe=observe)
    return "".join(f"# {line}\n" for line in lines)


def _step(operands: list[Any], operators: Sequence[ast.AST], value: Any) -> str:
    """``a + b = value``, for one operand ``a = value``; operators after the last operand are not written."""
    words = [str(operands[0])]
    for operation, operand in zip(operators, operands[1:], strict=False):
        words += [_SIGNS[type(operation)], str(operand)]
    return " ".join(words) + f"{STEP}{value}"


def printed_lines(answer: str) -> str:
    """``answer`` without the steps of a scratchpad: the printed lines as comments.

    >>> printed_lines("# 4 * 5 = 20\\n# y = 20 * 5 = 100\\n# 100\\n")
    '# 100\\n'
    """
    return "".join(line for line in answer.splitlines(keepends=True) if STEP not in line)
