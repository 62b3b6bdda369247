"""What is a judge, and which are there?

A judge is handed samples (rows of ``table.SCHEMA``) and one attempt for each, and answers with one ``View`` each, in
that order: a score in [0, 1], a verdict and a line that says why, or ``unjudged`` and the cause. A judge *proves* when
its verdict is a fact (the output was compared, the tests were run) and not an opinion; ``combine`` lets facts go
first. The same samples and attempts give the same views.

A member of ``JUDGES`` is a factory ``factory(grader, /, **options) -> Judge``: all are handed the teacher, those that
ask none leave it. A judge that learns from the student's own hidden states is a ``NeedsStudent`` until ``probe`` hands
it the student. How views are weighed is said in ``combine``; nothing is judged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import RecipeError
from ..registry import Registry
from ..sandbox.verdict import Outcome, printable
from ..stage import Events, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "JUDGES",
    "Grader",
    "Judge",
    "NeedsStudent",
    "Points",
    "View",
    "distinct",
    "need_grader",
    "spread",
    "taken",
    "unjudged",
]


@dataclass(frozen=True)
class View:
    """What one judge says of one attempt.

    ``score`` lies in [0, 1], higher is better; None exactly when the verdict is ``unjudged``. ``reason`` is one line,
    safe to print; that of an unjudged view is its cause, in few distinct wordings, since causes are counted.
    """

    score: float | None
    verdict: Outcome
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.score is None) != (self.verdict == "unjudged"):
            raise ValueError(f"a view has a score unless it is unjudged, not {self.score} and {self.verdict}")
        if self.score is not None and not (math.isfinite(self.score) and 0 <= self.score <= 1):
            raise ValueError(f"a view's score must lie in [0, 1], not {self.score}")
        object.__setattr__(self, "reason", printable(self.reason))


def unjudged(cause: str) -> View:
    """The view of a judge that cannot say."""
    return View(None, "unjudged", cause)


class Judge(Protocol):
    """One way to look at attempts."""

    @property
    def proves(self) -> bool:
        """Whether a verdict other than ``unjudged`` is a fact rather than an opinion."""
        ...

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row, in order; deterministic."""
        ...


@runtime_checkable
class NeedsStudent(Protocol):
    """A judge that cannot judge before it knows the student."""

    def by(self, student: Any, *, seed: int) -> Judge:
        """The judge itself. ``student`` has ``model`` and ``tokenizer``."""
        ...


class Points(Protocol):
    """What a teacher's reply to the rubric is worth: ``teacher.Grade``."""

    @property
    def points(self) -> float: ...

    @property
    def analysis(self) -> str: ...


class Grader(Protocol):
    """The part of a teacher that judges need: the rubric's points in 0 … 6, None for a reply that nobody can read."""

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> Sequence[Points | None]: ...


JUDGES: Registry[Callable[..., Judge | NeedsStudent]] = Registry("judge")
JUDGES.lazy(
    "output", "gradatim.distillation.output_judge:output", "Is the attempt, character for character, the right answer?"
)
JUDGES.lazy(
    "tests",
    "gradatim.distillation.tests_judge:run_tests",
    "Does the program pass the sample's tests, run in a sandbox?",
)
JUDGES.lazy(
    "static", "gradatim.distillation.static_judge:static", "Is the code whole, does it parse, compile, run, lint clean?"
)
JUDGES.lazy(
    "rubric", "gradatim.distillation.rubric_judge:rubric", "The teacher's six points: analysis first, then the score."
)
JUDGES.lazy(
    "scoring",
    "gradatim.distillation.scoring_judge:scoring",
    "The rubric on a part; a model that learnt from it judges the rest.",
)


def need_grader(judge: str, grader: Grader | None) -> Grader:
    """``grader``, or a ``RecipeError`` that says that ``judge`` cannot do without."""
    if grader is None:
        raise RecipeError(f"the judge {judge!r} asks a teacher, and there is none", hint="name a teacher")
    return grader


def distinct(samples: pa.Table, attempts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows that say something new, and for every row which of those it repeats.

    Several draws of a sure student are one text: it is tried, and paid for, once.
    """
    names = [name for name in ("language", "prompt", "answer", "tests") if name in samples.column_names]
    columns = [samples.column(name).to_pylist() for name in names]
    seen: dict[tuple[Any, ...], int] = {}
    first: list[int] = []
    place = []
    for row, key in enumerate(zip(*columns, attempts, strict=True)):
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        place.append(seen[key])
    return first, place


def taken(samples: pa.Table, rows: Sequence[int]) -> pa.Table:
    """These rows of ``samples``; none of them as well, whose numbers Arrow could not tell the type of."""
    import pyarrow as pa

    return samples.take(pa.array(rows, pa.int64()))


def spread(views: Mapping[int, View] | Sequence[View], place: Sequence[int]) -> list[View]:
    """The views of the distinct rows, back on every row."""
    return [views[each] for each in place]
