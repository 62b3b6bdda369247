"""Where do a million distinct TinyPy programs come from, the same ones every time?

Workers write blocks of programs (``blocks``); this process takes them in a fixed order, drops what was seen
before and interleaves the levels, so the rows depend neither on the number of workers nor on hash seeds. Nothing
is hidden: programs that fail are counted by the exception they raise, duplicates are counted, and a level that
runs dry stops with an error.

This module holds no more than ids (64 bits each) and one batch; ``generate`` keeps the table besides. It does not
write files, split, or know a program's difficulty.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..stage import Event, Events, ignore_events
from ..table.schema import SCHEMA
from .blocks import BLOCK, Block, Row, block_sources
from .grammar import Level, levels_named

__all__ = ["DIGITS", "Facts", "Generated", "LevelFacts", "ProgramStream", "generate", "stream"]

DIGITS = (9, 65535)  # the least lets every loop of the grammar count, the most keeps the tables of a drawer small
_BATCH = 16_384
_PATIENCE = 50  # a level has run dry when so many blocks in a row …
_NEW = 0.001  # … bring less than this share of new programs


@dataclass(frozen=True)
class LevelFacts:
    """What became of one level: programs asked for, kept, met again, and dropped by the exception they raise."""

    asked: int
    kept: int
    duplicates: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Facts:
    """What became of all levels, by name; the sums are properties."""

    levels: Mapping[str, LevelFacts]

    @property
    def asked(self) -> int:
        return sum(level.asked for level in self.levels.values())

    @property
    def kept(self) -> int:
        return sum(level.kept for level in self.levels.values())

    @property
    def duplicates(self) -> int:
        return sum(level.duplicates for level in self.levels.values())

    @property
    def dropped(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for level in self.levels.values():
            total.update(level.dropped)
        return dict(sorted(total.items()))


@dataclass(frozen=True)
class Generated:
    """A table in ``table.SCHEMA``, one chunk, and how it came about."""

    table: pa.Table
    facts: Facts


def generate(
    count: int,
    *,
    levels: Sequence[str | Level] = ("all",),
    digits: int = 9,
    seed: int = 0,
    dedupe: bool = True,
    workers: int = 1,
    events: Events = ignore_events,
) -> Generated:
    """``count`` TinyPy programs, spread evenly over ``levels`` and interleaved; see ``grammar`` for the levels.

    The same (count, levels, digits, seed, dedupe) gives the same table. ``digits`` is the greatest literal: 9 in
    the paper (arXiv 2407.10194), 255 in its sequel, anything in ``DIGITS``. With ``dedupe`` no program occurs
    twice, across levels too (the level taken first keeps it). ``workers`` > 1 starts that many processes (a script
    that asks for them needs the usual ``if __name__ == "__main__"``).

    Raises ``DataError`` for arguments out of range, an unknown level, and a level with fewer distinct programs
    than its share of ``count`` (the error says how many were found); ``WorkFailed`` when the workers cannot start.
    """
    batches = stream(count, levels=levels, digits=digits, seed=seed, dedupe=dedupe, workers=workers, events=events)
    table = pa.Table.from_batches(batches, schema=SCHEMA).combine_chunks()
    return Generated(table, batches.facts)


def stream(
    count: int,
    *,
    levels: Sequence[str | Level] = ("all",),
    digits: int = 9,
    seed: int = 0,
    dedupe: bool = True,
    workers: int = 1,
    events: Events = ignore_events,
) -> ProgramStream:
    """The rows of ``generate`` as record batches, for tables that do not fit in memory.

    Arguments and errors are those of ``generate``; the arguments are checked at once, before the first batch is
    asked for.
    """
    _check("the number of programs", count, 1, None)
    _check("digits", digits, *DIGITS)
    _check("workers", workers, 1, None)
    rows = levels_named(levels)
    tallies = [
        _Tally(level, count // len(rows) + (place < count % len(rows)), Counter()) for place, level in enumerate(rows)
    ]
    return ProgramStream(tallies, digits, seed, dedupe, workers, events)


def _check(what: str, given: int, least: int, most: int | None) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < least or (most is not None and given > most):
        allowed = f"whole numbers from {least}" + (f" to {most}" if most is not None else "")
        raise DataError(f"{what} cannot be used", where="generate", given=repr(given), allowed=allowed)


@dataclass
class _Tally:
    """One level while it is generated."""

    level: Level
    asked: int
    dropped: Counter[str]
    kept: int = 0
    duplicates: int = 0


class ProgramStream(Iterator[pa.RecordBatch]):
    """Record batches in ``table.SCHEMA``, made as they are asked for; ``facts`` tells what happened so far."""

    def __init__(
        self, tallies: list[_Tally], digits: int, seed: int, dedupe: bool, workers: int, events: Events
    ) -> None:
        self._tallies = tallies
        self._digits, self._seed, self._dedupe = digits, seed, dedupe
        self._events = events
        self._batches = self._make(workers)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Stop early; the workers end."""
        self._batches.close()

    @property
    def facts(self) -> Facts:
        """Counts so far; complete when the stream is exhausted."""
        return Facts(
            {
                tally.level.name: LevelFacts(
                    tally.asked, tally.kept, tally.duplicates, dict(sorted(tally.dropped.items()))
                )
                for tally in self._tallies
            }
        )

    def _make(self, workers: int) -> Generator[pa.RecordBatch, None, None]:
        total = sum(tally.asked for tally in self._tallies)
        names = pa.array([tally.level.name for tally in self._tallies], pa.string())
        self._events(Event("start", "generate", 0, total))
        rows: list[Row] = []
        places: list[int] = []
        done = 0
        for new_rows, new_places in self._rounds(workers):
            rows += new_rows
            places += new_places
            done += len(new_rows)
            self._events(Event("advance", "generate", done, total))
            if len(rows) >= _BATCH:
                yield _record_batch(rows, places, names)
                rows, places = [], []
        if rows:
            yield _record_batch(rows, places, names)
        self._events(Event("finish", "generate", done, total))

    def _rounds(self, workers: int) -> Generator[tuple[list[Row], list[int]], None, None]:
        """One block of each level that is not yet complete, per round, its rows interleaved."""
        seen: set[int] = set()
        levels = [tally.level for tally in self._tallies]
        with block_sources(levels, self._digits, self._seed, workers) as blocks:
            recent: list[deque[int]] = [deque(maxlen=_PATIENCE) for _ in self._tallies]
            while any(tally.kept < tally.asked for tally in self._tallies):
                ranked: list[tuple[int, int, Row]] = []
                for place, tally in enumerate(self._tallies):
                    if tally.kept < tally.asked:
                        fresh = self._take(tally, next(blocks[place]), seen)
                        ranked += [(rank, place, row) for rank, row in enumerate(fresh)]
                        recent[place].append(len(fresh))
                        _stop_when_dry(tally, recent[place])
                ranked.sort(key=lambda item: item[:2])
                yield [row for _, _, row in ranked], [place for _, place, _ in ranked]

    def _take(self, tally: _Tally, block: Block, seen: set[int]) -> list[Row]:
        """The rows of ``block`` that are new, as many as are needed; what comes after them is not counted."""
        fresh: list[Row] = []
        needed = tally.asked - tally.kept
        for row in block:
            if len(fresh) == needed:
                break
            if isinstance(row, str):
                tally.dropped[row] += 1
                continue
            if self._dedupe:
                key = int(row[0], 16)
                if key in seen:
                    tally.duplicates += 1
                    continue
                seen.add(key)
            fresh.append(row)
        tally.kept += len(fresh)
        return fresh


