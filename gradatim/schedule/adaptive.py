"""Adaptive schedules: the next stage depends on earlier results, or a teacher designs all stages.

Each divides the budget into equal segments of one stage each and is a pure function of the history, so that a resumed
run takes the same decisions. All segments belong to one course of training: with ``train.reset_optimizer: false``
optimizer and learning rate continue from segment to segment. ``replay`` is the share of a stage's tokens for
earlier samples.

* ``mastery``: bands in order of difficulty, each until validation accuracy passes a threshold or progress stops.
* ``bandit`` (after Matiisen et al., arXiv 1707.00183): the arms are the bands, the reward is the absolute change of a
  band's validation loss during a segment, since a band that is being forgotten needs practice too; plus the upper
  confidence bound of Auer et al. 2002 on rewards scaled to 1. Deterministic.
* ``self_paced``: the easiest share of the samples as in ``pacing``, by the model's own loss or pass rate.
* ``frontier``: samples drawn in proportion to p(1 - p), p the model's probability of the whole answer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import Field

from ..errors import RecipeError
from ..options import strict
from ..stage import Needs, Schedule, StageResult, StageSpec
from .matrix import (
    SCHEDULES,
    Matrix,
    Pace,
    PacingEnd,
    PacingStart,
    ProbeSize,
    Replay,
    Segments,
    band_stage,
    bands_used,
    check_pace,
    check_range,
    competence,
    order_and_options,
    split_budget,
    stage_name,
)

BAND_LOSS = Needs(band_loss=True)
"""Losses on validation samples, never on the test set."""


class AdaptiveSchedule(Schedule, ABC):
    """A schedule of one stage per part of the budget; ``budgets`` are the tokens of the parts."""

    budgets: tuple[int, ...]

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The stage after the last one of ``history``; None when every part has had its stage."""
        return None if len(history) == len(self.budgets) else self._stage(len(history), history)

    @abstractmethod
    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """The stage of part ``index``, from the results of all parts before it."""

    def _stage_on_band(
        self, index: int, history: Sequence[StageResult], bands: Sequence[str], band: int, replay: float
    ) -> StageSpec:
        """The stage of part ``index`` on one band, with the share ``replay`` of its tokens for those used before."""
        name = stage_name(index, len(self.budgets), bands[band])
        return band_stage(name, band, len(bands), self.budgets[index], bands_used(history, len(bands)), replay)


def even_parts(tokens: int, parts: int) -> tuple[int, ...]:
    """``tokens`` divided into ``parts`` equal budgets."""
    return tuple(split_budget(tokens, [1.0] * parts))


@dataclass(frozen=True)
class Mastery(AdaptiveSchedule):
    """See ``mastery``; ``bands`` are names, ``budgets`` the tokens of the parts."""

    bands: tuple[str, ...]
    budgets: tuple[int, ...]
    threshold: float
    patience: int
    gain: float
    replay: float
    needs: Needs = BAND_LOSS

    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """A stage on the first band that is not mastered, or on all bands after the last."""
        band = self._band(history)
        if band == len(self.bands):
            name = stage_name(index, len(self.budgets), "all")
            return StageSpec(name, (1.0,) * len(self.bands), self.budgets[index])
        return self._stage_on_band(index, history, self.bands, band, self.replay)

    def _band(self, history: Sequence[StageResult]) -> int:
        """The index of the current band, from a replay of the history; one past the hardest when all are finished."""
        band, first = 0, 0
        for finished in range(1, len(history) + 1):
            if band == len(self.bands):
                return band
            bands_after = len(self.bands) - 1 - band
            if self._ends(band, history[first:finished]) or len(self.budgets) - finished <= bands_after > 0:
                band, first = band + 1, finished
        return band

    def _ends(self, band: int, stages: Sequence[StageResult]) -> bool:
        """Whether a band is finished: mastered, without progress, or at its even share without measurements."""
        progress = [result.progress[self.bands[band]] for result in stages if self.bands[band] in result.progress]
        if not progress:
            return len(stages) * len(self.bands) >= len(self.budgets)
        if progress[-1].right >= self.threshold:
            return True
        if len(progress) <= self.patience:
            return False
        best = min(measurement.loss for measurement in progress[: -self.patience])
        return all(measurement.loss > best * (1 - self.gain) for measurement in progress[-self.patience :])


