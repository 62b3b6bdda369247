"""Programs of samples, and the static metrics computed on them in several processes.

Every static metric scores the program only: neither the output that TinyPy appends as comments nor an instruction in
plain words. ``scored_text`` is the single definition of that text. A metric is a plain function of one program;
``PerTree`` and ``PerText`` make a ``Difficulty`` of it, and ``chunk_map`` distributes chunks of rows over processes
whose results come back in order, so that scores do not depend on the number of workers.

``read_folder`` makes samples of a folder of Python files: one per ``.py`` file, in the order of their paths, the path
as its ``source``; the prompt is empty and the answer is the whole file. Files that cannot be read are left out, files
that do not parse stay (their size is still a size); both are reported with the reason. Hidden folders, links to folders
and files in other languages are ignored.
"""

from __future__ import annotations

import ast
import functools
import gc
import math
import os
import re
import signal
import tokenize
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from .. import executors
from ..errors import DataError, UserError
from ..files import check_input
from ..lazy import np
from ..stage import Difficulty, Event, Events, ignore_events
from ..table import slices
from ..table.rows import OUTPUT_LINE, asks_for_output

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt
    import pyarrow as pa

    Scores: TypeAlias = npt.NDArray[np.float64]


"""The last line of a TinyPy prompt; what the program prints follows it, as comments."""

_FENCE = re.compile(r"^[ \t>]*(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(?:```|~~~)", re.MULTILINE)
"""The beginning of a line that may open a fenced block; ``languages.thinking`` decides."""

CHUNK = 2048
"""Rows per task: large enough to hide the cost of sending them, small enough for an even distribution."""

Result = TypeVar("Result")
Rows: TypeAlias = Sequence[tuple[str, str, str | None]]  # prompt, answer, language


def parse(text: str) -> ast.Module | None:
    """The tree of a Python program, None when it does not parse: a fault, a NUL byte, nesting too deep."""
    try:
        # As ast.parse, without its checks of arguments that are not used here.
        return cast(ast.Module, compile(text, "<unknown>", "exec", ast.PyCF_ONLY_AST))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def scored_text(prompt: str, answer: str, language: str | None = "python") -> str:
    """The program in a sample.

    - The prompt ends with the line ``# output`` (TinyPy): the prompt without that line.
    - The prompt is blank, or the language is not Python: the answer.
    - Otherwise prompt and answer together when they parse (the beginning of a program and its continuation), else
      the answer alone (a question in plain words and its solution).

    Of an answer in prose with a fenced program (a chat's) that program is used, see ``fenced_program``.
    """
    if not is_python(language):
        return fenced_program(answer, language)
    if asks_for_output(prompt):
        return prompt.rstrip().removesuffix(OUTPUT_LINE.rstrip())
    return (
        prompt + answer if prompt.strip() and parse(prompt + answer) is not None else fenced_program(answer, language)
    )


def fenced_program(answer: str, language: str | None) -> str:
    """The program in the fenced blocks of ``answer``; the answer itself where it is a program, or has no such block.

    The answer remains for an unknown language, and for a sample without a language whose blocks are not Python.
    """
    if ("```" not in answer and "~~~" not in answer) or not _FENCE.search(answer):
        return answer
    if is_python(language) and parse(answer) is not None:  # the fence is in a docstring
        return answer
    block = _fenced_block(answer, language or "python")
    return answer if block is None else block


def _fenced_block(answer: str, language: str) -> str | None:
    from ..languages import named  # here, so that a plan loads no languages
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
def _without_collector() -> Iterator[None]:
    """Suspend the cycle collector and warnings; both are restored afterwards.

    Trees are many objects without cycles, so that collection only costs time (measured: a third of it). The parser's
    warnings concern the style of the programs and are of no interest here.
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
    """The tree of each row's program; None for a program that is not Python or does not parse."""
    with _without_collector():
        for prompt, answer, language in rows:
            yield parse(scored_text(prompt, answer, language)) if is_python(language) else None


@dataclass(frozen=True)
class PerTree(Difficulty):
    """The difficulty ``measure`` of each program's tree; NaN where there is no tree.

    ``measure`` is a module-level function (or a ``functools.partial`` of one), so that it can be pickled; it returns
    NaN for a program it cannot score.
    """

    reads_programs = True

    measure: Callable[[ast.Module], float]

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Scores:
        return _joined(chunk_map(functools.partial(_measure_trees, self.measure), samples, workers, events))


@dataclass(frozen=True)
class PerText(Difficulty):
    """The difficulty ``measure`` of each program's text; see ``PerTree``.

    ``python``: samples in another language have no score; without it any text is scored.
    """

    reads_programs = True

    measure: Callable[[str], float]
    python: bool = False

    def __call__(self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events) -> Scores:
        return _joined(
            chunk_map(functools.partial(_measure_texts, self.measure, self.python), samples, workers, events)
        )


