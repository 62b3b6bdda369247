"""Progress of long work on stderr: bars on a terminal, lines elsewhere.

``drawing`` yields the ``Tasks`` that draw the library's ``Event``s. A task ``hybrid/seed-1: train easy`` belongs to the
run before the colon, which has one row for all its tasks. A row shows the stage, the share done, the time elapsed and
the time left, of training also the loss and the tokens per second. A terminal shows all rows at once, and a row
``working`` when no task is in progress. Elsewhere every row is a line each ``INTERVAL`` seconds, and each task that
took more than ``NOTABLE`` seconds a line at its end; for a command of a few phases, each task.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..stage import Event

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

NOTABLE = 2.0
"""Seconds; shorter tasks print no line."""
REDRAW = 0.1
"""Seconds between two updates of a bar; drawing can take longer than a training step."""
INTERVAL = 30.0
"""Seconds between two lines on the tasks in progress, without a terminal."""
IDLE = "working"
"""The row without a task: loading libraries and models."""
WIDE = 120
"""Columns of a terminal from which rows have a bar."""


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min 20 s, 2 h 5 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


@dataclass
class Row:
    """The progress of one run or task: the latest event of its current task, and where and when that task began."""

    name: str
    event: Event
    first_done: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def label(self) -> str:
        """The task, with the run and the stage that it belongs to: ``hybrid/seed-1: stage 2 of 3, train easy``."""
        run, separator, task = self.event.task.removesuffix(": run").rpartition(": ")
        return f"{run}{separator}{self.event.stage}{', ' if self.event.stage else ''}{task}"

    @property
    def elapsed(self) -> float:
        """Seconds since the current task began."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units per second of the current task, 0 before the first."""
        return (self.event.done - self.first_done) / max(self.elapsed, 1e-9)

    @property
    def time_left(self) -> float | None:
        """Estimated seconds until the end of the current task; None as long as nothing is done."""
        if not self.event.total or self.rate <= 0:
            return None
        return max(self.event.total - self.event.done, 0) / self.rate

    @property
    def times(self) -> str:
        """Elapsed time, and the time left once it can be estimated."""
        left = self.time_left
        return f"{duration(self.elapsed)} elapsed" + ("" if left is None else f", {duration(left)} left")

    @property
    def values(self) -> str:
        """The loss and the tokens per second of training, empty for other tasks."""
        loss = [] if self.event.loss is None else [f"loss {self.event.loss:.3f}"]
        speed = [f"{self.rate:,.0f} {self.event.unit}/s"] if self.event.unit and self.rate > 0 else []
        return ", ".join([*loss, *speed])

    @property
    def line(self) -> str:
        """The whole row in one line of text."""
        share = [f"{self.event.done / self.event.total:.0%}"] if self.event.total else []
        return f"{self.label}: {', '.join([*share, *filter(None, [self.values]), self.times])}"


class Tasks:
    """The tasks in progress; without ``progress`` they print lines instead of bars.

    ``notable``: seconds from which the end of a task is a line.
    """

    def __init__(self, console: Console, progress: Progress | None, notable: float | None = None) -> None:
        self.console, self.progress = console, progress
        self.notable = NOTABLE if notable is None else notable
        self.rows: dict[str, Row] = {}
        self.bars: dict[str, TaskID] = {}
        self.start_times: dict[str, float] = {}
        self.draw_times: dict[str, float] = {}
        self.notes: set[str] = set()
        self.created = time.monotonic()

    def draw(self, event: Event) -> None:
        """Draw one event."""
        run, _, task = event.task.rpartition(": ")
        row = run or task
        if event.kind == "note":
            self._note(task, event.text)
        elif event.kind == "start":
            self.start_times.setdefault(row, time.monotonic())
            self._restart(row, event)
        elif event.kind == "advance":
            self._advance(row, event)
        elif not run or task == "run":
            self._finish(row)

    def _note(self, task: str, text: str) -> None:
        """Print a note once: stages, and the runs of a study, repeat notes on shared data."""
        if text not in self.notes:
            if task == "examples":  # data, no message
                self.console.print(text, style="dim", markup=False, soft_wrap=True)
            else:
                self.console.print(f"gradatim: {text}", style="yellow", markup=False)
        self.notes.add(text)

    def lines(self) -> list[str]:
        """A line for every row; without rows, one that the work has begun."""
        rows = [row.line for row in list(self.rows.values())]
        return rows or [f"{IDLE}: {duration(time.monotonic() - self.created)} elapsed"]

    def show_idle(self) -> None:
        """Show on a terminal that work is in progress although no task is."""
        if self.progress is not None and not self.rows and IDLE not in self.bars:
            self.bars[IDLE] = self.progress.add_task(IDLE, total=None, row=Row(IDLE, Event("start", IDLE)))

    def _restart(self, name: str, event: Event) -> None:
        self.rows[name] = row = Row(name, event, event.done)
        if self.progress is None:
            return
        for bar in (name, IDLE):
            if bar in self.bars:
                self.progress.remove_task(self.bars.pop(bar))
        self.bars[name] = self.progress.add_task(row.label, total=event.total, completed=int(event.done), row=row)

    def _advance(self, name: str, event: Event) -> None:
        now = time.monotonic()
        if now - self.draw_times.get(name, 0.0) < REDRAW:
            return
        self.draw_times[name] = now
        if name not in self.rows:
            self._restart(name, event)
        self.rows[name].event = event
        if self.progress is not None:
            self.progress.update(
                self.bars[name], completed=event.done, total=event.total, description=self.rows[name].label
            )

    def _finish(self, name: str) -> None:
        seconds = time.monotonic() - self.start_times.pop(name, time.monotonic())
        row = self.rows.pop(name, None)
        if self.progress is not None and name in self.bars:
            self.progress.remove_task(self.bars.pop(name))
            self.show_idle()
        if seconds >= self.notable:
            values = f", {row.values}" if row is not None and row.values else ""
            self.console.print(f"{name}: done in {duration(seconds)}{values}", style="dim", markup=False)


@contextlib.contextmanager
def drawing(console: Console, every_task: bool = False) -> Iterator[Tasks]:
    """Context in which the yielded ``Tasks`` draw on ``console``.

    ``every_task``: without a terminal, the end of every task is a line, also of one shorter than ``NOTABLE``.
    """
    if not console.is_terminal:
        tasks = Tasks(console, None, 0.0 if every_task else None)
        with _lines_in_intervals(tasks):
            yield tasks
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn
    from rich.text import Text

    class ValuesColumn(ProgressColumn):
        """Times, loss and speed of a row."""

        def render(self, task: Any) -> Text:
            row: Row = task.fields["row"]
            return Text(", ".join(filter(None, [row.times, row.values])), style="dim")

    columns = [TextColumn("{task.description}", markup=False), TaskProgressColumn(), ValuesColumn()]
    if console.width >= WIDE:
        columns.insert(1, BarColumn(bar_width=20))
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = Tasks(console, progress)
        tasks.show_idle()
        yield tasks


@contextlib.contextmanager
def _lines_in_intervals(tasks: Tasks) -> Iterator[None]:
    """Print the lines of ``tasks`` every ``INTERVAL`` seconds, from a thread: long steps send no events."""
    ended = threading.Event()

    def print_lines() -> None:
        while not ended.wait(INTERVAL):
            for line in tasks.lines():
                tasks.console.print(line, style="dim", markup=False, soft_wrap=True)

    thread = threading.Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
