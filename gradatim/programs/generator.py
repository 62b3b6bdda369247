"""Generator of distinct TinyPy programs with their output, the same ones for any number of workers.

A ``Drawer`` writes one program after the other and executes each *while* it is written: a sampled statement is its text
together with a function that performs it. So nothing is parsed, and the outputs are CPython's because the operators and
numbers are (a test compares them with CPython). A program that fails raises its exception; a drawer neither drops nor
counts anything.

The infinite sequence of a level's programs is cut into blocks. Block i of a level is determined by (seed, level,
digits, i) alone, whichever process writes it and whenever; ``block_sources`` yields each level's blocks in order,
written here or by worker processes a little ahead of time.

``generate`` and ``stream`` take the blocks in a fixed order, drop duplicates and interleave the levels, so that the
rows depend neither on the number of workers nor on hash seeds. Failing programs are counted by exception, duplicates
are counted, and a level that is exhausted stops with an error. The process holds ids (64 bits each) and one batch;
``generate`` holds the table as well. Files, splits and difficulties belong to other modules.
"""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from typing import Any, TypeVar, get_args

import numpy as np
import pyarrow as pa

from .. import executors
from ..errors import DataError, WorkFailed
from ..stage import Event, Events, ignore_events
from ..table.rows import OUTPUT_LINE
from ..table.schema import SCHEMA, sample_id
from .grammar import COMPARE, DIGITS, Draw, Drawn, Level, Slots, Thunk, compile_shape, countings, levels_named, ranges
from .scratchpad import Scratchpad, scratchpad_of


class Drawer:
    """Programs of ``level`` with literals 0..``digits``, an endless sequence fixed by ``seed``.

    Each call returns (prompt, answer): the program up to and including the line ``# output``, and the printed
    lines as comments, every line ended by a newline. Raises what the program raises (``ZeroDivisionError``); the
    next call gives the next program.
    """

    def __init__(self, level: Level, digits: int, seed: str) -> None:
        self._level = level
        self._slots = slots = Slots(digits, level.letters, seed)
        self._printed: list[Any] = []
        self._expressions = [compile_shape(shape, slots) for shape in level.expressions]
        self._prints = [compile_shape(shape, slots) for shape in level.prints]
        self._conditions = [compile_shape(shape, slots) for shape in level.conditions]
        self._blocks = [tuple(block.split()) for block in level.blocks]
        self._bodies = [tuple(body.split()) for body in level.bodies]
        self._ranges = ranges(digits)
        self._countings = countings(digits)

    def __call__(self) -> tuple[str, str]:
        slots, level = self._slots, self._level
        slots.forget()
        self._printed.clear()
        text = ""
        for _ in range(slots.between(*level.initialisations)):
            literal = slots.literal()
            text += f"{slots.words[slots.new(literal)]} = {literal}\n"
        assignments = slots.between(*level.assignments)
        for _ in range(assignments):
            expression, value = slots.choice(self._expressions)()
            text += f"{slots.words[slots.new(value())]} = {expression}\n"
        sure = False
        if self._blocks:
            block, sure = self._block(slots.choice(self._blocks))
            text += block
        if not sure:
            # Without an expression before it, the print contains one.
            line, show = self._print(self._prints if assignments or self._blocks else self._expressions)
            text += line
            show()
        return text + OUTPUT_LINE, "".join([f"# {value}\n" for value in self._printed])

    # Statements of a suite, not yet executed.

    def _print(self, shapes: Sequence[Draw]) -> Drawn:
        text, value = self._slots.choice(shapes)()
        printed = self._printed
        return f"print({text})\n", lambda: printed.append(value())

    def _change(self, targets: int) -> Drawn:
        """An assignment to one of the ``targets`` oldest variables; never to itself alone."""
        slots = self._slots
        values, slot = slots.values, slots.first + int(slots.random() * targets)
        text, value = slots.choice(self._expressions)()
        word = slots.words[slot]
        if text == word:
            newest = slots.end - 1
            text, value = slots.words[newest], lambda: values[newest]

        def change() -> None:
            values[slot] = value()

        return f"{word} = {text}\n", change

    def _suite(self, targets: int, step: Drawn | None = None) -> tuple[str, list[Thunk], bool]:
        """An indented suite: its text, its actions, and whether it prints. It assigns to old variables only."""
        text, acts, prints = "", [], False
        for word in self._slots.choice(self._bodies):
            if word == "step" and step is not None:
                line, act = step
            elif word == "assign" and targets:
                line, act = self._change(targets)
            else:
                line, act = self._print(self._prints)
                prints = True
            text += "\t" + line
            acts.append(act)
        return text, acts, prints

    # Blocks. Each returns its text and whether it is sure to print, and is executed while it is written.

    def _block(self, layout: Sequence[str]) -> tuple[str, bool]:
        match layout[0]:
            case "for":
                return self._for()
            case "while":
                return self._while()
            case _:
                return self._branches(layout)

    def _branches(self, layout: Sequence[str]) -> tuple[str, bool]:
        slots = self._slots
        text, executed, sure = "", False, layout[-1] == "else"
        for word in layout:
            if word == "else":
                text += "else :\n"
                holds = not executed
            else:
                condition, test = slots.choice(self._conditions)()
                text += f"{word} {condition} :\n"
                holds = not executed and test()
            suite, acts, prints = self._suite(slots.end - slots.first)
            text += suite
            sure = sure and prints
            if holds:
                executed = True
                for act in acts:
                    act()
        return text, sure

    def _for(self) -> tuple[str, bool]:
        slots = self._slots
        head, turns = slots.choice(self._ranges)
        targets, values = slots.end - slots.first, slots.values
        variable = slots.new(0)
        suite, acts, prints = self._suite(targets)
        for value in turns:
            values[variable] = value
            for act in acts:
                act()
        return f"for {slots.words[variable]} in {head} :\n{suite}", prints

    def _while(self) -> tuple[str, bool]:
        """The newest variable counts up or down to a literal, or to a new variable where the level allows one more."""
        slots = self._slots
        values, words, counter, text = slots.values, slots.words, slots.end - 1, ""
        sign, bound, move = slots.choice(self._countings[values[counter]])
        targets = counter - slots.first
        if targets + 1 < self._level.initialisations[1] and slots.random() < 0.5:
            literal, bound = bound, slots.new(bound)
            text = f"{words[bound]} = {literal}\n"

        def step() -> None:
            values[counter] += move

        name = words[counter]
        line = f"{name} = {name} {'+' if move > 0 else '-'} {abs(move)}\n"
        suite, acts, prints = self._suite(targets, (line, step))
        holds = COMPARE[sign]
        while holds(values[counter], values[bound]):
            for act in acts:
                act()
        return f"{text}while {name} {sign} {words[bound]} :\n{suite}", prints


