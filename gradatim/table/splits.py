"""Training, validation and test splits, and removal of duplicates.

``split`` by ``slice`` (the default) assigns programs to the same set that are equal up to variable renaming once
assignments without effect on the output are dropped (``programs.sliced``), and holds out one program of each such
form, so that held-out rows are independent. By ``canonical`` form it only regards renaming (alpha-equivalence), by
``text``, as in arXiv 2407.10194, only equal programs, by ``random`` not even those. The column ``twin`` of the
validation and test sets is ``twin`` for a row whose slice occurs in training too, otherwise ``new``, so that suites can
count both. The sets depend on the samples and
``seed`` only: not on the order of the rows, the size of the validation set (the test set is drawn first), or the run.
They are stratified by level.

``dedupe`` keeps the first of equal samples, by training text or by id. Texts are compared by 128 bits of BLAKE2b, in
slices to save memory; among a billion texts, the probability of a collision is 1 in 10^20.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError, UserError, did_you_mean
from .rows import largest_remainder, rows_of
from .schema import LABEL, questions, texts

_DEDUPE_SLICE = 65_536


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
    if not table.num_rows:
        return Deduped(table, 0)
    first = first_rows(texts(table) if by == "text" else table["id"])
    if len(first) == table.num_rows:
        return Deduped(table, 0)
    return Deduped(table.take(pa.array(first)), table.num_rows - len(first))


def first_rows(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Rows (ascending) of the first occurrence of each distinct text of ``column``."""
    digests = [
        hashlib.blake2b(text.encode(), digest_size=16).digest()
        for start in range(0, len(column), _DEDUPE_SLICE)
        for text in column.slice(start, _DEDUPE_SLICE).to_pylist()
    ]
    codes = pa.array(digests, pa.binary(16)).dictionary_encode().indices.to_numpy()
    # Codes ascend in order of appearance, so the code of a first occurrence exceeds all before it.
    highest = np.maximum.accumulate(codes)
    return np.flatnonzero(np.concatenate(([True], codes[1:] > highest[:-1])))


SplitBy = Literal["slice", "canonical", "text", "random"]
Key = Callable[[str], str]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_SIDES = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_DROPPED = 3
"""Rows that are in no set: further programs of a form that is held out once."""
_SLICE = 65_536
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # an odd number with evenly distributed multiples modulo 2^64


