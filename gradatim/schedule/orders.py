"""How do the rows of a stage follow each other?

An *order* arranges the rows that a stage has; which rows those are is settled before (``realise``). Some orders look at
the difficulty, some at a category of each sample, a label column such as ``level``. Every order is a permutation and
depends on its generator alone. All but ``shuffled`` go through a stage in the same way at each pass.

An order has no say where batches are cut anywhere in the text (``train.batching: windows``), nor in stages whose rows
are drawn with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ..errors import DataError, RecipeError, did_you_mean
from ..options import strict
from ..registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from .bands import Scores

    Rows: TypeAlias = npt.NDArray[np.int64]

__all__ = ["ORDERS", "Arranged", "Order", "OrderFactory", "category_codes", "make_order"]

CATEGORY = "level"
"""The label column that categories come from unless a recipe names another."""


@dataclass(frozen=True)
class Arranged:
    """What an order may look at: columns of the whole table, not of the stage's rows alone.

    ``difficulty``: float64, shape (rows of the table,). ``categories(column)``: int64 of the same shape, equal for rows
    of one category. ``rng`` is the order's own.
    """

    difficulty: Scores
    rng: np.random.Generator
    categories: Callable[[str], Rows]


class Order(Protocol):
    """How the rows of a stage follow each other."""

    def __call__(self, rows: Rows, given: Arranged, /) -> Rows:
        """The same ``rows`` in the order they are learnt."""
        ...


class OrderFactory(Protocol):
    """Makes an order; options are keywords."""

    def __call__(self, **options: Any) -> Order: ...


ORDERS: Registry[OrderFactory] = Registry("order")


def make_order(name: str, options: Mapping[str, Any], where: str) -> Order:
    """The order called ``name``. Raises ``RecipeError`` when there is none or it does not take the options."""
    if name not in ORDERS:
        raise RecipeError(
            f"there is no order called {name!r}",
            where=where,
            allowed=", ".join(ORDERS.names()),
            hint=did_you_mean(name, ORDERS.names()),
        )
    return ORDERS.get(name)(**options)


def category_codes(samples: pa.Table, column: str) -> Rows:
    """The category of each sample as a number, from the label ``column``; samples without one are a category too.

    A column of whole numbers that is no label of ours is one all the same: numbers are read as metrics where nobody
    says what they are. Raises ``DataError`` when there is no such column, or only one category in it.
    """
    import numpy as np
    import pyarrow as pa

    from ..table import LABELS

    filled = [name for name in LABELS if name in samples.schema.names]
    filled = [name for name in filled if samples.column(name).null_count < samples.num_rows]
    if column not in filled and (numbers := _whole_numbers(samples, column)) is not None:
        samples = samples.drop_columns([column]).append_column(column, numbers)
        filled.append(column)
    if column not in filled:
        raise DataError(
            f"no sample has a {column!r}, which the order takes its categories from",
            where="schedule.category",
            allowed=", ".join(filled) or "no label column has values here",
            hint=did_you_mean(column, filled) or f"name it in the column mapping: data.columns.category: {column}",
        )
    values = samples.column(column).cast(pa.string()).to_pylist()
    codes = {value: code for code, value in enumerate(sorted({str(value) for value in values}))}
    if len(codes) < 2:
        raise DataError(
            f"every sample has the same {column!r}: there are no categories to go through",
            where="schedule.category",
            given=next(iter(codes)),
            hint=next((f"category: {name}" for name in filled if name != column), None),
        )
    return np.array([codes[str(value)] for value in values], dtype=np.int64)


def _whole_numbers(samples: pa.Table, column: str) -> pa.Array | None:
    """A column of the data's own as texts when all its numbers are whole; None for any other, and for a difficulty."""
    import pyarrow as pa

    from ..difficulty import DIFFICULTIES

    own = column in samples.schema.names and column not in DIFFICULTIES
    if not own or samples.schema.field(column).type != pa.float64():
        return None
    values = [None if value is None or value != value else value for value in samples.column(column).to_pylist()]
    known = [value for value in values if value is not None]
    if not known or not all(value.is_integer() for value in known):
        return None
    return pa.array([None if value is None else str(int(value)) for value in values], pa.string())


