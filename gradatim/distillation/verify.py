"""Is a text certainly right, certainly wrong, or can that not be told?

Delivery calls a text faulty only when nothing proves it right. A ``delivery.Right`` takes samples and one text for
each and gives True, False or None in that order. It is made of the judges that prove: what they could not judge cannot
be told, and no opinion (rubric, static) is asked. This module runs nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..stage import Events, ignore_events
from .judge import Judge, View
from .output_judge import Output
from .tests_judge import run_tests

if TYPE_CHECKING:
    import pyarrow as pa

    from .rejected import Right

__all__ = ["by_output", "by_tests", "first_told", "proof"]


def proof(judge: Judge, events: Events = ignore_events) -> Right:
    """What ``judge`` proves. Raises ``RecipeError`` for a judge that only has opinions."""
    if not judge.proves:
        raise RecipeError("this judge has opinions and proves nothing", given=type(judge).__name__.lower())

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        return [_told(view) for view in judge(samples, attempts, events=events)]

    return right


def by_output() -> Right:
    """By comparison with the right answer; see ``feedback.output``."""
    return proof(Output())


def by_tests(
    *, workers: int = 1, seconds: float | None = None, unsafe: bool = False, events: Events = ignore_events
) -> Right:
    """By running the samples' tests; options and errors as for the judge ``tests``."""
    return proof(run_tests(workers=workers, seconds=seconds, unsafe=unsafe), events)


def first_told(*rights: Right) -> Right:
    """The first of ``rights`` that can tell; a later one is asked only about what is still open."""

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        known: list[bool | None] = [None] * len(attempts)
        for each in rights:
            rows = [row for row, told in enumerate(known) if told is None]
            if not rows:
                break
            for row, told in zip(rows, each(samples.take(rows), [attempts[row] for row in rows]), strict=True):
                known[row] = told
        return known

    return right


def _told(view: View) -> bool | None:
    return None if view.verdict == "unjudged" else view.verdict == "passed"
