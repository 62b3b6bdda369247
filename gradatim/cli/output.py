"""Terminal side of the commands: results, checks of output files, standard streams, shared options, signals.

Results are tables, or JSON with ``--json``; a pipe gets plain text, wide enough that no cell wraps. Output files are
checked before the work: an output must not be an input of the same command under any name, nor replace content that
this package has not written, and it must be writable (see ``files``).

Standard streams may be closed, broken or full. A closed descriptor 0 to 2 would be reused by the next file that is
opened, and messages would land in that file: each is opened on the null device first. A failure of standard error is
ignored; a result that cannot be written to standard output raises ``OutputFailed``.

Options of several commands are annotated types for ``typer`` here. ``watching`` yields the listener for the library's
``Event``s, which ``progress`` draws.

After the first SIGINT or SIGTERM the next event raises ``Stopped``, on which the work saves its state. The second
signal ends this process and its children at once; files are written atomically, so only the work since the last
checkpoint is lost.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, TextIO

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import reporting
from ..errors import Stopped, UserError, WorkFailed
from ..evaluation import verdicts
from ..experiment import run_lock
from ..files import check_not_input, check_output, check_output_folder
from ..processes import is_other_rank
from ..stage import Event, Events
from ..table import read as table_read
from ..table import rows as table_rows
from .progress import drawing

PIPE_WIDTH = 160


def output() -> Console:
    """The console for results."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON; NaN raises ``ValueError``, as JSON has none."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, left: int = 1) -> Table:
    """A table with ``left`` left-aligned columns, then right-aligned ones; None is shown as a dash."""
    result = Table(title=title and Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        result.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        result.add_row(*[Text("–" if cell is None else amount(cell)) for cell in row])
    return result


def amount(value: object) -> str:
    """An integer with thousands separators; any other value as text."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def size(count: float) -> str:
    """A number of bytes with its unit: 4.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


Inputs = Iterable[str | os.PathLike[str] | None]


def check_samples_file(
    path: Path, option: str, inputs: Inputs = (), *, rejected: bool = False, force: bool = False
) -> None:
    """Check an output file of samples, and with ``rejected`` the file of rejected rows beside it."""
    paths = list(inputs)
    check_output(
        path, option, ours=lambda file: not _is_part_of_run(file) and table_read.is_written(file), inputs=paths
    )
    if rejected:
        _check_rejected(path, option, paths)
    check_replaceable(path, option, force)


def check_verdicts_file(path: Path, option: str, inputs: Inputs) -> None:
    """Check a file of verdicts, which is appended to, and the file of rejected rows beside it."""
    paths = list(inputs)
    check_output(path, option, ours=lambda file: True, inputs=paths)
    verdicts.check_verdicts(path)
    _check_rejected(path, option, paths)


def check_page(path: Path, option: str, inputs: Inputs = (), *, force: bool = True) -> None:
    """Check the output file of a report."""
    check_output(path, option, ours=reporting.is_report, inputs=inputs)
    check_replaceable(path, option, force)


def check_replaceable(path: Path, option: str, force: bool) -> None:
    """Raise ``UserError`` for an existing file that is not empty, unless ``force`` permits to replace it."""
    if not force and path.is_file() and path.stat().st_size:
        raise UserError("this file exists", where=option, given=path, hint="--force to replace it, or another path")


def check_run_output(folder: Path, option: str, inputs: Inputs = ()) -> None:
    """Check the folder of a run or study; ``inputs`` are recipe files."""
    check_output_folder(folder, option)
    if not (folder / "environment.json").is_file():  # the recipe.yaml of a run resumes that run
        check_not_input(folder / "recipe.yaml", option, inputs)
    run_lock.check_run_folder(folder)
    check_page(folder / "report.html", option)


def _check_rejected(path: Path, option: str, inputs: Inputs) -> None:
    check_output(
        table_rows.rejected_file(path), f"{option}, rejected rows", ours=table_rows.is_rejected_file, inputs=inputs
    )


def _is_part_of_run(path: Path) -> bool:
    """Whether the file belongs to a run or study folder."""
    real = Path(os.path.realpath(path))
    signs = (("recipe.yaml", "environment.json"), ("study.json",))
    return any(all((folder / sign).is_file() for sign in names) for folder in real.parents for names in signs)


class ReaderGone(Exception):
    """Standard output is a pipe whose reader has closed it."""


class OutputFailed(WorkFailed):
    """Standard output cannot be written; the work itself is complete."""


def open_streams() -> frozenset[int]:
    """Open closed descriptors 0 to 2 and Python's streams on them; return the descriptors that were closed."""
    closed = frozenset(number for number in range(3) if not _is_open(number))
    for number in sorted(closed):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY
        descriptor = os.open(os.devnull, mode)
        if descriptor != number:  # only in a race with another thread
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.set_inheritable(number, True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            kind: Literal["r", "w"] = "r" if number == 0 else "w"
            stream = open(number, kind, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    for output in (sys.stdout, sys.stderr):
        # File names that are not UTF-8 and characters outside the terminal's encoding are escaped.
        if isinstance(output, io.TextIOWrapper) and output.errors in ("strict", "surrogateescape"):
            output.reconfigure(errors="backslashreplace")
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def check_output_stream(closed: frozenset[int]) -> None:
    """Raise ``UserError`` when standard output was closed at the start: the result would be lost."""
    if 1 in closed:
        raise UserError("standard output is closed", where="stdout", hint="> FILE, or > /dev/null")


@contextlib.contextmanager
def careful_streams() -> Iterator[None]:
    """Context in which failures of standard output and error are handled (see the module)."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Messages(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


class _Stream:
    """A text stream whose failures are handled by ``fail``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            return self.broken(text)
        except OSError as error:
            return self.fail(error, text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.broken("")
        except OSError as error:
            self.fail(error, "")

    def broken(self, text: str) -> int:
        raise NotImplementedError

    def fail(self, error: OSError, text: str) -> int:
        raise NotImplementedError


class _Output(_Stream):
    """Standard output: a closed pipe raises ``ReaderGone``, any other failure ``OutputFailed``."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        raise ReaderGone

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        raise OutputFailed(
            f"cannot write ({error.strerror or error})", where="stdout", hint="the same command with > FILE"
        ) from error


class _Messages(_Stream):
    """Standard error: failed writes are discarded."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        return len(text)

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        return len(text)


def discard(stream: TextIO) -> None:
    """Redirect ``stream`` to the null device: flushing its buffer at exit would fail again."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


Force = Annotated[bool, typer.Option("--force", help="Replace an existing output file, if this package wrote it.")]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Start again in a folder in which nothing was learnt, whatever recipe it was made by."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe; repeatable."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=COLUMN",
        help="Column names of the file, comma-separated or repeated, as data.columns in a recipe: "
        "prompt=instruction,answer=output, or messages=dialog.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON (stable format) instead of tables.")]
Workers = Annotated[int, typer.Option(min=1, help="Number of parallel processes.")]
On = Annotated[
    str | None,
    typer.Option(
        metavar="EXECUTOR",
        help="Executor of the parallel work: ray, ray:HOST:PORT, ray://HOST:PORT, or local. (default: --workers)",
    ),
]


def words(values: Sequence[str]) -> list[str]:
    """The names in repeated and comma-separated values: ``["a,b", "c"]`` is a, b and c."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def mapping_of(values: Sequence[str] | None) -> dict[str, str] | None:
    """The column mapping of ``--columns``, None without one. Raises ``UserError`` for anything but FIELD=COLUMN."""
    pairs: dict[str, str] = {}
    for word in words(values or ()):
        field, equals, column = (text.strip() for text in word.partition("="))
        if not (field and equals and column) or field in pairs:
            what = "a field is mapped twice" if field in pairs else "a column mapping is written FIELD=COLUMN"
            raise UserError(what, where="--columns", given=word, hint="--columns prompt=instruction,answer=output")
        pairs[field] = column
    return pairs or None


SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"


@contextlib.contextmanager
def heeding_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop was requested. Only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            _abort()
        received.append(number)
        if is_other_rank():
            return
        # Not through rich: the signal may interrupt its drawing, with its state inconsistent.
        _write(b"\ngradatim: stopping after saving the state; Ctrl-C again stops at once\n")

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _abort() -> None:
    """End the process without cleanup, which may take long and is not needed."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    _write((SHOW_CURSOR if os.isatty(2) else b"") + b"\ngradatim: stopped at once; the last saved state is kept\n")
    os._exit(130)


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text)


SAVED = "repeat the command to resume"
"""The hint of a ``Stopped`` whose work can be resumed; ``main`` prints the command instead."""


@contextlib.contextmanager
def watching(resumable: bool = False, every_task: bool = False) -> Iterator[Events]:
    """Yield the listener for events. ``resumable`` work saves its state on a stop; other work leaves no file.

    ``every_task``: as ``progress.drawing``. Of several processes rank 0 alone displays them.
    """
    console = Console(stderr=True, highlight=False, quiet=is_other_rank())
    with heeding_signals() as stop_requested, drawing(console, every_task) as tasks:

        def listen(event: Event) -> None:
            tasks.draw(event)
            if stop_requested():
                raise Stopped("stopped")

        try:
            yield listen
        except Stopped as error:
            if resumable:
                raise Stopped("stopped; the state is saved", hint=SAVED) from error
            raise Stopped("stopped; nothing was written") from error


def print_notes(event: Event) -> None:
    """Print a note to stderr; other events have no output."""
    if event.kind == "note":
        console = Console(stderr=True, highlight=False)
        console.print(f"gradatim: {event.text}", style="yellow", markup=False, soft_wrap=True)
