"""Scratchpads: the steps of a TinyPy program one by one, written before each printed line (arXiv 2112.00114).

A model that answers at once computes several operations between two tokens. With a scratchpad it writes each of them,
so that for the programs of the grammar every token needs one look-up, one copy or one operation. The exception is the
end of a ``for``, which has a line in the form ``arithmetic`` only. The lines are in the order of execution:

    # s = 5             an assignment, the next value of a loop's variable, or a variable that is printed or assigned
    # 4 * s=5 = 20      an operation; operands that are variables have their names
    # 100 < s=5 = False a comparison; ``not``, ``and`` and ``or`` likewise
    # 100               a printed line

The form ``arithmetic`` also has the steps of ``+``, ``-`` and ``*`` on integers one of which has two digits or more.
The result is first written with its least significant digit first, so that each digit follows from two digits and a
carry (Lee et al., arXiv 2307.03381). A product of two such numbers is the sum of the products with the digits of the
number with fewer digits, of the right one if both have equally many; one digit other than 0 needs no sum:

    # 21 * s=9 = 981 = 189
    # a=215 * b=103 = 215 * (3 + 00 + 100)
    # 215 * 3 = 546 = 645
    # 215 * 100 = 00512 = 21500
    # 645 + 21500 = 54122 = 22145
    # a=215 * b=103 = 22145

Two numbers of one sign with equally many digits before the point are compared digit by digit up to the first
difference, in a comparison of two operands and where the sign of a result depends on it. Before each turn of a ``for``,
and at its end, the next number is computed and compared with the bound:

    # b=137 <= 139 = 11 33 79 = True
    # b=137 - 139 = 11 33 79 = -2 = -2
    # 9 + 6 = 15
    # 15 < 15 = 11 55 = False

Operations on floats, and quotients, have one line in both forms: the last digits of a float follow from its binary
rounding, not from decimal arithmetic. Integers of more than ``MAX_DIGITS`` digits have one line as well.

Among the printed lines of TinyPy only steps contain `` = ``, so ``printed_lines`` recovers the output.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import accumulate, takewhile, zip_longest
from typing import Any, Literal

from ..errors import DataError
from ..table.rows import asks_for_output
from .interpret import SYMBOLS, run_program

STEP = " = "
"""The mark of a line that is a step. Printed lines of TinyPy are numbers and never contain it."""

MAX_DIGITS = 30
"""Longer integers have no steps of arithmetic: their number grows with the square of the digits."""

Scratchpad = Literal[False, True, "arithmetic"]
"""Whether the answers of a dataset have scratchpads, and in which form: ``True`` has the operations alone."""


def scratchpad_of(text: str, form: Literal[True, "arithmetic"] = True) -> str:
    """The answer of the TinyPy program ``text`` with its scratchpad: steps and printed lines as comments.

    Raises ``DataError`` as ``run_program`` does.

    >>> print(scratchpad_of("s = 5\\ny = (4 * s) * 2\\nprint(y)\\n"), end="")
    # s = 5
    # 4 * s=5 = 20
    # 20 * 2 = 40
    # y = 40
    # y = 40
    # 40
    >>> print(scratchpad_of("s = 12\\nprint(s - 30)\\n", "arithmetic"), end="")
    # s = 12
    # s=12 - 30 = -81 = -18
    # -18
    """
    lines: list[str] = []
    operands: dict[int, str] = {}  # by node, until the operation around it has used them
    values: dict[int, Any] = {}  # of the nodes that were evaluated last
    variables: dict[str, Any] = {}  # the values that were read last

    def used(*nodes: ast.expr) -> list[str]:
        """The operands among ``nodes`` that were evaluated: and, or and chained comparisons may stop early."""
        return [operands.pop(id(node)) for node in nodes if id(node) in operands]

    def bind(name: str, value: Any) -> None:
        lines.append(f"{name}{STEP}{value}")

    def observe(node: ast.AST, value: Any) -> None:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                operation = _operation(used(left, right), [op])
                if form == "arithmetic":
                    lines.extend(_arithmetic(operation, values[id(left)], op, values[id(right)], value))
                else:
                    lines.append(f"{operation}{STEP}{value}")
            case ast.Compare(left=left, ops=ops, comparators=rights):
                operation = _operation(used(left, *rights), ops)
                if form == "arithmetic" and len(rights) == 1:
                    operation += _pairs(values[id(left)], values[id(rights[0])])
                lines.append(f"{operation}{STEP}{value}")
            case ast.BoolOp(op=op, values=nodes):
                evaluated = used(*nodes)
                if len(evaluated) > 1:  # one that stops at its first operand repeats the line of that operand
                    lines.append(f"{_operation(evaluated, [op] * len(evaluated))}{STEP}{value}")
            case ast.UnaryOp(op=op, operand=operand):
                lines.append(f"{SYMBOLS[type(op)]} {_operation(used(operand), [])}{STEP}{value}")
            case ast.Assign(targets=[ast.Name(id=name)], value=source):
                if isinstance(source, ast.Name):
                    bind(source.id, value)
                bind(name, value)
            case ast.Call(args=arguments) if form == "arithmetic":
                lines.extend(_turn(value, range(*(values[id(node)] for node in arguments))))
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
        values[id(node)] = value

    run_program(text, observe=observe)
    return "".join(f"# {line}\n" for line in lines)


def longest_answer(text: str, answer: str) -> str:
    """The answer of ``text`` with most steps if it is a TinyPy program, else ``answer``: a limit of lengths."""
    try:
        return scratchpad_of(text, "arithmetic")
    except DataError:
        return answer


def _operation(operands: list[str], operators: Sequence[ast.AST]) -> str:
    """``a + b``, for one operand ``a``; operators after the last operand are not written."""
    words = [operands[0]]
    for operation, operand in zip(operators, operands[1:], strict=False):
        words += [SYMBOLS[type(operation)], operand]
    return " ".join(words)


def _arithmetic(operation: str, left: Any, op: ast.operator, right: Any, value: Any) -> list[str]:
    """The lines of ``operation``, ``left op right = value``, with the steps of its arithmetic."""
    integers = type(left) is type(right) is int  # and not bool
    decimal = integers and isinstance(op, ast.Add | ast.Sub | ast.Mult)
    if not (decimal and 10 <= max(abs(left), abs(right)) < 10**MAX_DIGITS):
        return [f"{operation}{STEP}{value}"]
    if not isinstance(op, ast.Mult):
        difference = (left < 0) == (right < 0) if isinstance(op, ast.Sub) else (left < 0) != (right < 0)
        pairs = _pairs(abs(left), abs(right)) if difference else ""
        return [_least_significant_first(operation + pairs, value)]
    short, long = sorted((abs(right), abs(left)), key=lambda number: len(str(number)))
    long *= 1 if value >= 0 else -1  # the sign of the product
    terms = [digit + "0" * place for place, digit in enumerate(reversed(str(short)))]
    factors = [int(term) for term in terms if int(term)]
    if len(factors) < 2:
        return [_least_significant_first(operation, value)]
    products = [long * factor for factor in factors]
    first, *totals = accumulate(products)
    sums = [f"{total} + {product}" for total, product in zip([first, *totals], products[1:], strict=False)]
    operations = [*(f"{long} * {factor}" for factor in factors), *sums]
    lines = [_least_significant_first(*line) for line in zip(operations, [*products, *totals], strict=True)]
    return [f"{operation}{STEP}{long} * ({' + '.join(terms)})", *lines, f"{operation}{STEP}{value}"]


def _turn(number: int, numbers: range) -> list[str]:
    """The lines that lead to the next ``number`` of a loop over ``numbers``, and to its comparison with the bound."""
    lines = []
    if number != numbers.start:
        op, previous, step = ast.Add() if numbers.step > 0 else ast.Sub(), number - numbers.step, abs(numbers.step)
        lines = _arithmetic(f"{previous} {SYMBOLS[type(op)]} {step}", previous, op, step, number)
    relation, holds = ("<", number < numbers.stop) if numbers.step > 0 else (">", number > numbers.stop)
    return [*lines, f"{number} {relation} {numbers.stop}{_pairs(number, numbers.stop)}{STEP}{holds}"]


def _pairs(left: Any, right: Any) -> str:
    """`` = `` and the digits of both numbers place by place, up to the first that differ.

    Empty for one digit each, for a truth value, for numbers with an exponent, and where the signs or the numbers of
    digits before the point differ: they decide.
    """
    if bool in (type(left), type(right)):
        return ""
    texts = [str(abs(number)).partition(".") for number in (left, right)]
    (whole, _, part), (other_whole, _, other_part) = texts
    if (left < 0) != (right < 0) or len(whole) != len(other_whole):
        return ""
    if not (whole + part + other_whole + other_part).isdigit():  # infinity, and exponents
        return ""
    places = [*zip(whole, other_whole, strict=True), *zip_longest(part, other_part, fillvalue="0")]
    equal = len([*takewhile(lambda pair: pair[0] == pair[1], places)])
    return STEP + " ".join(map("".join, places[: equal + 1])) if len(places) > 1 else ""


def _least_significant_first(operation: str, value: int) -> str:
    """``operation`` with its value in reversed digits, then with its value."""
    sign = "-" if value < 0 else ""
    return f"{operation}{STEP}{sign}{str(abs(value))[::-1]}{STEP}{value}"


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
