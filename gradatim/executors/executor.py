"""The Executor protocol, its registry, and the executor of the current block.

``open_executor`` reads an address: ``local``, ``ray``, ``ray:HOST:PORT``, ``ray://HOST:PORT`` or ``HOST:PORT`` (of a
Ray cluster). ``ordered`` yields the results of tasks in the order of their chunks, with few of them pending.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import UserError
from ..registry import Contract, Registry

if TYPE_CHECKING:
    from concurrent.futures import Future

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

BEAT = 0.5
"""Seconds between two calls of ``beat`` while a result is awaited."""
PENDING = 3
"""Pending tasks for each worker: one runs, the others hide the time of sending."""


class Executor(Protocol):
    """Processes that run tasks: the part of ``concurrent.futures.Executor`` that is used here.

    A task whose process ends without a result (killed, machine lost) is run again or raises ``WorkFailed``.
    """

    @property
    def max_workers(self) -> int:
        """Number of tasks that run at the same time."""
        ...

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """The future of ``function(*arguments)``, which are pickled; errors of the function are raised unchanged."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with ``cancel_futures`` without the tasks that have not begun."""
        ...


EXECUTORS: Registry[Callable[..., Executor]] = Registry(
    "executor", contracts=(Contract(Executor, ("max_workers", "submit", "shutdown")),), arguments=1
)
EXECUTORS.lazy("local", "gradatim.executors.local:local", "processes of this machine")
EXECUTORS.lazy("ray", "gradatim.executors.ray:ray", "a Ray cluster, or without one Ray on this machine")

_current: ContextVar[Executor | None] = ContextVar("executor", default=None)


def current() -> Executor | None:
    """The executor of this block; None outside of ``use``."""
    return _current.get()


def open_executor(address: str, *, threads: int = 1, accelerator: bool = False) -> Executor:
    """The executor at ``address``: NAME, NAME:ADDRESS, NAME://ADDRESS, or HOST:PORT of a Ray cluster.

    ``threads``: CPU cores of a task. ``accelerator``: a task uses one accelerator of its machine, if it has any.
    Raises ``UnknownPart`` for another name, and ``UserError`` where the executor cannot be reached.
    """
    name, separator, rest = address.partition(":")
    if re.fullmatch(r"\d{1,5}", rest) and name not in EXECUTORS:
        name, rest = "ray", address
    elif rest.startswith("//"):
        rest = address
    if separator and not rest:
        raise UserError("an executor has an address after the colon", where="--on", given=address, hint=name)
    options = {"threads": threads, "accelerator": accelerator}
    executor: Executor = EXECUTORS.make(name, rest or None, where="--on", options=options)
    return executor


@contextlib.contextmanager
def use(executor: str | Executor | None, *, threads: int = 1, accelerator: bool = False) -> Iterator[Executor | None]:
    """Select the executor of the functions that are called in the block, by address (``open_executor``) or object.

    An executor given by its address is shut down at the end. None: no executor, so that each function uses this process
    and its own workers.
    """
    opened = open_executor(executor, threads=threads, accelerator=accelerator) if isinstance(executor, str) else None
    token = _current.set(opened if isinstance(executor, str) else executor)
    try:
        yield _current.get()
    finally:
        _current.reset(token)
        if opened is not None:
            opened.shutdown(cancel_futures=True)


def ordered(
    executor: Executor,
    function: Callable[[Chunk], Result],
    chunks: Iterable[Chunk],
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """``function`` of each chunk, in order. Chunks are read as needed, so that memory does not grow with their number.

    ``beat`` is called at intervals while a result is awaited; an exception that it raises ends the iteration.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for chunk in chunks:
            pending.append(executor.submit(function, chunk))
            if len(pending) >= PENDING * executor.max_workers:
                yield await_result(pending.popleft(), beat)
        while pending:
            yield await_result(pending.popleft(), beat)
    finally:
        for future in pending:
            future.cancel()


def await_result(future: Future[Result], beat: Callable[[], None]) -> Result:
    """Wait for the result of ``future``; ``beat`` is called every ``BEAT`` seconds until it is available."""
    while True:
        try:
            return future.result(BEAT)
        except TimeoutError:
            if future.done():  # the TimeoutError was raised by the task itself
                return future.result()
            beat()
