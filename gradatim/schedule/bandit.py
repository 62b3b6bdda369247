"""Which band teaches the most just now?

A bandit (after Matiisen et al., arXiv 1707.00183): the arms are the bands, the reward of a part spent on a band is how
much its validation loss moved meanwhile, in either direction, since what is being forgotten needs practice too. The
band with the greatest recent reward is next, with a bonus for bands that have seldom had a turn (the upper confidence
bound of Auer et al. 2002 on rewards scaled to 1). There is no chance in it: the same history gives the same band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .adaptive import check_range, focused, met, part_name
from .matrix import SCHEDULES, split_budget

__all__ = ["Bandit", "bandit"]

NEEDS = Needs(band_loss=True)


@dataclass(frozen=True)
class Bandit:
    """See ``bandit``; ``bands`` are names, ``budgets`` the parts' tokens."""

    bands: tuple[str, ...]
    budgets: tuple[int, ...]
    explore: float
    window: int
    replay: float
    needs: Needs = NEEDS

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The next part, of the band with the greatest bound; the easier one of two alike."""
        part, parts = len(history), len(self.budgets)
        if part == parts:
            return None
        turns = [self.band_of(result) for result in history]
        bounds = self._bounds(history, turns)
        band = max(range(len(self.bands)), key=lambda each: (bounds[each], -each))
        name = part_name(part, parts, self.bands[band])
        return focused(name, band, len(self.bands), self.budgets[part], met(history, len(self.bands)), self.replay)

    def band_of(self, result: StageResult) -> int:
        """The band that a part was about: with a large replay it need not be the one with the largest share."""
        return self.bands.index(result.spec.name.partition("-")[2])

    def _bounds(self, history: Sequence[StageResult], turns: Sequence[int]) -> list[float]:
        values = [self._value(band, history, turns) for band in range(len(self.bands))]
        scale = max(values) or 1.0
        counts = [turns.count(band) for band in range(len(self.bands))]
        return [
            value / scale + self.explore * math.sqrt(math.log(len(turns)) / count) if count else math.inf
            for value, count in zip(values, counts, strict=True)
        ]

    def _value(self, band: int, history: Sequence[StageResult], turns: Sequence[int]) -> float:
        """The mean reward of the band's last turns; 0 while none is known."""
        name = self.bands[band]
        rewards = [
            abs(now.progress[name].loss - before.progress[name].loss)
            for before, now, turn in zip(history, history[1:], turns[1:], strict=False)
            if turn == band and name in before.progress and name in now.progress
        ][-self.window :]
        return sum(rewards) / len(rewards) if rewards else 0.0


@SCHEDULES.register("bandit")
@strict("the schedule 'bandit'")
def bandit(
    bands: tuple[str, ...],
    tokens: int,
    *,
    explore: float = 0.5,
    window: int = 2,
    parts: int = 12,
    replay: float = 0.0,
) -> Bandit:
    """In each part the band whose validation loss has moved most of late, with a bonus for rare ones.

    ``window`` is how many of a band's last turns count, ``explore`` the weight of the bonus. ``replay`` is the share of
    a part's tokens for the other bands met before. While no loss is known the bands take turns.
    """
    check_range("explore", explore, 0, 100)
    check_range("window", window, 1, 1000)
    check_range("parts", parts, 1, 1000)
    check_range("replay", replay, 0, 1, open_at_high=True)
    return Bandit(bands, tuple(split_budget(tokens, [1.0] * parts)), explore, window, replay)