@SCHEDULES.register("mastery")
@strict("the schedule 'mastery'")
def mastery(
    bands: tuple[str, ...],
    tokens: int,
    *,
    threshold: Annotated[float, Field(description="Validation accuracy at which a band is mastered.")] = 0.9,
    patience: Annotated[
        int, Field(description="Number of stages without the minimum decrease after which a band ends.")
    ] = 2,
    gain: Annotated[
        float, Field(description="Minimum relative decrease of the validation loss over `patience` stages.")
    ] = 0.02,
    parts: Segments = 12,
    replay: Replay = 0.0,
) -> Mastery:
    """One band after the other, each until it is mastered or progress stops, within the same budget.

    A band is mastered at the share ``threshold`` of validation samples with a correct answer, and without progress when
    its validation loss has not fallen by the share ``gain`` in ``patience`` parts. ``replay`` is the share of a part's
    tokens for the bands before. A band without validation samples gets its even share of the parts.
    """
    check_range("threshold", threshold, 0, 1)
    check_range("patience", patience, 1, 1000)
    check_range("gain", gain, 0, 1)
    check_range("replay", replay, 0, 1, open_at_high=True)
    if parts < len(bands):
        raise RecipeError(
            "mastery needs at least one part per band",
            where="schedule.parts",
            given=parts,
            allowed=f"{len(bands)} or more",
        )
    return Mastery(bands, even_parts(tokens, parts), threshold, patience, gain, replay)


@dataclass(frozen=True)
class Bandit(AdaptiveSchedule):
    """See ``bandit``; ``bands`` are names, ``budgets`` the tokens of the parts."""

    bands: tuple[str, ...]
    budgets: tuple[int, ...]
    explore: float
    window: int
    replay: float
    needs: Needs = BAND_LOSS

    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """A stage on the band with the greatest upper confidence bound; the easier one on a tie."""
        turns = [self.band_of(result) for result in history]
        bounds = self._bounds(history, turns)
        band = max(range(len(self.bands)), key=lambda arm: (bounds[arm], -arm))
        return self._stage_on_band(index, history, self.bands, band, self.replay)

    def band_of(self, result: StageResult) -> int:
        """The band of a finished stage, from its name: with a large replay it need not have the largest share."""
        return self.bands.index(result.spec.name.partition("-")[2])

    def _bounds(self, history: Sequence[StageResult], turns: Sequence[int]) -> list[float]:
        """The upper confidence bound of each band; infinite for a band without a stage."""
        values = [self._value(band, history, turns) for band in range(len(self.bands))]
        scale = max(values) or 1.0
        counts = [turns.count(band) for band in range(len(self.bands))]
        return [
            value / scale + self.explore * math.sqrt(math.log(len(turns)) / count) if count else math.inf
            for value, count in zip(values, counts, strict=True)
        ]

    def _value(self, band: int, history: Sequence[StageResult], turns: Sequence[int]) -> float:
        """Mean reward of the band's last ``window`` stages; 0 without measurements."""
        name = self.bands[band]
        rewards = [
            abs(after.progress[name].loss - before.progress[name].loss)
            for before, after, turn in zip(history, history[1:], turns[1:], strict=False)
            if turn == band and name in before.progress and name in after.progress
        ][-self.window :]
        return sum(rewards) / len(rewards) if rewards else 0.0


