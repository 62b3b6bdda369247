"""Long-lived Python interpreters in a sandbox, controlled over a socket.

An ``Interpreter`` runs one of the two main functions of ``inside`` (``fork_server``, ``tester``) in a sandbox with a
socket as its only connection. It is the Python of this process without its site packages, except for those named, so
that a candidate cannot import a package that contains a problem set's solutions. This module starts, connects and
kills; ``workers`` implements the protocol.

Workers that check one Python candidate at a time, and are replaced when they break.

A ``Worker`` is two long-lived interpreters, each in its own sandbox: the *fork server*, which forks once per candidate,
and the *tester*, which runs the tests (both in ``inside``). For each job a new socket pair connects them; the tester's
answer is awaited, then the fork server stops the candidate and reports its usage. The source goes from the tester to
the candidate over that socket; the tests go to the tester only.

A worker that violates the protocol is killed with all its processes, and the job is repeated once on a new one.

Functional tests of Python candidates: jobs in, verdicts out, in the same order, several at a time.

``PythonChecker`` owns the workers. Each worker has a thread that waits for it, while the work is done in the worker's
processes. The verdict is decided by the worker's tester (``inside.tester``), never in the candidate's process and never
in this one. It does not depend on the number of workers or the load of the machine: CPU time decides ``timeout``.
"""

from __future__ import annotations

import _socket
import contextlib
import importlib.util
import math
import os
import platform
import signal
import site
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, WorkFailed
from ..executors.executor import await_result
from ..stage import Event, Events, ignore_events
from . import seccomp
from .bwrap import isolate
from .command import require_sandbox
from .inside.fork_server import LENGTH, REPORT
from .inside.serializer import Unsendable
from .inside.tester import ANSWER
from .inside.writer import encode
from .limits import MIB, Limits, Verdict

Role = Literal["fork_server", "tester"]

PATIENCE = 20.0
"""Seconds beyond all limits after which an unresponsive interpreter counts as broken."""

FOLDER = Path(__file__).resolve().parent
PYTHON, PACKAGES, GRADATIM = "/python", "/packages", "/gradatim"
START = "import sys; sys.path[:0] = [sys.argv[2]]; from inside.{0} import main; main()"
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "LD_BIND_NOW": "1"}
"""With the last one, the linker resolves every function once at the start, and not again in each fork."""
NEW_USER = 0x10000000
INT = struct.Struct("@i")
PORTION = 4096


class Damaged(Exception):
    """Failure of a part of the checker; ``role`` is that of the interpreter, or ``sandbox``."""

    def __init__(self, role: str, what: str) -> None:
        super().__init__(what)
        self.role = role


class Interpreter:
    """A sandboxed Python process and its control socket."""

    def __init__(
        self, role: Role, settings: Mapping[str, Any], *, packages: Sequence[str], unsafe: bool, slot: int
    ) -> None:
        self._role, self._name = role, role.replace("_", " ")
        self._buffer = b""
        self._control, remote = socket.socketpair()
        # The kernel's timeout: Python's would add a poll before each call.
        patience = struct.pack("@ll", math.ceil(settings["tests_wall_seconds"] + PATIENCE), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._control.setsockopt(socket.SOL_SOCKET, option, patience)
        with remote:
            start = _start_unsafe if unsafe else _start_isolated
            self._process = start(role, remote.fileno(), packages, slot)
        data, _ = encode(dict(settings))
        with contextlib.suppress(OSError):  # await_ready reports a process that has already ended
            self._control.sendall(LENGTH.pack(len(data)) + data)

    def await_ready(self) -> None:
        """Wait until it accepts commands."""
        try:
            if self.receive(1) == b"R":
                return
            fallback = b"an unexpected message"
        except Damaged as error:
            fallback = str(error).encode()
        self._kill_group()
        _, detail = self._process.communicate()
        detail = b" ".join((detail or b"").splitlines()[-3:]) or fallback
        raise WorkFailed(
            f"the {self._name} of the Python checker does not start",
            given=detail.decode("utf-8", "backslashreplace"),
            hint="gradatim doctor",
        )

    def send(self, data: bytes, descriptor: int | None = None) -> None:
        """Send all of ``data``, with ``descriptor`` attached to its first byte. Raises ``Damaged``."""
        try:
            if descriptor is not None:
                sent = self._control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, INT.pack(descriptor))])
                data = data[sent:]
            if data:
                self._control.sendall(data)
        except OSError as error:
            raise Damaged(self._role, str(error)) from error

    def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes. Raises ``Damaged``."""
        data = self._buffer
        while len(data) < size:
            try:
                chunk = self._control.recv(PORTION)
            except OSError as error:
                raise Damaged(self._role, str(error)) from error
            if not chunk:
                raise Damaged(self._role, f"the {self._name} has ended")
            data += chunk
        self._buffer = data[size:]
        return data[:size]

    def kill(self) -> None:
        """Kill it; the kernel then kills all processes in its namespaces."""
        # Closing the socket ends every read on both sides; the process itself is inside a sandbox.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._kill_group()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._control.close()

    def _kill_group(self) -> None:
        """Kill its whole group: if bubblewrap is killed during its setup, its child would wait forever."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _start_unsafe(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Start it without sandbox (``--unsafe``), as an ordinary process of this user."""
    command = [sys.executable, "-S", "-s", "-P", "-c", START.format(role), str(control), str(FOLDER)]
    return _popen(command, [control], {**ENVIRONMENT, "PATH": os.defpath})


