"""``CurriculumSampler``: the sample order of a curriculum for PyTorch's ``DataLoader``, and the stages it consists of.

One pass over the sampler is the *whole* curriculum, stage after stage, so that one optimizer and one learning-rate
schedule cover all of it:

    sampler = CurriculumSampler(dataset, "om", "hybrid", epochs=3, batch=16)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)

The sample at a position depends on the position alone and is the one that ``gradatim run`` trains on: same stages,
stage seeds, passes and weighted draws. Two differences remain. Training may regroup a *shuffled* pass by length when it
packs several samples into a line; the sampler never does. A mixture changes in at least 32 slices unless a stage has
fewer than 128 batches: then their number, and so the order, depends on the batch size.

The sampler needs no torch. It has no training results, so adaptive schedules are refused, and so are stages with an
objective of their own: a sampler selects samples, not losses.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

from ..errors import DataError, RecipeError
from ..schedule import SCHEDULES, Bands, make_bands, needs_of, select_rows, stage_seed, stage_table
from ..stage import Event, Events, Needs, Schedule, Stage, StageResult, StageSpec, ignore_events
from .columns import categories, differing, difficulties, digests

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..training.weighted_sampling import Draws

    Scores: TypeAlias = npt.NDArray[np.float64]
    Sizes: TypeAlias = npt.NDArray[np.int64]

__all__ = ["CurriculumSampler"]


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
            stage = select_rows(spec, self.bands, self.difficulty, seed=seed, index=index, categories=categories)
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


class CurriculumSampler:
    """Row numbers of ``data`` in the order of a curriculum; ``len()`` is the number of samples in the whole of it.

    ``data``: what the loader reads, of fixed length. ``difficulty``: one number per row (NaN: unscored, left out of
    every stage and counted in ``unscored``), or the name of a metric (`gradatim list difficulties`), which then reads
    ``data`` as a table, a ``datasets.Dataset``, dicts (prompt and answer or completion; or text) or plain strings.
    ``schedule`` and ``options``: as in a recipe; an order by categories finds its column in ``data``. ``bands``,
    ``thresholds``, ``quantiles``: see ``make_bands``.

    The budget is one of ``samples``, ``epochs`` (passes through the scored rows), ``steps``, or ``tokens`` with
    ``lengths``, the tokens of each row: a stage then ends with the sample that reaches its share. ``batch`` is the
    number of samples of an optimizer step, over all processes and accumulated batches: every stage is a whole number
    of such steps (to which other budgets are rounded), so no step mixes two stages, and no process is left with a batch
    less than another.

    Resume: ``state_dict()`` holds the position and what the order was made from; after ``load_state_dict`` the next
    pass gives exactly the rest. A state of other data is refused, by a digest of each column (``identity``); the data
    that a ``DataLoader`` reads is not seen here. Loaders that read ahead (``num_workers`` > 0) have taken more than was
    learnt: say ``state_dict(position=steps * batch)``. Raises ``RecipeError`` and ``DataError``.
    """

    def __init__(
        self,
        data: Sized,
        difficulty: str | Sequence[float] | npt.NDArray[np.floating[Any]],
        schedule: str = "hybrid",
        *,
        samples: int | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        tokens: int | None = None,
        lengths: Sequence[int] | None = None,
        batch: int = 1,
        options: Mapping[str, Any] | None = None,
        bands: Sequence[str] = ("easy", "medium", "hard"),
        thresholds: Sequence[float] | None = None,
        quantiles: Sequence[float] | None = None,
        seed: int = 0,
        events: Events = ignore_events,
    ) -> None:
        scores = difficulties(data, difficulty, events)
        self.bands: Bands = make_bands(scores, thresholds=thresholds, quantiles=quantiles, names=bands)
        self.rows, self.unscored, self.batch = len(data), self.bands.unscored, batch
        if self.unscored and not isinstance(difficulty, str):  # a metric has said so itself
            events(
                Event("note", "curriculum", text=f"{self.unscored} of {self.rows} rows have no difficulty: left out")
            )
        scored = self.rows - self.unscored
        budget = units(scored, batch, samples=samples, epochs=epochs, steps=steps, tokens=tokens)
        walk = Walk(schedule, self.bands, scores, seed, batch, sizes_of(lengths, tokens, self.rows))
        named = SCHEDULES.get(schedule, where="schedule")(self.bands.names, budget, **(options or {}))
        self.parts = tuple(walk.parts(named, functools.partial(categories, data)))
        self._ends = list(itertools.accumulate(part.samples for part in self.parts))
        self.identity = {
            "rows": self.rows,
            "difficulty": hashlib.sha256(scores.tobytes()).hexdigest()[:16],
            "schedule": " ".join([schedule, json.dumps(dict(options or {}), sort_keys=True, default=str)]),
            "seed": int(seed),
            "samples": len(self),
            "order": _digest(self.parts),
        }
        self.data = digests(data)
        self.position = self._next = 0

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        stages = ", ".join(f"{part.stage.spec.name} {part.samples}" for part in self.parts)
        left = f"; {self.unscored} of {self.rows} rows without a difficulty left out" if self.unscored else ""
        return f"CurriculumSampler({stages}{left})"

    def __iter__(self) -> Iterator[int]:
        """From the position that was loaded, else from the beginning."""
        start, self._next = self._next, 0
        self.position = start
        return self._walk(start)

    def _walk(self, position: int) -> Iterator[int]:
        while position < len(self):
            at = bisect.bisect_right(self._ends, position)
            part, end = self.parts[at], self._ends[at]
            for row in itertools.islice(_each(part.after(position - (end - part.samples))), end - position):
                position += 1
                self.position = position
                yield row

    def stage_at(self, position: int) -> Stage:
        """The stage that the sample at ``position`` (from 0) belongs to."""
        return self.parts[bisect.bisect_right(self._ends, position)].stage

    def table(self) -> list[dict[str, Any]]:
        """One plain row per stage: ``stage``, ``order``, ``samples`` (drawn), ``distinct``, ``passes``, ``bands``.

        ``order`` is "drawn" where rows are drawn with weights; ``passes`` is then the mean of how often one comes.
        """
        rows = stage_table([part.stage for part in self.parts], self.bands)
        return [
            {
                "stage": row["stage"],
                "order": row["order"] if part.draws is None else "drawn",
                "samples": part.samples,
                "distinct": row["samples"],
                "passes": part.samples / row["samples"],
                "bands": row["bands"],
            }
            for row, part in zip(rows, self.parts, strict=True)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Changes nothing: trainers call it before each pass, and one pass is the whole curriculum."""

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """The position (how many samples were handed out, unless told) and what the order was made from; plain JSON."""
        return {"position": self.position if position is None else position, **self.identity, "data": dict(self.data)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass begin at the position of ``state``; ``RecipeError`` for that of another curriculum."""
        self.check(state)
        position = int(state["position"])
        if not 0 <= position <= len(self):
            raise RecipeError("a position outside the curriculum", where="curriculum", given=position)
        self.position = self._next = position

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise ``RecipeError`` when ``state`` is not that of this curriculum, naming what differs."""
        given = {name: state.get(name) for name in (*self.identity, "position")}
        if None in given.values():
            raise RecipeError("this is no state of a curriculum", where="curriculum", given=sorted(state))
        differs = [
            f"{name} {given[name]} (here {value})" for name, value in self.identity.items() if given[name] != value
        ]
        other = differing(state.get("data") or {}, self.data)  # a state of a former version has no digests
        differs += [f"the data's column {name!r}" for name in other]
        if differs:
            raise RecipeError(
                "the checkpoint was made with another curriculum",
                where="curriculum",
                given=", ".join(differs),
                hint="the same data, difficulty, schedule, budget and seed, or a new run",
            )


def _each(blocks: Iterator[npt.NDArray[np.int64]]) -> Iterator[int]:
    """The rows one by one."""
    return itertools.chain.from_iterable(map(int, block) for block in blocks)


def _digest(parts: Sequence[Part]) -> str:
    """What every position depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps([part.stage.seed, part.stage.shuffled, part.samples]).encode())
        digest.update(part.stage.rows.tobytes())
        if part.draws is not None:
            digest.update(
                part.draws.first.tobytes() + part.draws.last.tobytes() + bytes(str(part.draws.slices), "ascii")
            )
    return digest.hexdigest()[:16]