def chunk_map(
    measure: Callable[[Rows], Result], samples: pa.Table, workers: int, events: Events = ignore_events
) -> Iterator[Result]:
    """``measure`` of each chunk of rows, in order. ``events`` receives the number of rows after each chunk.

    The executor of this block of code measures, if there is one. Otherwise this process measures beside ``workers`` - 1
    further ones, which take as long to start as some ten thousand programs
    take to score. They are spawned, never forked (a fork copies locks that threads hold), and only for more than one
    chunk; few results are pending at a time, so that memory does not grow with the table.
    """
    starts = range(0, samples.num_rows, CHUNK)
    if (executor := executors.current()) is not None:
        results = executors.ordered(executor, measure, _chunks(samples))
    elif min(workers, len(starts)) <= 1:
        results = map(measure, _chunks(samples))
    else:
        results = _in_pool(measure, samples, workers)
    for end, result in zip((min(start + CHUNK, samples.num_rows) for start in starts), results, strict=True):
        yield result
        events(Event("advance", "score", end, samples.num_rows))


def _in_pool(measure: Callable[[Rows], Result], samples: pa.Table, workers: int) -> Iterator[Result]:
    """``measure`` of each chunk of rows, in order, by this process and up to ``workers`` - 1 others."""
    import multiprocessing
    from concurrent.futures import Future, ProcessPoolExecutor

    processes = min(workers, len(range(0, samples.num_rows, CHUNK))) - 1
    # Only the parent handles Ctrl-C; a worker that received it as well would print a traceback of its own.
    ignore_interrupts = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), signal.signal, ignore_interrupts) as pool:
        pending: deque[Future[Result]] = deque()
        for rows in _chunks(samples):
            if sum(not result.done() for result in pending) < 2 * processes:  # one running, one queued for each of them
                pending.append(pool.submit(measure, rows))
            else:
                pending.append(Future())
                pending[-1].set_result(measure(rows))
            while pending and (pending[0].done() or len(pending) > 8 * workers):
                yield pending.popleft().result()
        yield from (result.result() for result in pending)


def _chunks(samples: pa.Table) -> Iterator[Rows]:
    columns = [name for name in ("prompt", "answer", "language") if name in samples.column_names]
    for chunk in slices(samples.select(columns), CHUNK):
        languages: list[str | None] = [None] * chunk.num_rows
        if "language" in columns:  # as plain text: values of a dictionary array are converted one by one
            languages = chunk["language"].cast("string").to_pylist()
        yield list(zip(chunk["prompt"].to_pylist(), chunk["answer"].to_pylist(), languages, strict=True))


def _measure_trees(measure: Callable[[ast.Module], float], rows: Rows) -> Scores:
    scores = (math.nan if tree is None else measure(tree) for tree in trees(rows))
    return np.fromiter(scores, np.float64, len(rows))


def _measure_texts(measure: Callable[[str], float], python: bool, rows: Rows) -> Scores:
    scores = np.full(len(rows), math.nan)
    with _without_collector():
        for row, (prompt, answer, language) in enumerate(rows):
            if is_python(language) or not python:
                scores[row] = measure(scored_text(prompt, answer, language))
    return scores


def _joined(chunks: Iterator[Scores]) -> Scores:
    return np.concatenate([np.empty(0), *chunks])


def read_folder(path: str | os.PathLike[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The Python files below ``path`` as a table, and {"files", "unreadable": {path: why}, "unparsable": {…}}.

    Paths are relative to ``path``, with forward slashes. Encodings are those the files declare (PEP 263). Raises
    ``DataError`` when there is no such folder, or no readable Python file in it.
    """
    from ..table import make_table  # imports pyarrow

    root = Path(path)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, hint="the path of a folder of .py files")
    names = _python_files(root)
    sources: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    unparsable: dict[str, str] = {}
    for path in names:
        name = path.encode("utf-8", "backslashreplace").decode()  # a table holds UTF-8 alone
        try:
            check_input(root / path)
            with tokenize.open(root / path) as file:
                sources[name] = file.read()
        except DataError as fault:
            unreadable[name] = fault.message
            continue
        except (OSError, SyntaxError, UnicodeError) as fault:
            unreadable[name] = str(fault)
            continue
        syntax_fault = _syntax_fault(sources[name])
        if syntax_fault:
            unparsable[name] = syntax_fault
    if not sources:
        raise DataError("no Python file can be read there", where=root, given=f"{len(names)} .py files")
    table = make_table(
        {
            "answer": list(sources.values()),
            "language": ["python"] * len(sources),
            "source": list(sources),
        }
    )
    return table, {"files": len(names), "unreadable": unreadable, "unparsable": unparsable}


def _python_files(root: Path) -> list[str]:
    paths = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
        paths += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(paths)


def _syntax_fault(source: str) -> str | None:
    """The reason why ``source`` does not parse, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as fault:
        return f"line {fault.lineno}: {fault.msg}"
    except (ValueError, RecursionError, MemoryError) as fault:
        return str(fault) or type(fault).__name__
    return None
