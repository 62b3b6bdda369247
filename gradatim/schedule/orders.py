"""Orders: permutations of the rows of a stage.

An order receives the rows that ``select_rows`` selected. Some orders use the difficulty, some a category of each
sample: a label column such as ``level``. An order depends on its generator alone. All but ``shuffled`` repeat the same
permutation at each pass.

Orders have no effect with random crops of the text (``train.batching: windows``), nor in stages whose rows are drawn
with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ..errors import DataError, RecipeError, did_you_mean
from ..lazy import np, pa
from ..options import strict
from ..registry import Registry

if TYPE_CHECKING:
    import numpy.typing as npt

    from .bands import Scores

    Rows: TypeAlias = npt.NDArray[np.int64]


CATEGORY = "level"
"""The default label column of categories."""


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


ORDERS: Registry[OrderFactory] = Registry("order")


def make_order(name: str, options: Mapping[str, Any], where: str) -> Order:
    """The order called ``name``. Raises ``RecipeError`` for an unknown name or options that do not fit."""
    if name not in ORDERS:
        raise RecipeError(
            f"there is no order called {name!r}",
            where=where,
            allowed=", ".join(ORDERS.names()),
            hint=did_you_mean(name, ORDERS.names()),
        )
    return ORDERS.get(name)(**options)


def category_codes(samples: pa.Table, column: str) -> Rows:
    """The category of each sample as a number, from the label ``column``; samples without a label are a category too.

    A column of whole numbers that is not a known label is accepted: files are read with all numbers as metrics unless
    the recipe declares a column. Raises ``DataError`` when there is no such column, or only one category in it.
    """
    from ..table import LABELS

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
    values = samples.column(column).cast(pa.string()).to_pylist()
    codes = {value: code for code, value in enumerate(sorted({str(value) for value in values}))}
    if len(codes) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there is only one category",
            where="schedule.category",
            given=next(iter(codes)),
            hint=next((f"category: {name}" for name in filled if name != column), None),
        )
    return np.array([codes[str(value)] for value in values], dtype=np.int64)


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
def by_difficulty(*, first: Literal["easy", "hard"] = "easy", passes: Literal["same", "once"] = "same") -> Order:
    """Easiest or hardest first, equal ones in random order.

    ``passes``: every pass the same, or sorted ``once`` and shuffled from the second pass on.
    """

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return rising if first == "easy" else rising[::-1].copy()

    return order


@ORDERS.register("folded")
@strict("the order 'folded'")
def folded(*, folds: int = 3) -> Order:
    """Easy to hard several times over, each time through every ``folds``-th sample (arXiv 2506.21545)."""
    _check_count(folds, "folds")

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return _concatenate([rising[fold::folds] for fold in range(folds)])

    return order


@ORDERS.register("zigzag")
@strict("the order 'zigzag'")
def zigzag(*, folds: int = 3) -> Order:
    """Folds that rise and fall in turn: no step from hardest to easiest between them."""
    _check_count(folds, "folds")

    def order(rows: Rows, context: OrderContext) -> Rows:
        rising = _rising(rows, context)
        return _concatenate([rising[fold::folds][:: 1 if fold % 2 == 0 else -1] for fold in range(folds)])

    return order


@ORDERS.register("blocked")
@strict("the order 'blocked'")
def blocked(*, category: str = CATEGORY) -> Order:
    """One category after the other, in random order; each shuffled (arXiv 2408.07888)."""
    return lambda rows, context: _concatenate(list(_blocks(context.rng.permutation(rows), context, category)))


@ORDERS.register("blocked_curriculum")
@strict("the order 'blocked_curriculum'")
def blocked_curriculum(*, category: str = CATEGORY) -> Order:
    """One category after the other, in random order; each from easy to hard (arXiv 2408.07888)."""
    return lambda rows, context: _concatenate(list(_blocks(_rising(rows, context), context, category)))


@ORDERS.register("interleaved")
@strict("the order 'interleaved'")
def interleaved(*, category: str = CATEGORY, parts: int = 3) -> Order:
    """Every category cut into ``parts`` at random, cycling through the categories (arXiv 2408.07888)."""
    _check_count(parts, "parts")
    return lambda rows, context: _interleave(list(_blocks(context.rng.permutation(rows), context, category)), parts)


@ORDERS.register("interleaved_curriculum")
@strict("the order 'interleaved_curriculum'")
def interleaved_curriculum(*, category: str = CATEGORY, parts: int = 3) -> Order:
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
