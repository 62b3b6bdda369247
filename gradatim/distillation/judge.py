"""Contract of a judge, the registry ``JUDGES``, the combination of judgements, and the kind of a completion.

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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

from ..errors import RecipeError, UnknownPart
from ..evaluation.problems import Form
from ..languages import Language, named
from ..languages.language import unusable
from ..languages.thinking import strip_thinking
from ..lazy import pa
from ..registry import Contract, Registry
from ..sandbox.limits import Outcome, printable
from ..stage import Events, Model, ignore_events


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


class SavedModel(Protocol):
    """A model that a judge has trained, kept with the attempts: ``scoring_judge.ScoringModel``."""

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        ...


class Judge(Protocol):
    """A judge of completions.

    A subclass defines ``proves`` and ``__call__``; the other members have defaults, those of a judge without a teacher.
    ``facts``: further counts of the last call, plain JSON. ``model``: the model trained in the last call, None without.
    """

    facts: Mapping[str, Any] = MappingProxyType({})
    model: SavedModel | None = None

    @property
    def teacher_share(self) -> float:
        """The share of the completions that the teacher gives points to; above 0 a teacher that can judge is needed."""
        return 0.0

    @property
    def proves(self) -> bool:
        """Whether a verdict other than ``unjudged`` is a fact rather than an opinion."""
        ...

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row, in order; deterministic."""
        ...


@runtime_checkable
class NeedsStudent(Protocol):
    """A judge that is made for one student; see ``Judge`` for ``teacher_share``."""

    @property
    def teacher_share(self) -> float:
        """See ``Judge``."""
        return 0.0

    def by(self, student: Model, *, seed: int) -> Judge:
        """The judge for ``student``."""
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


