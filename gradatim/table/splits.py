"""Training, validation and test splits, and removal of duplicates.

``split`` by ``slice`` (the default) assigns programs to the same set that are equal up to variable renaming once
assignments without effect on the output are dropped (``programs.sliced``), and holds out one program of each such
form, so that held-out rows are independent. By ``canonical`` form it only regards renaming (alpha-equivalence), by
``text``, as in arXiv 2407.10194, only equal programs, by ``random`` not even those. The column ``twin`` of the
validation and test sets is ``twin`` for a row whose slice occurs in training too, otherwise ``new``, so that suites can
count both. The sets depend on the samples and
``seed`` only: not on the order of the rows, the size of the validation set (the test set is drawn first), or the run.
They are stratified by level.

``dedupe`` keeps the first of equal samples, by training text or by id. Texts are compared by 128 bits of BLAKE2b; among
a billion texts, the probability of a collision is 1 in 10^20.

Both read the texts once, slice by slice, and compute with arrays of hashes and levels, so that a table larger than
memory (``mapped``) needs some 60 bytes of memory per row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError, UserError, did_you_mean
from .mapped import SLICE_ROWS, filter_rows, slices, take_rows
from .rows import largest_remainder, rows_of
from .schema import LABEL, label_codes, questions, texts


@dataclass(frozen=True)
class Deduped:
    """A table without duplicates, in the original order, and the number of dropped rows."""

    table: pa.Table
    dropped: int


def dedupe(table: pa.Table, by: Literal["text", "id"] = "text") -> Deduped:
    """``table`` with the first sample of each text (prompt and answer) or of each id.

    By ``id`` one answer per question remains; by ``text`` a question may have several answers.
    """
    if by not in ("text", "id"):
        raise UserError(
            "there is no such criterion for duplicates",
            given=by,
            allowed="text, id",
            hint=did_you_mean(by, ("text", "id")),
        )
    columns = (texts(part) for part in slices(table)) if by == "text" else slices(table["id"])
    is_first = first_rows(columns)
    dropped = table.num_rows - int(is_first.sum())
    return Deduped(filter_rows(table, is_first) if dropped else table, dropped)


def first_rows(columns: Iterable[pa.ChunkedArray]) -> npt.NDArray[np.bool_]:
    """Whether each text is the first of its equals, over consecutive parts of a column."""
    digests = [_digests(column.to_pylist(), size=16) for column in columns]
    high, low = np.concatenate([np.empty((0, 2), np.uint64), *digests]).T
    order = np.lexsort((low, high))  # stable: equal texts in the order of their rows
    is_first = np.zeros(len(order), bool)
    is_first[order[_run_starts(high[order]) | _run_starts(low[order])]] = True
    return is_first


SplitBy = Literal["slice", "canonical", "text", "random"]
Duplicates = Literal["keep", "drop"]
Key = Callable[[str], str]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int32]

_SIDES = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_DROPPED = 3
"""Rows that are in no set: further programs of a form that is held out once, or of any form."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # an odd number with evenly distributed multiples modulo 2^64


@dataclass(frozen=True)
class Split:
    """A partition of a table into three; ``facts`` are counts for the run's record.

    ``train`` has the order of the table. ``validation`` and ``test`` are in seeded random order, so their first n rows
    are a random sample. ``facts``: by, seed, rows (set -> level or "all" -> count), forms (set -> distinct forms),
    twin_groups (set -> forms of several rows), twins (set -> rows with a twin in training), dropped (rows in no set:
    by ``slice``, or where duplicates are dropped), short (set -> level -> missing rows, since groups of twins are not
    divided).
    """

    train: pa.Table
    validation: pa.Table
    test: pa.Table
    facts: dict[str, Any] = field(default_factory=dict)


