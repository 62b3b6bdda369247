"""Which samples are there twice?

``dedupe`` keeps the first of every set of equal samples, by the text a model learns or by id. Texts are compared
by 128 bits of BLAKE2b, in slices, so that a table that just fits in memory still does: among a billion texts, the
chance that any two collide is 1 in 10^20. Programs that are equal but for the names of their variables are the
business of ``split``.

Which samples are kept from training, so that a test tells something new?

``split`` divides a table into training, validation and test sets. By ``canonical`` form (the default), programs
that are equal but for the names of their variables go to the same side; by ``text``, as the paper does it
(2407.10194), only equal programs do, and about a quarter of the test programs then have a renamed twin in
training; by ``random``, not even those. The column ``twin`` of the smaller sets says ``twin`` or ``new``, so a
suite can count both.

The sets depend on what the samples are and on ``seed``, and on nothing else: not on the order of the rows, the
size of the validation set (the test set is drawn first), or the run. Every level has its share. Nothing is dropped
here.
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
from .schema import LABEL, questions, texts

__all__ = ["Deduped", "Split", "SplitBy", "dedupe", "split"]


_DEDUPE_SLICE = 65_536


@dataclass(frozen=True)
class Deduped:
    """The table without its duplicates, in its order, and how many rows were dropped."""

    table: pa.Table
    dropped: int


def dedupe(table: pa.Table, by: Literal["text", "id"] = "text") -> Deduped:
    """``table`` with the first sample of each text (prompt and answer) or of each id.

    By ``id`` one answer is kept for each question; by ``text`` several answers to one question stay.
    """
    if by not in ("text", "id"):
        raise UserError(
            "duplicates cannot be found that way",
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
    """The rows (ascending) where each distinct text of ``column`` appears first."""
    digests = [
        hashlib.blake2b(text.encode(), digest_size=16).digest()
        for start in range(0, len(column), _DEDUPE_SLICE)
        for text in column.slice(start, _DEDUPE_SLICE).to_pylist()
    ]
    codes = pa.array(digests, pa.binary(16)).dictionary_encode().indices.to_numpy()
    # Codes count up in order of appearance, so a row is a first one when its code exceeds all before it.
    highest = np.maximum.accumulate(codes)
    return np.flatnonzero(np.concatenate(([True], codes[1:] > highest[:-1])))


SplitBy = Literal["canonical", "text", "random"]
Key = Callable[[str], str]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_SIDES = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_SLICE = 65_536
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # an odd number whose multiples spread evenly over 64 bits


@dataclass(frozen=True)
class Split:
    """Three tables with no row in common, together all rows; ``facts`` are plain counts for the run's record.

    ``train`` keeps the order of the rows. ``validation`` and ``test`` are in seeded random order, so the first n
    rows are a fair sample of them. ``facts``: by, seed, rows (side -> level or "all" -> count), forms (side ->
    distinct forms), twin_groups (side -> forms that several rows share), twins (side -> rows with a twin in
    training), short (side -> level -> rows that were asked for and not found, since groups of twins are not
    divided).
    """

    train: pa.Table
    validation: pa.Table
    test: pa.Table
    facts: dict[str, Any] = field(default_factory=dict)


def split(
    table: pa.Table,
    *,
    validation: int,
    test: int,
    seed: int,
    by: SplitBy = "canonical",
    levels: Sequence[str] | None = None,
    key: Key | None = None,
) -> Split:
    """``table`` divided so that ``test`` and ``validation`` rows are never in training.

    Samples whose question (the prompt, or for code to complete the answer) has the same ``key`` are twins; without
    one it is ``programs.canonical``. For tables that are not programs, ``key=str`` makes twins of equal questions
    only. Each level gets a share of a set as large as its share of the table; a group of twins that would not fit
    into what is left of that share is passed over, so a set can come out smaller than asked: ``facts["short"]``
    says where. ``levels`` names those that may be kept from training; the others are only learnt from, with whatever of
    the named ones is a twin of theirs. Forms are compared by 64 bits of BLAKE2b: among 1.2
    million, two collide in one of 25 million splits, and then only share a side.

    Raises ``DataError`` when the table has not more rows than both sets ask for, a set gets none, or ``levels`` names
    one that the table has not.
    """
    _check(table, by, validation, test)
    if key is None:
        from ..programs.canonical_form import canonical as key
    asked = questions(table)
    forms = _hashes(asked, seed, key)
    groups = forms if by == "canonical" else _hashes(asked, seed) if by == "text" else _apart(table, seed)
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
    wanted = {_TEST: test, _VALIDATION: validation}
    sides, short = _choose(groups, level_of, open_levels, wanted)
    for side, rows in wanted.items():
        if rows and not (sides == side).any():
            raise DataError(
                f"no group of twins is small enough for the {_SIDES[side]} set",
                given=f"{rows} rows asked for, {len(np.unique(groups))} groups in {table.num_rows} samples",
                hint="ask for more rows, or split by text",
            )
    twins = np.isin(forms, forms[sides == _TRAIN])
    facts = {
        "by": by,
        "seed": seed,
        **_count(sides, forms, level_of, names),
        "twins": {_SIDES[side]: int(twins[sides == side].sum()) for side in wanted},
        "short": {_SIDES[side]: {names[level]: n for level, n in short[side].items()} for side in wanted},
    }
    held_out = {side: _held_out(table, np.flatnonzero(sides == side), groups, twins) for side in wanted}
    return Split(table.filter(pa.array(sides == _TRAIN)), held_out[_VALIDATION], held_out[_TEST], facts)


def _check(table: pa.Table, by: str, validation: int, test: int) -> None:
    known = get_args(SplitBy)
    if by not in known:
        raise DataError("there is no such split", given=by, allowed=", ".join(known), hint=did_you_mean(by, known))
    if min(validation, test) < 0 or validation + test >= table.num_rows:
        raise DataError(
            "the table has too few samples to keep some from training",
            given=f"{table.num_rows} samples, validation {validation}, test {test}",
            allowed="validation + test below the number of samples, neither negative",
        )


def _hashes(column: pa.ChunkedArray, seed: int, key: Key | None = None) -> Hashes:
    """A seeded 64-bit hash of each text's key, the same in every process: it makes groups and orders them."""
    salt = (seed % 2**128).to_bytes(16, "little")
    digests: list[bytes] = []
    for start in range(0, len(column), _SLICE):
        some: Sequence[str] = column.slice(start, _SLICE).to_pylist()
        keys = some if key is None else map(key, some)
        digests.append(b"".join(hashlib.blake2b(k.encode(), digest_size=8, salt=salt).digest() for k in keys))
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _apart(table: pa.Table, seed: int) -> Hashes:
    """A hash for each row of its own; equal rows get different ones, by how many came before."""
    hashes = _hashes(texts(table), seed)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    repeats = np.empty(len(hashes), np.uint64)
    repeats[order] = np.arange(len(hashes)) - np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    return hashes + repeats * _GOLDEN


