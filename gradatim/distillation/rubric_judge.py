"""How many of six points does the teacher give an attempt?

The rubric of 2408.03680: basic functionality 0 or 2 points; boundary checks, requirement coverage, readability and
coding practices 0 or 1 each; the analysis comes before the points. The teacher asks, reads and, when its reply cannot
be read, asks once more; what comes back as None then is ``unjudged`` here, never a number. The score is points / 6.
``passed`` is an opinion: at least ``passing`` points.
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

__all__ = ["MOST", "check_passing", "rubric", "view_of"]


MOST = 6.0
"""The rubric's points."""
UNREAD = "the teacher gave no points that could be read"
OUTSIDE = "the teacher's points lie outside 0 … 6"


@strict("the judge 'rubric'")
def rubric(grader: Grader | None = None, /, *, passing: float = 5.0) -> Rubric:
    """Asks the teacher for the six points; an attempt with ``passing`` of them or more passed."""
    check_passing("rubric", passing)
    return Rubric(need_grader("rubric", grader), passing)


def check_passing(part: str, passing: float) -> None:
    """Raises ``RecipeError`` when no number of points is ``passing``."""
    if not 0 < passing <= MOST:
        raise RecipeError("these points cannot be had", where=f"the judge {part!r}", given=passing, allowed="(0, 6]")


@dataclass(frozen=True)
class Rubric:
    """The judge ``rubric`` with its options; see the module."""

    grader: Grader
    passing: float = 5.0
    proves = False

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row; the same question and attempt is asked about once."""
        rows, place = distinct(samples, attempts)
        events(Event("start", "rubric", 0, len(rows)))
        grades = self.grader.rubric(taken(samples, rows), [attempts[row] for row in rows]) if rows else []
        views = [view_of(grade, self.passing) for grade in grades]
        events(Event("finish", "rubric", len(rows), len(rows)))
        return spread(views, place)


def view_of(grade: Points | None, passing: float) -> View:
    """A teacher's grade as a view."""
    if grade is None:
        return unjudged(UNREAD)
    if not 0 <= grade.points <= MOST:
        return unjudged(OUTSIDE)
    verdict = "passed" if grade.points >= passing else "failed"
    return View(grade.points / MOST, verdict, f"{grade.points:g} of 6: {grade.analysis}")  # type: ignore[arg-type]
