"""Number of steps that a TinyPy program executes.

A step is one executed statement or one iteration of a loop. A counter is added to the program, and the TinyPy
interpreter of ``programs`` runs it, which has no access to the machine and always ends; Python itself executes nothing.
A program that is not TinyPy, fails, or does not end within ``limit`` steps has no score (NaN).
"""

from __future__ import annotations

import ast
import functools
import math

from ..errors import DataError, RecipeError
from ..options import strict
from ..programs import run_program
from .python_source import PerTree

__all__ = ["steps", "trace"]

_COUNTER = "steps_taken_so_far"  # longer than any name a TinyPy program has
_START, _TICK, _PRINT = ast.parse(f"{_COUNTER} = 0\n{_COUNTER} = {_COUNTER} + 1\nprint({_COUNTER})\n").body


def steps(tree: ast.Module, limit: int) -> float:
    """Statements executed plus loop iterations; NaN when the program does not run to its end within ``limit``.

    ``tree`` is modified.
    """
    try:
        tree.body = [_START, *_with_ticks(tree.body), _PRINT]
        # The statements of the counter run as well: one for each step, the first and the last.
        printed = run_program(ast.unparse(tree), max_steps=2 * limit + 2 + limit)
    except (DataError, RecursionError, ValueError):
        return math.nan
    count = int(printed.splitlines()[-1])
    return float(count) if count <= limit else math.nan


def _with_ticks(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements, each with a tick before it, and one more at the head of each loop's body."""
    statements = []
    for statement in body:
        if isinstance(statement, (ast.If, ast.For, ast.While)):
            tick = [] if isinstance(statement, ast.If) else [_TICK]
            statement.body = [*tick, *_with_ticks(statement.body)]
            statement.orelse = _with_ticks(statement.orelse)
        statements += [_TICK, statement]
    return statements


@strict("the difficulty 'trace'")
def trace(*, limit: int = 10_000) -> PerTree:
    """Steps executed when a TinyPy program runs; no score past ``limit`` of them."""
    if limit < 1:
        raise RecipeError("a program takes at least 1 step", where="trace.limit", given=limit)
    return PerTree(functools.partial(steps, limit=limit))
