"""What if the student itself says what is easy for it by now?

Self-paced learning: the easiest share of the samples, as in ``pacing``, but their difficulty is measured anew after
every part of the run, by the student's own loss or by its chance of the right answer. Nobody has asked the student
before the first part, which goes by the table's difficulty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .adaptive import check_range, part_name
from .matrix import SCHEDULES, split_budget
from .pacing import Pace, check_pace, competence

__all__ = ["SelfPaced", "self_paced"]


@dataclass(frozen=True)
class SelfPaced:
    """See ``self_paced``; ``budgets`` are the parts' tokens."""

    bands: int
    budgets: tuple[int, ...]
    by: Literal["loss", "pass_rate"]
    pace: Pace
    start: float
    until: float
    replay: float
    needs: Needs

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The part after the last one; by the student's difficulty as soon as it has been probed."""
        part, parts = len(history), len(self.budgets)
        if part == parts:
            return None
        high = self._open(part)
        before = self._open(part - 1) if part else 0.0
        fresh = bool(self.replay) and 0 < before < high
        return StageSpec(
            part_name(part, parts, f"own-{100 * high:.0f}"),
            (1.0,) * self.bands,
            self.budgets[part],
            low=before if fresh else 0.0,
            high=high,
            by=self.by if history and history[-1].probed else "difficulty",
            replay=self.replay if fresh else 0.0,
        )

    def _open(self, part: int) -> float:
        return competence(part / len(self.budgets), self.pace, self.start, self.until)


@SCHEDULES.register("self_paced")
@strict("the schedule 'self_paced'")
def self_paced(
    bands: tuple[str, ...],
    tokens: int,
    *,
    by: Literal["loss", "pass_rate"] = "loss",
    pace: Pace = "linear",
    start: float = 0.3,
    until: float = 0.8,
    parts: int = 10,
    probe: int = 4096,
    replay: float = 0.0,
) -> SelfPaced:
    """The samples easiest for the student as it is now, more of them from part to part.

    After each part the student is asked about ``probe`` training samples (0: all), and the next part takes the easiest
    of those, by its ``loss`` per answer token or by its ``pass_rate``, the chance that it writes the whole answer. With
    ``replay`` a part is about what has newly opened, and that share of its tokens goes to what is easier.
    """
    check_pace(start, until, parts)
    check_range("probe", probe, 0, 1e9)
    check_range("replay", replay, 0, 1, open_at_high=True)
    budgets = tuple(split_budget(tokens, [1.0] * parts))
    needs = Needs(sample_loss=True, probe=probe)
    return SelfPaced(len(bands), budgets, by, pace, start, until, replay, needs)