BLOCK = 512  # programs attempted per block; another value gives other programs

Row = tuple[str, str, str]
Block = list[Row | str]
Written = TypeVar("Written")


def write_block(level: Level, digits: int, seed: int, scratchpad: Scratchpad, index: int) -> Block:
    """Block ``index``: per attempt (id, prompt, answer), or the name of the exception that the program raises. With
    ``scratchpad`` the answer has its steps."""
    draw = Drawer(level, digits, f"{seed}/{level.name}/{digits}/{index}")
    block: Block = []
    for _ in range(BLOCK):
        try:
            prompt, answer = draw()
        except ArithmeticError as failure:
            block.append(type(failure).__name__)
        else:
            block.append(
                (sample_id("python", prompt), prompt, scratchpad_of(prompt, scratchpad) if scratchpad else answer)
            )
    return block


BLOCKS_PER_TASK = 8
"""Blocks that an executor's task writes: about 50 ms without scratchpads, so that sending them costs little."""


def write_blocks(level: Level, digits: int, seed: int, scratchpad: Scratchpad, number: int) -> list[Block]:
    """The blocks of task ``number``: ``BLOCKS_PER_TASK`` successive ones."""
    first = number * BLOCKS_PER_TASK
    return [write_block(level, digits, seed, scratchpad, index) for index in range(first, first + BLOCKS_PER_TASK)]


