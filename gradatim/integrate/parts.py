"""Which stages does a budget told in another trainer's words make, and how many samples does each draw?

Our runs count tokens; other trainers count samples, steps and epochs. The budget is given to the schedule in whichever
unit it was told, the schedule parts it, and ``Part`` holds each stage with the samples that its share pays for. Stages
and their seeds are those of a run (``schedule``, ``assemble``), so both learn the same rows in the same order. Rows
that a stage draws with weights are drawn as our own batches draw them (``student.mixture``).

Nothing is trained here, so no result can be looked at: schedules that decide by results are refused, and so are stages
that ask for more than a choice of rows (an objective of their own).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

from ..errors import DataError, RecipeError
from ..schedule import Bands, needs_of, realise, stage_seed
from ..stage import Needs, Schedule, Stage, StageResult, StageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..training.weighted_sampling import Draws

    Scores: TypeAlias = npt.NDArray[np.float64]
    Sizes: TypeAlias = npt.NDArray[np.int64]

__all__ = ["Part", "Walk", "sizes_of", "units"]

OBEYED = frozenset(
    ("name", "fractions", "tokens", "ends", "order", "order_options", "low", "high", "mixture", "replay")
)
"""What of a stage is obeyed; whatever else it sets is refused, not overlooked, also what schedules learn to ask for."""

MOST_STAGES = 1000
INSTEAD = "`gradatim run`, or a schedule such as hybrid, sequential or incremental"


@dataclass(frozen=True)
class Part:
    """A stage, and how many samples are drawn from it: passes through ``stage.rows``, the last perhaps cut short.

    With ``draws`` a pass is a slice of the stage's mixture, and may hold a row several times or not at all.
    """

    stage: Stage
    samples: int
    draws: Draws | None = None

    def rows(self, number: int) -> Sizes:
        """The rows of pass ``number`` (from 0) in order; a shuffled stage is permuted anew in each."""
        import numpy as np

        if self.draws is not None:
            return self.draws.slice(number)
        if not self.stage.shuffled_in(number):
            return self.stage.rows
        return np.random.default_rng([self.stage.seed, number, 0]).permutation(self.stage.rows)

    def after(self, place: int) -> Iterator[Sizes]:
        """The rows from ``place`` on (from 0), a pass at a time and without end.

        Nobody but a slice itself knows how many rows it holds, so those before ``place`` are drawn again.
        """
        first, place = (0, place) if self.draws is not None else divmod(place, len(self.stage.rows))
        for number in count(first):
            rows = self.rows(number)
            yield rows[place:]
            place = max(place - len(rows), 0)


def units(scored: int, batch: int, *, tokens: int | None, steps: int | None, **others: float | None) -> int:
    """What the schedule parts: tokens, or else optimizer steps of ``batch`` samples."""
    given = {"tokens": tokens, "steps": steps, **others}
    told = {name: value for name, value in given.items() if value is not None}
    if len(told) != 1:
        raise RecipeError(
            "the budget is told in one way",
            where="curriculum",
            given=", ".join(told) or "none",
            allowed=" or ".join(given),
        )
    if batch < 1 or not all(0 < value < math.inf for value in told.values()):
        raise RecipeError(
            "the budget and the batch must be positive", where="curriculum", given={**told, "batch": batch}
        )
    if tokens or steps:
        return int(tokens or steps or 0)
    wanted = others["samples"] or (others["epochs"] or 0) * scored
    return max(1, round(wanted / batch))


def sizes_of(lengths: Sequence[int] | None, tokens: int | None, rows: int) -> Sizes | None:
    """int64, shape (rows,), when the budget is in tokens."""
    import numpy as np

    if (lengths is None) != (tokens is None):
        raise RecipeError("a budget in tokens needs the lengths of the rows, and only it", where="curriculum.lengths")
    if lengths is None:
        return None
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.shape != (rows,) or not (sizes > 0).all():
        raise DataError(
            "there must be one positive length for each row",
            where="curriculum.lengths",
            given=f"shape {sizes.shape} for {rows} rows, least {sizes.min() if sizes.size else None}",
        )
    return sizes


@dataclass(frozen=True)
class Walk:
    """What the stages of a schedule are made from: bands and difficulties of the rows, the run's seed, the samples of a
    step, and the rows' sizes when the budget is in tokens. ``name`` is the schedule's.
    """

    name: str
    bands: Bands
    difficulty: Scores
    seed: int
    batch: int
    sizes: Sizes | None

    def parts(self, schedule: Schedule, categories: Callable[[str], Sizes]) -> Iterator[Part]:
        """The stages as a run of that seed would choose them, each with the samples that its share pays for."""
        if needs_of(schedule) != Needs():
            _needs_results(self.name)
        history: list[StageResult] = []
        while spec := schedule.next(history):
            if len(history) >= MOST_STAGES:
                raise RecipeError(f"the schedule has not ended after {MOST_STAGES} stages", where="schedule")
            _check_obeyed(spec, self.name)
            index = len(history)
            seed = stage_seed(self.seed, 0, index)
            stage = realise(spec, self.bands, self.difficulty, seed=seed, index=index, categories=categories)
            part = Part(stage, spec.tokens * self.batch, self._draws(stage))
            yield part if self.sizes is None else replace(part, samples=_paid(part, self.sizes, self.batch))
            history.append(_trained_elsewhere(stage, self.name))

    def _draws(self, stage: Stage) -> Draws | None:
        """How the stage's rows are drawn, when they are: a mixture is one of what the budget counts."""
        import numpy as np

        from ..training.weighted_sampling import draws_of

        if self.sizes is None:
            samples = replace(stage, spec=replace(stage.spec, tokens=stage.spec.tokens * self.batch))
            return draws_of(samples, stage.rows, np.ones(stage.rows.size, dtype=np.int64), self.batch)
        sizes = self.sizes[stage.rows]
        return draws_of(stage, stage.rows, sizes, math.ceil(self.batch * sizes.mean()))


