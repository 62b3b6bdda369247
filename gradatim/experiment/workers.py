"""Workers of a study: runs in processes of this machine, or as tasks of an executor.

In both cases a stop reaches every run, which saves its state, and a run that fails ends no other run.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from .. import executors
from ..errors import GradatimError, Stopped, WorkFailed
from ..record import write_json
from ..stage import Event, Events, ignore_events
from .recipe import Recipe, parse


def run_in_processes(
    recipes: Mapping[str, Recipe],
    folder: Path,
    workers: int,
    events: Events,
    total: int,
    server: str | None = None,
) -> None:
    """Carry out the runs ``recipes``, {folder name: recipe}, ``workers`` at a time, and pass their events on.

    ``server``: see ``run``.
    """
    events(Event("start", "runs", total - len(recipes), total))
    context = _worker_context()
    events_sent: Any = context.Queue()
    stop = context.Event()
    failed: dict[str, str] = {}
    jobs = deque((name, recipe.model_dump(mode="json")) for name, recipe in recipes.items())
    slots = [_Slot(context, events_sent, stop) for _ in range(workers)] if jobs else []
    left = len(jobs)
    stopped: Stopped | None = None
    try:
        while left:
            for slot in slots:
                if slot.free and jobs and stopped is None:
                    slot.start(*jobs.popleft(), folder, server)
            busy = [slot.job for slot in slots if slot.job is not None]
            if not busy:
                break
            wait(busy, timeout=0.2, return_when=FIRST_COMPLETED)
            try:
                _pass_on(events_sent, events if stopped is None else ignore_events)
                for slot in slots:
                    if slot.job is not None and slot.job.done():
                        name, fault = slot.finish()
                        left -= 1
                        if fault is not None:
                            failed[name] = fault
                        if stopped is None:
                            events(Event("advance", "runs", total - left, total))
            except Stopped as error:
                stopped = error
                stop.set()
    except BaseException:
        stop.set()  # whatever it is, the workers save their state and end
        raise
    finally:
        for slot in slots:
            slot.close()
    if stopped is not None:
        raise stopped
    _raise_failed(failed, total, folder)
    events(Event("finish", "runs", total, total))


STOP_INTERVAL = 1.0
"""Seconds between two looks of a run on an executor for the file that stops it."""


def run_on_executor(
    executor: executors.Executor,
    recipes: Mapping[str, Recipe],
    folder: Path,
    events: Events,
    total: int,
    server: str | None = None,
) -> None:
    """Carry out the runs ``recipes``, {folder name: recipe}, as tasks of ``executor``. ``server``: see ``run``.

    A file in the study's folder, which the machines share, stops the runs: each saves its state. A task that is begun
    again after its process was lost resumes its run.
    """
    events(Event("start", "runs", total - len(recipes), total))
    stop = folder / f".stop-{secrets.token_hex(4)}"
    shared = folder / f"{stop.name}.start"
    write_json(shared, os.getpid())
    tasks = {
        name: executor.submit(run_as_task, name, recipe.model_dump(mode="json"), folder, shared, stop, server)
        for name, recipe in recipes.items()
    }
    failed: dict[str, str] = {}
    stopped: Stopped | None = None
    pending = set(tasks.values())
    try:
        while pending:
            _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            try:
                if stopped is None:
                    events(Event("advance", "runs", total - len(pending), total))
            except Stopped as error:
                stopped = error
                stop.touch()  # tasks that begin later end at once
    except BaseException:
        stop.touch()
        raise
    finally:
        if not pending:
            stop.unlink(missing_ok=True)
        shared.unlink(missing_ok=True)
    if stopped is not None:
        raise stopped
    for name, task in tasks.items():
        if (lost := task.exception()) is not None:
            failed[name] = str(lost)
        elif (fault := task.result()) is not None:
            failed[name] = fault
    _raise_failed(failed, total, folder)
    events(Event("finish", "runs", total, total))


def run_as_task(
    name: str, recipe: dict[str, Any], folder: Path, shared: Path, stop: Path, server: str | None = None
) -> str | None:
    """In a worker of an executor: one run. Returns the fault of a run that failed.

    ``shared``: a file that this machine sees if it shares the study's folder. ``stop``: the file that stops the run.
    """
    from .run import run

    if not shared.exists():
        return f"{folder} is not shared by the machine {socket.gethostname()}, which does not see {shared.name}"
    looked = time.monotonic()

    def listen(event: Event) -> None:
        nonlocal looked
        if time.monotonic() - looked >= STOP_INTERVAL:
            looked = time.monotonic()
            if stop.exists():
                raise Stopped("stopped by the user")

    try:
        if not stop.exists():
            run(parse(recipe), folder / name, store=folder / "data", events=listen, server=server)
    except Stopped:
        return None
    except GradatimError as error:
        return str(error)
    return None


def _raise_failed(failed: Mapping[str, str], total: int, folder: Path) -> None:
    """Raise ``WorkFailed`` for runs that failed; a fault that several have in common is named once."""
    if failed:
        runs: dict[str, list[str]] = {}
        for name, fault in failed.items():
            runs.setdefault(fault, []).append(name)
        raise WorkFailed(
            f"{len(failed)} of {total} runs failed; the others are kept",
            where=folder,
            given="; ".join(f"{', '.join(names)}: {fault}" for fault, names in runs.items()),
            hint="mend the cause and run the same command again",
        )


class _Slot:
    """A place for one run at a time, with a process of its own: one that dies takes no other run with it."""

    def __init__(self, context: Any, events_sent: Any, stop: Any) -> None:
        self._make = partial(ProcessPoolExecutor, 1, context, _listen, (events_sent, stop, dict(os.environ)))
        self._pool: ProcessPoolExecutor | None = None
        self._name = ""
        self.job: Future[None] | None = None

    @property
    def free(self) -> bool:
        return self.job is None

    def start(self, name: str, recipe: dict[str, Any], folder: Path, server: str | None) -> None:
        self._pool = self._pool or self._make()
        self._name, self.job = name, self._pool.submit(_run, name, recipe, folder, server)

    def finish(self) -> tuple[str, str | None]:
        """The name of the run that ended, and what was wrong with it."""
        assert self.job is not None
        job, self.job = self.job, None
        if isinstance(job.exception(), BrokenProcessPool):
            self.close()
        return self._name, _fault(job)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _fault(job: Future[None]) -> str | None:
    error = job.exception()
    if error is None or isinstance(error, Stopped):
        return None
    if isinstance(error, BrokenProcessPool):
        return "its process was killed, perhaps for lack of memory"
    return str(error) if isinstance(error, GradatimError) else f"{type(error).__name__}: {error}"


def _pass_on(events_sent: Any, events: Events) -> None:
    while True:
        try:
            events(events_sent.get_nowait())
        except queue.Empty:
            return


_channel: tuple[Any, Any] | None = None
"""In a worker process: the queue that the study hears and the flag that stops it, set once by ``_listen``."""


def _worker_context() -> Any:
    """Multiprocessing context whose workers are forked from one process that has imported what a run needs.

    Those imports take seconds, so a study pays for them once instead of once per worker. The process that is forked
    computes nothing, ignores Ctrl-C and ends with the process that started it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gradatim.experiment.run", "gradatim.training.trainer"])
    if threading.current_thread() is threading.main_thread():  # it inherits the handler: Ctrl-C cannot end its imports
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, handler)
    return context


def _listen(events_sent: Any, stop: Any, environment: Mapping[str, str]) -> None:
    global _channel
    _channel = (events_sent, stop)
    os.environ.clear()  # the process that this one was forked from has the environment of its own start
    os.environ.update(environment)
    events_sent.cancel_join_thread()  # a worker must not wait at its end for a parent that no longer listens
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The study's own process receives Ctrl-C and stops the workers, so that each saves its state once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """A study that is killed leaves no worker behind: it would hold the lock of its run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(name: str, recipe: dict[str, Any], folder: Path, server: str | None) -> None:
    """In a worker process: one run, its events named after it."""
    from .run import run

    assert _channel is not None
    events_sent, stop = _channel

    def send(event: Event) -> None:
        events_sent.put(replace(event, task=f"{name}: {event.task}"))
        if stop.is_set():
            raise Stopped("stopped by the user")

    send(Event("start", "run"))
    run(parse(recipe), folder / name, store=folder / "data", events=send, server=server)
    send(Event("finish", "run"))
