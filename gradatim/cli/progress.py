"""What happens on Ctrl-C?

The first one (or a SIGTERM) is remembered: the next event that the work tells raises ``Stopped``, on which it saves
its state. The second one ends this process and its children at once; what is written is written whole, so even then
only the work since the last checkpoint is lost. This module saves nothing itself.

How does long work show how far it is?

The library tells ``Event``s; ``watching`` draws them on stderr and turns Ctrl-C into ``Stopped``. On a terminal each
task has a bar with the time left; elsewhere a task that took longer than two seconds leaves one line. A task named
``hybrid/seed-1: train easy`` belongs to the run before the colon, which has one bar for all of its tasks: a study
shows its overall bar and one line for each run at work.
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
    """Inside, the value yielded tells whether the user asked to stop. Only the main thread can hear signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if heard:
            _abort()
        heard.append(number)
        # Not through rich: a signal may come while it draws, and its state is then in between.
        _say(b"\ngradatim: stopping as soon as the state is saved; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abort() -> None:
    """End without cleaning up: what is being waited for may take long, and nothing needs it."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    _say((SHOW_CURSOR if os.isatty(2) else b"") + b"\ngradatim: stopped at once; what was saved before is kept\n")
    os._exit(130)


def _say(words: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, words)


NOTABLE = 2.0
"""Seconds: shorter tasks leave no line."""
REDRAW = 0.1
"""Seconds between two updates of a bar: a training step may take less than drawing it."""
SAVED = "the same command goes on"
"""The hint of a ``Stopped`` whose work can be gone on with; ``main`` says the command instead."""


@contextlib.contextmanager
def watching(resumable: bool = False) -> Iterator[Events]:
    """Events to hand to the work. ``resumable`` work saves its state when it is stopped; other work leaves nothing."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with heeding_signals() as asked, _drawing(console) as tasks:

        def hear(event: Event) -> None:
            tasks.hear(event)
            if asked():
                raise Stopped("stopped")

        try:
            yield hear
        except Stopped as error:
            if resumable:
                raise Stopped("stopped; everything is saved", hint=SAVED) from error
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
        TextColumn("left", style="dim"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Tasks(console, progress)


class _Tasks:
    """The tasks at work. Without ``progress`` there are no bars, only lines."""

    def __init__(self, console: Console, progress: Progress | None) -> None:
        self.console, self.progress = console, progress
        self.bars: dict[str, TaskID] = {}
        self.begun: dict[str, float] = {}
        self.drawn: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        """Draw one event."""
        run, _, task = event.task.rpartition(": ")
        row = run or task
        if event.kind == "note":
            self.console.print(f"gradatim: {event.text}", style="yellow", markup=False)
        elif event.kind == "start":
            self.begun.setdefault(row, time.monotonic())
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
        if self.progress is None or now - self.drawn.get(row, 0.0) < REDRAW:
            return
        self.drawn[row] = now
        if row not in self.bars:
            self._restart(row, event)
        self.progress.update(self.bars[row], completed=event.done, total=event.total)

    def _finish(self, row: str) -> None:
        seconds = time.monotonic() - self.begun.pop(row, time.monotonic())
        if self.progress is not None and row in self.bars:
            self.progress.remove_task(self.bars.pop(row))
        if seconds >= NOTABLE:
            self.console.print(f"{row}: done in {duration(seconds)}", style="dim", markup=False)
