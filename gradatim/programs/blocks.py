"""How is the endless sequence of a level's programs cut into pieces that workers can make?

Block i of a level is fixed by (seed, level, digits, i) and nothing else, so it does not matter who makes it or
when. ``block_sources`` gives each level's blocks in order, made here or by worker processes a little ahead of
time. Blocks hold duplicates; ``generate`` drops them.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing import get_context

from ..errors import WorkFailed
from ..table.schema import sample_id
from .draw import Drawer
from .grammar import Level

__all__ = ["BLOCK", "Block", "Row", "block_sources"]

BLOCK = 512  # programs attempted per block; another number makes other programs

Row = tuple[str, str, str]
Block = list[Row | str]


def write_block(level: Level, digits: int, seed: int, index: int) -> Block:
    """Block ``index``: per attempt (id, prompt, answer), or the name of the exception that the program raises."""
    draw = Drawer(level, digits, f"{seed}/{level.name}/{digits}/{index}")
    block: Block = []
    for _ in range(BLOCK):
        try:
            prompt, answer = draw()
        except ArithmeticError as failure:
            block.append(type(failure).__name__)
        else:
            block.append((sample_id("python", prompt), prompt, answer))
    return block


@contextmanager
def block_sources(levels: Sequence[Level], digits: int, seed: int, workers: int) -> Iterator[list[Iterator[Block]]]:
    """For each level its blocks 0, 1, 2, …, written by ``workers`` processes, or in this one when it is 1."""
    writers = [partial(write_block, level, digits, seed) for level in levels]
    if workers == 1:
        yield [map(writer, count()) for writer in writers]
        return
    # Not forked: the caller may have threads. The pool is ended, and waited for, however the caller leaves.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts)
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


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; only the caller answers it, by ending the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ahead(submit: Callable[[int], Future[Block]], depth: int) -> Iterator[Block]:
    """The results of ``submit(0)``, ``submit(1)``, … in order, with ``depth`` more under way."""
    pending = deque(submit(index) for index in range(depth))
    for index in count(depth):
        pending.append(submit(index))
        yield pending.popleft().result()