@SCHEDULES.register("bandit")
@strict("the schedule 'bandit'")
def bandit(
    bands: tuple[str, ...],
    tokens: int,
    *,
    explore: Annotated[float, Field(description="Weight of the exploration bonus for rarely used bands.")] = 0.5,
    window: Annotated[
        int, Field(description="Number of recent stages of a band that its reward is computed from.")
    ] = 2,
    parts: Segments = 12,
    replay: Replay = 0.0,
) -> Bandit:
    """In each part the band whose validation loss has changed most recently, with a bonus for rare bands.

    ``window`` is the number of a band's last parts that count, ``explore`` the weight of the bonus. ``replay`` is the
    share of a part's tokens for the other bands used before. Without any measured loss the bands alternate.
    """
    check_range("explore", explore, 0, 100)
    check_range("window", window, 1, 1000)
    check_range("parts", parts, 1, 1000)
    check_range("replay", replay, 0, 1, open_at_high=True)
    return Bandit(bands, even_parts(tokens, parts), explore, window, replay)


@dataclass(frozen=True)
class SelfPaced(AdaptiveSchedule):
    """See ``self_paced``; ``budgets`` are the tokens of the parts."""

    bands: int
    budgets: tuple[int, ...]
    by: Literal["loss", "pass_rate"]
    pace: Pace
    start: float
    until: float
    replay: float
    needs: Needs = field()

    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """A stage on the easiest samples, by the model's own difficulty once it has been probed."""
        high = self._available(index)
        low = self._available(index - 1) if index else 0.0
        with_earlier = bool(self.replay) and 0 < low < high
        return StageSpec(
            stage_name(index, len(self.budgets), f"own-{100 * high:.0f}"),
            (1.0,) * self.bands,
            self.budgets[index],
            low=low if with_earlier else 0.0,
            high=high,
            by=self.by if history and history[-1].probed else "difficulty",
            replay=self.replay if with_earlier else 0.0,
        )

    def _available(self, index: int) -> float:
        return competence(index / len(self.budgets), self.pace, self.start, self.until)


@SCHEDULES.register("self_paced")
@strict("the schedule 'self_paced'")
def self_paced(
    bands: tuple[str, ...],
    tokens: int,
    *,
    by: Annotated[
        Literal["loss", "pass_rate"],
        Field(
            description="Difficulty measure: loss per answer token, or probability of the whole answer (`pass_rate`)."
        ),
    ] = "loss",
    pace: Pace = "linear",
    start: PacingStart = 0.3,
    until: PacingEnd = 0.8,
    parts: Segments = 10,
    probe: ProbeSize = 4096,
    replay: Replay = 0.0,
) -> SelfPaced:
    """The samples easiest for the model at present, more of them from part to part.

    After each part ``probe`` training samples (0: all) are scored by the model, and the next part takes the easiest of
    them: by ``loss`` per answer token, or by ``pass_rate``, the probability of the whole answer. With ``replay`` a part
    trains on the newly available samples, and that share of its tokens goes to easier ones.
    """
    check_pace(start, until, parts)
    check_range("probe", probe, 0, 1e9)
    check_range("replay", replay, 0, 1, open_at_high=True)
    needs = Needs(sample_loss=True, probe=probe)
    return SelfPaced(len(bands), even_parts(tokens, parts), by, pace, start, until, replay, needs)


@dataclass(frozen=True)
class Frontier(AdaptiveSchedule):
    """See ``frontier``; ``budgets`` are the tokens of the parts."""

    bands: int
    budgets: tuple[int, ...]
    replay: float
    needs: Needs = field()

    def _stage(self, index: int, history: Sequence[StageResult]) -> StageSpec:
        """A stage on all bands, weighted by p(1 - p) once the model has been probed."""
        probed = bool(history and history[-1].probed)
        return StageSpec(
            stage_name(index, len(self.budgets), "frontier" if probed else "all"),
            (1.0,) * self.bands,
            self.budgets[index],
            frontier=probed,
            replay=self.replay if probed else 0.0,
        )


