"""What is a tree of processes using right now?

The kernel's resource limits count one process at a time. ``usage`` adds up a whole tree from outside, by reading
``/proc``: processor time of everything that lives or has been waited for, and memory held: resident pages, and the
kernel's own for page tables and for the sockets of the tree's network namespace. It changes nothing and decides
nothing. Seen from the first process of a process namespace the tree is complete, because orphans of that namespace
become that process's children, and no child is removed without being waited for (``seccomp``).

How is one program watched from its start to its end?

``supervise`` feeds a started process, reads its outputs as they come (what is beyond the limit is read and thrown
away, so that the program never waits for room), measures the tree now and then, kills it when it has used up
its time or memory, and returns when it has ended. It neither builds walls nor knows of them: a ``Tree`` says which
process is the tree's first one and how the tree is killed.

One thread, one poll. When an exception comes in between, Ctrl-C's or another, the caller kills the tree and waits.
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
from .inside.bounds import socket_bytes
from .limits import Limits
from .verdict import Ending, Execution

__all__ = ["Ended", "Sink", "Streams", "Tree", "Usage", "descendants", "end", "files_in", "start", "supervise", "usage"]


TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_MAPPED = 1 << 30
"""Bytes of address space whose page tables are too small to count: a five-hundredth of it."""


@dataclass(frozen=True)
class Usage:
    """``cpu_seconds`` in steps of the kernel's clock tick (10 ms); ``memory_bytes`` held; ``processes`` alive."""

    cpu_seconds: float
    memory_bytes: int
    processes: int


def usage(root: int, most: int | None = None) -> Usage:
    """What ``root`` and everything below it use. Pages that processes share count once when more than ``most``.

    Sockets count, with all that they can hold, when the tree has a network namespace of its own.
    """
    ticks = memory = 0
    tree = list(descendants(root))
    for process in tree:
        own, resident = _measure(process)
        ticks += own
        memory += resident
    if most is not None and memory > most and len(tree) > 1:
        # Forks share what they have not written to; the exact figure is costly, so it is read only when it matters.
        memory = sum(_proportional(process) for process in tree)
    memory += sockets_of(root) * socket_bytes()
    return Usage(ticks / TICK, memory, len(tree))


def descendants(root: int) -> Iterator[int]:
    """``root``, if it is there, and everything below it; what comes and goes meanwhile may be missed."""
    waiting, seen = [root], set()
    while waiting:
        process = waiting.pop()
        if process in seen:
            continue
        seen.add(process)
        yield process
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for thread in threads:
            waiting += map(int, _read(f"/proc/{process}/task/{thread}/children").split())


def files_in(root: int, folder: str) -> int:
    """How many files the file system holds that the process ``root`` sees at ``folder``; 0 when it cannot be seen.

    A process whose root is still the host's has not got its own file system yet, and counts none.
    """
    try:
        if os.stat(f"/proc/{root}/root/").st_dev == os.stat("/").st_dev:
            return 0
        seen = os.statvfs(f"/proc/{root}/root{folder}")
    except OSError:
        return 0
    return seen.f_files - seen.f_ffree


