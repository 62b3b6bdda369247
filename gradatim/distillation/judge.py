"""Contract of a judge, and the registry ``JUDGES``.

A judge takes samples (rows of ``table.SCHEMA``) with one completion each and returns one ``View`` for each, in order: a
score in [0, 1], a verdict and one line of reason, or ``unjudged`` and the cause. A judge *proves* when its verdict is a
fact (the output was compared, the tests were run) rather than an opinion; ``grades`` gives facts precedence. Equal
samples and completions give equal views.

A member of ``JUDGES`` is a factory ``factory(grader, /, **options) -> Judge``; every factory receives the teacher, and
may ignore it. A judge that learns from the student's hidden states is a ``NeedsStudent`` until ``probe`` hands it the
student.
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
    """One judge's judgement of one completion.

    ``score`` lies in [0, 1], higher is better; None exactly when the verdict is ``unjudged``. ``reason`` is one line,
    safe to print; for an unjudged view it is the cause, in few distinct wordings, since causes are counted.
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
    """A view without score and verdict."""
    return View(None, "unjudged", cause)


class Judge(Protocol):
    """A judge of completions."""

    @property
    def proves(self) -> bool:
        """Whether a verdict other than ``unjudged`` is a fact rather than an opinion."""
        ...

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row, in order; deterministic."""
        ...


@runtime_checkable
class NeedsStudent(Protocol):
    """A judge that is made for one student."""

    def by(self, student: Any, *, seed: int) -> Judge:
        """The judge for ``student``, which has ``model`` and ``tokenizer``."""
        ...


class Points(Protocol):
    """A teacher's rubric score: ``teacher.Grade``."""

    @property
    def points(self) -> float: ...

    @property
    def analysis(self) -> str: ...


class Grader(Protocol):
    """The method of a teacher that judges need: the rubric's points in 0 … 6, None for an unreadable reply."""

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> Sequence[Points | None]: ...


JUDGES: Registry[Callable[..., Judge | NeedsStudent]] = Registry("judge")
JUDGES.lazy(
    "output",
    "gradatim.distillation.output_judge:output",
    "Exact match with the correct answer, character for character.",
)
JUDGES.lazy(
    "tests",
    "gradatim.distillation.tests_judge:run_tests",
    "The sample's tests, run on the program in a sandbox.",
)
JUDGES.lazy(
    "static",
    "gradatim.distillation.static_judge:static",
    "Static checks: complete, parses, compiles, runs, warnings.",
)
JUDGES.lazy(
    "rubric",
    "gradatim.distillation.rubric_judge:rubric",
    "The teacher's points, 0 to 6, after an analysis.",
)
JUDGES.lazy(
    "scoring",
    "gradatim.distillation.scoring_judge:scoring",
    "The rubric on a share of the questions; a model trained on it judges the others.",
)


def need_grader(judge: str, grader: Grader | None) -> Grader:
    """``grader``; ``RecipeError`` when it is missing."""
    if grader is None:
        raise RecipeError(f"the judge {judge!r} needs a teacher, and the recipe has none", hint="name a teacher")
    return grader


def distinct(samples: pa.Table, attempts: Sequence[str]) -> tuple[list[int], list[int]]:
    """The rows that differ from all before, and for every row its index among those.

    Several completions of a confident student are one text, which is judged, and paid for, once.
    """
    names = [name for name in ("language", "prompt", "answer", "tests") if name in samples.column_names]
    columns = [samples.column(name).to_pylist() for name in names]
    indices: dict[tuple[Any, ...], int] = {}
    first: list[int] = []
    index = []
    for row, key in enumerate(zip(*columns, attempts, strict=True)):
        if key not in indices:
            indices[key] = len(first)
            first.append(row)
        index.append(indices[key])
    return first, index


def taken(samples: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Select rows of ``samples``. An empty list has no type that Arrow could infer, so it is given here."""
    import pyarrow as pa

    return samples.take(pa.array(rows, pa.int64()))


def spread(views: Mapping[int, View] | Sequence[View], index: Sequence[int]) -> list[View]:
    """The views of the distinct rows, repeated on every row."""
    return [views[row] for row in index]
