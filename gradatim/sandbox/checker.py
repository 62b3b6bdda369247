"""Functional tests of Python candidates: jobs in, verdicts out, in the same order, several at a time.

``PythonChecker`` owns the workers. Each worker has a thread that waits for it, while the work is done in the worker's
processes. The verdict is decided by the worker's tester (``inside.tester``), never in the candidate's process and never
in this one. It does not depend on the number of workers or the load of the machine: CPU time decides ``timeout``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import UserError
from ..stage import Event, Events, ignore_events
from .command import require_sandbox
from .interpreter import PythonJob, Worker
from .limits import Limits
from .verdict import Verdict

MAX_WORKERS = 64
BEAT = 0.5
"""Seconds between two events while a program runs, at which a listener may stop the work."""


def await_verdict(future: Future[Verdict], beat: Callable[[], None]) -> Verdict:
    """Wait for a verdict; ``beat`` is called at intervals until it is available."""
    while True:
        try:
            return future.result(BEAT)
        except TimeoutError:
            if future.done():  # the TimeoutError was raised by the check itself
                return future.result()
            beat()


class PythonChecker:
    """Warm workers that check Python candidates; a context manager, or to be closed.

    ``limits`` apply to each candidate. ``packages`` names installed packages (``numpy``) that candidates and tests may
    import in addition to the standard library. ``unsafe`` runs without sandbox: a candidate then has all access of the
    user. Raises ``SandboxMissing`` if the sandbox is incomplete.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        limits: Limits | None = None,
        packages: Sequence[str] = (),
        unsafe: bool = False,
    ) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise UserError("the number of workers is out of range", given=workers, allowed=f"1 to {MAX_WORKERS}")
        if not unsafe:
            require_sandbox()
        limits = limits or Limits(cpu_seconds=3.0)
        self._idle = [Worker(limits, slot=slot, packages=packages, unsafe=unsafe) for slot in range(workers)]
        self._workers = tuple(self._idle)
        self._local = threading.local()
        # One permanent thread per worker: the kernel ends a sandbox with the thread that started it.
        self._threads = ThreadPoolExecutor(workers, "gradatim-check", self._adopt)

    def check(self, jobs: Iterable[PythonJob], events: Events = ignore_events) -> Iterator[Verdict]:
        """Yield the verdicts in the order of ``jobs``, which are read as needed."""
        pending: deque[Future[Verdict]] = deque()
        done = 0
        total = len(jobs) if isinstance(jobs, Sequence) else None
        events(Event("start", "check", total=total))

        def advance() -> None:
            events(Event("advance", "check", done, total))

        try:
            for job in jobs:
                pending.append(self._threads.submit(self._check, job))
                if len(pending) > 2 * len(self._workers):
                    yield await_verdict(pending.popleft(), advance)
                    done += 1
                    advance()
            while pending:
                yield await_verdict(pending.popleft(), advance)
                done += 1
                advance()
        finally:
            for future in pending:
                future.cancel()
            events(Event("finish", "check", done, total))

    def close(self) -> None:
        """End all workers and their programs; may be called twice."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PythonChecker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _adopt(self) -> None:
        self._local.worker = self._idle.pop()

    def _check(self, job: PythonJob) -> Verdict:
        verdict: Verdict = self._local.worker.check(job)
        return verdict
