"""Verification of answers: proved correct, proved wrong, or undecided.

``rejected`` accepts a rejected answer only when it is not proved correct. A ``Right`` takes samples and one text for
each and returns True, False or None in order. It is made from the judges that prove; their unjudged texts are
undecided, and judges of opinion (rubric, static) are refused.
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

__all__ = ["by_output", "by_tests", "first_decision", "proof"]


def proof(judge: Judge, events: Events = ignore_events) -> Right:
    """A verifier made from ``judge``. Raises ``RecipeError`` for a judge of opinion."""
    if not judge.proves:
        raise RecipeError("this judge gives opinions, which verify nothing", given=type(judge).__name__.lower())

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        return [_decision(view) for view in judge(samples, attempts, events=events)]

    return right


def by_output() -> Right:
    """Verification by comparison with the correct answer; see ``output_judge``."""
    return proof(Output())


def by_tests(
    *, workers: int = 1, seconds: float | None = None, unsafe: bool = False, events: Events = ignore_events
) -> Right:
    """Verification by the samples' tests; options and errors as for the judge ``tests``."""
    return proof(run_tests(workers=workers, seconds=seconds, unsafe=unsafe), events)


def first_decision(*rights: Right) -> Right:
    """The decision of the first of ``rights`` that has one; later ones receive only undecided answers."""

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        decisions: list[bool | None] = [None] * len(attempts)
        for verifier in rights:
            rows = [row for row, decision in enumerate(decisions) if decision is None]
            if not rows:
                break
            results = verifier(samples.take(rows), [attempts[row] for row in rows])
            for row, decision in zip(rows, results, strict=True):
                decisions[row] = decision
        return decisions

    return right


def _decision(view: View) -> bool | None:
    return None if view.verdict == "unjudged" else view.verdict == "passed"
