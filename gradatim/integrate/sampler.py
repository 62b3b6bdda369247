"""In which order does a training loop that is not ours see the samples?

``CurriculumSampler`` is a sampler for PyTorch's ``DataLoader``. One pass over it is the *whole* curriculum, stage after
stage, so that one optimizer and one learning-rate shape go through all of it:

    sampler = CurriculumSampler(dataset, "om", "hybrid", epochs=3, batch=16)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)

What comes at a position depends on the position alone, not on what was drawn before it, and it is what our own loop
learns: stages chosen by ``schedule``, the seed of a stage made from the run's as ``assemble`` makes it, each pass of a
stage walked as ``Part.rows`` says, and rows that are drawn with weights drawn alike. The budget may be told in samples,
epochs, steps or tokens; the schedule parts it. Our loop may regroup a *shuffled* pass by length when it packs several
samples into a line; the sampler never does. A mixture moves in steps, at least 32 of them unless a stage has fewer than
128 batches: then how many, and so the order, depends on the batch.

It is a sampler by its methods and needs no torch. It reads no results, so schedules that look at them are refused; so
are stages with an objective of their own, since a sampler decides which samples are seen, not what is learnt from them.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..schedule import SCHEDULES, Bands, make_bands, stage_table
from ..stage import Event, Events, Stage, ignore_events
from .columns import categories, differing, difficulties, digests
from .parts import Part, Walk, sizes_of, units

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CurriculumSampler"]


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
