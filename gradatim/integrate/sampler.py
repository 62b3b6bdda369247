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
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..difficulty import DIFFICULTIES, score, unscored_note
from ..errors import DataError, RecipeError
from ..random_streams import pass_stream, stage_seed
from ..schedule import SCHEDULES, Bands, make_bands, select_rows, stage_table
from ..stage import Event, Events, Needs, Schedule, Stage, StageResult, StageSpec, ignore_events
from ..table import make_table
from ..training.batches import WeightedSampler, make_sampler


def difficulties(data: Sized, difficulty: Any, events: Events = ignore_events) -> npt.NDArray[np.float64]:
    """float64, shape (len(data),): ``difficulty`` itself, or the scores of the metric of that name.

    NaN for a row whose answer or prompt is missing. ``events``: a note gives the number of rows that a metric cannot
    score, and the causes.

    ``difficulties`` accepts numbers, or scores the texts of the rows with a metric; ``categories`` numbers the
    values of a column for orders by category. Row i of the result is row i of the data; a row without a score is
    NaN, never dropped.
    """
    if isinstance(difficulty, str):
        named = {difficulty: DIFFICULTIES.get(difficulty, where="difficulty")()}
        table, missing = _texts(data)
        scores = np.array(score(table, named)[0][difficulty].to_numpy(), dtype=np.float64)
        scores[missing] = np.nan
        if note := unscored_note(difficulty, named[difficulty], table, scores, "are left out"):
            events(Event("note", "curriculum", text=note))
        return scores
    scores = np.asarray(difficulty, dtype=np.float64)
    if scores.shape != (len(data),):
        raise DataError(
            "there must be one difficulty for each row",
            where="difficulty",
            given=f"shape {scores.shape} for {len(data)} rows",
        )
    return scores


def categories(data: Any, column: str) -> npt.NDArray[np.int64]:
    """int64, shape (len(data),): rows with equal values in ``column`` have equal numbers. Raises ``DataError``."""
    names = _names(data)
    if column not in names:
        raise DataError("there is no such column", where="schedule.category", given=column, allowed=", ".join(names))
    values, numbers = np.unique([str(value) for value in _column(data, column)], return_inverse=True)
    if len(values) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there is only one category",
            where="schedule.category",
            given=", ".join(values),
        )
    return numbers.astype(np.int64)


def _texts(data: Any) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """A table of prompts and answers, and a mask of the rows that lack one of them, with empty texts in the table."""
    names = _names(data)
    answer = next((name for name in ("answer", "completion", "text") if name in names), None)
    if answer is None and not (len(data) and isinstance(data[0], str)):
        raise DataError(
            "a metric needs texts, and the data has no column of texts",
            where="difficulty",
            given=f"columns {', '.join(names)}" if names else "rows without names",
            allowed="strings, or columns prompt and answer (or completion), or text",
            hint="one number per row instead of a metric's name",
        )
    columns = {"answer": list(data) if answer is None else _column(data, answer)}
    if answer not in (None, "text") and "prompt" in names:
        columns["prompt"] = _column(data, "prompt")
    missing = np.zeros(len(data), bool)
    for name, values in columns.items():
        missing |= np.fromiter((value is None for value in values), bool, len(values))
        columns[name] = ["" if value is None else value for value in values]
    return make_table(columns), missing


def _names(data: Any) -> list[str]:
    """The columns of a table or a ``datasets.Dataset``, or of rows that are mappings; else none."""
    if hasattr(data, "column_names"):
        return list(data.column_names)
    return list(data[0]) if len(data) and isinstance(data[0], Mapping) else []


def _column(data: Any, name: str) -> list[Any]:
    """The values of the column ``name``, None where a row lacks it."""
    if hasattr(data, "column_names"):
        column = data[name]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    return [data[index].get(name) for index in range(len(data))]


MAX_BYTES = 1 << 28
MAX_ROWS = 16_384
COMPUTED = 64
"""Rows that are read of a dataset that computes them, which may be slow."""
BLOCK = 4096

UNNAMED = "rows"
"""The column name of rows without columns."""


