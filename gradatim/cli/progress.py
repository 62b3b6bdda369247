"""Progress bars on stderr, and a clean stop on Ctrl-C.

``watching`` draws the library's ``Event``s: bars with the remaining time on a terminal, otherwise one line for each
task that took more than two seconds. A task ``hybrid/seed-1: train easy`` belongs to the run before the colon, which
has one bar for all its tasks.

After the first SIGINT or SIGTERM the next event raises ``Stopped``, on which the work saves its state. The second
signal ends this process and its children at once; files are written atomically, so only the work since the last
checkpoint is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import Stopped
from ..stage import Event, Events
from .output import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["SAVED", "heeding_signals", "watching"]


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


NOTABLE = 2.0
"""Seconds; shorter tasks print no line."""
REDRAW = 0.1
"""Seconds between two updates of a bar; drawing can take longer than a training step."""
SAVED = "repeat the command to resume"
"""The hint of a ``Stopped`` whose work can be resumed; ``main`` prints the command instead."""


@contextlib.contextmanager
def watching(resumable: bool = False) -> Iterator[Events]:
    """Yield the listener for events. ``resumable`` work saves its state on a stop; other work leaves no file."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with heeding_signals() as stop_requested, _drawing(console) as tasks:

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


@contextlib.contextmanager
def _drawing(console: Console) -> Iterator[_Tasks]:
    if not console.is_terminal:
        yield _Tasks(console, None)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("remaining", style="dim"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Tasks(console, progress)


class _Tasks:
    """The tasks in progress; without ``progress`` they print lines instead of bars."""

    def __init__(self, console: Console, progress: Progress | None) -> None:
        self.console, self.progress = console, progress
        self.bars: dict[str, TaskID] = {}
        self.start_times: dict[str, float] = {}
        self.draw_times: dict[str, float] = {}

    def draw(self, event: Event) -> None:
        """Draw one event."""
        run, _, task = event.task.rpartition(": ")
        row = run or task
        if event.kind == "note":
            self.console.print(f"gradatim: {event.text}", style="yellow", markup=False)
        elif event.kind == "start":
            self.start_times.setdefault(row, time.monotonic())
            self._restart(row, event)
        elif event.kind == "advance":
            self._advance(row, event)
        elif not run or task == "run":
            self._finish(row)

    def _restart(self, row: str, event: Event) -> None:
        if self.progress is None:
            return
        if row in self.bars:
            self.progress.remove_task(self.bars.pop(row))
        name = event.task.removesuffix(": run")
        self.bars[row] = self.progress.add_task(name, total=event.total, completed=int(event.done))

    def _advance(self, row: str, event: Event) -> None:
        now = time.monotonic()
        if self.progress is None or now - self.draw_times.get(row, 0.0) < REDRAW:
            return
        self.draw_times[row] = now
        if row not in self.bars:
            self._restart(row, event)
        self.progress.update(self.bars[row], completed=event.done, total=event.total)

    def _finish(self, row: str) -> None:
        seconds = time.monotonic() - self.start_times.pop(row, time.monotonic())
        if self.progress is not None and row in self.bars:
            self.progress.remove_task(self.bars.pop(row))
        if seconds >= NOTABLE:
            self.console.print(f"{row}: done in {duration(seconds)}", style="dim", markup=False)
