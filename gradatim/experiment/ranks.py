"""The ranks of a run over several processes: rank 0 runs the experiment, the others carry out its tasks.

Only training and the rows of evaluations are divided. Everything else (data, teachers, judges, results, the report) is
done by rank 0 alone, so that nothing is made, paid or written twice, and the other ranks wait for the next task.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..corpus import Corpus
from ..errors import GradatimError, ProcessLost, Stopped, TrainingDiverged, UserError
from ..inference.sharing import SharedCall
from ..record import Metrics, write_atomically
from ..stage import Events, StageResult, ignore_events
from .assemble import assemble
from .assemble.tasks import LoadModel, TrainStage

if TYPE_CHECKING:
    from ..processes import Processes
    from ..stage import Model
    from .recipe import Recipe

VISIBLE_WITHIN = 10.0
"""Seconds after which a file of rank 0 must be visible to the others; network file systems cache folders."""


@dataclass(frozen=True)
class ReadToken:
    """A check that the run folder is shared: ``path`` holds ``token``."""

    path: Path
    token: str


@dataclass(frozen=True)
class End:
    """The end of a run: its results, or None and the exit code of rank 0."""

    results: list[StageResult] | None
    exit_code: int = 0


class Leader:
    """Rank 0 of a run: ends it on all ranks, and names the process that was lost."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.results: list[StageResult] | None = None

    def __enter__(self) -> Leader:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.processes.size == 1:
            return
        if isinstance(error, ProcessLost):
            raise ProcessLost(error.message, where=self.folder, hint=resume_hint([self.folder])) from error
        if self.processes.in_step:
            exit_code = error.exit_code if isinstance(error, GradatimError) else 1
            with contextlib.suppress(ProcessLost):
                self.processes.broadcast(End(None if error else self.results, exit_code))

    def check_shared_folder(self) -> None:
        """Raise ``UserError`` unless every process reads what rank 0 writes to the run folder."""
        if self.processes.size == 1:
            return
        path, token = self.folder / ".processes", secrets.token_hex(8)
        write_atomically(path, token.encode())
        try:
            with self.processes.shared(ReadToken(path, token)):
                visible = self.processes.gather(True)
        finally:
            path.unlink(missing_ok=True)
        if not all(visible):
            blind = [str(rank) for rank, sees in enumerate(visible) if not sees]
            raise UserError(
                "the processes of a run share its folder, and some do not see the files of process 0",
                where=self.folder,
                given=f"process {', '.join(blind)} of {self.processes.size}",
                hint="--out on a file system that all machines share, under the same path",
            )


def resume_hint(folders: Sequence[Path]) -> str:
    """The advice after a lost process: the last checkpoint in the run ``folders``, where the same command goes on."""
    states = [path for folder in folders for path in sorted(folder.glob("cycle-*/stage-*/checkpoint/state.json"))]
    for path in reversed(states):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            step = int(json.loads(path.read_text())["step"])
            return f"the same command, which goes on from step {step} of {path.parent.parent}"
    return "the same command, which goes on from the last finished step"


def serve(recipe: Recipe, processes: Processes, events: Events = ignore_events) -> list[StageResult]:
    """Carry out the tasks of rank 0 until it ends; return the results of the run.

    Raises ``ProcessLost`` when rank 0 ended without results, with its exit code.
    """
    worker = _Worker(recipe, processes, events)
    while True:
        task = processes.broadcast()
        if isinstance(task, End):
            if task.results is None:
                raise ProcessLost("process 0 ended the run", reported=True, exit_code=task.exit_code)
            return task.results
        worker.carry_out(task)


class _Worker:
    """The state of a rank other than 0: the components, and the model of the last ``LoadModel``."""

    def __init__(self, recipe: Recipe, processes: Processes, events: Events) -> None:
        self.processes, self.events = processes, events
        self.components = assemble(recipe, processes=processes)
        self.student: Model | None = None

    def carry_out(self, task: Any) -> None:
        """Take part in one task; ``TypeError`` for an unknown one."""
        if isinstance(task, TrainStage):
            self.student = None
            with contextlib.suppress(Stopped, TrainingDiverged):  # rank 0 reports them
                self._train(task)
        elif isinstance(task, LoadModel):
            self.student = self.components.open_model(task.folder)
        elif isinstance(task, SharedCall):
            own = task.function(self.student, **task.shares[self.processes.rank], events=self.events)
            self.processes.gather(own)
        elif isinstance(task, ReadToken):
            self.processes.gather(_reads(task))
        else:
            raise TypeError(f"no task of a rank: {type(task).__name__}")

    def _train(self, task: TrainStage) -> None:
        metrics = Metrics(task.folder / "metrics.jsonl")  # never written on this rank
        trainer = self.components.stage_trainer(Corpus(task.corpus, {}, task.first), metrics)
        trainer.fit(task.stage, task.folder, task.previous, self.events)


def _reads(task: ReadToken) -> bool:
    """Whether the token becomes visible in time."""
    return any(_content(task.path) == task.token for _ in _attempts())


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None


def _attempts() -> Iterator[None]:
    """Attempts at intervals, for ``VISIBLE_WITHIN`` seconds."""
    end = time.monotonic() + VISIBLE_WITHIN
    while time.monotonic() < end:
        yield
        time.sleep(0.1)
