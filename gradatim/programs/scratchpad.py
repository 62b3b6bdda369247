"""Scratchpads: the steps of a TinyPy program one by one, written before each printed line (arXiv 2112.00114).

A model that answers at once computes several operations between two tokens. With a scratchpad it writes each of them,
so that for the programs of the grammar every token needs one look-up, one copy or one operation. The lines are in the
order of execution:

    # s = 5             an assignment, the next value of a loop's variable, or a variable that is printed or assigned
    # 4 * s=5 = 20      an operation; operands that are variables have their names
    # 100 < s=5 = False a comparison; ``not``, ``and`` and ``or`` likewise
    # 100               a printed line

Among the printed lines of TinyPy only steps contain `` = ``, so ``printed_lines`` recovers the output.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from ..table.rows import asks_for_output
from .interpret import SYMBOLS, run_program

STEP = " = "
"""The mark of a line that is a step. Printed lines of TinyPy are numbers and never contain it."""


def scratchpad_of(text: str) -> str:
    """The answer of the TinyPy program ``text`` with its scratchpad: steps and printed lines as comments.

    Raises ``DataError`` as ``run_program`` does.

    >>> print(scratchpad_of("s = 5\\ny = (4 * s) * 2\\nprint(y)\\n"), end="")
    # s = 5
    # 4 * s=5 = 20
    # 20 * 2 = 40
    # y = 40
    # y = 40
    # 40
    """
    lines: list[str] = []
    operands: dict[int, str] = {}  # by node, until the operation around it has used them
    variables: dict[str, Any] = {}  # the values that were read last

    def used(*nodes: ast.expr) -> list[str]:
        """The operands among ``nodes`` that were evaluated: and, or and chained comparisons may stop early."""
        return [operands.pop(id(node)) for node in nodes if id(node) in operands]

    def bind(name: str, value: Any) -> None:
        lines.append(f"{name}{STEP}{value}")

    def observe(node: ast.AST, value: Any) -> None:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                lines.append(_step(used(left, right), [op], value))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                lines.append(_step(used(left, *rights), ops, value))
            case ast.BoolOp(op=op, values=nodes):
                evaluated = used(*nodes)
                if len(evaluated) > 1:  # one that stops at its first operand repeats the line of that operand
                    lines.append(_step(evaluated, [op] * len(evaluated), value))
            case ast.UnaryOp(op=op, operand=operand):
                lines.append(f"{SYMBOLS[type(op)]} {_step(used(operand), [], value)}")
            case ast.Assign(targets=[ast.Name(id=name)], value=source):
                if isinstance(source, ast.Name):
                    bind(source.id, value)
                bind(name, value)
            case ast.For(target=ast.Name(id=name)):
                bind(name, value)
            case ast.Expr(value=ast.Call(args=arguments)):
                for argument in arguments:
                    if isinstance(argument, ast.Name):
                        bind(argument.id, variables[argument.id])
                lines.append(value.removesuffix("\n"))
        if isinstance(node, ast.Name):
            variables[node.id], operands[id(node)] = value, f"{node.id}={value}"
        elif isinstance(node, ast.expr):
            operands[id(node)] = str(value)

    run_program(text, observe=observe)
    return "".join(f"# {line}\n" for line in lines)


def _step(operands: list[str], operators: Sequence[ast.AST], value: Any) -> str:
    """``a + b = value``, for one operand ``a = value``; operators after the last operand are not written."""
    words = [operands[0]]
    for operation, operand in zip(operators, operands[1:], strict=False):
        words += [SYMBOLS[type(operation)], operand]
    return " ".join(words) + f"{STEP}{value}"


def printed_lines(answer: str) -> str:
    """``answer`` without the steps of a scratchpad: the printed lines as comments.

    >>> printed_lines("# 4 * s=5 = 20\\n# y = 20\\n# 20\\n")
    '# 20\\n'
    """
    return "".join(line for line in answer.splitlines(keepends=True) if not is_step(line))


def is_step(line: str) -> bool:
    """Whether a line of an answer is a step of a scratchpad."""
    return line.startswith("# ") and STEP in line


def has_scratchpad(prompt: str, answer: str) -> bool:
    """Whether ``answer`` is the output of a program with steps."""
    return asks_for_output(prompt) and any(map(is_step, answer.splitlines()))
