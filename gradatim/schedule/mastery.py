"""When is a band learnt well enough to go on?

One band after the other, easiest first. A band ends when the student's validation accuracy on it passes a threshold, or
when it has stopped getting better; what is left of the budget after the hardest band goes to all bands together. Every
band is sure of its turn: the last parts of the budget are kept for the bands that wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RecipeError
from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .adaptive import check_range, focused, met, part_name
from .matrix import SCHEDULES, split_budget

__all__ = ["Mastery", "mastery"]

NEEDS = Needs(band_loss=True)


@dataclass(frozen=True)
class Mastery:
    """See ``mastery``; ``bands`` are names, ``budgets`` the parts' tokens."""

    bands: tuple[str, ...]
    budgets: tuple[int, ...]
    threshold: float
    patience: int
    gain: float
    replay: float
    needs: Needs = NEEDS

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The next part of the band that is not mastered yet, or of all bands after the last."""
        part, parts = len(history), len(self.budgets)
        if part == parts:
            return None
        band = self._band(history)
        if band == len(self.bands):
            return StageSpec(part_name(part, parts, "all"), (1.0,) * len(self.bands), self.budgets[part])
        name = part_name(part, parts, self.bands[band])
        before = met(history, len(self.bands))
        return focused(name, band, len(self.bands), self.budgets[part], before, self.replay)

    def _band(self, history: Sequence[StageResult]) -> int:
        """Which band it is the turn of, from the first part on; one past the hardest when all had theirs."""
        band, since = 0, 0
        for done in range(1, len(history) + 1):
            if band == len(self.bands):
                return band
            waiting = len(self.bands) - 1 - band
            if self._ends(band, history[since:done]) or len(self.budgets) - done <= waiting > 0:
                band, since = band + 1, done
        return band

    def _ends(self, band: int, spent: Sequence[StageResult]) -> bool:
        """Whether the parts spent on a band are enough: mastered, at a standstill, or its even share when unknown."""
        seen = [result.progress[self.bands[band]] for result in spent if self.bands[band] in result.progress]
        if not seen:
            return len(spent) * len(self.bands) >= len(self.budgets)
        if seen[-1].right >= self.threshold:
            return True
        if len(seen) <= self.patience:
            return False
        best = min(each.loss for each in seen[: -self.patience])
        return all(each.loss > best * (1 - self.gain) for each in seen[-self.patience :])


@SCHEDULES.register("mastery")
@strict("the schedule 'mastery'")
def mastery(
    bands: tuple[str, ...],
    tokens: int,
    *,
    threshold: float = 0.9,
    patience: int = 2,
    gain: float = 0.02,
    parts: int = 12,
    replay: float = 0.0,
) -> Mastery:
    """One band after the other, each until it is mastered or at a standstill, within the same budget.

    A band is mastered at the share ``threshold`` of validation samples whose whole answer is right, and at a standstill
    when in ``patience`` parts its validation loss has not fallen by the share ``gain``. ``replay`` is the share of a
    part's tokens for the bands before. A band without validation samples gets its even share of the parts.
    """
    check_range("threshold", threshold, 0, 1)
    check_range("patience", patience, 1, 1000)
    check_range("gain", gain, 0, 1)
    check_range("replay", replay, 0, 1, open_at_high=True)
    if parts < len(bands):
        raise RecipeError(
            "there are fewer parts than bands", where="schedule.parts", given=parts, allowed=f"{len(bands)} or more"
        )
    return Mastery(bands, tuple(split_budget(tokens, [1.0] * parts)), threshold, patience, gain, replay)
