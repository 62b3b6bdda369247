"""How do several views of an attempt become one score, one verdict, and the grade of a question?

The *score* of an attempt is the mean over the judges that could say, weighted by the recipe; without any it is
unjudged. A weight of 0 shows a judge's view in the table and counts for nothing.

The *verdict* is a fact where there is one: of the judges that prove and could say, the first that did not pass the
attempt, or else the first. Where none could, it is the opinion of the heaviest judge that could say, of equals the
first.

The *score of a question* is the mean over its attempts that have one, and its *grade* follows from two thresholds:
``easy`` at or above one, ``hard`` below the other, ``middle`` between. An unjudged question is neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import RecipeError
from .judge import View, unjudged

__all__ = ["GRADES", "Grade", "Thresholds", "check_weights", "combine", "grades", "mean_of", "verdict_of"]


Grade = Literal["easy", "middle", "hard", "unjudged"]
GRADES: tuple[Grade, ...] = ("easy", "middle", "hard", "unjudged")


@dataclass(frozen=True)
class Thresholds:
    """A question is ``easy`` when its score reaches that, ``hard`` when it is below that: 0 <= hard <= easy <= 1."""

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
    """Raises ``RecipeError`` unless every weight is finite and at least 0, and one is above."""
    unfit = [f"{name}: {weight}" for name, weight in weights.items() if not 0 <= weight < float("inf")]
    if unfit or not any(weights.values()):
        what = "no judge counts" if not unfit else "a judge's weight cannot be used"
        told = ", ".join(unfit or [f"{name}: {weight}" for name, weight in weights.items()]) or "no judges"
        raise RecipeError(what, where="feedback", given=told, allowed="weights of 0 or more, one of them above 0")


def combine(views: Mapping[str, View], weights: Mapping[str, float]) -> float | None:
    """The score of one attempt, None when no judge that counts could say."""
    said = [(view.score, weights[name]) for name, view in views.items() if view.score is not None and weights[name]]
    heaviest = max((weight for _, weight in said), default=1.0)  # parts of it neither vanish nor overflow in a product
    said = [(score, weight / heaviest) for score, weight in said]
    total = sum(weight for _, weight in said)
    # Rounding must not lift a mean of ones above one.
    return min(sum(score * weight for score, weight in said) / total, 1.0) if said else None


def verdict_of(views: Mapping[str, View], weights: Mapping[str, float], proves: Mapping[str, bool]) -> View:
    """The view whose verdict is the attempt's; when none could say, an unjudged one with all causes."""
    told = {name: view for name, view in views.items() if view.verdict != "unjudged"}
    facts = [view for name, view in told.items() if proves[name]]
    if facts:
        return next((view for view in facts if view.verdict != "passed"), facts[0])
    if told:
        return told[max(told, key=lambda name: weights[name])]
    return unjudged("; ".join(f"{name}: {view.reason}" for name, view in views.items()))


def mean_of(scores: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None when none is."""
    there = [score for score in scores if score is not None]
    return min(sum(there) / len(there), 1.0) if there else None


def grades(scores: Sequence[float | None], *, easy: float, hard: float) -> list[Grade]:
    """The grade of each question. Raises ``RecipeError`` for thresholds that cross."""
    limits = Thresholds(easy, hard)
    return [_grade(score, limits) for score in scores]


def _grade(score: float | None, limits: Thresholds) -> Grade:
    if score is None:
        return "unjudged"
    if score >= limits.easy:
        return "easy"
    return "hard" if score < limits.hard else "middle"
