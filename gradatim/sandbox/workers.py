"""Workers that check one Python candidate at a time, and are replaced when they break.

A ``Worker`` is two long-lived interpreters, each in its own sandbox: the *fork server*, which forks once per candidate,
and the *tester*, which runs the tests (both in ``inside``). For each job a new socket pair connects them; the tester's
answer is awaited, then the fork server stops the candidate and reports its usage. The source goes from the tester to
the candidate over that socket; the tests go to the tester only.

A worker that violates the protocol is killed with all its processes, and the job is repeated once on a new one.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import WorkFailed
from .inside.fork_server import LENGTH, REPORT
from .inside.serializer import Unsendable
from .inside.tester import ANSWER
from .inside.writer import encode
from .interpreter import PACKAGES, Damaged, Interpreter, Role
from .limits import MIB, Limits
from .verdict import Verdict

__all__ = ["MAX_SOURCE", "PythonJob", "Worker"]

MAX_SOURCE = MIB
"""Maximum length of a program, in characters."""

ATTEMPTS = 2
JOBS = 5000
"""Jobs after which a worker is replaced, because of state that tests may leave in the tester."""

TESTS_MEMORY = 2 << 30


@dataclass(frozen=True)
class PythonJob:
    """One candidate: the program is ``prompt + completion``.

    ``tests`` either define ``check(candidate)``, which is called with ``entry_point`` (HumanEval), or are plain
    asserts (MBPP). With ``entry_point`` None, names that the tests use without defining them are taken from the
    prompt's helpers, then from the program.
    """

    prompt: str
    completion: str
    tests: str
    entry_point: str | None = None


class Worker:
    """A fork server and a tester, started on first use; for one thread at a time.

    ``slot`` distinguishes the workers of one process; ``packages`` are installed top-level packages that programs and
    tests may import in addition to the standard library.
    """

    def __init__(self, limits: Limits, *, slot: int = 0, packages: Sequence[str] = (), unsafe: bool = False) -> None:
        self._limits, self._slot, self._packages, self._unsafe = limits, slot, tuple(packages), unsafe
        self._fork_server: Interpreter | None = None
        self._tester: Interpreter | None = None
        self._closed = False
        self._jobs = 0

    def check(self, job: PythonJob) -> Verdict:
        """Check one job. Raises ``WorkFailed`` if no worker can be started."""
        size = len(job.prompt) + len(job.completion)
        if size > MAX_SOURCE:
            return Verdict("invalid", f"the program has {size} characters; allowed: at most {MAX_SOURCE}")
        try:
            message, _ = encode((job.prompt, job.completion, job.tests, job.entry_point))
        except Unsendable as error:
            return Verdict("unjudged", f"the tests cannot be used: {error}")
        for _ in range(ATTEMPTS):
            fork_server, tester = self._interpreters()
            try:
                letter, exhausted, reason, report = _exchange(fork_server, tester, message)
            except Damaged as error:
                last = _broken(error)
                self._kill()
                continue
            if exhausted:
                self._kill()
            return _verdict(letter, reason, report, self._limits)
        return last

    def close(self) -> None:
        """Kill both interpreters and their processes; a check in progress in another thread fails."""
        self._closed = True
        self._kill()

    def _kill(self) -> None:
        for interpreter in (self._fork_server, self._tester):
            if interpreter is not None:
                interpreter.kill()
        self._fork_server = self._tester = None
        self._jobs = 0

    def _interpreters(self) -> tuple[Interpreter, Interpreter]:
        if self._closed:
            raise WorkFailed("the checker has been closed")
        self._jobs += 1
        if self._jobs > JOBS:
            self._kill()
        if self._fork_server is None or self._tester is None:
            self._kill()
            settings = _settings(self._limits, bool(self._packages), self._unsafe)
            self._tester = self._start("tester", settings, 2 * self._slot)
            self._fork_server = self._start("fork_server", settings, 2 * self._slot + 1)
            try:
                for interpreter in (self._tester, self._fork_server):
                    interpreter.await_ready()
            except WorkFailed:
                if self._closed:
                    raise WorkFailed("the checker has been closed") from None
                raise
        return self._fork_server, self._tester

    def _start(self, role: Role, settings: dict[str, Any], slot: int) -> Interpreter:
        return Interpreter(role, settings, packages=self._packages, unsafe=self._unsafe, slot=slot)


def _settings(limits: Limits, packages: bool, unsafe: bool) -> dict[str, Any]:
    wall = limits.wall
    return asdict(limits) | {
        "sandboxed": not unsafe,
        "wall_seconds": wall,
        "tests_wall_seconds": wall + limits.cpu_seconds + 5,
        "tests_memory_bytes": max(TESTS_MEMORY, limits.memory_bytes),
        "packages": PACKAGES if packages and not unsafe else "",
    }


def _exchange(fork_server: Interpreter, tester: Interpreter, message: bytes) -> tuple[Any, bool, str, Any]:
    """Run one candidate; the tester's letter, whether to replace it, its reason, the fork server's report."""
    candidate_end, tester_end = _socket.socketpair()  # the C module avoids the cost of enum conversion
    try:
        fork_server.send(b"J", candidate_end.fileno())
        tester.send(LENGTH.pack(len(message)) + message, tester_end.fileno())
    finally:
        candidate_end.close()
        tester_end.close()
    letter, exhausted, length = ANSWER.unpack(tester.receive(ANSWER.size))
    reason = tester.receive(length).decode("utf-8", "replace")
    fork_server.send(b"L" if letter == b"l" else b"S")
    report = REPORT.unpack(fork_server.receive(REPORT.size))
    if report[0] == b"x":
        raise Damaged("sandbox", os.strerror(report[1]))
    return letter, exhausted, reason, report


def _broken(error: Damaged) -> Verdict:
    """Verdict on a job that broke a worker: not ``unjudged`` if its program can have been the cause."""
    if error.role == "tester":
        return Verdict("timeout", f"the tests did not end with its answers ({error})")
    if error.role == "fork_server":
        return Verdict("failed", f"the program broke the interpreter that it was started from ({error})")
    return Verdict("unjudged", f"the sandbox of a candidate could not be set up: {error}")


def _verdict(letter: bytes, reason: str, report: tuple[bytes, int, float, float], limits: Limits) -> Verdict:
    """Verdict from the tester's letter and, if the connection was lost, from the fork server's report."""
    ending, code, cpu, _ = report
    if letter == b"p" and cpu > limits.cpu_seconds:
        # The total includes children that started and ended between two measurements.
        return Verdict("timeout", f"the program used more than {limits.cpu_seconds:g} s of CPU time", cpu)
    if letter == b"p":
        return Verdict("passed", reason, cpu)
    if letter == b"t":
        return Verdict("timeout", f"the tests took more than {limits.cpu_seconds:g} s on its answers", cpu)
    if letter == b"l":
        endings = {
            b"t": ("timeout", f"the program used more than {limits.cpu_seconds:g} s of CPU time"),
            b"w": ("timeout", f"the program had not ended after {limits.wall:g} s on the clock"),
            b"m": ("failed", f"the program held more than {limits.memory_bytes} bytes of memory"),
            b"s": ("failed", f"the program was killed by signal {code} before the tests were over"),
            b"k": ("failed", "the program stopped answering"),
        }.get(ending, ("failed", f"the program ended (exit code {code}) before the tests were over"))
        return Verdict(endings[0], endings[1], cpu)  # type: ignore[arg-type]
    return Verdict("failed" if letter == b"f" else "invalid" if letter == b"i" else "unjudged", reason, cpu)
