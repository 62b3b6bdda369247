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
    """Points by a rule of (answer, attempt), None for a reply that nobody can read; ``asked``: (prompt, attempt)."""

    def __init__(self, rule: Callable[[str, str], float | None]) -> None:
        self.rule = rule
        self.asked: list[tuple[str, str]] = []

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Points | None]:
        pairs = list(zip(samples["answer"].to_pylist(), attempts, strict=True))
        self.asked += zip(samples["prompt"].to_pylist(), attempts, strict=True)
        return [None if (points := self.rule(*pair)) is None else Points(points) for pair in pairs]
