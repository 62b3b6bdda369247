"""Whose child is the next question?

New questions are written after old ones. Which old ones depends on how they went: ``graded`` groups the questions of a
feedback, ``apportion`` says how many children each group gets, ``laps`` goes round the members of one. Questions that
are unjudged are in no group but ``random``, which does not look at grades. Nobody is asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..table import SCHEMA, dedupe, make_table
from ..teacher.teacher import GRADES

__all__ = ["apportion", "graded", "laps"]


def graded(table: pa.Table | None, grade: Literal["feedback", "random"]) -> dict[str, pa.Table]:
    """The questions of a feedback, each once, by grade; or all of them as ``random``."""
    if table is None or not table.num_rows:
        return {}
    questions = dedupe(table, "id").table
    grades = pc.cast(questions["grade"], pa.string())
    parts = {name: questions.filter(pc.equal(grades, name)) for name in GRADES}
    if grade == "random":
        parts = {"random": questions}
    found = {name: part for name, part in parts.items() if part.num_rows}
    return {
        name: make_table({n: part[n] for n in SCHEMA.names if n in part.column_names}) for name, part in found.items()
    }


def apportion(
    count: int, ratio: Mapping[str, float], groups: Mapping[str, pa.Table]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many questions of each grade to ask for, and how many of those without parents the others take over."""
    weights = {name: share for name, share in ratio.items() if share > 0}
    ideal = _parted(count, weights)
    there = {name: share for name, share in weights.items() if name in groups}
    return _parted(count, there), {name: number for name, number in ideal.items() if name not in there and number}


def _parted(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """``count`` in proportion to ``weights``, rounded by largest remainder; earlier names win ties."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: parts[name] - exact[name])[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


def laps(parents: int, seed: int) -> Callable[[int], tuple[int, list[int]]]:
    """A function that gives the next parents, at most so many, and their draw.

    In one draw no parent comes twice, because the same request and draw mean the same reply. Each draw goes through
    all parents in an order of its own.
    """
    generator = np.random.default_rng(seed)
    draw = -1
    order: list[int] = []

    def some(most: int) -> tuple[int, list[int]]:
        nonlocal draw, order
        if not order:
            draw, order = draw + 1, generator.permutation(parents).tolist()
        taken, order = order[:most], order[most:]
        return draw, taken

    return some
