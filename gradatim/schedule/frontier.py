"""What is neither too easy nor too hard for the student by now?

Samples are drawn in proportion to p(1 - p), p being the student's chance of the whole answer: greatest where it is
right half of the time. The chances are measured anew after every part of the run. Before the first part nothing is
known, and samples are drawn evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .adaptive import check_range, part_name
from .matrix import SCHEDULES, split_budget

__all__ = ["Frontier", "frontier"]


@dataclass(frozen=True)
class Frontier:
    """See ``frontier``; ``budgets`` are the parts' tokens."""

    bands: int
    budgets: tuple[int, ...]
    replay: float
    needs: Needs

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The part after the last one; at the frontier as soon as the student has been probed."""
        part, parts = len(history), len(self.budgets)
        if part == parts:
            return None
        known = bool(history and history[-1].probed)
        return StageSpec(
            part_name(part, parts, "frontier" if known else "all"),
            (1.0,) * self.bands,
            self.budgets[part],
            frontier=known,
            replay=self.replay if known else 0.0,
        )


@SCHEDULES.register("frontier")
@strict("the schedule 'frontier'")
def frontier(
    bands: tuple[str, ...], tokens: int, *, parts: int = 10, probe: int = 4096, replay: float = 0.0
) -> Frontier:
    """Samples weighted by p(1 - p): those that the student gets right about half of the time.

    After each part the student is asked about ``probe`` training samples (0: all); the next part draws from those.
    ``replay`` is the share drawn evenly from what it has more likely right than not.
    """
    check_range("parts", parts, 1, 1000)
    check_range("probe", probe, 0, 1e9)
    check_range("replay", replay, 0, 1, open_at_high=True)
    budgets = tuple(split_budget(tokens, [1.0] * parts))
    return Frontier(len(bands), budgets, replay, Needs(sample_loss=True, probe=probe))