def _start_isolated(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Start it in a sandbox. The fork server is root of its user namespace and may create namespaces there."""
    python, mounts, hidden = _interpreter()
    mounts[FOLDER / "inside"] = f"{GRADATIM}/inside"
    for name in packages:
        mounts |= _package(name)
    command = [python, "-S", "-s", "-P", "-c", START.format(role), str(control), GRADATIM]
    options = [word for path in hidden for word in ("--tmpfs", path, "--remount-ro", path)]
    read, write = os.pipe()
    try:
        # Tests are trusted with the times of device nodes; the fork server mounts these read-only.
        os.write(write, _fork_server_filter() if role == "fork_server" else seccomp.program(file_times=True))
        options += ["--seccomp", str(read)]
        if role == "fork_server":
            options += ["--uid", "0", "--gid", "0", "--cap-add", "CAP_SYS_ADMIN"]
        os.close(write)
        with isolate(
            command,
            limits=Limits(processes=1000, folder_bytes=16 * MIB),
            mounts=mounts,
            environment=ENVIRONMENT,
            keep_fds=(control,),
            per_process=False,
            slot=slot,
        ) as isolated:
            return _popen(_with_options(isolated.argv, options), (*isolated.pass_fds, read), {})
    finally:
        os.close(read)


def _fork_server_filter() -> bytes:
    """System call filter of the fork server, which first allows its mounts and namespaces.

    Its children inherit the filter, because loading one in each child would cost more than the fork. They still cannot
    use these three calls: the kernel requires a capability that the children have dropped. A new user namespace, which
    would restore that capability, is forbidden to all. File times may be set, because the fork server mounts its device
    nodes read-only.
    """
    audit, column = seccomp.ARCHITECTURES[platform.machine()]
    mount, setns, unshare = (seccomp.NUMBERS[name][column] for name in ("mount", "setns", "unshare"))
    steps = (
        (seccomp.LOAD, 0, 0, seccomp.ARCHITECTURE),
        (seccomp.EQUAL, 0, 7, audit),
        (seccomp.LOAD, 0, 0, seccomp.NUMBER),
        (seccomp.EQUAL, 4, 0, mount),
        (seccomp.EQUAL, 3, 0, setns),
        (seccomp.EQUAL, 0, 3, unshare),
        (seccomp.LOAD, 0, 0, seccomp.FIRST),
        (seccomp.SET, 1, 0, NEW_USER),
        (seccomp.RETURN, 0, 0, seccomp.ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps) + seccomp.program(file_times=True)


def _with_options(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """bubblewrap's command line with further options after the existing ones, which they override."""
    index = argv.index("--args") + 2
    return [*argv[:index], *options, *argv[index:]]


def _interpreter() -> tuple[str, dict[Path, str], list[str]]:
    """Path of the interpreter inside, its mounts, and the folders of site packages to hide."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix).resolve()
    packages = [Path(folder) for folder in site.getsitepackages([str(base)])]
    system = [folder for root in SYSTEM for folder in Path(root).glob("python3*/*-packages")]
    if base.is_relative_to("/usr"):
        return str(base / "bin" / version), {}, _folders([*packages, *system])
    moved = [Path(PYTHON) / folder.relative_to(base) for folder in packages if folder.is_dir()]
    return f"{PYTHON}/bin/{version}", {base: PYTHON}, [*map(str, moved), *_folders(system)]


SYSTEM = ("/usr/lib", "/usr/local/lib")


def _folders(paths: Sequence[Path]) -> list[str]:
    return sorted({str(path) for path in paths if path.is_dir() and not path.is_symlink()})


def _package(name: str) -> dict[Path, str]:
    """Folders of an installed package and of its wheel's libraries, with their paths inside."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {name!r} for programs is not installed", hint=f"pip install {name}")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    libraries = folder.with_name(f"{name}.libs")
    return {path: f"{PACKAGES}/{path.name}" for path in (folder, libraries) if path.is_dir()}


def _popen(
    command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=descriptors,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


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


MAX_WORKERS = 64


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
                    yield await_result(pending.popleft(), advance)
                    done += 1
                    advance()
            while pending:
                yield await_result(pending.popleft(), advance)
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