def _levels(table: pa.Table) -> tuple[list[str], Rows]:
    """The table's levels in order, and which of them each row is of; without a level it is "none"."""
    encoded = table["level"].cast(pa.string()).fill_null("none").combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    names = sorted(words)
    place = np.array([names.index(word) for word in words], np.int64)
    return names, place[encoded.indices.to_numpy()]


def _choose(
    groups: Hashes, levels: Rows, open_levels: npt.NDArray[np.bool_], wanted: dict[int, int]
) -> tuple[npt.NDArray[np.int8], dict[int, dict[int, int]]]:
    """The side of each row, and by side and level how many rows are missing.

    Groups come in the order of their hashes, which the seed makes random. A group that spans levels counts for the
    lowest of them, one with a row of a level that is not open for none.
    """
    level_count = len(open_levels)
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    home = np.full(len(unique), level_count, np.int64)
    np.minimum.at(home, inverse, levels)
    home[inverse[~open_levels[levels]]] = level_count
    held = np.bincount(home, weights=sizes, minlength=level_count)[:level_count].astype(np.int64)
    side = np.full(len(unique), _TRAIN, np.int8)
    short: dict[int, dict[int, int]] = {}
    for code, rows in wanted.items():
        short[code] = {}
        for level, share in enumerate(_shares(held, rows)):
            free = np.flatnonzero((home == level) & (side == _TRAIN))
            taken, left = _fill(sizes[free].tolist(), share)
            side[free[taken]] = code
            if left:
                short[code][level] = left
    return side[inverse], short


def _shares(held: Rows, rows: int) -> list[int]:
    """``rows`` divided in proportion to ``held``, rounded by largest remainder; earlier levels win ties."""
    total = max(int(held.sum()), 1)
    shares = [rows * int(count) // total for count in held]
    remainders = [rows * int(count) % total for count in held]
    for level in sorted(range(len(held)), key=lambda level: -remainders[level])[: rows - sum(shares)]:
        shares[level] += 1
    return shares


def _fill(sizes: Sequence[int], room: int) -> tuple[list[int], int]:
    """The first groups that fit into ``room`` rows, others passed over, and how much room is left."""
    taken: list[int] = []
    for group, size in enumerate(sizes):
        if not room:
            break
        if size <= room:
            taken.append(group)
            room -= size
    return taken, room


def _count(sides: npt.NDArray[np.int8], forms: Hashes, levels: Rows, names: list[str]) -> dict[str, Any]:
    rows, distinct, shared = {}, {}, {}
    for side, name in enumerate(_SIDES):
        here = sides == side
        per_level = np.bincount(levels[here], minlength=len(names)).tolist()
        rows[name] = {"all": int(here.sum()), **dict(zip(names, per_level, strict=True))}
        sizes = np.unique(forms[here], return_counts=True)[1]
        distinct[name], shared[name] = len(sizes), int((sizes > 1).sum())
    return {"rows": rows, "forms": distinct, "twin_groups": shared}


def _held_out(table: pa.Table, rows: Rows, groups: Hashes, twins: npt.NDArray[np.bool_]) -> pa.Table:
    """The samples at ``rows`` in the order of their hashes, those of a group by id, and the column ``twin``."""
    ids = table["id"].take(pa.array(rows)).to_numpy().astype(str)
    ordered = rows[np.lexsort((ids, groups[rows]))]
    label = pa.array(np.where(twins[ordered], "twin", "new"), pa.string()).dictionary_encode().cast(LABEL)
    taken = table.take(pa.array(ordered))
    if "twin" in taken.schema.names:
        taken = taken.drop_columns("twin")
    return taken.append_column("twin", label)
