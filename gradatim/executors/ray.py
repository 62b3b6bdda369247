"""Tasks on a Ray cluster (Ray Core): an executor whose killed tasks are run again.

Without an address, the cluster of RAY_ADDRESS or one that runs on this machine; otherwise Ray is started here for the
duration. The machines need the same version of Gradatim, and of Python. A task whose process or machine is lost is run
again, ``RETRIES`` times at most. Ray isolates nothing: untrusted programs run in the sandbox of each worker.

Ray's statistics of use are not sent, unless RAY_USAGE_STATS_ENABLED=1 asks for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from ..errors import GradatimError, UserError, WorkFailed

RETRIES = 3
"""Further attempts at a task whose process or machine was lost."""
CONNECT_SECONDS = 5.0
"""The longest wait for the address of a cluster to answer."""


class RayExecutor:
    """An executor on the connected cluster; ``threads`` CPUs and ``accelerators`` GPUs for each task.

    ``owned``: the connection was opened for this executor and is closed by ``shutdown``.
    """

    def __init__(self, ray: Any, *, threads: int, accelerators: int, owned: bool) -> None:
        self._ray, self._owned = ray, owned
        self._threads, self._accelerators = max(threads, 1), accelerators
        options = {"num_cpus": self._threads, "num_gpus": accelerators, "max_retries": RETRIES}
        self._task = ray.remote(**options)(_call)

    @property
    def max_workers(self) -> int:
        resources = self._ray.cluster_resources()
        tasks = int(resources.get("CPU", 1)) // self._threads
        if self._accelerators:
            tasks = min(tasks, int(resources.get("GPU", 0)) // self._accelerators)
        return max(tasks, 1)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        reference = self._task.remote(version("gradatim"), function, arguments)
        reference.future().add_done_callback(lambda done: _copy(self._ray, done, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._owned:
            self._ray.shutdown()


def _call(sender: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """In a worker: the result of a task."""
    if (here := version("gradatim")) != sender:
        raise UserError(
            "the machines of a cluster need the same version of Gradatim",
            where=f"worker on {socket.gethostname()}",
            given=here,
            allowed=sender,
        )
    return function(*arguments)


def _copy(ray: Any, done: Future[Any], future: Future[Any]) -> None:
    """Pass the outcome of Ray's future on, unless ``future`` was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(_explained(ray, error))


def _explained(ray: Any, error: BaseException) -> BaseException:
    """The task's own error, or one line for an error of Ray."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = getattr(error, "cause", None)
        if isinstance(cause, GradatimError):
            return cause
        return WorkFailed("a task failed on a worker", where="ray", given=f"{type(cause).__name__}: {_line(cause)}")
    first = _line(error)
    if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.NodeDiedError):
        return WorkFailed(
            "the process of a task was lost each time",
            where="ray",
            given=f"{1 + RETRIES} attempts: {first}",
            hint="more memory for each worker, or a smaller batch",
        )
    return WorkFailed("Ray did not complete a task", where="ray", given=f"{type(error).__name__}: {first}")


def _line(error: object) -> str:
    """The first line of an error's text: Ray appends tracebacks."""
    return next(iter(str(error).strip().splitlines()), "")


def ray(address: str | None, *, threads: int = 1, accelerator: bool = False) -> RayExecutor:
    """A Ray cluster: ``ray``, ``ray:HOST:PORT``, or ``ray://HOST:PORT`` through its client server."""
    _check_installed()
    if address is not None:
        _check_answers(address)
    module = _import()
    owned = not module.is_initialized()
    if owned:
        _connect(module, address)
    cores = max((int(node["Resources"].get("CPU", 0)) for node in module.nodes() if node["Alive"]), default=0)
    if 0 < cores < threads:  # a cluster that starts machines on demand may have none yet
        if owned:
            module.shutdown()
        raise UserError("no machine of the cluster has enough cores", where="--on ray", given=threads, allowed=cores)
    gpus = int(module.cluster_resources().get("GPU", 0))
    return RayExecutor(module, threads=threads, accelerators=int(accelerator and gpus > 0), owned=owned)


def _check_installed() -> None:
    if find_spec("ray") is None:
        raise UserError("Ray is not installed", where="--on ray", hint="pip install 'gradatim[ray]' on each machine")


def _import() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default: no message about it
    import ray as module

    return module


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at ``address``. Raises ``UserError`` in one line, within seconds."""
    named = address if address is not None else os.environ.get("RAY_ADDRESS")
    if address is None and named not in (None, "", "auto", "local"):
        _check_answers(str(named))
    if named not in (None, "", "local"):
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # of this process: the error below says it all
    try:
        with _quiet(), _own_signals():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": False} if named in (None, "", "local") else {}),
            )
    except Exception as error:
        raise _refused(named, error) from error


def _check_answers(address: str) -> None:
    """Raise ``UserError`` unless HOST:PORT accepts a connection: Ray itself would wait for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise UserError(
            "this is no address of a Ray cluster",
            where="--on ray",
            given=address,
            allowed="ray, ray:HOST:6379, ray://HOST:10001",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "no Ray cluster answers at this address",
            where="--on ray",
            given=f"{address}: {reason}",
            hint="`ray status` on the cluster; port 6379 within it, ray://HOST:10001 from outside",
        ) from error


def _refused(address: str | None, error: Exception) -> UserError:
    """The error for a cluster that answers and does not accept this process, or that cannot be started."""
    given = f"{address or 'ray'}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if address in (None, "", "local"):
        return UserError("Ray cannot be started on this machine", where="--on ray", given=given, hint="without --on")
    return UserError(
        "the Ray cluster answers, but does not accept this process",
        where="--on ray",
        given=given,
        hint="its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or its file ~/.ray/auth_token), and its versions of "
        "Ray and Python",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Ray's messages about its start, which repeat what a page of its manual says."""
    logger = logging.getLogger("ray")
    level, disabled = logger.level, logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
        logger.setLevel(level)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM, which Ray replaces; they stop the work with its state saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