@contextmanager
def block_sources(
    levels: Sequence[Level], digits: int, seed: int, scratchpad: Scratchpad, workers: int
) -> Iterator[list[Iterator[Block]]]:
    """The blocks 0, 1, 2, … of each level, written by the executor of this block of code, or without one by
    ``workers`` processes, or in this one when it is 1."""
    if (executor := executors.current()) is not None:
        depth = -(-executors.PENDING * executor.max_workers // len(levels))
        tasks = [partial(executor.submit, write_blocks, level, digits, seed, scratchpad) for level in levels]
        streams = [_ahead(task, depth) for task in tasks]
        try:
            yield [(block for blocks in stream for block in blocks) for stream in streams]
        finally:
            for stream in streams:
                stream.close()
        return
    writers = [partial(write_block, level, digits, seed, scratchpad) for level in levels]
    if workers == 1:
        yield [map(writer, count()) for writer in writers]
        return
    # Not forked: the caller may have threads. The pool is shut down, with a wait, on any exit of the caller.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        depth = -(-2 * workers // len(levels))
        yield [_ahead(partial(pool.submit, writer), depth) for writer in writers]
    except BrokenProcessPool as broken:
        raise WorkFailed(
            "the processes that write programs ended before their work was done",
            where="generate",
            given=f"{workers} workers",
            hint="workers=1, or in a script the usual `if __name__ == '__main__'` around the call",
        ) from broken
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C in a worker: it reaches every process of the terminal, and the caller shuts the pool down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ahead(submit: Callable[[int], Future[Written]], depth: int) -> Generator[Written, None, None]:
    """The results of ``submit(0)``, ``submit(1)``, … in order, with ``depth`` more pending."""
    pending: deque[Future[Written]] = deque()
    try:
        for index in count():
            pending.append(submit(index))
            if index >= depth:
                yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


_BATCH = 16_384
_PATIENCE = 50  # a level is exhausted when this number of successive blocks …
_NEW = 0.001  # … has less than this share of new programs


@dataclass(frozen=True)
class LevelFacts:
    """Counts of one level: programs requested (``asked``), kept, duplicates, and dropped by the exception they
    raise."""

    asked: int
    kept: int
    duplicates: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Facts:
    """Counts of all levels by name; the sums are properties."""

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
    """A table in ``table.SCHEMA``, one chunk, and its counts."""

    table: pa.Table
    facts: Facts


def generate(
    count: int,
    *,
    levels: Sequence[str | Level] = ("all",),
    digits: int = 9,
    seed: int = 0,
    dedupe: bool = True,
    scratchpad: Scratchpad = False,
    workers: int = 1,
    events: Events = ignore_events,
) -> Generated:
    """``count`` TinyPy programs, distributed evenly over ``levels`` and interleaved; see ``grammar`` for the levels.

    The same (count, levels, digits, seed, dedupe, scratchpad) gives the same table. ``digits`` is the greatest literal:
    9 in the paper (arXiv 2407.10194), 255 in its sequel, anything in ``DIGITS``. With ``dedupe`` no program occurs
    twice, across levels too (the first level keeps it). With ``scratchpad`` the answers have the steps of
    ``programs.scratchpad`` before each printed line, with ``"arithmetic"`` also those of integer arithmetic.
    ``workers`` > 1 starts that many processes (a script then needs the usual ``if __name__ == "__main__"``).

    Raises ``DataError`` for arguments out of range, an unknown level, and a level with fewer distinct programs
    than its share of ``count`` (the error gives their number); ``WorkFailed`` when the workers cannot start.
    """
    batches = stream(
        count,
        levels=levels,
        digits=digits,
        seed=seed,
        dedupe=dedupe,
        scratchpad=scratchpad,
        workers=workers,
        events=events,
    )
    table = pa.Table.from_batches(batches, schema=SCHEMA).combine_chunks()
    return Generated(table, batches.facts)


def stream(
    count: int,
    *,
    levels: Sequence[str | Level] = ("all",),
    digits: int = 9,
    seed: int = 0,
    dedupe: bool = True,
    scratchpad: Scratchpad = False,
    workers: int = 1,
    events: Events = ignore_events,
) -> ProgramStream:
    """The rows of ``generate`` as record batches, for tables that do not fit in memory.

    Arguments and errors are those of ``generate``; the arguments are checked at once, before the first batch.
    """
    _check("the number of programs", count, 1, None)
    _check("digits", digits, *DIGITS)
    _check("workers", workers, 1, None)
    if scratchpad not in get_args(Scratchpad):
        raise DataError("there is no such scratchpad", given=repr(scratchpad), allowed="False, True or 'arithmetic'")
    rows = levels_named(levels)
    tallies = [
        _Tally(level, count // len(rows) + (index < count % len(rows)), Counter()) for index, level in enumerate(rows)
    ]
    return ProgramStream(tallies, digits, seed, dedupe, scratchpad, workers, events)


def _check(name: str, value: int, low: int, high: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"whole numbers from {low}" + (f" to {high}" if high is not None else "")
        raise DataError(f"{name} cannot be used", where="generate", given=repr(value), allowed=allowed)


@dataclass
class _Tally:
    """The state of one level during generation."""

    level: Level
    target: int
    dropped: Counter[str]
    count: int = 0
    duplicates: int = 0


class ProgramStream(Iterator[pa.RecordBatch]):
    """Record batches in ``table.SCHEMA``, generated on demand; ``facts`` are the counts so far."""

    def __init__(
        self,
        tallies: list[_Tally],
        digits: int,
        seed: int,
        dedupe: bool,
        scratchpad: Scratchpad,
        workers: int,
        events: Events,
    ) -> None:
        self._tallies = tallies
        self._digits, self._seed, self._dedupe, self._scratchpad = digits, seed, dedupe, scratchpad
        self._events = events
        self._batches = self._make(workers)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Stop early and end the workers."""
        self._batches.close()

    @property
    def facts(self) -> Facts:
        """Counts so far; complete when the stream is exhausted."""
        return Facts(
            {
                tally.level.name: LevelFacts(
                    tally.target, tally.count, tally.duplicates, dict(sorted(tally.dropped.items()))
                )
                for tally in self._tallies
            }
        )

    def _make(self, workers: int) -> Generator[pa.RecordBatch, None, None]:
        total = sum(tally.target for tally in self._tallies)
        names = pa.array([tally.level.name for tally in self._tallies], pa.string())
        self._events(Event("start", "generate", 0, total))
        rows: list[Row] = []
        level_indices: list[int] = []
        done = 0
        for new_rows, new_indices in self._rounds(workers):
            rows += new_rows
            level_indices += new_indices
            done += len(new_rows)
            self._events(Event("advance", "generate", done, total))
            if len(rows) >= _BATCH:
                yield _record_batch(rows, level_indices, names)
                rows, level_indices = [], []
        if rows:
            yield _record_batch(rows, level_indices, names)
        self._events(Event("finish", "generate", done, total))

    def _rounds(self, workers: int) -> Generator[tuple[list[Row], list[int]], None, None]:
        """One block of each level that is not yet complete, per round, its rows interleaved."""
        ids: set[int] = set()
        levels = [tally.level for tally in self._tallies]
        with block_sources(levels, self._digits, self._seed, self._scratchpad, workers) as blocks:
            recent: list[deque[int]] = [deque(maxlen=_PATIENCE) for _ in self._tallies]
            while any(tally.count < tally.target for tally in self._tallies):
                ranked: list[tuple[int, int, Row]] = []
                for index, tally in enumerate(self._tallies):
                    if tally.count < tally.target:
                        fresh = self._take(tally, next(blocks[index]), ids)
                        ranked += [(rank, index, row) for rank, row in enumerate(fresh)]
                        recent[index].append(len(fresh))
                        _stop_when_exhausted(tally, recent[index])
                ranked.sort(key=lambda item: item[:2])
                yield [row for _, _, row in ranked], [index for _, index, _ in ranked]

    def _take(self, tally: _Tally, block: Block, ids: set[int]) -> list[Row]:
        """The new rows of ``block``, as many as are needed; entries after them are not counted."""
        fresh: list[Row] = []
        needed = tally.target - tally.count
        for row in block:
            if len(fresh) == needed:
                break
            if isinstance(row, str):
                tally.dropped[row] += 1
                continue
            if self._dedupe:
                key = int(row[0], 16)
                if key in ids:
                    tally.duplicates += 1
                    continue
                ids.add(key)
            fresh.append(row)
        tally.count += len(fresh)
        return fresh


def _stop_when_exhausted(tally: _Tally, recent: deque[int]) -> None:
    if tally.count < tally.target and len(recent) == _PATIENCE and sum(recent) < _NEW * _PATIENCE * BLOCK:
        raise DataError(
            f"the level has too few distinct programs: {tally.count} found, then hardly a new one in"
            f" {_PATIENCE * BLOCK} attempts",
            where=f"level {tally.level.name}",
            given=f"{tally.target} requested",
            allowed=f"at most {tally.count}",
            hint="fewer programs, more levels, a larger digits, or dedupe off",
        )


def _record_batch(rows: Sequence[Row], level_indices: Sequence[int], names: pa.Array) -> pa.RecordBatch:
    ids, prompts, answers = zip(*rows, strict=True)
    size = len(rows)
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "prompt": pa.array(prompts, pa.large_string()),
        "answer": pa.array(answers, pa.large_string()),
        "level": pa.DictionaryArray.from_arrays(pa.array(level_indices, pa.int32()), names),
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
