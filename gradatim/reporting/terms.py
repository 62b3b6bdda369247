"""Facts that depend on the kind of student: nouns of the main metric and the budget, and the size of the budget."""

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
    kinds = {has_policy(recipe) for recipe in settings if recipe}
    return POLICY if kinds == {True} else Terms()


def has_policy(settings: Mapping[str, Any]) -> bool:
    """Whether a recipe trains a policy."""
    student = settings.get("student")
    return isinstance(student, Mapping) and student.get("kind") == "policy"


def budget_of(settings: Mapping[str, Any]) -> int | None:
    """The budget of a whole run in tokens, of a policy in agent steps; None where the recipe does not state it so."""
    budget = settings.get("budget")
    size = budget.get("steps" if has_policy(settings) else "tokens") if isinstance(budget, Mapping) else None
    return size if isinstance(size, int) else None