def _stop_when_dry(tally: _Tally, recent: deque[int]) -> None:
    if tally.kept < tally.asked and len(recent) == _PATIENCE and sum(recent) < _NEW * _PATIENCE * BLOCK:
        raise DataError(
            f"the level has too few distinct programs: {tally.kept} found, then hardly a new one in"
            f" {_PATIENCE * BLOCK} attempts",
            where=f"level {tally.level.name}",
            given=f"{tally.asked} asked for",
            allowed=f"at most {tally.kept}",
            hint="fewer programs, more levels, a larger digits, or dedupe off",
        )


def _record_batch(rows: Sequence[Row], places: Sequence[int], names: pa.Array) -> pa.RecordBatch:
    ids, prompts, answers = zip(*rows, strict=True)
    size = len(rows)
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "prompt": pa.array(prompts, pa.large_string()),
        "answer": pa.array(answers, pa.large_string()),
        "level": pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), names),
        "language": _constant("python", size),
        "source": _constant("tinypy", size),
    }
    arrays = [columns.get(field.name) for field in SCHEMA]
    return pa.record_batch(
        [pa.nulls(size, field.type) if array is None else array for field, array in zip(SCHEMA, arrays, strict=True)],
        schema=SCHEMA,
    )


def _constant(word: str, size: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(size, np.int32), pa.array([word], pa.string()))
