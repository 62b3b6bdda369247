"""Which loops may be drawn: those whose numbers lie in 0..digits and that run as often as the grammar says.

They are few, so they are listed once per ``digits`` and drawn by picking from the list: no loop is ever empty or
endless, and none has to be thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from .grammar import REPETITIONS, STEPS
from .shapes import COMPARE

__all__ = ["Counting", "countings", "ranges"]

Counting = tuple[str, int, int]
_REACH = max(STEPS) * max(REPETITIONS)


@cache
def ranges(digits: int) -> list[tuple[str, range]]:
    """Every ``range(…)`` of the grammar as text, with its values; a step of 1 is not written."""
    return [
        (f"range({start}, {stop}{f', {step}' if step > 1 else ''})", turns)
        for step in STEPS
        for start in range(digits + 1)
        for stop in range(start + 1, min(start + _REACH, digits) + 1)
        if len(turns := range(start, stop, step)) in REPETITIONS
    ]


@cache
def countings(digits: int) -> list[list[Counting]]:
    """For each start 0..digits, every (comparison, bound, signed step) of a ``while`` that repeats rightly."""
    return [
        [
            (sign, bound, move)
            for move in [direction * step for direction in (1, -1) for step in STEPS]
            for sign in (("<", "<=", "!=") if move > 0 else (">", ">=", "!="))
            for bound in range(max(0, start - _REACH), min(digits, start + _REACH) + 1)
            if _turns(start, COMPARE[sign], bound, move) in REPETITIONS
        ]
        for start in range(digits + 1)
    ]


def _turns(start: int, holds: Callable[[int, int], bool], bound: int, move: int) -> int:
    """How often the loop runs; it is left when it has run once too often."""
    turns = 0
    while turns <= max(REPETITIONS) and holds(start, bound):
        start, turns = start + move, turns + 1
    return turns
