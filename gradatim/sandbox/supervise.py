"""Supervision of a running program: usage of its process tree, its streams, its time and memory limits.

``usage`` sums a process tree from outside, by reading ``/proc``, because the kernel's resource limits count single
processes: CPU time of all processes that are alive or have been waited for, and memory (resident pages, page tables,
sockets of the tree's network namespace). From the first process of a process namespace the tree is complete, because
orphans become that process's children, and no child is removed without being waited for (``seccomp``).

``supervise`` writes the input of a started process, reads its outputs (beyond the limit they are read and discarded, so
that the program never blocks), measures the tree at intervals, kills it when it exceeds its time or memory, and returns
after its end. It is independent of the isolation: a ``Tree`` provides the first process and the way to kill all.

It uses one thread and one poll. If an exception interrupts it, such as Ctrl-C, the caller kills the tree and waits.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import WorkFailed
from .inside.serializer import socket_bytes
from .limits import Ending, Execution, Limits

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MAX_MAPPED = 1 << 30
"""Bytes of address space whose page tables are negligible: about 1/500 of it."""


@dataclass(frozen=True)
class Usage:
    """``cpu_seconds`` in steps of the kernel's clock tick (10 ms), ``memory_bytes`` in use, ``processes`` alive."""

    cpu_seconds: float
    memory_bytes: int
    processes: int


def usage(root: int, limit: int | None = None) -> Usage:
    """Usage of ``root`` and its descendants. Above ``limit`` bytes, pages shared by processes count once.

    Sockets count with their capacity if the tree has a separate network namespace.
    """
    ticks = memory = 0
    tree = list(descendants(root))
    for process in tree:
        process_ticks, resident = _measure(process)
        ticks += process_ticks
        memory += resident
    if limit is not None and memory > limit and len(tree) > 1:
        # Forks share unmodified pages; the exact figure is costly, so it is read only if the limit may be exceeded.
        memory = sum(_proportional(process) for process in tree)
    memory += sockets_of(root) * socket_bytes()
    return Usage(ticks / TICK, memory, len(tree))


def descendants(root: int) -> Iterator[int]:
    """``root`` and its descendants; processes that start or end meanwhile may be missed."""
    pending, visited = [root], set()
    while pending:
        process = pending.pop()
        if process in visited:
            continue
        visited.add(process)
        yield process
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for thread in threads:
            pending += map(int, _read(f"/proc/{process}/task/{thread}/children").split())


def files_in(root: int, folder: str) -> int:
    """Number of files on the file system at ``folder`` as process ``root`` sees it; 0 if it is not accessible.

    A process whose root is still the host's has no separate file system yet and counts none.
    """
    try:
        if os.stat(f"/proc/{root}/root/").st_dev == os.stat("/").st_dev:
            return 0
        status = os.statvfs(f"/proc/{root}/root{folder}")
    except OSError:
        return 0
    return status.f_files - status.f_ffree


