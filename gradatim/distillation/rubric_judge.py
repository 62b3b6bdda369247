"""The judge ``rubric``: the teacher's score for a completion, 0 to 6 points.

The rubric of 2408.03680: basic functionality 0 or 2 points; boundary checks, requirement coverage, readability and
coding practices 0 or 1 each; the analysis comes before the points. The teacher repeats a request once when its reply
is unreadable; None after that is ``unjudged`` here. The score is points / 6. ``passed`` is an opinion: at least
``passing`` points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..options import strict
from ..stage import Event, Events, ignore_events
from .judge import Grader, Points, View, distinct, need_grader, spread, taken, unjudged

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_POINTS", "check_passing", "rubric", "view_of"]


MAX_POINTS = 6.0
"""Points of a perfect completion."""
UNREADABLE = "the teacher's reply has no readable points"
OUTSIDE = "the teacher's points are outside 0 … 6"


@strict("the judge 'rubric'")
def rubric(grader: Grader | None = None, /, *, passing: float = 5.0) -> Rubric:
    """Request the teacher's points; a completion with ``passing`` or more passed."""
    check_passing("rubric", passing)
    return Rubric(need_grader("rubric", grader), passing)


def check_passing(part: str, passing: float) -> None:
    """Raise ``RecipeError`` when ``passing`` is out of range."""
    if not 0 < passing <= MAX_POINTS:
        raise RecipeError("points out of range", where=f"the judge {part!r}", given=passing, allowed="(0, 6]")


@dataclass(frozen=True)
class Rubric:
    """The judge ``rubric`` with its options; see the module docstring."""

    grader: Grader
    passing: float = 5.0
    proves = False

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row; equal questions with equal completions are requested once."""
        rows, index = distinct(samples, attempts)
        events(Event("start", "rubric", 0, len(rows)))
        grades = self.grader.rubric(taken(samples, rows), [attempts[row] for row in rows]) if rows else []
        views = [view_of(grade, self.passing) for grade in grades]
        events(Event("finish", "rubric", len(rows), len(rows)))
        return spread(views, index)


def view_of(grade: Points | None, passing: float) -> View:
    """The view of a teacher's grade."""
    if grade is None:
        return unjudged(UNREADABLE)
    if not 0 <= grade.points <= MAX_POINTS:
        return unjudged(OUTSIDE)
    verdict = "passed" if grade.points >= passing else "failed"
    return View(grade.points / MAX_POINTS, verdict, f"{grade.points:g} of 6: {grade.analysis}")  # type: ignore[arg-type]
