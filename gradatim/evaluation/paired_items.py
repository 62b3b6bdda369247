"""Comparison of models on the same test items: McNemar's exact test, corrected by Holm over all comparisons.

The unit of analysis is the *item*: a significant difference concerns two trained models on other items of the same
kind, not two training methods, whose unit is the seed (``statistics.compare``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import DataError
from .statistics import holm, mcnemar

Items = Mapping[str, bool]
"""Whether the model solves each item, by the item's name."""


@dataclass(frozen=True)
class ItemComparison:
    """``model`` against ``reference`` on their common items.

    ``won``: items that only the model solves, ``lost``: those that only the reference does; ``both`` and ``neither``:
    the others. ``unmatched``: items of one of the two only, which are left out. ``p``: exact and two-sided
    (``statistics.mcnemar``); ``p_holm``: corrected over all comparisons of the call.
    """

    model: str
    reference: str
    both: int
    won: int
    lost: int
    neither: int
    unmatched: int = 0
    p: float = 1.0
    p_holm: float | None = None

    @property
    def items(self) -> int:
        """The number of common items."""
        return self.both + self.won + self.lost + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the model minus that of the reference, in [-1, 1]."""
        return (self.won - self.lost) / self.items


def compare_items(items: Mapping[str, Items], pairs: Sequence[tuple[str, str]]) -> tuple[ItemComparison, ...]:
    """Compare each (model, reference) of ``pairs``, names in ``items``; ``DataError`` without common items."""
    comparisons = [_comparison(model, reference, items[model], items[reference]) for model, reference in pairs]
    corrected = holm({str(number): comparison.p for number, comparison in enumerate(comparisons)})
    return tuple(replace(comparison, p_holm=corrected[str(number)]) for number, comparison in enumerate(comparisons))


def _comparison(model: str, reference: str, first: Items, second: Items) -> ItemComparison:
    common = first.keys() & second.keys()
    if not common:
        raise DataError(
            "these evaluations have no item in common", where=model, given=next(iter(first), "no items"),
            allowed=f"items of {reference} such as {next(iter(second), 'none')}",
        )  # fmt: skip
    won = sum(first[item] and not second[item] for item in common)
    lost = sum(second[item] and not first[item] for item in common)
    both = sum(first[item] and second[item] for item in common)
    unmatched = len(first.keys() ^ second.keys())
    neither = len(common) - won - lost - both
    return ItemComparison(model, reference, both, won, lost, neither, unmatched, mcnemar(won, lost))