@dataclass(frozen=True)
class Split:
    """A partition of a table into three; ``facts`` are counts for the run's record.

    ``train`` has the order of the table. ``validation`` and ``test`` are in seeded random order, so their first n rows
    are a random sample. ``facts``: by, seed, rows (set -> level or "all" -> count), forms (set -> distinct forms),
    twin_groups (set -> forms of several rows), twins (set -> rows with a twin in training), dropped (rows in no set,
    by ``slice`` only), short (set -> level -> missing rows, since groups of twins are not divided).
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
    key: Key | None = None,
) -> Split:
    """Split ``table`` into training, ``validation`` rows and ``test`` rows; numbers below 1 are shares of the rows.

    Samples are twins when their questions (the prompt, or the answer in code completion) have the same ``key``, by
    default ``programs.sliced``, which leaves texts that are no programs unchanged. Each level has the same share of a
    set as of the table, in forms by ``slice`` and else in rows, where a group of twins larger than the remaining share
    is skipped, so a set can be smaller than requested (``facts["short"]``). ``levels``: the levels to hold samples out
    from; all others are for training, with their twins in the named levels. Forms are compared by 64 bits of BLAKE2b:
    with 1.2 million, two collide in one of 25 million splits and then only share a set.

    Raises ``DataError`` for a table with too few rows, an empty set, or an unknown level in ``levels``.
    """
    from ..programs.equivalence import canonical, sliced

    validation, test = rows_of(validation, table.num_rows), rows_of(test, table.num_rows)
    _check(table, by, validation, test)
    prompts = questions(table)
    forms = _hashes(prompts, seed, key or sliced)
    match by:
        case "slice":
            groups = forms
        case "canonical":
            groups = _hashes(prompts, seed, key or canonical)
        case "text":
            groups = _hashes(prompts, seed)
        case "random":
            groups = _row_hashes(table, seed)
    names, level_of = _levels(table)
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
        _drop_further_rows(sides, groups, table["id"])
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
    twins = np.isin(forms, forms[sides == _TRAIN])
    facts = {
        "by": by,
        "seed": seed,
        **_count(sides, forms, level_of, names),
        "twins": {_SIDES[side]: int(twins[sides == side].sum()) for side in targets},
        **({"dropped": int((sides == _DROPPED).sum())} if by == "slice" else {}),
        "short": {_SIDES[side]: {names[level]: n for level, n in short[side].items()} for side in targets},
    }
    held_out = {side: _held_out(table, np.flatnonzero(sides == side), groups, twins) for side in targets}
    return Split(table.filter(pa.array(sides == _TRAIN)), held_out[_VALIDATION], held_out[_TEST], facts)


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


def _hashes(column: pa.ChunkedArray, seed: int, key: Key | None = None) -> Hashes:
    """Seeded 64-bit hash of the key of each text, equal in all processes; defines groups and their order."""
    salt = (seed % 2**128).to_bytes(16, "little")
    digests: list[bytes] = []
    for start in range(0, len(column), _SLICE):
        values: Sequence[str] = column.slice(start, _SLICE).to_pylist()
        keys = values if key is None else map(key, values)
        digests.append(b"".join(hashlib.blake2b(k.encode(), digest_size=8, salt=salt).digest() for k in keys))
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _row_hashes(table: pa.Table, seed: int) -> Hashes:
    """A distinct hash per row; those of equal rows differ by their number of occurrence."""
    hashes = _hashes(texts(table), seed)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    repeats = np.empty(len(hashes), np.uint64)
    repeats[order] = np.arange(len(hashes)) - np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    return hashes + repeats * _GOLDEN


def _levels(table: pa.Table) -> tuple[list[str], Rows]:
    """Levels of the table in order, and the index of the level of each row; "none" for rows without a level."""
    encoded = table["level"].cast(pa.string()).fill_null("none").combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    names = sorted(words)
    index_of_code = np.array([names.index(word) for word in words], np.int64)
    return names, index_of_code[encoded.indices.to_numpy()]


def _choose(
    groups: Hashes, levels: Rows, open_levels: npt.NDArray[np.bool_], targets: dict[int, int], *, one_row: bool
) -> tuple[npt.NDArray[np.int8], dict[int, dict[int, int]]]:
    """Set of each row, and the number of missing rows by set and level.

    Groups are taken in the order of their hashes, which is random by the seed. A group that spans levels belongs to
    the lowest; a group with a row of a level outside ``open_levels`` stays in training. With ``one_row`` a group fills
    one row of a set.
    """
    level_count = len(open_levels)
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    home = np.full(len(unique), level_count, np.int64)
    np.minimum.at(home, inverse, levels)
    home[inverse[~open_levels[levels]]] = level_count
    if one_row:
        sizes = np.ones_like(sizes)
    level_rows = np.bincount(home, weights=sizes, minlength=level_count)[:level_count].astype(np.int64)
    side = np.full(len(unique), _TRAIN, np.int8)
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


def _drop_further_rows(sides: npt.NDArray[np.int8], groups: Hashes, ids: pa.ChunkedArray) -> None:
    """Mark, in place, all rows of a held-out group but that with the first id as dropped."""
    held_out = np.flatnonzero((sides == _VALIDATION) | (sides == _TEST))
    names = ids.take(pa.array(held_out)).to_numpy().astype(str)
    ordered = held_out[np.lexsort((names, groups[held_out]))]
    further = ordered[1:][groups[ordered[1:]] == groups[ordered[:-1]]]
    sides[further] = _DROPPED


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


def _count(sides: npt.NDArray[np.int8], forms: Hashes, levels: Rows, names: list[str]) -> dict[str, Any]:
    rows, distinct, shared = {}, {}, {}
    for side, name in enumerate(_SIDES):
        mask = sides == side
        per_level = np.bincount(levels[mask], minlength=len(names)).tolist()
        rows[name] = {"all": int(mask.sum()), **dict(zip(names, per_level, strict=True))}
        sizes = np.unique(forms[mask], return_counts=True)[1]
        distinct[name], shared[name] = len(sizes), int((sizes > 1).sum())
    return {"rows": rows, "forms": distinct, "twin_groups": shared}


def _held_out(table: pa.Table, rows: Rows, groups: Hashes, twins: npt.NDArray[np.bool_]) -> pa.Table:
    """Samples at ``rows`` in the order of their hashes, within a group by id, with the column ``twin``."""
    ids = table["id"].take(pa.array(rows)).to_numpy().astype(str)
    ordered = rows[np.lexsort((ids, groups[rows]))]
    label = pa.array(np.where(twins[ordered], "twin", "new"), pa.string()).dictionary_encode().cast(LABEL)
    samples = table.take(pa.array(ordered))
    if "twin" in samples.schema.names:
        samples = samples.drop_columns("twin")
    return samples.append_column("twin", label)