def _check_obeyed(spec: StageSpec, name: str) -> None:
    """Raise when the stage asks for more than going through rows in an order."""
    if spec.probes:
        _needs_results(name)
    extra = [
        each.name
        for each in dataclasses.fields(spec)
        if each.name not in OBEYED and getattr(spec, each.name) != _default(each)
    ]
    if extra:
        raise RecipeError(
            f"the schedule {name!r} asks for what a sampler does not give: {', '.join(extra)}",
            where=f"stage {spec.name!r}",
            hint=INSTEAD,
        )


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default if each.default_factory is dataclasses.MISSING else each.default_factory()


def _needs_results(schedule: str) -> NoReturn:
    raise RecipeError(
        f"the schedule {schedule!r} decides by the results of the stages before, which a sampler never sees",
        where="schedule",
        hint=INSTEAD,
    )


def _trained_elsewhere(stage: Stage, schedule: str) -> StageResult:
    """The result of a stage that somebody else trains: what is not known refuses whoever looks at it."""
    told = {"cycle": 0, "index": stage.index, "spec": stage.spec, "samples": len(stage.rows)}
    fitted = _Unknown(schedule, tokens=stage.spec.tokens)
    others = {each.name: _Unknown(schedule) for each in dataclasses.fields(StageResult) if each.name not in told}
    return StageResult(**cast(Any, {**told, **others, "fitted": fitted}))


def _paid(part: Part, sizes: Sizes, batch: int) -> int:
    """How many samples the stage's tokens pay for: up to the one that reaches the budget, in whole batches."""
    import numpy as np

    left, samples = part.stage.spec.tokens, 0
    if part.draws is None:  # each pass costs the same, so whole ones need not be walked
        passes, left = divmod(left, int(sizes[part.stage.rows].sum()))
        samples = passes * len(part.stage.rows)
    for rows in part.after(samples):
        if left <= 0:
            break
        paid = sizes[rows].cumsum()
        samples += min(int(np.searchsorted(paid, left)) + 1, len(rows))
        left -= int(paid[-1]) if len(rows) else 0
    return -(-samples // batch) * batch


class _Unknown:
    """A result that a sampler cannot know, but for what is ``known`` of it."""

    def __init__(self, schedule: str, **known: int) -> None:
        self.__dict__.update(known, _schedule=schedule)

    def __getattr__(self, name: str) -> NoReturn:
        _needs_results(self._schedule)

    def __bool__(self) -> bool:
        _needs_results(self._schedule)

    def __len__(self) -> int:
        _needs_results(self._schedule)

    def __iter__(self) -> Iterator[Any]:
        _needs_results(self._schedule)

    def __getitem__(self, key: object) -> Any:
        _needs_results(self._schedule)
