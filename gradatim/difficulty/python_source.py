"""Which text of a sample is the program, and how are many of them measured alike on any number of processes?

Every static metric scores the program only: not the output that TinyPy appends as comments, and not an instruction
in plain words. ``scored_text`` is the one place that decides this. A metric is a plain function of one program;
``PerTree`` and ``PerText`` make a ``Difficulty`` of it, and ``chunk_map`` spreads chunks of rows over processes
whose results come back in order, so that the figures do not depend on the number of workers. What a metric
measures is not known here.
"""

from __future__ import annotations

import ast
import functools
import gc
import math
import re
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar, cast

from ..errors import UserError
from ..stage import Event, Events, ignore_events

__all__ = [
    "CHUNK",
    "OUTPUT_LINE",
    "PerText",
    "PerTree",
    "Rows",
    "chunk_map",
    "fenced_program",
    "is_python",
    "parse",
    "scored_text",
    "trees",
]


if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Scores: TypeAlias = npt.NDArray[np.float64]


OUTPUT_LINE = "# output"
"""The last line of a TinyPy prompt; what the program prints follows it, as comments."""

_FENCE = re.compile(r"^[ \t>]*(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(?:```|~~~)", re.MULTILINE)
"""The beginning of a line that may open a fenced block; ``languages.extract`` decides."""

CHUNK = 2048
"""Rows per task: large enough to hide the cost of sending them, small enough to share out evenly."""

Result = TypeVar("Result")
Rows: TypeAlias = Sequence[tuple[str, str, str | None]]  # prompt, answer, language


def parse(text: str) -> ast.Module | None:
    """The tree of a Python program, None when it cannot be had: a fault, a NUL byte, nesting too deep."""
    try:
        # What ast.parse does, without its checks of arguments that are not given.
        return cast(ast.Module, compile(text, "<unknown>", "exec", ast.PyCF_ONLY_AST))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def scored_text(prompt: str, answer: str, language: str | None = "python") -> str:
    """The program in a sample.

    - The prompt ends with the line ``# output`` (TinyPy): the prompt without that line.
    - The prompt is blank, or the language is not Python: the answer.
    - Otherwise prompt and answer together when they parse (the beginning of a program and its continuation), else
      the answer alone (a question in plain words and its solution).

    Of an answer in prose with its program in a fence (a chat's) that program is taken, see ``fenced_program``.
    """
    if not is_python(language):
        return fenced_program(answer, language)
    head = prompt.rstrip()
    if head.endswith(OUTPUT_LINE) and head[-len(OUTPUT_LINE) - 1 : -len(OUTPUT_LINE)] in ("", "\n"):
        return head[: -len(OUTPUT_LINE)]
    return prompt + answer if head and parse(prompt + answer) is not None else fenced_program(answer, language)


def fenced_program(answer: str, language: str | None) -> str:
    """The program in the fenced blocks of ``answer``; the answer itself where it is a program, or has no such block.

    A language that is not known here, and a sample that names none and whose blocks are not Python's, keep the answer.
    """
    if ("```" not in answer and "~~~" not in answer) or not _FENCE.search(answer):
        return answer
    if is_python(language) and parse(answer) is not None:  # the fence stands in a docstring
        return answer
    block = _fenced_block(answer, language or "python")
    return answer if block is None else block


def _fenced_block(answer: str, language: str) -> str | None:
    from ..languages import named
    from ..languages.language import extract

    try:
        block = extract(named(language), answer)
    except UserError:  # no such language, or its grammar is not installed
        return None
    return block.code if block.state in ("fenced", "incomplete") and block.code.strip() else None


def is_python(language: str | None) -> bool:
    """Whether a sample can be read as Python; one that names no language can."""
    return language is None or language.lower() == "python"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the cycle collector and without warnings; both are put back as they were.

    Trees are many objects without cycles, so collecting only costs time meanwhile (measured: a third of it). The
    parser's warnings about the habits of somebody's program are not ours to tell.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()


def trees(rows: Rows) -> Iterator[ast.Module | None]:
    """The tree of each row's program; None for what is not Python or does not parse."""
    with _undisturbed():
        for prompt, answer, language in rows:
            yield parse(scored_text(prompt, answer, language)) if is_python(language) else None


