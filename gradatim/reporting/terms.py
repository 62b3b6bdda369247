"""Nouns that depend on the kind of student: of the main metric and of the budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Terms:
    """Nouns that depend on the kind of student: the main ``metric``, the ``budget``, and its ``rate``."""

    metric: str = "accuracy"
    budget: str = "training tokens"
    rate: str = "tokens per second"


POLICY = Terms("utility", "agent steps", "agent steps per second")


def terms_of_runs(settings: Iterable[Mapping[str, Any]]) -> Terms:
    """The terms of runs by their recipes' ``settings``, those of policies where all of them have one."""
    students = [recipe.get("student") for recipe in settings if recipe]
    kinds = {student.get("kind") if isinstance(student, Mapping) else None for student in students}
    return POLICY if kinds == {"policy"} else Terms()