JUDGES: Registry[Callable[..., Judge | NeedsStudent]] = Registry(
    "judge", contracts=(Contract(Judge, ("proves", "__call__")), Contract(NeedsStudent, ("by",))), arguments=1
)
JUDGES.lazy(
    "output",
    "gradatim.distillation.judges:output",
    "Exact match with the correct answer, character for character.",
)
JUDGES.lazy(
    "tests",
    "gradatim.distillation.judges:run_tests",
    "The sample's tests, run on the program in a sandbox.",
)
JUDGES.lazy(
    "static",
    "gradatim.distillation.judges:static",
    "Static checks: complete, parses, compiles, runs, warnings.",
)
JUDGES.lazy(
    "rubric",
    "gradatim.distillation.judges:rubric",
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
    return samples.take(pa.array(rows, pa.int64()))


def spread(views: Mapping[int, View] | Sequence[View], index: Sequence[int]) -> list[View]:
    """The views of the distinct rows, repeated on every row."""
    return [views[row] for row in index]


Grade = Literal["easy", "middle", "hard", "unjudged"]
GRADES: tuple[Grade, ...] = ("easy", "middle", "hard", "unjudged")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a question's score: ``easy`` from one on, ``hard`` below the other; 0 <= hard <= easy <= 1."""

    easy: float = 0.75
    hard: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.hard <= self.easy <= 1:
            raise RecipeError(
                "these thresholds leave no order of easy and hard",
                where="feedback",
                given=f"easy {self.easy:g}, hard {self.hard:g}",
                allowed="0 <= hard <= easy <= 1",
            )


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise ``RecipeError`` unless every weight is finite and at least 0, and one is above 0."""
    unfit = [f"{name}: {weight}" for name, weight in weights.items() if not 0 <= weight < float("inf")]
    if unfit or not any(weights.values()):
        message = "no judge counts" if not unfit else "a judge's weight cannot be used"
        values = ", ".join(unfit or [f"{name}: {weight}" for name, weight in weights.items()]) or "no judges"
        raise RecipeError(message, where="feedback", given=values, allowed="weights of 0 or more, one of them above 0")


def combine(views: Mapping[str, View], weights: Mapping[str, float]) -> float | None:
    """The score of one completion, None without a score of a judge with weight.

    The *score* of a completion is the mean over the judges with a score, weighted by the recipe; without any it is
    unjudged. A judge of weight 0 has a column in the table and no effect.

    The *verdict* is proved where possible: of the judges that prove and have a verdict, the first that did not pass
    the completion, or else the first. Otherwise it is the opinion of the heaviest judge with a verdict, the first
    among equals.
    """
    scores = [(view.score, weights[name]) for name, view in views.items() if view.score is not None and weights[name]]
    # Weights relative to the largest neither vanish nor overflow in a product.
    heaviest = max((weight for _, weight in scores), default=1.0)
    scores = [(score, weight / heaviest) for score, weight in scores]
    total = sum(weight for _, weight in scores)
    # Rounding must not lift a mean of ones above one.
    return min(sum(score * weight for score, weight in scores) / total, 1.0) if scores else None


def verdict_of(views: Mapping[str, View], weights: Mapping[str, float], proves: Mapping[str, bool]) -> View:
    """The judgement that decides the verdict of a completion; without any, an unjudged one with all causes."""
    candidates = {name: view for name, view in views.items() if view.verdict != "unjudged"}
    proofs = [view for name, view in candidates.items() if proves[name]]
    if proofs:
        return next((view for view in proofs if view.verdict != "passed"), proofs[0])
    if candidates:
        return candidates[max(candidates, key=lambda name: weights[name])]
    return unjudged("; ".join(f"{name}: {view.reason}" for name, view in views.items()))


def mean_of(scores: Sequence[float | None]) -> float | None:
    """The mean of the scores that are not None; None without any."""
    numbers = [score for score in scores if score is not None]
    return min(sum(numbers) / len(numbers), 1.0) if numbers else None


def grades(scores: Sequence[float | None], *, easy: float, hard: float) -> list[Grade]:
    """The grade of each question. Raises ``RecipeError`` for thresholds that cross.

    The *score of a question* is the mean over its scored completions, and its *grade* follows from two thresholds:
    ``easy`` at or above one, ``hard`` below the other, ``middle`` between. An unjudged question has none of these
    grades.
    """
    limits = Thresholds(easy, hard)
    return [_grade(score, limits) for score in scores]


def _grade(score: float | None, limits: Thresholds) -> Grade:
    if score is None:
        return "unjudged"
    if score >= limits.easy:
        return "easy"
    return "hard" if score < limits.hard else "middle"


_FENCE = re.compile(r"^[ \t]*`{3,}", re.MULTILINE)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\"\"\"|''')")


def language_of(name: str | None) -> Language | None:
    """The language of a sample, Python by default; None for an unsupported one."""
    try:
        return named(name or "python")
    except UnknownPart:
        return None


def begins_program(prompt: str, language: Language) -> bool:
    """Whether ``prompt`` is the beginning of a program rather than a description of one.

    A prompt begins a program when it has no fence, its first line looks like code or a comment, and one of its
    lines is certainly code (``Language.openers``). A completion after ``# output`` is a program's output
    (``asks_for_output``). Texts are not changed here; ``evaluation.output`` assembles programs.
    """
    lines = [line for line in prompt.split("\n") if line.strip()]
    if not lines or _FENCE.search(prompt):
        return False
    opener = re.compile(language.openers)
    return bool(opener.match(lines[0]) or _COMMENT.match(lines[0])) and any(opener.match(line) for line in lines)


def form_of(prompt: str, attempt: str, language: Language) -> Form:
    """``reply``, ``solution`` or ``completion``.

    ``form_of`` decides by the texts alone. A completion with a fence of backticks is a *reply*. Without one it is a
    *solution*, a whole program, when it parses alone and the prompt is in words, or begins a function that the
    completion defines; a *completion* when the prompt is the beginning of a program; and otherwise a reply with bare
    code between words.
    """
    if _FENCE.search(attempt) or strip_thinking(attempt) != attempt:
        return "reply"
    parses = not unusable(attempt) and language.parses(attempt) is None
    if not begins_program(prompt, language):
        return "solution" if parses else "reply"
    function = language.defined(prompt)[-1:]
    return "solution" if parses and set(function) & set(language.defined(attempt)) else "completion"


def program_text(prompt: str, attempt: str, language: Language) -> str:
    """Input for the tools of a language: a reply unchanged, a program in a fence."""
    form = form_of(prompt, attempt, language)
    if form == "reply":
        return attempt
    code = attempt if form == "solution" else prompt + attempt
    fence = "~" * (3 + max((len(tildes) for tildes in re.findall(r"~+", code)), default=0))
    return f"{fence}{language.name}\n{code}\n{fence}\n"
