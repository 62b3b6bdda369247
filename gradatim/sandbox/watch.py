"""What is a tree of processes using right now?

The kernel's resource limits count one process at a time. ``usage`` adds up a whole tree from outside, by reading
``/proc``: processor time of everything that lives or has been waited for, and memory held: resident pages, and the
kernel's own for page tables and for the sockets of the tree's network namespace. It changes nothing and decides
nothing. Seen from the first process of a process namespace the tree is complete, because orphans of that namespace
become that process's children, and no child is removed without being waited for (``seccomp``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from .inside.bounds import socket_bytes

__all__ = ["Usage", "descendants", "files_in", "usage"]

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
