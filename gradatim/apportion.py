"""Apportioning of a whole number, such as samples by level or new questions by grade."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def largest_remainder(count: int, weights: Mapping[Name, float]) -> dict[Name, int]:
    """``count`` apportioned in proportion to ``weights`` by the largest remainder method; earlier weights win ties.

    Exact for whole weights. Without a positive weight every number is 0.
    """
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    if all(isinstance(weight, int) for weight in weights.values()):
        numbers = {name: int(count * weight // total) for name, weight in weights.items()}
        remainders = {name: count * weight % total for name, weight in weights.items()}
    else:
        exact = {name: count * weight / total for name, weight in weights.items()}
        numbers = {name: int(share) for name, share in exact.items()}
        remainders = {name: share - numbers[name] for name, share in exact.items()}
    for name in sorted(weights, key=lambda name: -remainders[name])[: count - sum(numbers.values())]:
        numbers[name] += 1
    return numbers
