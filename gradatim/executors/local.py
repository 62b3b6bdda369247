"""Processes of this machine as an executor, one per core by default."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from ..errors import UserError, WorkFailed
from ..processes import available_cores


class LocalExecutor:
    """``max_workers`` spawned processes. A process that is killed ends all of them: ``WorkFailed``."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        # Not forked: the caller may have threads. Only the caller handles Ctrl-C.
        ignore_interrupts = (signal.SIGINT, signal.SIG_IGN)
        self._pool = ProcessPoolExecutor(max_workers, get_context("spawn"), signal.signal, ignore_interrupts)

    @property
    def max_workers(self) -> int:
        return self._max_workers

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        inner = self._pool.submit(function, *arguments)
        inner.add_done_callback(lambda done: _copy(done, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _copy(done: Future[Any], outer: Future[Any]) -> None:
    """Pass the outcome on, unless the outer future was cancelled."""
    if not outer.set_running_or_notify_cancel():
        return
    if done.cancelled():
        outer.set_exception(WorkFailed("the task was cancelled", where="local"))
    elif isinstance(error := done.exception(), BrokenProcessPool):
        hint = "fewer processes, or in a script the usual `if __name__ == '__main__'` around the call"
        outer.set_exception(WorkFailed("a process was killed, perhaps for lack of memory", where="local", hint=hint))
    elif error is not None:
        outer.set_exception(error)
    else:
        outer.set_result(done.result())


def local(address: str | None, *, threads: int = 1, accelerator: bool = False) -> LocalExecutor:
    """Processes of this machine: ``local``, or ``local:4`` for their number."""
    if address is not None and not (address.isdecimal() and 1 <= int(address) <= 1024):
        raise UserError("this is no number of processes", where="--on local", given=address, allowed="local:1 to 1024")
    cores = available_cores()
    return LocalExecutor(int(address) if address else max(1, cores // max(threads, 1)))
