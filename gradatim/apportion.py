"""Apportioning of a whole number, such as samples by level or new questions by grade."""

from __future__ import annotations

from collections.abc import Sequence


def largest_remainder(count: int, weights: Sequence[float]) -> list[int]:
    """``count`` apportioned in proportion to ``weights`` by the largest remainder method; earlier weights win ties.

    Exact for whole weights. Without a positive weight every number is 0.
    """
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    if all(isinstance(weight, int) for weight in weights):
        numbers, remainders = zip(*(divmod(count * weight, total) for weight in weights), strict=True)
    else:
        exact = [count * weight / total for weight in weights]
        numbers = tuple(map(int, exact))
        remainders = tuple(share - number for share, number in zip(exact, numbers, strict=True))
    result = [int(number) for number in numbers]
    for index in sorted(range(len(weights)), key=lambda index: -remainders[index])[: count - sum(result)]:
        result[index] += 1
    return result
