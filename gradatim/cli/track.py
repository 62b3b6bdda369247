"""``gradatim track``: send the metrics and results of runs to a tracker.

``tracking`` starts the same command beside a training (``--track``) and ends it with the training: the two share
nothing but the run folder, so that a tracker cannot change or delay a step.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from .. import reporting
from ..errors import RunFolderError, Stopped, TrackerFailed
from ..processes import is_other_rank
from ..stage import Event
from ..tracking import TRACKERS
from .output import Json, heeding_signals, output, print_json, print_notes, table

TRACK_EXAMPLES = (
    "gradatim track runs/demo --to tensorboard",
    "gradatim track runs/a runs/b --to wandb --project curricula --follow",
)
LONGEST_DELAY = 300.0
"""Seconds between attempts to reach a tracker that failed."""
LAST_CALL = 60.0
"""Seconds after the end of a training in which its tracker may send the rest."""
ALONE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a launcher, which the process of a tracker does not join."""

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Also send metrics and results to a tracker (gradatim list trackers), from a process of its own; "
        "repeatable.",
    ),
]


def track(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run or study folders, finished or not.")],
    to: Annotated[str, typer.Option(help="Tracker (gradatim list trackers).")],
    project: Annotated[
        str | None, typer.Option(help="Project of the tracker. (default: the study's folder name, or gradatim)")
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Folder for local files: event files in tensorboard/, offline runs in wandb/. (default: the study's "
            "or the run's folder)",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with runs in progress until they are finished, or Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks at the runs, with --follow.")] = 10,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Send the metrics and results of runs to a tracker, each entry once.

    The group is the arm, the name the seed, the step the number of optimizer steps since the start of the run. Repeat
    the command to send what is new; the position is stored in the run folder.
    """
    from ..tracking.send import Sender

    if not attached:
        _check_folders(folders)
    problem: TrackerFailed | None = None
    with heeding_signals() as stop_requested, Sender(folders, to, project, local) as sender:
        delay, last = every, False
        while True:
            try:
                finished = sender.send()
                problem, delay = None, every
            except TrackerFailed as error:
                if not follow:
                    raise
                if problem is None:
                    print_notes(Event("note", "track", text=f"{error}; the next attempt follows"))
                problem, finished, delay = error, False, min(delay * 2, LONGEST_DELAY)
            if last or not follow or (finished and not attached):
                break
            last = _wait(delay, stop_requested, attached)
            if last and not attached:
                break
    if stop_requested():
        raise Stopped("stopped; the same command sends the rest")
    if problem is not None:
        raise problem
    _print(list(sender.sent.values()), to, as_json)


def _check_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not reporting.run_folders(folder):
            raise RunFolderError(
                "no run in this folder",
                where=folder,
                allowed="a study (study.json) or a run (recipe.yaml or cycle-00)",
                hint="check the path, or start one with `gradatim run` or `gradatim study`",
            )


def _wait(seconds: float, stop_requested: Callable[[], bool], attached: bool) -> bool:
    """Wait; whether to stop. An attached process stops when its standard input is closed."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stop_requested():
            return True
        if not attached:
            time.sleep(min(left, 0.2))
        elif select.select([sys.stdin], [], [], min(left, 0.2))[0]:
            return True
    return stop_requested()


def _print(sent: Sequence[Any], to: str, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "folder": str(one.run.folder),
                    "arm": one.run.arm,
                    "seed": one.run.seed,
                    "sent": one.now,
                    "total": one.total,
                    "address": one.address or None,
                }
                for one in sent
            ]
        )
        return
    rows = [(f"{one.run.arm}, seed {one.run.seed}", one.now, one.total, one.address or None) for one in sent]
    output().print(table((to, "entries sent", "in all", "see"), rows))


def check_trackers(names: Sequence[str] | None) -> list[str]:
    """The names of ``--track``, each a tracker whose packages are installed. Raises ``UserError``."""
    for name in names or ():
        TRACKERS.get(name, where="--track")
    return list(dict.fromkeys(names or ()))


@contextlib.contextmanager
def tracking(folders: Sequence[Path], trackers: Sequence[str]) -> Iterator[None]:
    """Context in which a process for each of ``trackers`` follows ``folders``; none on other ranks than 0."""
    started = [] if is_other_rank() else [_start(folders, name) for name in trackers]
    try:
        yield
    finally:
        for process, _ in started:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        deadline = time.monotonic() + LAST_CALL
        for name, (process, thread) in zip(trackers, started, strict=False):
            _end(process, name, folders, deadline)
            thread.join(5)  # a process that the tracker itself has started may keep the pipe open


def _start(folders: Sequence[Path], name: str) -> tuple[subprocess.Popen[str], threading.Thread]:
    """The process of a tracker, and the thread that prints its messages to standard error."""
    words = ["track", *map(str, folders), "--to", name, "--follow", "--attached"]
    environment = {key: value for key, value in os.environ.items() if key not in ALONE}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "gradatim", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C stops the training, whose last entries are sent afterwards
    )
    assert process.stderr is not None
    thread = threading.Thread(target=_relay, args=(process.stderr,), daemon=True)
    thread.start()
    return process, thread


def _relay(stream: IO[str]) -> None:
    with stream:
        for line in stream:
            print(line, end="", file=sys.stderr, flush=True)


def _end(process: subprocess.Popen[str], name: str, folders: Sequence[Path], deadline: float) -> None:
    """Wait for the process of a tracker until ``deadline``, then kill it; its result changes nothing here."""
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        process.kill()
        command = f"gradatim track {' '.join(map(str, folders))} --to {name}"
        text = f"tracker {name}: no answer within {LAST_CALL:.0f} s; {command} sends the rest"
        print_notes(Event("note", "track", text=text))
    except BaseException:
        process.kill()
        raise
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