def sockets_of(root: int) -> int:
    """The sockets of the network namespace of ``root``; 0 when that is also this process's own, or cannot be read."""
    with suppress(OSError, ValueError):
        if os.stat(f"/proc/{root}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino:
            return int(_read(f"/proc/{root}/net/sockstat").partition(b"\n")[0].rpartition(b" ")[2])
    return 0


def _measure(process: int) -> tuple[int, int]:
    """Clock ticks of the process and of those it has waited for; bytes resident. (0, 0) when it has gone."""
    # The name, in brackets, may hold anything; the numbers begin behind its last bracket.
    fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
    if len(fields) < 22:
        return 0, 0
    mapped, resident = int(fields[20]), int(fields[21]) * PAGE
    if mapped > MOST_MAPPED:
        # Pages of zeros are not resident, but the tables that map them are memory.
        resident += _page_tables(process)
    return sum(map(int, fields[11:15])), resident


def _page_tables(process: int) -> int:
    for line in _read(f"/proc/{process}/status").splitlines():
        if line.startswith(b"VmPTE:"):
            return int(line.split()[1]) << 10
    return 0


def _proportional(process: int) -> int:
    """Bytes resident, shared pages parted among those who share them; all of them when that cannot be read."""
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


SHORTEST_LOOK, LONGEST_LOOK = 0.01, 0.05
"""Seconds between two looks at the tree: one that can use up its rest sooner is looked at sooner."""

MOST_FILES = 20_000
"""Files in the work folder: each takes about a kilobyte of the kernel's memory that no other limit counts."""

CHUNK = 1 << 16
PATIENCE = 20.0
"""Seconds that a killed tree may take to be gone before waiting for it is given up."""


class Tree(Protocol):
    """The processes of one run, from outside."""

    def root(self) -> int | None:
        """The host's number of the first process; None while it is not known."""

    def kill(self) -> None:
        """Kill everything; may be called again."""


@dataclass
class Sink:
    """What is kept of a stream: its first ``most`` bytes."""

    descriptor: int
    most: int
    kept: bytearray = field(default_factory=bytearray)
    cut: bool = False

    def take(self) -> bool:
        """Read a piece of what is there; False when there is nothing more, now or ever."""
        try:
            data = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return False
        room = self.most - len(self.kept)
        self.kept += data[:room]
        self.cut |= len(data) > room
        return bool(data)


@dataclass(frozen=True)
class Ended:
    """How a process ended: why it was killed (None: it was not), its exit code as ``Popen`` gives it, what it used."""

    killed: Ending | None
    code: int
    cpu_seconds: float
    wall_seconds: float
    stdout: Sink
    stderr: Sink

    def execution(self, files: Mapping[str, bytes]) -> Execution:
        """The same as an ``Execution``; the process was a shell's, so a code above 128 is a signal's."""
        code = 128 - self.code if self.code < 0 else self.code
        signalled = 128 < code <= 128 + signal.SIGRTMAX
        return Execution(
            ending=self.killed or ("signalled" if signalled else "exited"),
            code=code - 128 if signalled else code,
            stdout=bytes(self.stdout.kept),
            stderr=bytes(self.stderr.kept),
            cut=self.stdout.cut or self.stderr.cut,
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            files=files,
        )


def start(
    argv: Sequence[str],
    stdin: bytes,
    *,
    environment: Mapping[str, str] = {},
    pass_fds: Sequence[int] = (),
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program, in a session of its own so that Ctrl-C reaches this process only; ``WorkFailed`` otherwise."""
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


def end(process: subprocess.Popen[bytes], tree: Tree) -> None:
    """Leave nothing behind: kill the tree if it is still there, wait for it, close the pipes."""
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
    more: Sequence[Sink] = (),
    folder: str | None = None,
) -> Ended:
    """Until ``process`` has ended. ``more`` are further streams to read, ``folder`` the limited file system inside.

    The CPU time is exact when the process waits for its whole tree, as bubblewrap does. ``WorkFailed`` when a killed
    tree does not end.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out = Sink(process.stdout.fileno(), limits.output_bytes)
    err = Sink(process.stderr.fileno(), limits.output_bytes)
    started = time.monotonic()
    with Streams(process, [out, err, *more], stdin) as streams:
        killed, seen = _until_ended(process, tree, streams, limits, folder)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        streams.drain()
    cpu = max(seen, used.ru_utime + used.ru_stime)
    if killed is None and cpu > limits.cpu_seconds:
        killed = "timeout"
    return Ended(killed, process.returncode, cpu, time.monotonic() - started, out, err)


def _until_ended(
    process: subprocess.Popen[bytes], tree: Tree, streams: Streams, limits: Limits, folder: str | None
) -> tuple[Ending | None, float]:
    """Serve the streams and look at the tree; (why it was killed, the CPU seconds last seen)."""
    now = time.monotonic()
    deadline, look = now + limits.wall, now + SHORTEST_LOOK
    killed: Ending | None = None
    seen = 0.0
    while not streams.serve(min(look, deadline) - time.monotonic()):
        now = time.monotonic()
        if now < min(look, deadline):
            continue
        if killed is None:
            killed, seen, rest = _look(tree, limits, folder)
            killed = killed or ("timeout" if now >= deadline else None)
            look = now + rest
            if killed is None:
                continue
            deadline = now + PATIENCE
        elif now >= deadline:
            raise WorkFailed("a killed program does not end", where="sandbox", given=f"process {process.pid}")
        tree.kill()
        look = now + LONGEST_LOOK
    return killed, seen


def _look(tree: Tree, limits: Limits, folder: str | None) -> tuple[Ending | None, float, float]:
    """(why the tree must end, CPU seconds used, seconds until the next look)"""
    root = tree.root()
    if root is None:
        return None, 0.0, SHORTEST_LOOK
    used = usage(root, limits.memory_bytes)
    left = limits.cpu_seconds - used.cpu_seconds
    if left < 0:
        return "timeout", used.cpu_seconds, 0.0
    if used.memory_bytes > limits.memory_bytes or (folder and files_in(root, folder) > MOST_FILES):
        return "memory", used.cpu_seconds, 0.0
    soonest = left / (os.cpu_count() or 1)
    return None, used.cpu_seconds, min(max(soonest, SHORTEST_LOOK), LONGEST_LOOK)


class Streams:
    """The pipes of one process, served together with waiting for its end. A context manager."""

    def __init__(self, process: subprocess.Popen[bytes], sinks: list[Sink], stdin: bytes) -> None:
        self._process, self._sinks, self._rest = process, sinks, memoryview(stdin)
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
        """Move what can be moved, waiting at most ``seconds`` for the first of it; True once the process has ended."""
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
        """Read what is left in the pipes of an ended process; what others still write there is not waited for."""
        for sink in self._sinks:
            for _ in range(MOST_LEFT):
                if not sink.take():
                    break
            else:
                sink.cut = True

    def _feed(self) -> None:
        """Write the next piece of stdin; a program that does not want it is not bothered."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            self._rest = self._rest[os.write(pipe.fileno(), self._rest[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._rest = self._rest[:0]
        if not self._rest:
            self._selector.unregister(pipe.fileno())
            pipe.close()


MOST_LEFT = 64
"""Pieces that a pipe can still hold (a program may have made it as large as a mebibyte), with room to spare."""