@SCHEDULES.register("frontier")
@strict("the schedule 'frontier'")
def frontier(
    bands: tuple[str, ...],
    tokens: int,
    *,
    parts: Segments = 10,
    probe: ProbeSize = 4096,
    replay: Annotated[
        float, Field(description="Fraction of a stage's tokens from samples with p > 1/2, drawn uniformly.")
    ] = 0.0,
) -> Frontier:
    """Samples weighted by p(1 - p): those that the model answers correctly about half of the time.

    After each part ``probe`` training samples (0: all) are scored by the model; the next part draws from those.
    ``replay`` is the share drawn evenly from samples with p > 1/2.
    """
    check_range("parts", parts, 1, 1000)
    check_range("probe", probe, 0, 1e9)
    check_range("replay", replay, 0, 1, open_at_high=True)
    return Frontier(len(bands), even_parts(tokens, parts), replay, Needs(sample_loss=True, probe=probe))


MOST_STAGES = 100


@dataclass(frozen=True)
class Designed(Schedule):
    """A schedule before its design; ``next`` raises. The options are those of ``designed``.

    ``tokens``: this cycle's even share of the budget, which the design may divide otherwise. ``orders``: {name:
    options}.

    A teacher writes the stages of this schedule from statistics of the samples (``design``), within bounds that the
    recipe sets. A factory receives only bands and a budget, so it returns a ``Designed``, whose ``next`` raises
    until ``with_stages`` has turned it into a matrix.
    """

    needs_teacher = True

    bands: tuple[str, ...]
    tokens: int
    objectives: tuple[str, ...] = field()
    orders: Mapping[str, Mapping[str, Any]]
    stages: int
    revise: bool
    needs: Needs = BAND_LOSS

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """Raise ``RecipeError``: there is no design yet."""
        raise RecipeError(
            "the stages of this schedule come from a teacher, and there is no design yet",
            where="schedule.name: designed",
            hint="`gradatim run`, which requests it; elsewhere a schedule without a teacher",
        )

    def with_stages(self, stages: Sequence[StageSpec]) -> Matrix:
        """The schedule with its stages, which were checked when the design was parsed."""
        return Matrix(tuple(stages), self.needs)

    @property
    def needs_whole_samples(self) -> str | None:
        """The reason why a possible stage cannot be trained on random crops, None when all can."""
        order = next((name for name in self.orders if name != "shuffled"), None)
        return None if order is None else f"the order {order!r} is one of samples"


def is_designed(schedule: Schedule) -> TypeGuard[Designed]:
    """Whether the stages have yet to be designed by the teacher of the recipe."""
    return schedule.needs_teacher


@SCHEDULES.register("designed")
@strict("the schedule 'designed'")
def designed(
    bands: tuple[str, ...],
    tokens: int,
    *,
    objectives: Annotated[
        Sequence[str], Field(description="Objectives that a design may use in addition to `train.objective`.")
    ] = (),
    orders: Annotated[
        Sequence[str | dict[str, Any]],
        Field(description="Orders that a design may use, as for `order`; the first is the default."),
    ] = ("shuffled",),
    stages: Annotated[int, Field(description="Maximum number of stages per cycle.")] = 8,
    revise: Annotated[
        bool, Field(description="Revise the remaining stages before each later cycle, given the validation results.")
    ] = True,
) -> Designed:
    """A teacher designs the stages from statistics of the samples, within the same budget.

    It may use at most ``stages`` stages a cycle and, for each, shares of the bands, one of ``orders`` and one of
    ``objectives`` beside the recipe's own. With ``revise`` the design may be changed before each later cycle, given the
    results on the validation samples. Needs a teacher that is a language model, with room for a whole table in
    ``teacher.max_tokens`` (about 60 a stage).
    """
    check_range("stages", stages, 1, MOST_STAGES)
    if not orders:
        raise RecipeError(
            "a stage needs at least one possible order",
            where="schedule.orders",
            given="an empty list",
            hint="[shuffled]",
        )
    named_orders = [order_and_options(order, None, "schedule.orders") for order in orders]
    for option, values in (("orders", [name for name, _ in named_orders]), ("objectives", list(objectives))):
        if len(set(values)) != len(values):
            raise RecipeError("a name occurs twice", where=f"schedule.{option}", given=", ".join(values))
    needs = BAND_LOSS if revise else Needs()
    return Designed(bands, tokens, tuple(objectives), dict(named_orders), stages, revise, needs)
