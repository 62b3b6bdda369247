"""Send the new entries of runs to a tracker, each once.

The position of the last entry is stored in ``tracking-TRACKER.json`` of the run folder, separately for each
destination, so that several trackers can follow one run. It is stored before an entry is logged and taken back when
logging fails, so that a process that is killed in between can lose one entry but never sends one twice. Rows that a
resumed run repeats lie before the position.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import GradatimError, RunFolderError, TrackerFailed
from ..record import read_json, storage_errors, write_json
from ..reporting.collect import RunFolder, run_folders
from . import TRACKERS
from .entries import Entry, Position, configuration, entries
from .tracker import TrackedRun, Tracker

STATE = "tracking-{}.json"
LOCK = ".tracking-{}.lock"
DESTINATIONS = {
    "wandb": ("WANDB_BASE_URL", "WANDB_ENTITY"),
    "trackio": ("TRACKIO_SPACE_ID", "TRACKIO_DIR"),
    "mlflow": ("MLFLOW_TRACKING_URI",),
}
"""Environment variables that choose where a tracker sends; another value is another destination."""
PROJECT = "gradatim"
"""The project of a run outside of a study."""


@dataclass
class Sent:
    """What was sent of one run: log entries now and in all, and where a user finds them."""

    run: RunFolder
    now: int = 0
    total: int = 0
    address: str = ""


@dataclass
class State:
    """The part of a tracker's state file for one destination."""

    id: str
    position: Position | None = None
    sent: int = 0


