"""How are thousands of programs run apart from each other, without starting Python thousands of times?

The nest is a Python interpreter within the walls that has imported what most programs import. For each candidate it
forks; the child encloses itself (``walls``) and serves (``candidate``) on a socket that the nest was handed together
with the order and never reads: no candidate's source has ever been in the nest, so none can be found in a later
child's memory. One candidate at a time; the next starts when everything of the last one is dead.

The nest watches: CPU time of the whole tree decides ``timeout``, the wall clock stands behind it, memory is added up.
Orders come over the control socket, one byte each: ``J`` with a descriptor starts a candidate, ``S`` stops it, and so
does ``L`` when it has hung up. Each ``J`` is answered by exactly one report when all is over. It decides no
verdict.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import candidate, walls
from .codec import decode

__all__ = ["REPORT", "main", "receive_control", "receive_settings"]

REPORT = struct.Struct("<cidd")
"""How it ended (``e`` exited, ``s`` signalled, ``t`` CPU time, ``w`` wall clock, ``m`` memory, ``k`` stopped, ``x`` not
begun), the exit code, signal or errno, CPU seconds, wall seconds."""

LENGTH = struct.Struct("<I")
LOOK_EVERY = 0.05
LAST_MOMENT = 0.2
"""Seconds that a candidate which hung up has, to be seen dying."""
WARM = (
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "typing",
)
"""What most programs import. Every module more makes every fork dearer: more pages to map and to copy."""

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Obey orders until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    hooks = _warm(settings["packages"])
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    own_namespace = walls.prepare(settings["walls"])
    if settings["walls"]:
        walls.limit_all(settings)  # without walls the number of processes would count all of the user's
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not order:
            return
        if order == b"J" and descriptors:
            control.sendall(_try(control, descriptors[0], own_namespace, processes, settings, hooks))


def receive_control() -> socket.socket:
    """The control socket, moved to the lowest free descriptor: the host may have had thousands open."""
    given = int(sys.argv[1])
    control = socket.socket(fileno=fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 3))
    os.close(given)
    return control


def receive_settings(control: socket.socket) -> dict[str, Any]:
    """The first message: a dict behind its length."""
    (length,) = LENGTH.unpack(control.recv(LENGTH.size, socket.MSG_WAITALL))
    settings: dict[str, Any] = decode(control.recv(length, socket.MSG_WAITALL))[0]
    return settings


def _without_hooks() -> list[dict[str, Any]]:
    """Import, and keep back what the modules want done after each fork.

    ``random`` would draw a new seed, which is not wanted and touches memory. A candidate gets the hooks for forks of
    its own.
    """
    hooks: list[dict[str, Any]] = []
    register, os.register_at_fork = os.register_at_fork, lambda **each: hooks.append(each)
    try:
        for name in WARM:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register
    import random

    random.seed(0)  # the same program gives the same answers every time
    return hooks


def _warm(packages: str) -> list[dict[str, Any]]:
    """Import what forks would import again and again, and calm what would reach outside."""
    hooks = _without_hooks()
    if packages:
        sys.path.append(packages)
    sys.path[:] = [each for each in sys.path if each]
    sys.argv[:] = ["candidate"]
    # What a program prints goes nowhere, and printing never blocks.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    return hooks


def _try(
    control: socket.socket,
    connection: int,
    own_namespace: int,
    processes: int,
    settings: Mapping[str, Any],
    hooks: list[dict[str, Any]],
) -> bytes:
    """One candidate, from fork to the death of its last process; the report."""
    started = time.monotonic()
    folder = "" if settings["walls"] else _fresh_folder()
    begun, begin = os.pipe()
    child = walls.fork_apart(own_namespace)
    if child == 0:
        _become_candidate(connection, begin, folder, settings, hooks)
    os.close(connection)
    os.close(begin)
    handle = os.pidfd_open(child)
    try:
        ending = _watch(control, child, handle, processes, settings)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    finally:
        os.close(handle)
    told = os.read(begun, 4)
    os.close(begun)
    if folder:
        _sweep(folder, processes)
    code = os.waitstatus_to_exitcode(status)
    if told != b"ok" and not (ending == b"k" and not told):
        ending, code = b"x", int.from_bytes(told, "little")
    elif ending == b"e" and code < 0:
        ending = b"s"
    return REPORT.pack(ending, abs(code), used.ru_utime + used.ru_stime, time.monotonic() - started)


def _become_candidate(
    connection: int, begin: int, folder: str, settings: Mapping[str, Any], hooks: list[dict[str, Any]]
) -> None:
    """The child: enclose, say so, then serve. Never returns."""
    code, said = 1, False
    highest = min(settings["open_files"], resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8) - 1
    try:
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD, highest + 1) for each in (begin, connection)]
        os.dup2(moved[0], highest - 1, inheritable=False)
        os.dup2(moved[1], highest, inheritable=False)
        os.closerange(3, highest - 1)
        os.closerange(highest + 1, 1 << 20)
        walls.calm()
        if settings["walls"]:
            walls.enclose(settings["folder_bytes"])
        else:
            os.chdir(folder)
        walls.limit(settings)
        if settings["walls"]:
            walls.renounce()
        for hook in hooks:
            os.register_at_fork(**hook)
        os.write(highest - 1, b"ok")
        os.close(highest - 1)
        said = True
        candidate.serve(socket.socket(fileno=highest))
        code = 0
    except OSError as error:
        if not said:
            os.write(highest - 1, (error.errno or 0).to_bytes(4, "little"))
    finally:
        os._exit(code)


def _watch(control: socket.socket, child: int, handle: int, processes: int, settings: Mapping[str, Any]) -> bytes:
    """Wait until the child ends (``e``), is to be stopped (``k``) or has used up what it may."""
    deadline = time.monotonic() + settings["wall_seconds"]
    poll, pidfd = select.poll(), select.poll()
    poll.register(control, select.POLLIN)
    poll.register(handle, select.POLLIN)
    pidfd.register(handle, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(LOOK_EVERY * 1000)}
        if handle in ready:
            return b"e"
        if control.fileno() in ready:
            order = control.recv(1)
            if not order:
                os.kill(child, signal.SIGKILL)
                os._exit(0)  # whoever gave orders is gone
            if order == b"L" and pidfd.poll(LAST_MOMENT * 1000):
                return b"e"
            return b"k"
        cpu, memory = _usage(processes)
        if cpu > settings["cpu_seconds"]:
            return b"t"
        if memory > settings["memory_bytes"]:
            return b"m"
        if time.monotonic() > deadline:
            return b"w"


def _usage(processes: int) -> tuple[float, int]:
    """CPU seconds and bytes of memory of the candidate and all that it has started, living or waited for."""
    ticks, pages = 0, 0
    for process in _family(processes):
        try:
            fields = _stat(processes, process)
            _, resident, shared, *_ = map(int, _read(processes, f"{process}/statm").split())
        except (OSError, ValueError):
            continue  # it has just ended
        ticks += sum(map(int, fields[11:15]))
        pages += resident - shared
    return ticks / _TICK, pages * _PAGE


def _family(processes: int) -> list[int]:
    """Every process that descends from the nest: orphans come back to the candidate's first process, or to the nest."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(processes):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                children.setdefault(int(_stat(processes, int(name))[1]), []).append(int(name))
    family: list[int] = []
    ahead = [os.getpid()]
    while ahead:
        found = children.pop(ahead.pop(), [])
        family += found
        ahead += found
    return family


def _stat(processes: int, process: int) -> list[bytes]:
    """The fields behind the name, which may hold anything."""
    return _read(processes, f"{process}/stat").rpartition(b")")[2].split()


def _read(folder: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _fresh_folder() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="gradatim-")


def _sweep(folder: str, processes: int) -> None:
    """Without walls: kill what is left, as far as it can be found, and remove the work folder."""
    for _ in range(100):
        left = _family(processes)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if not left else 0)[0]:
                pass
        if not left:
            break
    shutil.rmtree(folder, ignore_errors=True)
