"""Which rows does a stage learn, how often, and how do they follow each other?

``realise`` turns a ``StageSpec`` into a ``Stage``, whose rows are fixed by the seed alone: a fraction of each band,
of those the rows between two quantiles where the specification asks for it; then either an *order* arranges them
(``orders``) or a ``Mixture`` says with which weights they are drawn. ``stage_table`` says in plain numbers what stages
hold. This module reads no samples: rows are positions in a table whose difficulties and bands it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import DataError, RecipeError
from ..stage import End, Mixture, Probe, Stage, StageSpec
from .bands import Bands
from .orders import Arranged, make_order

__all__ = ["probe_rows", "realise", "stage_seed", "stage_table"]


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .bands import Scores

    Rows: TypeAlias = npt.NDArray[np.int64]


def realise(
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
    """Choose the rows of a stage: ceil(fraction x size) of each band, from the end that the specification names.

    ``difficulty`` and ``bands`` describe the same table. Equal difficulties are common (most TinyPy programs share
    a handful of values), so ties at the cut are broken at random by ``seed``; the same arguments give the same
    rows. ``run_tokens`` is the run's whole budget, this stage's end when left out. ``categories`` gives the category of
    each row of the table for a column's name (``category_codes``); orders that have none do not call it. ``probe`` is
    what the student found hard after the stage before: a stage that asks for it takes rows of the probe alone.

    Raises ``RecipeError`` when the specification is for another number of bands or an unknown order, or when it needs a
    probe or categories and there are none; ``DataError`` when the stage has no samples.
    """
    import numpy as np

    where = f"stage {spec.name!r}"
    if len(spec.fractions) != len(bands.names) or len(difficulty) != len(bands.index):
        raise RecipeError(
            "the stage, the bands and the difficulties do not belong together",
            where=where,
            given=f"{len(spec.fractions)} fractions for {len(bands.names)} bands, "
            f"{len(difficulty)} difficulties for {len(bands.index)} rows",
        )
    chosen = [
        # One generator per band: what one band draws does not shift another's.
        _take(np.flatnonzero(bands.index == band), share, end, difficulty, np.random.default_rng([seed, band + 1]))
        for band, (share, end) in enumerate(zip(spec.fractions, spec.ends, strict=True))
        if share
    ]
    rows, mixture = _narrow(spec, np.concatenate(chosen), bands, difficulty, probe, seed)
    if not rows.size:
        raise DataError("the stage has no samples", where=where, given=f"band sizes {bands.sizes}")
    if mixture is None:
        given = Arranged(difficulty, np.random.default_rng([seed, 0]), categories or _no_categories)
        rows = make_order(spec.order, spec.order_options, where)(rows, given)
    return Stage(spec, index, rows, seed, first_token, run_tokens or first_token + spec.tokens, mixture=mixture)


def probe_rows(bands: Bands, count: int, seed: int) -> Rows:
    """The rows of a probe: ``count`` of those in any band, drawn by ``seed``, rising; 0 takes all of them."""
    import numpy as np

    scored = np.flatnonzero(bands.index >= 0)
    if not count or count >= scored.size:
        return scored
    # Far from the bands' generators, which are numbered from 0.
    return np.sort(np.random.default_rng([seed, 1 << 20]).choice(scored, count, replace=False))


def _take(rows: Rows, share: float, end: End, difficulty: Scores, rng: np.random.Generator) -> Rows:
    # 1e-9 keeps a share such as 0.07 of 100 rows from being rounded up to 8 by binary fractions.
    count = math.ceil(share * rows.size - 1e-9)
    if count >= rows.size:
        return rows
    mixed = rng.permutation(rows)
    if end != "random":
        mixed = mixed[difficulty[mixed].argsort(kind="stable")]
    return mixed[rows.size - count :] if end == "hardest" else mixed[:count]


def _narrow(
    spec: StageSpec, rows: Rows, bands: Bands, difficulty: Scores, probe: Probe | None, seed: int
) -> tuple[Rows, Mixture | None]:
    """What of ``rows`` a continuous curriculum leaves, and the weights with which they are drawn, if they are."""
    import numpy as np

    if spec.mixture is not None:
        return rows, _mixture(bands.index[rows].astype(np.int64), *spec.mixture)
    if not spec.probes and not spec.replay and (spec.low, spec.high) == (0, 1):
        return rows, None
    hardness, chance = difficulty, None
    if spec.probes:
        rows, hardness, chance = _probed(spec, rows, len(difficulty), probe)
    if spec.frontier and chance is not None:
        own = chance[rows]
        return rows, _frontier(own, spec.replay)
    mixed = np.random.default_rng([seed, 1 << 21]).permutation(rows)
    rising = mixed[hardness[mixed].argsort(kind="stable")]
    first, last = (math.ceil(edge * rising.size - 1e-9) for edge in (spec.low, spec.high))
    first = min(first, max(last - 1, 0))  # a slice thinner than one row still holds one
    if not spec.replay or not first:
        return rising[first:last], None
    groups = (np.arange(last) >= first).astype(np.int64)
    return rising[:last], _mixture(groups, (spec.replay, 1 - spec.replay), (spec.replay, 1 - spec.replay))


def _probed(
    spec: StageSpec, rows: Rows, size: int, probe: Probe | None
) -> tuple[Rows, Scores, npt.NDArray[np.float64]]:
    """The rows that were probed, and of the whole table how hard each is and the chance of its answer (else NaN)."""
    import numpy as np

    if probe is None:
        raise RecipeError(
            "the stage needs the student's losses, and nobody measured them",
            where=f"stage {spec.name!r}",
            hint="a Probe of the stage before, from student.progress",
        )
    loss, chance = np.full(size, np.nan), np.full(size, np.nan)
    # Rounding may leave a certain answer a loss below 0, and a chance above 1.
    chance[probe.rows] = np.exp(-np.maximum(probe.loss, 0.0))
    loss[probe.rows] = probe.loss / np.maximum(probe.tokens, 1)
    known = rows[~np.isnan(loss[rows])]
    return known, loss if spec.by == "loss" else -chance, chance


def _frontier(chance: npt.NDArray[np.float64], replay: float) -> Mixture:
    """p(1 - p) for every row; with ``replay`` also what the student has more likely right than not, evenly.

    A row far from the frontier keeps a thousandth of the greatest weight: none is given up for good.
    """
    import numpy as np

    weights = np.maximum(chance * (1 - chance), 0.25e-3)
    right = chance > 0.5
    if not replay or not right.any():
        return _mixture(np.zeros(chance.size, dtype=np.int64), (1.0,), (1.0,), weights)
    # The rows of the replay are a part of those at the frontier; each gets the sum of both weights.
    weights = (1 - replay) * weights / weights.sum() + replay * right / right.sum()
    return _mixture(np.zeros(chance.size, dtype=np.int64), (1.0,), (1.0,), weights)


def _mixture(
    groups: Rows, start: Sequence[float], end: Sequence[float], weights: npt.NDArray[np.float64] | None = None
) -> Mixture:
    """A mixture; the shares of groups without rows go to the others in proportion."""
    import numpy as np

    there = np.bincount(groups, minlength=len(start)) > 0
    shares = [np.where(there, side, 0.0) for side in (start, end)]
    if not all(side.sum() > 0 for side in shares):
        raise DataError("the bands of the mixture hold no samples", where="stage", given=f"{start} to {end}")
    first, last = (tuple(float(share) for share in side / side.sum()) for side in shares)
    return Mixture(groups, np.ones(groups.size) if weights is None else weights, first, last)


def _no_categories(column: str) -> Rows:
    raise RecipeError("the order needs categories, and none are there", where="schedule.order", given=column)


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


def stage_seed(seed: int, cycle: int, stage: int) -> int:
    """The seed of one stage, from the run's seed, the cycle and the stage: never from what was drawn before."""
    import numpy as np

    return int(np.random.SeedSequence([seed, cycle, stage]).generate_state(1, np.uint64)[0] >> np.uint64(1))