class Sender:
    """Sends the entries of run and study folders to one tracker; a context manager.

    ``project``: default the name of the study, or ``PROJECT``; ``folder``: local files of the tracker, default the
    folder of the study or run. One run is open at a time, and stays open between calls of ``send``.
    """

    def __init__(
        self, folders: Sequence[Path], to: str, project: str | None = None, folder: Path | None = None
    ) -> None:
        TRACKERS.get(to, where="--to")
        self.folders, self.to, self.project, self.folder = list(folders), to, project, folder
        self.sent: dict[Path, Sent] = {}
        self._session: Session | None = None

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # The error inside the context is the one to report.
        with contextlib.suppress(TrackerFailed) if kind else contextlib.nullcontext():
            self.close()

    def send(self) -> bool:
        """Send the new entries of all runs; whether all runs are finished.

        Raises ``TrackerFailed`` when the tracker fails; the entries of the call that failed stay unsent.
        """
        finished = True
        for folder in self.folders:
            runs = run_folders(folder)
            finished = finished and bool(runs)
            for run in runs:
                complete = (run.folder / "finished.json").is_file()  # before the entries are read
                self._send_run(run)
                finished = finished and complete
        return finished

    def _send_run(self, run: RunFolder) -> None:
        if not (run.folder / "recipe.yaml").is_file():
            return  # planned, not begun
        destination = self._destination(run)
        state = read_states(run.folder, self.to).get(destination)
        sent = self.sent.setdefault(run.folder, Sent(run, total=state.sent if state else 0))
        new = entries(run.folder, state.position if state else None)
        if not new:
            return
        if self._session is None or self._session.run != run:
            self.close()
            self._session = Session(run, self.to, destination, self._tracked(run))
        try:
            for entry in new:
                if self._session.send(entry):
                    sent.now += 1
            sent.total, sent.address = self._session.state.sent, self._session.address
        except TrackerFailed:
            session, self._session = self._session, None
            with contextlib.suppress(TrackerFailed):
                session.close()
            raise

    def close(self) -> None:
        """Close the open run; ``TrackerFailed`` when the tracker could not send what it had buffered."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _project(self, run: RunFolder) -> str:
        return self.project or (PROJECT if run.study is None else run.study.resolve().name)

    def _tracked(self, run: RunFolder) -> TrackedRun:
        folder = self.folder or run.study or run.folder
        return TrackedRun(self._project(run), run.arm, f"seed-{run.seed}", "", folder)

    def _destination(self, run: RunFolder) -> str:
        """The key of the destination in the state file."""
        if self.to == "tensorboard":
            return str(self.folder.resolve()) if self.folder else "tensorboard"
        variables = [os.environ[name] for name in DESTINATIONS.get(self.to, ()) if os.environ.get(name)]
        return " ".join([self._project(run), *variables])


def read_states(folder: Path, to: str) -> dict[str, State]:
    """The states of a tracker in a run folder by destination. Raises ``RunFolderError`` for a damaged file."""

    def decode(content: Any) -> dict[str, State]:
        return {
            str(name): State(
                str(state["id"]),
                None if state["position"] is None else _position(state["position"]),
                int(state["sent"]),
            )
            for name, state in content.items()
        }

    path = folder / STATE.format(to)
    try:
        return read_json(path, decode) if path.exists() else {}
    except RunFolderError as error:
        hint = "remove it: all entries are sent again, as another run of the tracker"
        raise RunFolderError("this file is damaged", where=path, given=error.given, hint=hint) from error


def _position(value: Sequence[int]) -> Position:
    cycle, stage, step, number = map(int, value)
    return cycle, stage, step, number


@dataclass
class Session:
    """One open run of a tracker, with the lock of its run folder."""

    run: RunFolder
    to: str
    destination: str
    tracked: TrackedRun
    state: State = field(init=False)
    address: str = ""

    def __post_init__(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_lock(self.run.folder, self.to))
            self.states = read_states(self.run.folder, self.to)
            begun = self.destination in self.states
            self.state = self.states.setdefault(self.destination, State(secrets.token_hex(4)))
            tracked = TrackedRun(**{**vars(self.tracked), "id": self.state.id})
            self.tracker: Tracker = TRACKERS.make(self.to, tracked, where="--to", options={})
            with self._failures():
                self.tracker.start()
                self.address = self.tracker.address()
                if not begun:
                    self.tracker.store_init_configuration(configuration(self.run.folder))
            self._save()
            self._stack = stack.pop_all()

    def send(self, entry: Entry) -> bool:
        """Log an entry unless it was sent before; whether it was logged now."""
        before = self.state.position
        if before is not None and entry.position <= before:
            return False
        self.state.position, self.state.sent = entry.position, self.state.sent + 1
        self._save(flush=False)
        try:
            with self._failures():
                self.tracker.log(entry.values, entry.step)
        except TrackerFailed:
            self.state.position, self.state.sent = before, self.state.sent - 1
            self._save()
            raise
        return True

    def close(self) -> None:
        """Finish the run of the tracker and release the run folder."""
        with self._stack, self._failures():
            self.tracker.finish()
        self._save()

    def _save(self, flush: bool = True) -> None:
        """Write the state. ``flush``: to the disk, which only a power failure makes necessary."""
        path = self.run.folder / STATE.format(self.to)
        content = {name: vars(state) for name, state in self.states.items()}
        if flush:
            write_json(path, content)
            return
        temporary = path.with_name(f".{path.name}.partial")
        with storage_errors(path):
            temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
            os.replace(temporary, path)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Convert any error of the tracker, whose packages raise their own, to ``TrackerFailed``."""
        try:
            yield
        except GradatimError:
            raise
        except Exception as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise TrackerFailed(
                "the tracker cannot be reached, or refuses the entries",
                where=f"tracker {self.to}",
                given=f"{type(error).__name__}: {reason}"[:300],
                hint=f"gradatim track {self.run.folder} --to {self.to} sends the rest later",
            ) from error


@contextlib.contextmanager
def _lock(folder: Path, to: str) -> Iterator[None]:
    """Exclusive use of the state of a tracker in a run folder. Raises ``RunFolderError``."""
    with storage_errors(folder):
        file = open(folder / LOCK.format(to), "ab")  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another process sends the metrics of this run to {to}", where=folder, hint="wait for it to end"
            ) from None
        except OSError as error:
            raise RunFolderError(
                "this file system has no locks", where=folder, given=error.strerror, hint="a run on another disk"
            ) from error
        yield
