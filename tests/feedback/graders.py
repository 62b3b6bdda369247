"""Graders that follow a rule, and the context of the students here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

CONTEXT = 40


@dataclass(frozen=True)
class Points:
    points: float
    analysis: str = "read"


class Grading:
    """A grader that follows a rule: points for (answer, attempt), None for a reply that nobody can read."""

    def __init__(self, rule: Callable[[str, str], float | None]) -> None:
        self.rule = rule
        self.asked: list[tuple[str, str]] = []

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Points | None]:
        pairs = list(zip(samples["answer"].to_pylist(), attempts, strict=True))
        self.asked += pairs
        return [None if (points := self.rule(*pair)) is None else Points(points) for pair in pairs]
