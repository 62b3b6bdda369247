"""How many steps does a program take when it runs?

A step is one executed statement or one turn of a loop. The program is given a counter and run by the TinyPy
interpreter of ``programs``, which can neither touch the machine nor run for ever; nothing is executed by Python
itself. What is not TinyPy, fails, or does not end within ``limit`` steps has no score (NaN).
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
_START, _TICK, _TELL = ast.parse(f"{_COUNTER} = 0\n{_COUNTER} = {_COUNTER} + 1\nprint({_COUNTER})\n").body


def steps(tree: ast.Module, limit: int) -> float:
    """Statements executed and loop turns taken; NaN when the program cannot be run to its end in ``limit``.

    ``tree`` is changed on the way.
    """
    try:
        tree.body = [_START, *_counted(tree.body), _TELL]
        # The counter's own statements run too: one for each step, the first and the last.
        printed = run_program(ast.unparse(tree), max_steps=2 * limit + 2 + limit)
    except (DataError, RecursionError, ValueError):
        return math.nan
    taken = int(printed.splitlines()[-1])
    return float(taken) if taken <= limit else math.nan


def _counted(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements with a tick before each, and one more at the head of each loop's body."""
    counted = []
    for statement in body:
        if isinstance(statement, (ast.If, ast.For, ast.While)):
            turn = [] if isinstance(statement, ast.If) else [_TICK]
            statement.body = [*turn, *_counted(statement.body)]
            statement.orelse = _counted(statement.orelse)
        counted += [_TICK, statement]
    return counted


@strict("the difficulty 'trace'")
def trace(*, limit: int = 10_000) -> PerTree:
    """Steps executed when a TinyPy program runs; no score past ``limit`` of them."""
    if limit < 1:
        raise RecipeError("a program takes at least 1 step", where="trace.limit", given=limit)
    return PerTree(functools.partial(steps, limit=limit))