def digests(data: Any) -> dict[str, str]:
    """{column: digest of its values}; rows without columns are one column ``UNNAMED``.

    ``digests`` gives a digest of each column, so that a checkpoint or a trainer can verify that it has the data of
    the curriculum: a sampler yields row numbers alone, and datasets of one length would be indistinguishable.
    Tables, ``datasets.Dataset`` and arrays are digested completely up to ``MAX_BYTES``, rows of lists up to
    ``MAX_ROWS``; beyond that, and for datasets that compute their rows, a sample at even distances including the
    first and the last row. There is no digest of a column whose values change between readings (augmentation) nor
    of a plain range, which holds no data; a value that JSON cannot represent counts by its type.
    """
    if isinstance(data, range):
        return {}
    if hasattr(data, "column_names"):
        return _of_table(data)
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        return _of_array(data)
    if isinstance(data, list | tuple):
        return _of_rows(data, _spread(len(data), MAX_ROWS))
    rows = _spread(len(data), COMPUTED)
    first, second = _of_rows(data, rows), _of_rows(data, rows)
    return {name: digest for name, digest in first.items() if second.get(name) == digest}


def differing(stored: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """The columns of ``stored`` that differ in ``current`` or are missing; none when ``current`` has no digests."""
    return [name for name in stored if stored[name] != current.get(name)] if current else []


def _spread(count: int, limit: int) -> Sequence[int]:
    """Up to ``limit`` indices below ``count`` at even distances, including the first and the last."""
    if count <= limit:
        return range(count)
    return sorted({index * (count - 1) // (limit - 1) for index in range(limit)})


def _of_rows(data: Any, indices: Sequence[int]) -> dict[str, str]:
    """Digests of the columns of the rows at ``indices``."""
    columns: dict[str, Any] = {}
    for index in indices:
        row = data[index]
        for name, value in row.items() if isinstance(row, Mapping) else ((UNNAMED, row),):
            line = f"{index}\0{_plain(value)}\n".encode("utf-8", "replace")
            columns.setdefault(str(name), hashlib.sha256()).update(line)
    return {name: digest.hexdigest()[:16] for name, digest in columns.items()}


def _plain(value: Any) -> str:
    """``value`` as JSON, or the name of its type."""
    try:
        return json.dumps(value, sort_keys=True, default=_listed)
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists; for other objects their type, since their text may vary."""
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__


def _of_array(data: Any) -> dict[str, str]:
    """The digest of an array or a tensor."""
    if not isinstance(data, np.ndarray):  # a tensor, perhaps on another device
        data = np.array(data.tolist())
    if data.dtype.hasobject:
        return _of_rows(data, _spread(len(data), MAX_ROWS))
    step = max(1, data.nbytes // MAX_BYTES)
    return {UNNAMED: _sha([str((data.dtype, data.shape)).encode(), np.ascontiguousarray(data[::step]).tobytes()])}


def _of_table(data: Any) -> dict[str, str]:
    """Digests of the columns of a table or a ``datasets.Dataset``."""
    hashes: dict[str, Any] = {name: hashlib.sha256() for name in data.column_names}
    for table in _blocks(data):
        for name in hashes:
            for buffer in _buffers(table.column(name)):
                hashes[name].update(buffer)
    return {name: digest.hexdigest()[:16] for name, digest in hashes.items()}


def _blocks(data: Any) -> Iterator[pa.Table]:
    """Tables of ``BLOCK`` rows: all of them, or as many at even distances as ``MAX_BYTES`` allows."""
    arrow = data if hasattr(data, "schema") else data.with_format("arrow")
    size = int(getattr(data, "nbytes", None) or getattr(getattr(data, "data", None), "nbytes", 0) or 1)
    blocks = -(-len(data) // BLOCK)
    for block in _spread(blocks, max(2, int(blocks * min(1.0, MAX_BYTES / size)))):
        start = block * BLOCK
        stop = min(start + BLOCK, len(data))
        yield arrow.slice(start, stop - start) if hasattr(data, "schema") else arrow[start:stop]


def _buffers(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values in a form that is independent of chunks, offsets and the layout of strings."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    batch = pa.record_batch([array], names=["values"])
    yield bytes(batch.serialize())
    yield str(array.type).encode()


def _sha(buffers: Sequence[bytes]) -> str:
    """The first 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()[:16]


Scores: TypeAlias = npt.NDArray[np.float64]
Sizes: TypeAlias = npt.NDArray[np.int64]


SUPPORTED = frozenset(
    ("name", "fractions", "tokens", "ends", "order", "order_options", "low", "high", "mixture", "replay")
)
"""Fields of a stage that the sampler implements; any other that a stage sets is an error, future fields included."""

MOST_STAGES = 1000
ALTERNATIVE = "`gradatim run`, or a schedule such as hybrid, sequential or incremental"


@dataclass(frozen=True)
class SampledStage:
    """A stage and the number of samples drawn from it: passes through ``stage.rows``, the last perhaps incomplete.

    With a ``sampler`` a pass is a slice of the stage's mixture, and may hold a row several times or not at all.
    """

    stage: Stage
    samples: int
    sampler: WeightedSampler | None = None

    def rows(self, number: int) -> Sizes:
        """The rows of pass ``number`` (from 0) in order; a shuffled stage is permuted anew in each."""
        if self.sampler is not None:
            return self.sampler.slice(number)
        if not self.stage.shuffled_in(number):
            return self.stage.rows
        return pass_stream(self.stage.seed, number).permutation(self.stage.rows)

    def after(self, position: int) -> Iterator[Sizes]:
        """The rows from ``position`` on (from 0), a pass at a time and without end.

        The size of a slice follows from drawing it, so slices before ``position`` are drawn again.
        """
        first, position = (0, position) if self.sampler is not None else divmod(position, len(self.stage.rows))
        for number in count(first):
            rows = self.rows(number)
            yield rows[position:]
            position = max(position - len(rows), 0)


def budget_units(scored: int, batch: int, *, tokens: int | None, steps: int | None, **units: float | None) -> int:
    """The budget that the schedule divides: tokens, or else optimizer steps of ``batch`` samples."""
    options = {"tokens": tokens, "steps": steps, **units}
    budgets = {name: value for name, value in options.items() if value is not None}
    if len(budgets) != 1:
        raise RecipeError(
            "the budget must be given in exactly one unit",
            where="curriculum",
            given=", ".join(budgets) or "none",
            allowed=" or ".join(options),
        )
    if batch < 1 or not all(0 < value < math.inf for value in budgets.values()):
        raise RecipeError(
            "the budget and the batch must be positive", where="curriculum", given={**budgets, "batch": batch}
        )
    if tokens or steps:
        return int(tokens or steps or 0)
    samples = units["samples"] or (units["epochs"] or 0) * scored
    return max(1, round(samples / batch))


def row_sizes(lengths: Sequence[int] | None, tokens: int | None, rows: int) -> Sizes | None:
    """Tokens of each row, int64, shape (rows,); None when the budget is not in tokens."""
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
class StageBuilder:
    """The inputs of the stages of a schedule: bands and difficulties of the rows, the run's seed, the samples of a
    step, and the rows' sizes when the budget is in tokens. ``name`` is the schedule's.
    """

    name: str
    bands: Bands
    difficulty: Scores
    seed: int
    batch: int
    sizes: Sizes | None

    def stages(self, schedule: Schedule, categories: Callable[[str], Sizes]) -> Iterator[SampledStage]:
        """The stages as ``gradatim run`` selects them with the same seed, each with the number of its samples."""
        if schedule.needs != Needs():
            _needs_results(self.name)
        history: list[StageResult] = []
        while spec := schedule.next(history):
            if len(history) >= MOST_STAGES:
                raise RecipeError(f"the schedule has not ended after {MOST_STAGES} stages", where="schedule")
            _check_supported(spec, self.name)
            index = len(history)
            seed = stage_seed(self.seed, 0, index)
            stage = select_rows(spec, self.bands, self.difficulty, seed=seed, index=index, categories=categories)
            sampled = SampledStage(stage, spec.tokens * self.batch, self._sampler(stage))
            yield (
                sampled
                if self.sizes is None
                else replace(sampled, samples=_affordable_samples(sampled, self.sizes, self.batch))
            )
            history.append(_trained_elsewhere(stage, self.name))

    def _sampler(self, stage: Stage) -> WeightedSampler | None:
        """The sampler of a mixture stage, in the unit of the budget; None for other stages."""
        if self.sizes is None:
            samples = replace(stage, spec=replace(stage.spec, tokens=stage.spec.tokens * self.batch))
            return make_sampler(samples, stage.rows, np.ones(stage.rows.size, dtype=np.int64), self.batch)
        sizes = self.sizes[stage.rows]
        return make_sampler(stage, stage.rows, sizes, math.ceil(self.batch * sizes.mean()))


def _check_supported(spec: StageSpec, name: str) -> None:
    """Raise ``RecipeError`` when the stage sets a field that the sampler does not implement."""
    if spec.probes:
        _needs_results(name)
    extra = [
        field.name
        for field in dataclasses.fields(spec)
        if field.name not in SUPPORTED and getattr(spec, field.name) != _default(field)
    ]
    if extra:
        raise RecipeError(
            f"the schedule {name!r} needs features that a sampler does not have: {', '.join(extra)}",
            where=f"stage {spec.name!r}",
            hint=ALTERNATIVE,
        )


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default value of a dataclass field."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _needs_results(schedule: str) -> NoReturn:
    raise RecipeError(
        f"the schedule {schedule!r} decides by the results of the stages before, which a sampler does not have",
        where="schedule",
        hint=ALTERNATIVE,
    )


def _trained_elsewhere(stage: Stage, schedule: str) -> StageResult:
    """The result of a stage that another trainer runs: access to an unknown value raises ``RecipeError``."""
    values = {"cycle": 0, "index": stage.index, "spec": stage.spec, "samples": len(stage.rows)}
    fitted = _Unknown(schedule, tokens=stage.spec.tokens)
    unknown = {field.name: _Unknown(schedule) for field in dataclasses.fields(StageResult) if field.name not in values}
    return StageResult(**cast(Any, {**values, **unknown, "fitted": fitted}))


def _affordable_samples(sampled: SampledStage, sizes: Sizes, batch: int) -> int:
    """The number of samples within the stage's tokens, including the one that reaches the budget, in whole batches."""
    remaining, samples = sampled.stage.spec.tokens, 0
    if sampled.sampler is None:  # all passes have the same tokens, so complete ones are counted by division
        passes, remaining = divmod(remaining, int(sizes[sampled.stage.rows].sum()))
        samples = passes * len(sampled.stage.rows)
    for rows in sampled.after(samples):
        if remaining <= 0:
            break
        cumulated = sizes[rows].cumsum()
        samples += min(int(np.searchsorted(cumulated, remaining)) + 1, len(rows))
        remaining -= int(cumulated[-1]) if len(rows) else 0
    return -(-samples // batch) * batch


class _Unknown:
    """A result without values except ``values``; any other access raises ``RecipeError``."""

    def __init__(self, schedule: str, **values: int) -> None:
        self.__dict__.update(values, _schedule=schedule)

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
    """Row numbers of ``data`` in the order of a curriculum; ``len()`` is the number of samples of the whole curriculum.

    ``data``: the loader's dataset, of fixed length. ``difficulty``: one number per row (NaN: unscored, excluded from
    every stage and counted in ``unscored``), or the name of a metric (`gradatim list difficulties`), which then reads
    ``data`` as a table, a ``datasets.Dataset``, dicts (prompt and answer or completion; or text) or plain strings.
    ``schedule`` and ``options``: as in a recipe; an order by categories uses a column of ``data``. ``bands``,
    ``thresholds``, ``quantiles``: see ``make_bands``.

    The budget is one of ``samples``, ``epochs`` (passes through the scored rows), ``steps``, or ``tokens`` with
    ``lengths``, the tokens of each row: a stage then ends with the sample that reaches its share. ``batch`` is the
    number of samples of an optimizer step, over all processes and accumulated batches: every stage is a whole number of
    such steps (to which other budgets are rounded), so that no step mixes two stages and all processes have the same
    number of batches.

    Resume: ``state_dict()`` holds the position and the inputs of the order; after ``load_state_dict`` the next pass
    yields exactly the remaining samples. A state of other data is refused, by a digest of each column (``identity``);
    the dataset of the ``DataLoader`` itself is not checked. Loaders that read ahead (``num_workers`` > 0) have taken
    more samples than were used in training: pass ``state_dict(position=steps * batch)``. Raises ``RecipeError`` and
    ``DataError``.
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
        if self.unscored and not isinstance(difficulty, str):  # a metric has its own note
            events(
                Event("note", "curriculum", text=f"{self.unscored} of {self.rows} rows have no difficulty: left out")
            )
        scored = self.rows - self.unscored
        budget = budget_units(scored, batch, samples=samples, epochs=epochs, steps=steps, tokens=tokens)
        builder = StageBuilder(schedule, self.bands, scores, seed, batch, row_sizes(lengths, tokens, self.rows))
        stages = SCHEDULES.make(schedule, self.bands.names, budget, where="schedule", options=options or {})
        self.parts = tuple(builder.stages(stages, functools.partial(categories, data)))
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
        note = f"; {self.unscored} of {self.rows} rows without a difficulty left out" if self.unscored else ""
        return f"CurriculumSampler({stages}{note})"

    def __iter__(self) -> Iterator[int]:
        """The samples from the loaded position, else from the beginning."""
        start, self._next = self._next, 0
        self.position = start
        return self._walk(start)

    def _walk(self, position: int) -> Iterator[int]:
        while position < len(self):
            index = bisect.bisect_right(self._ends, position)
            part, end = self.parts[index], self._ends[index]
            for row in itertools.islice(_flatten(part.after(position - (end - part.samples))), end - position):
                position += 1
                self.position = position
                yield row

    def stage_at(self, position: int) -> Stage:
        """The stage that the sample at ``position`` (from 0) belongs to."""
        return self.parts[bisect.bisect_right(self._ends, position)].stage

    def table(self) -> list[dict[str, Any]]:
        """One plain row per stage: ``stage``, ``order``, ``samples`` (drawn), ``distinct``, ``passes``, ``bands``.

        ``order`` is "drawn" where rows are drawn with weights; ``passes`` is then the mean number of visits of a row.
        """
        rows = stage_table([part.stage for part in self.parts], self.bands)
        return [
            {
                "stage": row["stage"],
                "order": row["order"] if part.sampler is None else "drawn",
                "samples": part.samples,
                "distinct": row["samples"],
                "passes": part.samples / row["samples"],
                "bands": row["bands"],
            }
            for row, part in zip(rows, self.parts, strict=True)
        ]

    def set_epoch(self, epoch: int) -> None:
        """No effect: trainers call it before each pass, and one pass is the whole curriculum."""

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """The position (by default the number of samples yielded) and the inputs of the order; plain JSON."""
        return {"position": self.position if position is None else position, **self.identity, "data": dict(self.data)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next pass at the position of ``state``; ``RecipeError`` for another curriculum."""
        self.check(state)
        position = int(state["position"])
        if not 0 <= position <= len(self):
            raise RecipeError("a position outside the curriculum", where="curriculum", given=position)
        self.position = self._next = position

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise ``RecipeError`` that names the differences when ``state`` belongs to another curriculum."""
        values = {name: state.get(name) for name in (*self.identity, "position")}
        if None in values.values():
            raise RecipeError("this is no state of a curriculum", where="curriculum", given=sorted(state))
        differs = [
            f"{name} {values[name]} (here {value})" for name, value in self.identity.items() if values[name] != value
        ]
        changed = differing(state.get("data") or {}, self.data)  # a state of a former version has no digests
        differs += [f"the data's column {name!r}" for name in changed]
        if differs:
            raise RecipeError(
                "the checkpoint was made with another curriculum",
                where="curriculum",
                given=", ".join(differs),
                hint="the same data, difficulty, schedule, budget and seed, or a new run",
            )


def _flatten(blocks: Iterator[npt.NDArray[np.int64]]) -> Iterator[int]:
    """The rows of all blocks as integers."""
    return itertools.chain.from_iterable(map(int, block) for block in blocks)


def _digest(stages: Sequence[SampledStage]) -> str:
    """A digest of everything that the sample at a position depends on."""
    digest = hashlib.sha256()
    for part in stages:
        digest.update(json.dumps([part.stage.seed, part.stage.shuffled, part.samples]).encode())
        digest.update(part.stage.rows.tobytes())
        if part.sampler is not None:
            digest.update(
                part.sampler.first.tobytes() + part.sampler.last.tobytes() + bytes(str(part.sampler.slices), "ascii")
            )
    return digest.hexdigest()[:16]
