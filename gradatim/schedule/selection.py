"""Selection of the rows of a stage, and how often and in which order they are visited.

``select_rows`` turns a ``StageSpec`` into a ``Stage``, whose rows depend on the seed alone: a fraction of each band, of
those optionally the rows between two quantiles; then either an *order* arranges them (``orders``) or a ``Mixture``
gives the weights with which they are drawn. ``stage_table`` summarises stages as plain rows. Samples are not read: rows
are positions in a table whose difficulties and bands are arguments.

Inspection of a schedule without training: its stages, and the measurements that it needs.

``preview`` walks a schedule with placeholder results. That is exact for a matrix; for an adaptive schedule it gives the
stages that follow while no results are available.

Orders: permutations of the rows of a stage.

An order receives the rows that ``select_rows`` selected. Some orders use the difficulty, some a category of each
sample: a label column such as ``level``. An order depends on its generator alone. All but ``shuffled`` repeat the same
permutation at each pass.

Orders have no effect with random crops of the text (``train.batching: random_crops``), nor in stages whose rows are
drawn with weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import Field

from ..errors import DataError, RecipeError, did_you_mean
from ..lazy import np, pa
from ..options import strict
from ..random_streams import band_stream, order_stream, probe_stream, quantile_stream
from ..registry import Contract, Registry
from ..stage import End, Fitted, Mixture, Probe, Schedule, Stage, StageResult, StageSpec
from .bands import Bands

if TYPE_CHECKING:
    import numpy.typing as npt

    from .bands import Scores

    Rows: TypeAlias = npt.NDArray[np.int64]


CATEGORY = "level"
"""The default label column of categories."""

Folds = Annotated[
    int, Field(description="Number of passes from easy to hard, each over a different part of the samples.")
]
Category = Annotated[str, Field(description="Label column of the categories.")]
CategoryParts = Annotated[int, Field(description="Number of parts that each category is divided into.")]


@dataclass(frozen=True)
class OrderContext:
    """The arguments of an order: columns of the whole table, not of the stage's rows alone.

    ``difficulty``: float64, shape (rows of the table,). ``categories(column)``: int64 of the same shape, equal for rows
    of one category. ``rng`` is used by the order alone.
    """

    difficulty: Scores
    rng: np.random.Generator
    categories: Callable[[str], Rows]


class Order(Protocol):
    """A permutation of the rows of a stage."""

    def __call__(self, rows: Rows, context: OrderContext, /) -> Rows:
        """The same ``rows`` in the order of training."""
        ...


class OrderFactory(Protocol):
    """A function from options, which are keywords, to an order."""

    def __call__(self, **options: Any) -> Order: ...


ORDERS: Registry[OrderFactory] = Registry("order", contracts=(Contract(Order, ("__call__",)),), arguments=0)


def make_order(name: str, options: Mapping[str, Any], where: str) -> Order:
    """The order called ``name``. Raises ``RecipeError`` for an unknown name or options that do not fit."""
    if name not in ORDERS:
        raise RecipeError(
            f"there is no order called {name!r}",
            where=where,
            allowed=", ".join(ORDERS.names()),
            hint=did_you_mean(name, ORDERS.names()),
        )
    order: Order = ORDERS.make(name, where=where, options=options)
    return order


def category_codes(samples: pa.Table, column: str) -> Rows:
    """The category of each sample as a number, from the label ``column``; samples without a label are a category too.

    A column of whole numbers that is not a known label is accepted: files are read with all numbers as metrics unless
    the recipe declares a column. Raises ``DataError`` when there is no such column, or only one category in it.
    """
    from ..table.schema import LABELS, label_codes

    filled = [name for name in LABELS if name in samples.schema.names]
    filled = [name for name in filled if samples.column(name).null_count < samples.num_rows]
    if column not in filled and (numbers := _whole_numbers(samples, column)) is not None:
        samples = samples.drop_columns([column]).append_column(column, numbers)
        filled.append(column)
    if column not in filled:
        raise DataError(
            f"no sample has a {column!r}, the column of the order's categories",
            where="schedule.category",
            allowed=", ".join(filled) or "no label column has values here",
            hint=did_you_mean(column, filled) or f"name it in the column mapping: data.columns.category: {column}",
        )
    labels, codes = label_codes(samples.column(column), missing="None")
    if len(labels) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there is only one category",
            where="schedule.category",
            given=labels[0],
            hint=next((f"category: {name}" for name in filled if name != column), None),
        )
    return codes.astype(np.int64)


def _whole_numbers(samples: pa.Table, column: str) -> pa.Array | None:
    """An extra column as texts when all its numbers are whole; None for any other, and for a difficulty."""
    from ..difficulty import DIFFICULTIES

    extra = column in samples.schema.names and column not in DIFFICULTIES
    if not extra or samples.schema.field(column).type != pa.float64():
        return None
    values = [None if value is None or value != value else value for value in samples.column(column).to_pylist()]
    numbers = [value for value in values if value is not None]
    if not numbers or not all(value.is_integer() for value in numbers):
        return None
    return pa.array([None if value is None else str(int(value)) for value in values], pa.string())


@ORDERS.register("shuffled")
@strict("the order 'shuffled'")
def shuffled() -> Order:
    """In random order, drawn anew at each pass."""
    return lambda rows, context: context.rng.permutation(rows)


@ORDERS.register("sorted")
@strict("the order 'sorted'")
def by_difficulty(
    *,
    first: Annotated[Literal["easy", "hard"], Field(description="Samples at the beginning of a pass.")] = "easy",
    passes: Annotated[
        Literal["same", "once"],
        Field(description="`same`: every pass is sorted; `once`: the first pass is sorted, later ones are shuffled."),
    ] = "same",
) -> Order:
    """Easiest or hardest first, equal ones in random order."""

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return rising if first == "easy" else rising[::-1].copy()

    return order


@ORDERS.register("folded")
@strict("the order 'folded'")
def folded(*, folds: Folds = 5) -> Order:
    """Easy to hard several times over, each time through every ``folds``-th sample (arXiv 2506.21545)."""
    _check_count(folds, "folds")

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return _concatenate([rising[fold::folds] for fold in range(folds)])

    return order


@ORDERS.register("zigzag")
@strict("the order 'zigzag'")
def zigzag(*, folds: Folds = 5) -> Order:
    """Folds that rise and fall in turn: no step from hardest to easiest between them."""
    _check_count(folds, "folds")

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return _concatenate([rising[fold::folds][:: 1 if fold % 2 == 0 else -1] for fold in range(folds)])

    return order


@ORDERS.register("blocked")
@strict("the order 'blocked'")
def blocked(*, category: Category = CATEGORY) -> Order:
    """One category after the other, in random order; each shuffled (arXiv 2408.07888)."""
    return lambda rows, context: _concatenate(list(_blocks(context.rng.permutation(rows), context, category)))


@ORDERS.register("blocked_curriculum")
@strict("the order 'blocked_curriculum'")
def blocked_curriculum(*, category: Category = CATEGORY) -> Order:
    """One category after the other, in random order; each from easy to hard (arXiv 2408.07888)."""
    return lambda rows, context: _concatenate(list(_blocks(_rising(rows, context), context, category)))


@ORDERS.register("interleaved")
@strict("the order 'interleaved'")
def interleaved(*, category: Category = CATEGORY, parts: CategoryParts = 3) -> Order:
    """Every category cut into ``parts`` at random, cycling through the categories (arXiv 2408.07888)."""
    _check_count(parts, "parts")
    return lambda rows, context: _interleave(list(_blocks(context.rng.permutation(rows), context, category)), parts)


@ORDERS.register("interleaved_curriculum")
@strict("the order 'interleaved_curriculum'")
def interleaved_curriculum(*, category: Category = CATEGORY, parts: CategoryParts = 3) -> Order:
    """Every category cut into ``parts`` by difficulty, cycling: the easiest part of each first (arXiv 2408.07888)."""
    _check_count(parts, "parts")
    return lambda rows, context: _interleave(list(_blocks(_rising(rows, context), context, category)), parts)


def _rising(rows: Rows, context: OrderContext) -> Rows:
    """Easiest first, equal ones in random order."""
    mixed = context.rng.permutation(rows)
    rising: Rows = context.difficulty[mixed].argsort(kind="stable")
    return mixed[rising]


def _blocks(rows: Rows, context: OrderContext, category: str) -> Iterator[Rows]:
    """The rows of each category in their given order; the categories in random order."""
    codes = context.categories(category)[rows]
    for code in context.rng.permutation(np.unique(codes)):
        yield rows[codes == code]


def _interleave(blocks: Sequence[Rows], count: int) -> Rows:
    """The first piece of each block, then the second of each, and so on."""
    pieces = [np.array_split(block, count) for block in blocks]
    return _concatenate([block[index] for index in range(count) for block in pieces])


def _concatenate(pieces: Sequence[Rows]) -> Rows:
    return np.concatenate(pieces)


def _check_count(count: int, name: str) -> None:
    if count < 1:
        raise RecipeError("an order has at least one part", where=f"schedule.order.{name}", given=count)


def select_rows(
    spec: StageSpec,
    bands: Bands,
    difficulty: Scores,
    *,
    seed: int,
    index: int = 0,
    first_token: int = 0,
    run_tokens: int | None = None,
    categories: Callable[[str], Rows] | None = None,
    probe: Probe | None = None,
) -> Stage:
    """Select the rows of a stage: ceil(fraction x size) of each band, from the end that the specification names.

    ``difficulty`` and ``bands`` describe the same table. Equal difficulties are common (most TinyPy programs share a
    handful of values), so ties at the cut are broken at random by ``seed``; the same arguments give the same rows.
    ``run_tokens`` is the run's whole budget, by default this stage's end. ``categories`` gives the category of each row
    of the table for a column's name (``category_codes``); orders without categories do not call it. ``probe`` is the
    model's loss on some rows after the stage before: a stage that depends on it takes rows of the probe alone.

    Raises ``RecipeError`` when the specification is for another number of bands or an unknown order, or lacks a probe
    or categories that it needs; ``DataError`` when the stage has no samples.
    """
    where = f"stage {spec.name!r}"
    if len(spec.fractions) != len(bands.names) or len(difficulty) != len(bands.index):
        raise RecipeError(
            "the stage, the bands and the difficulties do not fit together",
            where=where,
            given=f"{len(spec.fractions)} fractions for {len(bands.names)} bands, "
            f"{len(difficulty)} difficulties for {len(bands.index)} rows",
        )
    selected = [
        # One generator per band: the draws of a band are independent of those of the others.
        _take(np.flatnonzero(bands.index == band), share, end, difficulty, band_stream(seed, band))
        for band, (share, end) in enumerate(zip(spec.fractions, spec.ends, strict=True))
        if share
    ]
    rows, mixture = _narrow(spec, np.concatenate(selected), bands, difficulty, probe, seed)
    if not rows.size:
        raise DataError("the stage has no samples", where=where, given=f"band sizes {bands.sizes}")
    if mixture is None:
        context = OrderContext(difficulty, order_stream(seed), categories or _no_categories)
        rows = _ordered(rows, spec, context, where)
    return Stage(spec, index, rows, seed, first_token, run_tokens or first_token + spec.tokens, mixture=mixture)


def _ordered(rows: Rows, spec: StageSpec, context: OrderContext, where: str) -> Rows:
    """The rows in the order of the specification; ``RecipeError`` for an order that returns other rows."""
    ordered = make_order(spec.order, spec.order_options, where)(rows, context)
    same = isinstance(ordered, np.ndarray) and ordered.shape == rows.shape
    if not same or not np.array_equal(np.sort(ordered), np.sort(rows)):
        given = f"{len(ordered)} other rows" if isinstance(ordered, np.ndarray) else type(ordered).__name__
        raise RecipeError(
            f"the order {spec.order!r} returned no permutation of the rows",
            where=where,
            given=given,
            allowed=f"a numpy array with the same {rows.size} row numbers",
        )
    return ordered.astype(np.int64, copy=False)


def probe_rows(bands: Bands, count: int, seed: int) -> Rows:
    """The rows of a probe: ``count`` rows of any band, drawn by ``seed``, ascending; 0 takes all of them."""
    scored = np.flatnonzero(bands.index >= 0)
    if not count or count >= scored.size:
        return scored
    return np.sort(probe_stream(seed).choice(scored, count, replace=False))


def _take(rows: Rows, share: float, end: End, difficulty: Scores, rng: np.random.Generator) -> Rows:
    # 1e-9 keeps a share such as 0.07 of 100 rows from being rounded up to 8 by binary fractions.
    """The share of ``rows`` at one end of the difficulty."""
    count = math.ceil(share * rows.size - 1e-9)
    if count >= rows.size:
        return rows
    permuted = rng.permutation(rows)
    if end != "random":
        permuted = permuted[difficulty[permuted].argsort(kind="stable")]
    return permuted[rows.size - count :] if end == "hardest" else permuted[:count]


def _narrow(
    spec: StageSpec, rows: Rows, bands: Bands, difficulty: Scores, probe: Probe | None, seed: int
) -> tuple[Rows, Mixture | None]:
    """The subset of ``rows`` for a continuous curriculum, and the weights with which they are drawn, if any."""
    if spec.mixture is not None:
        return rows, _mixture(bands.index[rows].astype(np.int64), *spec.mixture)
    if not spec.probes and not spec.replay and (spec.low, spec.high) == (0, 1):
        return rows, None
    hardness, probability = difficulty, None
    if spec.probes:
        rows, hardness, probability = _probed(spec, rows, len(difficulty), probe)
    if spec.frontier and probability is not None:
        return rows, _frontier(probability[rows], spec.replay)
    permuted = quantile_stream(seed).permutation(rows)
    ascending = permuted[hardness[permuted].argsort(kind="stable")]
    first, last = (math.ceil(edge * ascending.size - 1e-9) for edge in (spec.low, spec.high))
    first = min(first, max(last - 1, 0))  # a slice thinner than one row still holds one
    if not spec.replay or not first:
        return ascending[first:last], None
    groups = (np.arange(last) >= first).astype(np.int64)
    return ascending[:last], _mixture(groups, (spec.replay, 1 - spec.replay), (spec.replay, 1 - spec.replay))


def _probed(
    spec: StageSpec, rows: Rows, size: int, probe: Probe | None
) -> tuple[Rows, Scores, npt.NDArray[np.float64]]:
    """The probed rows; for the whole table the hardness and the probability of the answer, NaN where not probed."""
    if probe is None:
        raise RecipeError(
            "the stage needs the model's losses, and there is no probe",
            where=f"stage {spec.name!r}",
            hint="a Probe of the stage before, from inference.probe",
        )
    loss, probability = np.full(size, np.nan), np.full(size, np.nan)
    # Rounding may give a certain answer a loss below 0, and thus a probability above 1.
    probability[probe.rows] = np.exp(-np.maximum(probe.loss, 0.0))
    loss[probe.rows] = probe.loss / np.maximum(probe.tokens, 1)
    probed = rows[~np.isnan(loss[rows])]
    return probed, loss if spec.by == "loss" else -probability, probability


def _frontier(probability: npt.NDArray[np.float64], replay: float) -> Mixture:
    """p(1 - p) for every row; with ``replay`` also rows with p > 1/2, evenly.

    A row far from the frontier has at least a thousandth of the greatest weight, so that no row is excluded for good.
    """
    weights = np.maximum(probability * (1 - probability), 0.25e-3)
    likely = probability > 0.5
    if not replay or not likely.any():
        return _mixture(np.zeros(probability.size, dtype=np.int64), (1.0,), (1.0,), weights)
    # The rows of the replay are a subset of those at the frontier: their weights are sums of both.
    weights = (1 - replay) * weights / weights.sum() + replay * likely / likely.sum()
    return _mixture(np.zeros(probability.size, dtype=np.int64), (1.0,), (1.0,), weights)


def _mixture(
    groups: Rows, start: Sequence[float], end: Sequence[float], weights: npt.NDArray[np.float64] | None = None
) -> Mixture:
    """A mixture; the shares of groups without rows are distributed over the others in proportion."""
    present = np.bincount(groups, minlength=len(start)) > 0
    shares = [np.where(present, side, 0.0) for side in (start, end)]
    if not all(side.sum() > 0 for side in shares):
        raise DataError("the bands of the mixture hold no samples", where="stage", given=f"{start} to {end}")
    first, last = (tuple(float(share) for share in side / side.sum()) for side in shares)
    return Mixture(groups, np.ones(groups.size) if weights is None else weights, first, last)


def _no_categories(column: str) -> Rows:
    raise RecipeError("the order needs categories, and there are none", where="schedule.order", given=column)


def stage_table(
    stages: Sequence[Stage], bands: Bands, characters: npt.NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """One plain row per stage, ready for JSON, as printed by `gradatim plan`.

    ``characters``: int64, shape (rows,): the length of each sample's text. Keys: ``stage``, ``order``, ``tokens`` (the
    budget), ``samples`` (their number), ``bands`` ({band: samples}), ``fractions`` ({band: fraction}), ``ends`` ({band:
    end, where only a part is taken}), ``characters`` (of the stage's samples, or None).
    """
    table: list[dict[str, Any]] = []
    for stage in stages:
        spec = stage.spec
        counts = np.bincount(bands.index[stage.rows], minlength=len(bands.names))
        fractions = dict(zip(bands.names, spec.fractions, strict=True))
        ends = zip(bands.names, spec.ends, strict=True)
        table.append(
            {
                "stage": spec.name,
                "order": spec.order,
                "tokens": spec.tokens,
                "samples": int(stage.rows.size),
                "bands": {name: int(count) for name, count in zip(bands.names, counts, strict=True)},
                "fractions": fractions,
                "ends": {name: end for name, end in ends if 0 < fractions[name] < 1},
                "characters": None if characters is None else int(characters[stage.rows].sum()),
            }
        )
    return table


def next_stage(schedule: Schedule, history: Sequence[StageResult]) -> StageSpec | None:
    """The next stage of ``schedule``; ``RecipeError`` unless it is a ``StageSpec`` or None."""
    spec = schedule.next(history)
    if spec is not None and not isinstance(spec, StageSpec):
        raise RecipeError(
            "the schedule returned no stage",
            where="schedule",
            given=f"{type(schedule).__name__}.next: {type(spec).__name__}",
            allowed="a gradatim.stage.StageSpec, or None at the end",
        )
    return spec


MOST_STAGES = 1000
"""Limit of ``preview``; a longer schedule is taken to be endless."""


def preview(schedule: Schedule, bands: Bands | Sequence[str], *, probed: int = 0) -> list[StageSpec]:
    """The stages of ``schedule``, with placeholder results (loss NaN, no evaluations).

    ``bands`` may be names alone when there are no data yet; every band then counts as empty. With ``probed`` > 0 the
    placeholder results contain a probe of so many rows: the stages then have the form of probed ones, and their rows
    cannot be selected. Raises ``RecipeError`` when the schedule has not ended after 1000 stages.
    """
    names = bands.names if isinstance(bands, Bands) else tuple(bands)
    sizes = bands.sizes if isinstance(bands, Bands) else (0,) * len(names)
    history: list[StageResult] = []
    while spec := next_stage(schedule, history):
        if len(history) >= MOST_STAGES:
            raise RecipeError(f"the schedule has not ended after {MOST_STAGES} stages", where="schedule")
        counts = [math.ceil(share * size) for share, size in zip(spec.fractions, sizes, strict=False)]
        untrained = Fitted(steps=0, tokens=spec.tokens, parameters=0, dropped=0, loss=math.nan, seconds=0.0, weights="")
        history.append(
            StageResult(
                cycle=0,
                index=len(history),
                spec=spec,
                samples=sum(counts),
                composition=dict(zip(names, counts, strict=False)),
                fitted=untrained,
                probed=probed,
            )
        )
    return [result.spec for result in history]


def needs_whole_samples(schedule: Schedule, bands: Sequence[str]) -> str | None:
    """The reason why ``schedule`` cannot be trained on random crops of a text, None when it can."""
    for spec in [*preview(schedule, bands), *preview(schedule, bands, probed=1)]:
        if spec.draws:
            return f"the stage {spec.name!r} draws samples with weights"
        if spec.order != "shuffled":
            return f"the order {spec.order!r} is one of samples"
    return None
