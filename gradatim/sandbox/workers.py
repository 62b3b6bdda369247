"""How is one Python candidate tried, and what if the process that tries it breaks?

A ``Worker`` is two interpreters that stay, each in a sandbox of its own: the *nest*, which forks once per candidate,
and the *tester*, which runs the tests (``inside`` has both sides). For each job this module makes a fresh socket, gives
one end to either, and waits for the tester's answer; then it has the nest stop the candidate and report what it used.
The source goes from the tester to the candidate over that socket. The tests go to the tester only.

A worker that does not answer as it should is thrown away with all that lives in it, and the job is tried once more on a
new one.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import WorkFailed
from .inside.codec import Unsendable, encode
from .inside.nest import LENGTH, REPORT
from .inside.tester import ANSWER
from .interpreter import PACKAGES, Damaged, Interpreter, Role
from .limits import MIB, Limits
from .verdict import Verdict

__all__ = ["MAX_SOURCE", "PythonJob", "Worker"]

MAX_SOURCE = MIB
"""The longest program that is tried, in characters."""

ATTEMPTS = 2
JOBS = 5000
"""After so many a worker is replaced, whatever the tests of all of them may have left in the tester."""

TESTS_MEMORY = 2 << 30


@dataclass(frozen=True)
class PythonJob:
    """One candidate: the program is ``prompt + completion``.

    ``tests`` either define ``check(candidate)``, which is called with ``entry_point`` (HumanEval), or are plain
    asserts (MBPP). With ``entry_point`` None, the names that the tests use without defining them are taken from
    the prompt's helpers, then from the program.
    """

    prompt: str
    completion: str
    tests: str
    entry_point: str | None = None


class Worker:
    """A nest and a tester, started when first needed. Not for two threads at once.

    ``slot`` tells workers of one process apart; ``packages`` are top-level packages of this Python's environment that
    programs and tests may import beside the standard library.
    """

    def __init__(self, limits: Limits, *, slot: int = 0, packages: Sequence[str] = (), unsafe: bool = False) -> None:
        self._limits, self._slot, self._packages, self._unsafe = limits, slot, tuple(packages), unsafe
        self._nest: Interpreter | None = None
        self._tester: Interpreter | None = None
        self._closed = False
        self._done = 0

    def check(self, job: PythonJob) -> Verdict:
        """The verdict on one job. Raises ``WorkFailed`` when no worker can be started."""
        size = len(job.prompt) + len(job.completion)
        if size > MAX_SOURCE:
            return Verdict("invalid", f"the program has {size} characters; allowed: at most {MAX_SOURCE}")
        try:
            message, _ = encode((job.prompt, job.completion, job.tests, job.entry_point))
        except Unsendable as error:
            return Verdict("unjudged", f"the tests cannot be used: {error}")
        for _ in range(ATTEMPTS):
            nest, tester = self._started()
            try:
                letter, worn, reason, report = _exchange(nest, tester, message)
            except Damaged as error:
                last = _broken(error)
                self._stop()
                continue
            if worn:
                self._stop()
            return _verdict(letter, reason, report, self._limits)
        return last

    def close(self) -> None:
        """End both interpreters and all that runs in them; a check under way in another thread fails."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        for each in (self._nest, self._tester):
            if each is not None:
                each.kill()
        self._nest = self._tester = None
        self._done = 0

    def _started(self) -> tuple[Interpreter, Interpreter]:
        if self._closed:
            raise WorkFailed("the checker has been closed")
        self._done += 1
        if self._done > JOBS:
            self._stop()
        if self._nest is None or self._tester is None:
            self._stop()
            settings = _settings(self._limits, bool(self._packages), self._unsafe)
            self._tester = self._start("tester", settings, 2 * self._slot)
            self._nest = self._start("nest", settings, 2 * self._slot + 1)
            try:
                for each in (self._tester, self._nest):
                    each.await_ready()
            except WorkFailed:
                if self._closed:
                    raise WorkFailed("the checker has been closed") from None
                raise
        return self._nest, self._tester

    def _start(self, role: Role, settings: dict[str, Any], slot: int) -> Interpreter:
        return Interpreter(role, settings, packages=self._packages, unsafe=self._unsafe, slot=slot)


def _settings(limits: Limits, packages: bool, unsafe: bool) -> dict[str, Any]:
    wall = limits.wall
    return asdict(limits) | {
        "walls": not unsafe,
        "wall_seconds": wall,
        "tests_wall_seconds": wall + limits.cpu_seconds + 5,
        "tests_memory_bytes": max(TESTS_MEMORY, limits.memory_bytes),
        "packages": PACKAGES if packages and not unsafe else "",
    }


def _exchange(nest: Interpreter, tester: Interpreter, message: bytes) -> tuple[Any, bool, str, Any]:
    """One candidate on both sides: the tester's letter, whether it is worn, its reason, the nest's report."""
    ours, theirs = _socket.socketpair()  # without the layer that gives their numbers names
    try:
        nest.send(b"J", ours.fileno())
        tester.send(LENGTH.pack(len(message)) + message, theirs.fileno())
    finally:
        ours.close()
        theirs.close()
    letter, worn, length = ANSWER.unpack(tester.receive(ANSWER.size))
    reason = tester.receive(length).decode("utf-8", "replace")
    nest.send(b"L" if letter == b"l" else b"S")
    report = REPORT.unpack(nest.receive(REPORT.size))
    if report[0] == b"x":
        raise Damaged("walls", os.strerror(report[1]))
    return letter, worn, reason, report


def _broken(error: Damaged) -> Verdict:
    """The verdict on a job that broke a worker. Where its program can have been the cause, it does not go unjudged."""
    if error.role == "tester":
        return Verdict("timeout", f"the tests came to no end with its answers ({error})")
    if error.role == "nest":
        return Verdict("failed", f"the program broke the interpreter that it was started from ({error})")
    return Verdict("unjudged", f"the walls around a candidate could not be put up: {error}")


def _verdict(letter: bytes, reason: str, report: tuple[bytes, int, float, float], limits: Limits) -> Verdict:
    """What the tester says, and where the program was lost, how the nest saw it end."""
    ending, code, cpu, _ = report
    if letter == b"p" and cpu > limits.cpu_seconds:
        # Children that came and went between two looks at the tree are in the total all the same.
        return Verdict("timeout", f"the program used more than {limits.cpu_seconds:g} s of CPU time", cpu)
    if letter == b"p":
        return Verdict("passed", reason, cpu)
    if letter == b"t":
        return Verdict("timeout", f"the tests, given its answers, took more than {limits.cpu_seconds:g} s", cpu)
    if letter == b"l":
        lost = {
            b"t": ("timeout", f"the program used more than {limits.cpu_seconds:g} s of CPU time"),
            b"w": ("timeout", f"the program was not done after {limits.wall:g} s on the clock"),
            b"m": ("failed", f"the program held more than {limits.memory_bytes} bytes of memory"),
            b"s": ("failed", f"the program was killed by signal {code} before the tests were over"),
            b"k": ("failed", "the program stopped answering"),
        }.get(ending, ("failed", f"the program ended (exit code {code}) before the tests were over"))
        return Verdict(lost[0], lost[1], cpu)  # type: ignore[arg-type]
    return Verdict("failed" if letter == b"f" else "invalid" if letter == b"i" else "unjudged", reason, cpu)
