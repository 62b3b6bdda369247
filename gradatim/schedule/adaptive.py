"""Adaptive schedules: the next stage depends on the results of the stages before.

Each divides the budget into equal segments of one stage each and is a pure function of the history, so that a resumed
run takes the same decisions. All segments belong to one course of training: with ``train.restart: false`` optimizer and
learning rate continue from segment to segment. ``replay`` is the share of a stage's tokens for earlier samples.

* ``mastery``: bands in order of difficulty, each until validation accuracy passes a threshold or progress stops.
* ``bandit`` (after Matiisen et al., arXiv 1707.00183): the arms are the bands, the reward is the absolute change of a
  band's validation loss during a segment, since a band that is being forgotten needs practice too; plus the upper
  confidence bound of Auer et al. 2002 on rewards scaled to 1. Deterministic.
* ``self_paced``: the easiest share of the samples as in ``pacing``, by the model's own loss or pass rate.
* ``frontier``: samples drawn in proportion to p(1 - p), p the model's probability of the whole answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import RecipeError
from ..options import strict
from ..stage import Needs, StageResult, StageSpec
from .continuous import Pace, check_pace, check_range, competence, focused, met, part_name
from .matrix import SCHEDULES, split_budget

__all__ = ["Bandit", "Frontier", "Mastery", "SelfPaced", "bandit", "frontier", "mastery", "self_paced"]

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