@ORDERS.register("shuffled")
@strict("the order 'shuffled'")
def shuffled() -> Order:
    """In random order, drawn anew at each pass."""
    return lambda rows, given: given.rng.permutation(rows)


@ORDERS.register("sorted")
@strict("the order 'sorted'")
def by_difficulty(*, first: Literal["easy", "hard"] = "easy", passes: Literal["same", "once"] = "same") -> Order:
    """Easiest or hardest first, equal ones in random order.

    ``passes``: every pass alike, or sorted ``once`` and shuffled from the second pass on.
    """

    def order(rows: Rows, given: Arranged) -> Rows:
        rising = _rising(rows, given)
        return rising if first == "easy" else rising[::-1].copy()

    return order


@ORDERS.register("folded")
@strict("the order 'folded'")
def folded(*, folds: int = 3) -> Order:
    """Easy to hard several times over, each time through every ``folds``-th sample (arXiv 2506.21545)."""
    _at_least_one(folds, "folds")

    def order(rows: Rows, given: Arranged) -> Rows:
        rising = _rising(rows, given)
        return _joined([rising[fold::folds] for fold in range(folds)])

    return order


@ORDERS.register("zigzag")
@strict("the order 'zigzag'")
def zigzag(*, folds: int = 3) -> Order:
    """Folds that rise and fall in turn: no step from hardest to easiest between them."""
    _at_least_one(folds, "folds")

    def order(rows: Rows, given: Arranged) -> Rows:
        rising = _rising(rows, given)
        return _joined([rising[fold::folds][:: 1 if fold % 2 == 0 else -1] for fold in range(folds)])

    return order


@ORDERS.register("blocked")
@strict("the order 'blocked'")
def blocked(*, category: str = CATEGORY) -> Order:
    """One category after the other, in random order; each shuffled (arXiv 2408.07888)."""
    return lambda rows, given: _joined(list(_blocks(given.rng.permutation(rows), given, category)))


@ORDERS.register("blocked_curriculum")
@strict("the order 'blocked_curriculum'")
def blocked_curriculum(*, category: str = CATEGORY) -> Order:
    """One category after the other, in random order; each from easy to hard (arXiv 2408.07888)."""
    return lambda rows, given: _joined(list(_blocks(_rising(rows, given), given, category)))


@ORDERS.register("interleaved")
@strict("the order 'interleaved'")
def interleaved(*, category: str = CATEGORY, parts: int = 3) -> Order:
    """Every category cut into ``parts`` at random, cycling through the categories (arXiv 2408.07888)."""
    _at_least_one(parts, "parts")
    return lambda rows, given: _cycled(list(_blocks(given.rng.permutation(rows), given, category)), parts)


@ORDERS.register("interleaved_curriculum")
@strict("the order 'interleaved_curriculum'")
def interleaved_curriculum(*, category: str = CATEGORY, parts: int = 3) -> Order:
    """Every category cut into ``parts`` by difficulty, cycling: the easiest part of each first (arXiv 2408.07888)."""
    _at_least_one(parts, "parts")
    return lambda rows, given: _cycled(list(_blocks(_rising(rows, given), given, category)), parts)


def _rising(rows: Rows, given: Arranged) -> Rows:
    """Easiest first, equal ones in random order."""
    mixed = given.rng.permutation(rows)
    rising: Rows = given.difficulty[mixed].argsort(kind="stable")
    return mixed[rising]


def _blocks(rows: Rows, given: Arranged, category: str) -> Iterator[Rows]:
    """The rows of each category, which keep their order; the categories in random order."""
    import numpy as np

    own = given.categories(category)[rows]
    for code in given.rng.permutation(np.unique(own)):
        yield rows[own == code]


def _cycled(blocks: Sequence[Rows], parts: int) -> Rows:
    """The first part of each block, then the second of each, and so on."""
    import numpy as np

    cut = [np.array_split(block, parts) for block in blocks]
    return _joined([block[part] for part in range(parts) for block in cut])


def _joined(pieces: Sequence[Rows]) -> Rows:
    import numpy as np

    return np.concatenate(pieces)


def _at_least_one(count: int, name: str) -> None:
    if count < 1:
        raise RecipeError("an order has at least one part", where=f"schedule.order.{name}", given=count)