def sockets_of(root: int) -> int:
    """Number of sockets in the network namespace of ``root``; 0 if it is this process's own or not readable."""
    with suppress(OSError, ValueError):
        if os.stat(f"/proc/{root}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino:
            return int(_read(f"/proc/{root}/net/sockstat").partition(b"\n")[0].rpartition(b" ")[2])
    return 0


def _measure(process: int) -> tuple[int, int]:
    """Clock ticks of the process and of those that it has waited for; bytes resident. (0, 0) if it has ended."""
    # The name in brackets may contain any character; the numbers begin after the last bracket.
    fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
    if len(fields) < 22:
        return 0, 0
    mapped, resident = int(fields[20]), int(fields[21]) * PAGE
    if mapped > MAX_MAPPED:
        # Zero pages are not resident, but their page tables use memory.
        resident += _page_tables(process)
    return sum(map(int, fields[11:15])), resident


def _page_tables(process: int) -> int:
    for line in _read(f"/proc/{process}/status").splitlines():
        if line.startswith(b"VmPTE:"):
            return int(line.split()[1]) << 10
    return 0


def _proportional(process: int) -> int:
    """Bytes resident with shared pages divided among their processes; all of them if that cannot be read."""
    for line in _read(f"/proc/{process}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return (int(line.split()[1]) << 10) + _page_tables(process)
    return _measure(process)[1]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:
        return b""


MIN_INTERVAL, MAX_INTERVAL = 0.01, 0.05
"""Seconds between two measurements of a tree, fewer if its remaining CPU time may be used up sooner."""

MAX_FILES = 20_000
"""Maximum of files in the work folder: each takes about a kilobyte of kernel memory that no other limit counts."""

CHUNK = 1 << 16
PATIENCE = 20.0
"""Seconds to wait for the end of a killed tree."""


class Tree(Protocol):
    """Process tree of one run, from outside."""

    def root(self) -> int | None:
        """Host process id of the first process; None until it is available."""

    def kill(self) -> None:
        """Kill all processes; may be called again."""


@dataclass
class Sink:
    """Buffer for the first ``limit`` bytes of a stream; ``cut``: the stream was longer."""

    descriptor: int
    limit: int
    data: bytearray = field(default_factory=bytearray)
    cut: bool = False

    def take(self) -> bool:
        """Read the next chunk; False if none is available, now or at the end of the stream."""
        try:
            chunk = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return False
        room = self.limit - len(self.data)
        self.data += chunk[:room]
        self.cut |= len(chunk) > room
        return bool(chunk)


@dataclass(frozen=True)
class ProcessResult:
    """End of a process: reason of a kill (None: not killed), exit code as in ``Popen``, usage and output."""

    killed: Ending | None
    code: int
    cpu_seconds: float
    wall_seconds: float
    stdout: Sink
    stderr: Sink

    def execution(self, files: Mapping[str, bytes]) -> Execution:
        """Convert to an ``Execution``; the process was a shell, so a code above 128 stands for a signal."""
        code = 128 - self.code if self.code < 0 else self.code
        signalled = 128 < code <= 128 + signal.SIGRTMAX
        return Execution(
            ending=self.killed or ("signalled" if signalled else "exited"),
            code=code - 128 if signalled else code,
            stdout=bytes(self.stdout.data),
            stderr=bytes(self.stderr.data),
            cut=self.stdout.cut or self.stderr.cut,
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            files=files,
        )


def start_process(
    argv: Sequence[str],
    stdin: bytes,
    *,
    environment: Mapping[str, str] = {},
    pass_fds: Sequence[int] = (),
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a new session, so that Ctrl-C reaches this process only; ``WorkFailed`` if it fails."""
    try:
        return subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=folder,
            pass_fds=pass_fds,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise WorkFailed("a program cannot be started", where="sandbox", given=str(error)) from error


def terminate(process: subprocess.Popen[bytes], tree: Tree) -> None:
    """Kill the tree if it is alive, wait for it, and close the pipes."""
    if process.returncode is None:
        tree.kill()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def supervise(
    process: subprocess.Popen[bytes],
    tree: Tree,
    *,
    stdin: bytes,
    limits: Limits,
    sinks: Sequence[Sink] = (),
    folder: str | None = None,
) -> ProcessResult:
    """Supervise ``process`` to its end. ``sinks``: further streams to read; ``folder``: the limited file system inside.

    The CPU time is exact if the process waits for its whole tree, as bubblewrap does. ``WorkFailed`` if a killed tree
    does not end.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out = Sink(process.stdout.fileno(), limits.output_bytes)
    err = Sink(process.stderr.fileno(), limits.output_bytes)
    started = time.monotonic()
    with Streams(process, [out, err, *sinks], stdin) as streams:
        killed, measured = _until_ended(process, tree, streams, limits, folder)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        streams.drain()
    cpu = max(measured, used.ru_utime + used.ru_stime)
    if killed is None and cpu > limits.cpu_seconds:
        killed = "timeout"
    return ProcessResult(killed, process.returncode, cpu, time.monotonic() - started, out, err)


def _until_ended(
    process: subprocess.Popen[bytes], tree: Tree, streams: Streams, limits: Limits, folder: str | None
) -> tuple[Ending | None, float]:
    """Serve the streams and measure the tree until the end; (reason of a kill, CPU seconds last measured)."""
    now = time.monotonic()
    deadline, next_measurement = now + limits.wall, now + MIN_INTERVAL
    killed: Ending | None = None
    measured = 0.0
    while not streams.serve(min(next_measurement, deadline) - time.monotonic()):
        now = time.monotonic()
        if now < min(next_measurement, deadline):
            continue
        if killed is None:
            killed, measured, interval = _measure_tree(tree, limits, folder)
            killed = killed or ("timeout" if now >= deadline else None)
            next_measurement = now + interval
            if killed is None:
                continue
            deadline = now + PATIENCE
        elif now >= deadline:
            raise WorkFailed("a killed program does not end", where="sandbox", given=f"process {process.pid}")
        tree.kill()
        next_measurement = now + MAX_INTERVAL
    return killed, measured


def _measure_tree(tree: Tree, limits: Limits, folder: str | None) -> tuple[Ending | None, float, float]:
    """Measure the tree once; (reason to kill it, CPU seconds used, seconds until the next measurement)."""
    root = tree.root()
    if root is None:
        return None, 0.0, MIN_INTERVAL
    current = usage(root, limits.memory_bytes)
    remaining = limits.cpu_seconds - current.cpu_seconds
    if remaining < 0:
        return "timeout", current.cpu_seconds, 0.0
    if current.memory_bytes > limits.memory_bytes or (folder and files_in(root, folder) > MAX_FILES):
        return "memory", current.cpu_seconds, 0.0
    earliest_end = remaining / (os.cpu_count() or 1)
    return None, current.cpu_seconds, min(max(earliest_end, MIN_INTERVAL), MAX_INTERVAL)


class Streams:
    """Poll loop over the pipes and the end of one process; a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], sinks: list[Sink], stdin: bytes) -> None:
        self._process, self._sinks, self._remaining = process, sinks, memoryview(stdin)
        self._ended = os.pidfd_open(process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ended, selectors.EVENT_READ, None)
        for sink in sinks:
            os.set_blocking(sink.descriptor, False)
            self._selector.register(sink.descriptor, selectors.EVENT_READ, sink)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin.fileno(), selectors.EVENT_WRITE, self)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        os.close(self._ended)

    def serve(self, seconds: float) -> bool:
        """Transfer available data, waiting at most ``seconds`` for it; True once the process has ended."""
        ended = False
        for key, _ in self._selector.select(max(0.0, seconds)):
            if key.data is None:
                ended = True
            elif key.data is self:
                self._feed()
            elif not key.data.take():
                self._selector.unregister(key.fd)
        return ended

    def drain(self) -> None:
        """Read the remaining data of an ended process's pipes, without waiting for other writers."""
        for sink in self._sinks:
            for _ in range(MAX_CHUNKS):
                if not sink.take():
                    break
            else:
                sink.cut = True

    def _feed(self) -> None:
        """Write the next chunk of stdin; the rest is dropped if the program has closed it."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            self._remaining = self._remaining[os.write(pipe.fileno(), self._remaining[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._remaining = self._remaining[:0]
        if not self._remaining:
            self._selector.unregister(pipe.fileno())
            pipe.close()


MAX_CHUNKS = 64
"""Maximum of chunks in a pipe, which a program may have enlarged to one mebibyte, with a margin."""
