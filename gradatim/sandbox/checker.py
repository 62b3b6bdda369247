"""Which Python candidates pass their tests?

``PythonChecker`` is the front: jobs in, verdicts out, in the same order, several at a time. It owns the workers; each
has a thread that waits for it, while the work is done in the worker's own processes. The verdict is decided in
the worker's tester, never in the candidate's process and never in this one (``inside.tester`` tells how).

A verdict does not depend on how many workers there are or what else the machine does: CPU time decides ``timeout``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import UserError
from ..stage import Event, Events, ignore_events
from .limits import Limits
from .preflight import require_walls
from .verdict import Verdict
from .workers import PythonJob, Worker

__all__ = ["PythonChecker", "PythonJob", "awaited"]

MOST_WORKERS = 64
BEAT = 0.5
"""Seconds between two events while a program runs: whoever hears them may want to stop."""


def awaited(future: Future[Verdict], beat: Callable[[], None]) -> Verdict:
    """The verdict when it is there; ``beat`` is called now and then until it is."""
    while True:
        try:
            return future.result(BEAT)
        except TimeoutError:
            if future.done():  # it was the check's own
                return future.result()
            beat()


class PythonChecker:
    """Warm workers that check Python candidates; close it, or use it as a context manager.

    ``limits`` are for each candidate. ``packages`` names installed packages (``numpy``) that candidates and tests may
    import beside the standard library. ``unsafe`` goes on without walls: a candidate can then do whatever the user
    can. Raises ``SandboxMissing`` where the walls cannot be had.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        limits: Limits | None = None,
        packages: Sequence[str] = (),
        unsafe: bool = False,
    ) -> None:
        if not 1 <= workers <= MOST_WORKERS:
            raise UserError("this number of workers cannot be had", given=workers, allowed=f"1 to {MOST_WORKERS}")
        if not unsafe:
            require_walls()
        limits = limits or Limits(cpu_seconds=3.0)
        self._idle = [Worker(limits, slot=slot, packages=packages, unsafe=unsafe) for slot in range(workers)]
        self._workers = tuple(self._idle)
        self._mine = threading.local()
        # One thread a worker, kept: the kernel ends a sandbox with the thread that started it.
        self._threads = ThreadPoolExecutor(workers, "gradatim-check", self._adopt)

    def check(self, jobs: Iterable[PythonJob], events: Events = ignore_events) -> Iterator[Verdict]:
        """The verdicts, in the order of ``jobs``, which are read as they are needed."""
        ahead: deque[Future[Verdict]] = deque()
        done = 0
        total = len(jobs) if isinstance(jobs, Sequence) else None
        events(Event("start", "check", total=total))

        def advance() -> None:
            events(Event("advance", "check", done, total))

        try:
            for job in jobs:
                ahead.append(self._threads.submit(self._check, job))
                if len(ahead) > 2 * len(self._workers):
                    yield awaited(ahead.popleft(), advance)
                    done += 1
                    advance()
            while ahead:
                yield awaited(ahead.popleft(), advance)
                done += 1
                advance()
        finally:
            for each in ahead:
                each.cancel()
            events(Event("finish", "check", done, total))

    def close(self) -> None:
        """End every worker and what runs in it; safe to call twice."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PythonChecker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _adopt(self) -> None:
        self._mine.worker = self._idle.pop()

    def _check(self, job: PythonJob) -> Verdict:
        verdict: Verdict = self._mine.worker.check(job)
        return verdict