@dataclass(frozen=True)
class PerTree:
    """The difficulty that ``measure`` finds in each program's tree; NaN where there is no tree.

    ``measure`` is a function at the top of a module (or a ``functools.partial`` of one), so that other processes
    find it; it returns NaN for a program it cannot score.
    """

    reads_programs: ClassVar[bool] = True

    measure: Callable[[ast.Module], float]

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Scores:
        return _joined(chunk_map(functools.partial(_measure_trees, self.measure), samples, workers, events))


@dataclass(frozen=True)
class PerText:
    """The difficulty that ``measure`` finds in each program's text; see ``PerTree``.

    ``python``: samples in another language have no score; else any text will do.
    """

    reads_programs: ClassVar[bool] = True

    measure: Callable[[str], float]
    python: bool = False

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Scores:
        return _joined(
            chunk_map(functools.partial(_measure_texts, self.measure, self.python), samples, workers, events)
        )


def chunk_map(
    measure: Callable[[Rows], Result], samples: pa.Table, workers: int, events: Events = ignore_events
) -> Iterator[Result]:
    """``measure`` of each chunk of rows, in order. ``events`` hears of each finished chunk, in rows.

    With ``workers`` this process measures too, beside ``workers`` - 1 others: nothing waits while they start, which
    takes as long as some ten thousand programs. They are spawned, never forked (a fork copies locks that threads hold),
    and only when there is more than one chunk; few results wait at a time, so memory does not grow with the table.
    """
    starts = range(0, samples.num_rows, CHUNK)
    results = _alone(measure, samples, starts) if min(workers, len(starts)) <= 1 else _shared(measure, samples, workers)
    for end, result in zip((min(start + CHUNK, samples.num_rows) for start in starts), results, strict=True):
        yield result
        events(Event("advance", "score", end, samples.num_rows))


def _alone(measure: Callable[[Rows], Result], samples: pa.Table, starts: range) -> Iterator[Result]:
    return (measure(_rows(samples, start)) for start in starts)


def _shared(measure: Callable[[Rows], Result], samples: pa.Table, workers: int) -> Iterator[Result]:
    """``measure`` of each chunk of rows, in order, by this process and up to ``workers`` - 1 others."""
    import multiprocessing
    from concurrent.futures import Future, ProcessPoolExecutor

    starts = range(0, samples.num_rows, CHUNK)
    others = min(workers, len(starts)) - 1
    # Ctrl-C is the parent's to answer; a worker that heard it too would print a traceback of its own.
    deaf = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(others, multiprocessing.get_context("spawn"), signal.signal, deaf) as pool:
        waiting: deque[Future[Result]] = deque()
        for start in starts:
            rows = _rows(samples, start)
            if sum(not result.done() for result in waiting) < 2 * others:  # one at work, one at hand for each of them
                waiting.append(pool.submit(measure, rows))
            else:
                waiting.append(Future())
                waiting[-1].set_result(measure(rows))
            while waiting and (waiting[0].done() or len(waiting) > 8 * workers):
                yield waiting.popleft().result()
        yield from (result.result() for result in waiting)


def _rows(samples: pa.Table, start: int) -> Rows:
    part = samples.slice(start, CHUNK)
    languages: list[str | None] = [None] * part.num_rows
    if "language" in part.column_names:  # as plain text: of a dictionary each value would be looked up in Python
        languages = part["language"].cast("string").to_pylist()
    return list(zip(part["prompt"].to_pylist(), part["answer"].to_pylist(), languages, strict=True))


def _measure_trees(measure: Callable[[ast.Module], float], rows: Rows) -> Scores:
    import numpy as np

    scores = (math.nan if tree is None else measure(tree) for tree in trees(rows))
    return np.fromiter(scores, np.float64, len(rows))


def _measure_texts(measure: Callable[[str], float], python: bool, rows: Rows) -> Scores:
    import numpy as np

    scores = np.full(len(rows), math.nan)
    with _undisturbed():
        for row, (prompt, answer, language) in enumerate(rows):
            if is_python(language) or not python:
                scores[row] = measure(scored_text(prompt, answer, language))
    return scores


def _joined(parts: Iterator[Scores]) -> Scores:
    import numpy as np

    return np.concatenate([np.empty(0), *parts])
