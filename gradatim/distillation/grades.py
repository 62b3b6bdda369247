"""Combination of judgements: score and verdict of a completion, score and grade of a question.

The *score* of a completion is the mean over the judges with a score, weighted by the recipe; without any it is
unjudged. A judge of weight 0 has a column in the table and no effect.

The *verdict* is proved where possible: of the judges that prove and have a verdict, the first that did not pass the
completion, or else the first. Otherwise it is the opinion of the heaviest judge with a verdict, the first among equals.

The *score of a question* is the mean over its scored completions, and its *grade* follows from two thresholds:
``easy`` at or above one, ``hard`` below the other, ``middle`` between. An unjudged question has none of these grades.
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
    """The score of one completion, None without a score of a judge with weight."""
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
    """The grade of each question. Raises ``RecipeError`` for thresholds that cross."""
    limits = Thresholds(easy, hard)
    return [_grade(score, limits) for score in scores]


def _grade(score: float | None, limits: Thresholds) -> Grade:
    if score is None:
        return "unjudged"
    if score >= limits.easy:
        return "easy"
    return "hard" if score < limits.hard else "middle"
