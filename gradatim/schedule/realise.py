"""Which rows does a stage learn, and how do they follow each other?

``realise`` turns a ``StageSpec`` into a ``Stage``, whose rows are fixed by the seed alone; an *order* arranges
them. ``stage_table`` says in plain numbers what stages hold. This module reads no samples: rows are positions in a
table whose difficulties and bands it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import DataError, RecipeError
from ..registry import Registry
from ..stage import End, Stage, StageSpec
from .bands import Bands

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .bands import Scores

    Rows: TypeAlias = npt.NDArray[np.int64]

__all__ = ["ORDERS", "Order", "realise", "stage_table"]


class Order(Protocol):
    """How the rows of a stage follow each other."""

    def __call__(self, rows: Rows, difficulty: Scores, rng: np.random.Generator, /) -> Rows:
        """The same ``rows`` in the order they are learnt; ``difficulty`` is the whole table's."""
        ...


ORDERS: Registry[Order] = Registry("order")


@ORDERS.register("shuffled")
def shuffled(rows: Rows, difficulty: Scores, rng: np.random.Generator) -> Rows:
    """In random order, drawn anew at each pass."""
    return rng.permutation(rows)


@ORDERS.register("sorted")
def easy_first(rows: Rows, difficulty: Scores, rng: np.random.Generator) -> Rows:
    """Easiest first, equal ones in random order; every pass alike."""
    mixed = rng.permutation(rows)
    rising: Rows = difficulty[mixed].argsort(kind="stable")
    return mixed[rising]


def realise(
    spec: StageSpec,
    bands: Bands,
    difficulty: Scores,
    *,
    seed: int,
    index: int = 0,
    first_token: int = 0,
    run_tokens: int | None = None,
) -> Stage:
    """Choose the rows of a stage: ceil(fraction x size) of each band, from the end that the specification names.

    ``difficulty`` and ``bands`` describe the same table. Equal difficulties are common (most TinyPy programs share
    a handful of values), so ties at the cut are broken at random by ``seed``; the same arguments give the same
    rows. ``run_tokens`` is the run's whole budget, this stage's end when left out.

    Raises ``RecipeError`` when the specification is for another number of bands or an unknown order, ``DataError``
    when the stage has no samples.
    """
    import numpy as np

    if len(spec.fractions) != len(bands.names) or len(difficulty) != len(bands.index):
        raise RecipeError(
            "the stage, the bands and the difficulties do not belong together",
            where=f"stage {spec.name!r}",
            given=f"{len(spec.fractions)} fractions for {len(bands.names)} bands, "
            f"{len(difficulty)} difficulties for {len(bands.index)} rows",
        )
    chosen = [
        # One generator per band: what one band draws does not shift another's.
        _take(np.flatnonzero(bands.index == band), share, end, difficulty, np.random.default_rng([seed, band + 1]))
        for band, (share, end) in enumerate(zip(spec.fractions, spec.ends, strict=True))
        if share
    ]
    rows = np.concatenate(chosen)
    if not rows.size:
        raise DataError("the stage has no samples", where=f"stage {spec.name!r}", given=f"band sizes {bands.sizes}")
    order = ORDERS.get(spec.order, where=f"stage {spec.name!r}")
    rows = order(rows, difficulty, np.random.default_rng([seed, 0]))
    return Stage(spec, index, rows, seed, first_token, run_tokens or first_token + spec.tokens)


def _take(rows: Rows, share: float, end: End, difficulty: Scores, rng: np.random.Generator) -> Rows:
    # 1e-9 keeps a share such as 0.07 of 100 rows from being rounded up to 8 by binary fractions.
    count = math.ceil(share * rows.size - 1e-9)
    if count >= rows.size:
        return rows
    mixed = rng.permutation(rows)
    if end != "random":
        mixed = mixed[difficulty[mixed].argsort(kind="stable")]
    return mixed[rows.size - count :] if end == "hardest" else mixed[:count]


def stage_table(
    stages: Sequence[Stage], bands: Bands, characters: npt.NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """One plain row per stage, ready for JSON: what `gradatim plan` prints.

    ``characters``: int64, shape (rows,): the length of each sample's text. Keys: ``stage``, ``order``, ``tokens``
    (the budget), ``samples`` (their number), ``bands`` ({band: samples}), ``fractions`` ({band: fraction}),
    ``ends`` ({band: which part, where a part is taken}), ``characters`` (of the stage's samples, or None).
    """
    import numpy as np

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