def split(
    table: pa.Table,
    *,
    validation: int | float,
    test: int | float,
    seed: int,
    by: SplitBy = "slice",
    levels: Sequence[str] | None = None,
    duplicates: Duplicates = "keep",
    key: Key | None = None,
) -> Split:
    """Split ``table`` into training, ``validation`` rows and ``test`` rows; numbers below 1 are shares of the rows.

    Samples are twins when their questions (the prompt, or the answer in code completion) have the same ``key``, by
    default ``programs.sliced``, which leaves texts that are no programs unchanged. Each level has the same share of a
    set as of the table, in forms by ``slice`` and else in rows, where a group of twins larger than the remaining share
    is skipped, so a set can be smaller than requested (``facts["short"]``). ``levels``: the levels to hold samples out
    from; all others are for training, with their twins in the named levels. Forms are compared by 64 bits of BLAKE2b:
    with 1.2 million, two collide in one of 25 million splits and then only share a set.

    ``duplicates``: with ``drop`` training has one sample of each group of twins by ``by``, a random one by ``seed``,
    and no other answer to its question. Levels that are only trained on keep all.

    Raises ``DataError`` for a table with too few rows, an empty set, or an unknown level in ``levels``.
    """
    from ..programs.equivalence import canonical, sliced

    validation, test = rows_of(validation, table.num_rows), rows_of(test, table.num_rows)
    _check(table, by, validation, test)
    forms = _hashes(table, seed, key or sliced)
    match by:
        case "slice":
            groups = forms
        case "canonical":
            groups = _hashes(table, seed, key or canonical)
        case "text":
            groups = _hashes(table, seed, str)
        case "random":
            groups = _row_hashes(table, seed)
    names, level_of = label_codes(table["level"], missing="none")
    open_levels = np.array([levels is None or name in levels for name in names])
    if levels is not None and (unknown := sorted(set(levels) - set(names))):
        raise DataError(
            "the table has no such level",
            where="split.levels",
            given=unknown[0],
            allowed=", ".join(names),
            hint=did_you_mean(unknown[0], names),
        )
    targets = {_TEST: test, _VALIDATION: validation}
    sides, short = _choose(groups, level_of, open_levels, targets, one_row=by == "slice")
    if by == "slice":
        _drop_further_rows(sides, groups, table)
    if duplicates == "drop":
        sides[_further(groups, _hashes(table, seed, str, texts), (sides == _TRAIN) & open_levels[level_of])] = _DROPPED
    for side, rows in targets.items():
        if rows and not (sides == side).any():
            raise DataError(
                f"no group of twins is small enough for the {_SIDES[side]} set",
                given=f"{rows} rows requested, {len(np.unique(groups))} groups in {table.num_rows} samples",
                hint="a larger set, or split by text",
            )
    if not (sides == _TRAIN).any():
        raise DataError(
            "the held-out sets leave no sample for training",
            given=f"{len(np.unique(groups))} different forms in {table.num_rows} samples, {validation + test} held out",
            hint="smaller sets, or split by text",
        )
    twins = _with_twin_in_training(forms, sides)
    facts = {
        "by": by,
        "seed": seed,
        **_count(sides, forms, level_of, names),
        "twins": {_SIDES[side]: int(twins[sides == side].sum()) for side in targets},
        **({"dropped": int((sides == _DROPPED).sum())} if by == "slice" or duplicates == "drop" else {}),
        "short": {_SIDES[side]: {names[level]: n for level, n in short[side].items()} for side in targets},
    }
    held_out = {side: _held_out(table, np.flatnonzero(sides == side), groups, twins) for side in targets}
    return Split(filter_rows(table, sides == _TRAIN), held_out[_VALIDATION], held_out[_TEST], facts)


def _check(table: pa.Table, by: str, validation: int, test: int) -> None:
    criteria = get_args(SplitBy)
    if by not in criteria:
        raise DataError(
            "there is no such split", given=by, allowed=", ".join(criteria), hint=did_you_mean(by, criteria)
        )
    if min(validation, test) < 0 or validation + test >= table.num_rows:
        raise DataError(
            "the table has too few samples for the held-out sets",
            given=f"{table.num_rows} samples, validation {validation}, test {test}",
            allowed="validation + test below the number of samples, neither negative",
        )


def _digests(values: Iterable[str], size: int, salt: bytes = b"") -> npt.NDArray[np.uint64]:
    """BLAKE2b of each text, ``size`` bytes as numbers of 64 bits, shape (texts, size / 8)."""
    digests = b"".join(hashlib.blake2b(value.encode(), digest_size=size, salt=salt).digest() for value in values)
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, size // 8)


def _hashes(table: pa.Table, seed: int, key: Key, column: Callable[[pa.Table], pa.ChunkedArray] = questions) -> Hashes:
    """Seeded 64-bit hash of the key of each question, equal in all processes; defines groups and their order."""
    salt = (seed % 2**128).to_bytes(16, "little")
    parts = slices(table.select(["prompt", "answer"]))
    return np.concatenate([_digests(map(key, column(part).to_pylist()), 8, salt)[:, 0] for part in parts])


def _row_hashes(table: pa.Table, seed: int) -> Hashes:
    """A distinct hash per row; those of equal rows differ by their number of occurrence."""
    hashes = _hashes(table, seed, str, texts)
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(_run_starts(hashes[order]))
    repeats = np.empty(len(hashes), np.uint64)
    repeats[order] = np.arange(len(hashes)) - np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    return hashes + repeats * _GOLDEN


def _run_starts(ordered: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each number differs from the one before it; true for the first."""
    return np.concatenate((np.ones(min(len(ordered), 1), bool), ordered[1:] != ordered[:-1]))


def _choose(
    groups: Hashes, levels: Levels, open_levels: npt.NDArray[np.bool_], targets: dict[int, int], *, one_row: bool
) -> tuple[npt.NDArray[np.int8], dict[int, dict[int, int]]]:
    """Set of each row, and the number of missing rows by set and level.

    Groups are taken in the order of their hashes, which is random by the seed. A group that spans levels belongs to
    the lowest; a group with a row of a level outside ``open_levels`` stays in training. With ``one_row`` a group fills
    one row of a set.
    """
    level_count = len(open_levels)
    inverse, sizes = _numbered(groups)
    home = np.full(len(sizes), level_count, np.int32)
    np.minimum.at(home, inverse, levels)
    home[inverse[~open_levels[levels]]] = level_count
    if one_row:
        sizes = np.ones_like(sizes)
    level_rows = np.bincount(home, weights=sizes, minlength=level_count)[:level_count].astype(np.int64)
    side = np.full(len(sizes), _TRAIN, np.int8)
    short: dict[int, dict[int, int]] = {}
    for code, rows in targets.items():
        short[code] = {}
        for level, share in largest_remainder(rows, dict(enumerate(level_rows.tolist()))).items():
            free = np.flatnonzero((home == level) & (side == _TRAIN))
            selection, missing = _fill(sizes[free].tolist(), share)
            side[free[selection]] = code
            if missing:
                short[code][level] = missing
    return side[inverse], short


def _numbered(groups: Hashes) -> tuple[npt.NDArray[np.int32], Rows]:
    """Number of the group of each row, in the order of the hashes, and the rows of each group.

    ``np.unique`` gives the same with twice the memory.
    """
    order = np.argsort(groups)
    starts = _run_starts(groups[order])
    inverse = np.empty(len(groups), np.int32)
    inverse[order] = np.cumsum(starts, dtype=np.int32) - 1
    return inverse, np.diff(np.append(np.flatnonzero(starts), len(groups)))


def _with_twin_in_training(forms: Hashes, sides: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Whether the form of each row of the held-out sets occurs in training; false for all other rows."""
    held_out = np.flatnonzero((sides == _VALIDATION) | (sides == _TEST))
    held_out_forms = np.unique(forms[held_out])
    occurs = np.zeros(len(held_out_forms), bool)
    for start in range(0, len(forms), SLICE_ROWS):
        rows = slice(start, start + SLICE_ROWS)
        occurs |= np.isin(held_out_forms, forms[rows][sides[rows] == _TRAIN])
    twins = np.zeros(len(forms), bool)
    twins[held_out] = occurs[np.searchsorted(held_out_forms, forms[held_out])]
    return twins


def _drop_further_rows(sides: npt.NDArray[np.int8], groups: Hashes, table: pa.Table) -> None:
    """Mark, in place, all rows of a held-out group but that with the first id as dropped."""
    held_out = np.flatnonzero((sides == _VALIDATION) | (sides == _TEST))
    names = _ids(table, held_out)
    ordered = held_out[np.lexsort((names, groups[held_out]))]
    further = ordered[1:][groups[ordered[1:]] == groups[ordered[:-1]]]
    sides[further] = _DROPPED


def drop_duplicates(table: pa.Table, *, seed: int, key: Key, levels: Sequence[str] | None = None) -> pa.Table:
    """``table`` with one sample of each form ``key`` of a question; all of the samples outside ``levels``."""
    names, level_of = label_codes(table["level"], missing="none")
    compared = np.array([levels is None or name in levels for name in names])[level_of]
    kept = np.ones(table.num_rows, bool)
    kept[_further(_hashes(table, seed, key), _hashes(table, seed, str, texts), compared)] = False
    return filter_rows(table, kept)


def _further(groups: Hashes, order: Hashes, compared: npt.NDArray[np.bool_]) -> Rows:
    """The ``compared`` rows but the one with the least ``order`` of each group."""
    rows = np.flatnonzero(compared)
    rows = rows[np.lexsort((order[rows], groups[rows]))]
    return rows[~_run_starts(groups[rows])]


def _fill(sizes: Sequence[int], room: int) -> tuple[list[int], int]:
    """Indices of the first groups that fit into ``room`` rows, skipping others, and the remaining room."""
    selection: list[int] = []
    for group, size in enumerate(sizes):
        if not room:
            break
        if size <= room:
            selection.append(group)
            room -= size
    return selection, room


def _ids(table: pa.Table, rows: Rows) -> npt.NDArray[np.str_]:
    ids: npt.NDArray[np.str_] = take_rows(table.select(["id"]), rows)["id"].to_numpy().astype(str)
    return ids


def _count(sides: npt.NDArray[np.int8], forms: Hashes, levels: Levels, names: list[str]) -> dict[str, Any]:
    rows, distinct, shared = {}, {}, {}
    for side, name in enumerate(_SIDES):
        mask = sides == side
        per_level = np.bincount(levels[mask], minlength=len(names)).tolist()
        rows[name] = {"all": int(mask.sum()), **dict(zip(names, per_level, strict=True))}
        sizes = _numbered(forms[mask])[1]
        distinct[name], shared[name] = len(sizes), int((sizes > 1).sum())
    return {"rows": rows, "forms": distinct, "twin_groups": shared}


def _held_out(table: pa.Table, rows: Rows, groups: Hashes, twins: npt.NDArray[np.bool_]) -> pa.Table:
    """Samples at ``rows`` in the order of their hashes, within a group by id, with the column ``twin``."""
    ordered = rows[np.lexsort((_ids(table, rows), groups[rows]))]
    label = pa.array(np.where(twins[ordered], "twin", "new"), pa.string()).dictionary_encode().cast(LABEL)
    samples = take_rows(table, ordered)
    if "twin" in samples.schema.names:
        samples = samples.drop_columns("twin")
    return samples.append_column("twin", label)
