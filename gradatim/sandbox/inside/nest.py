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

import _socket
import contextlib
import fcntl
import gc
import importlib
import os
import resource
import select
import struct
import sys
import time
from functools import partial
from typing import Any, NamedTuple

from . import candidate, walls
from .bounds import socket_bytes
from .codec import decode, encode
from .peer import REQUEST, message

__all__ = ["REPORT", "main", "receive_control", "receive_settings"]

REPORT = struct.Struct("<cidd")
"""How it ended (``e`` exited, ``s`` signalled, ``t`` CPU time, ``w`` wall clock, ``m`` memory, ``k`` stopped, ``x`` not
begun), the exit code, signal or errno, CPU seconds, wall seconds."""

LENGTH = struct.Struct("<I")
LOOK_EVERY = 50
NO_SOCKETS = b"sockets: used 0\n"
COLLECTED = 2.0
"""Seconds that the kernel may take to collect what a candidate has left unreachable."""

LAST_MOMENT = 200
"""Milliseconds that a candidate which hung up has, to be seen dying."""

ANCILLARY = _socket.CMSG_SPACE(4)
MOST_DESCRIPTORS = 1 << 20
READY, KILL = select.POLLIN, 9
BEGUN = 1
"""What a child leaves in the nest's counter before it runs foreign code; more is the errno that kept it from it."""

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

REHEARSALS = 12
REHEARSED = (
    "from typing import List\n\n\ndef f(x, y):\n    return [each for each in x if each] + [y]\n",
    "def f(x, y):\n    raise ValueError(f'{x} and {y}')\n",
)

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Nest(NamedTuple):
    """What every fork is made of. ``steps`` are a child's first, ``program`` serves then, on the last descriptor."""

    control: _socket.socket
    poll: select.poll
    processes: int
    sockets: int
    namespace: int
    begun: int
    highest: int
    steps: tuple[walls.Step, ...]
    program: candidate.Program
    settings: dict[str, Any]


def main() -> None:
    """Obey orders until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    _warm(settings["packages"])
    _rehearse()
    nest = _settle(control, settings)
    gc.collect()
    gc.freeze()
    nest.control.sendall(b"R")
    while True:
        order, ancillary, _, _ = nest.control.recvmsg(1, ANCILLARY)
        if not order:
            return
        if order == b"J" and ancillary:
            nest.control.sendall(_try(nest, int.from_bytes(ancillary[0][2], sys.byteorder)))


def _settle(control: _socket.socket, settings: dict[str, Any]) -> _Nest:
    """Put up the nest's own walls. Its descriptors lie behind all that a candidate may have."""
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sockets = _socket_counter() if settings["walls"] else -1  # without walls the namespace is the host's
    namespace = walls.prepare(settings["walls"])
    if settings["walls"]:
        walls.limit_all(settings)  # without walls the number of processes would count all of the user's
    socket_bytes()  # measured once, here
    begun = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    highest = min(settings["open_files"], resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8) - 1
    own = []
    for given in (control.detach(), processes, begun, namespace, sockets):
        own.append(-1 if given < 0 else fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, highest + 1))
    os.closerange(3, highest + 1)
    os.closerange(max(own) + 1, MOST_DESCRIPTORS)
    control = _socket.socket(fileno=own[0])
    poll = select.poll()
    poll.register(control, select.POLLIN)
    steps: tuple[walls.Step, ...] = (
        *walls.steps(settings, settings["walls"]),
        partial(os.eventfd_write, own[2], BEGUN),
        partial(os.closerange, 3, highest),
        partial(os.closerange, highest + 1, MOST_DESCRIPTORS),
    )
    program = candidate.Program(highest)
    return _Nest(control, poll, own[1], own[4], own[3], own[2], highest, steps, program, settings)


def _socket_counter() -> int:
    """A descriptor of the namespace's socket counter; -1 where there is none."""
    try:
        return os.open("/proc/self/net/sockstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def receive_control() -> _socket.socket:
    """The control socket, moved to the lowest free descriptor: the host may have had thousands open."""
    given = int(sys.argv[1])
    control = _socket.socket(fileno=fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 3))
    os.close(given)
    return control


def receive_settings(control: _socket.socket) -> dict[str, Any]:
    """The first message: a dict behind its length."""
    (length,) = LENGTH.unpack(control.recv(LENGTH.size, _socket.MSG_WAITALL))
    settings: dict[str, Any] = decode(control.recv(length, _socket.MSG_WAITALL))[0]
    return settings


def _warm(packages: str) -> None:
    """Import what forks would import again and again, and calm what would reach outside."""
    # ``random`` asks to be seeded anew after each fork: the same program shall give the same answers every time.
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in WARM:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register
    sys.modules["random"].seed(0)
    if packages:
        sys.path.append(packages)
    sys.path[:] = [each for each in sys.path if each]
    sys.argv[:] = ["candidate"]
    # What a program prints goes nowhere, and printing never blocks.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _rehearse() -> None:
    """Try programs of our own, here: what Python makes when it is first needed is then made once, not in every fork.

    Compiling for the first time makes a type for each piece of Python's syntax; code that has run often is in its fast
    form. Nothing of a candidate's is here yet.
    """
    for _ in range(REHEARSALS):
        for source in REHEARSED:
            ours, theirs = _socket.socketpair()
            try:
                for request in (("load", source, ("f",)), ("call", 0, ([1, 2], "x"), ())):
                    ours.sendall(message(REQUEST, encode(request)[0]))
                ours.shutdown(_socket.SHUT_WR)
                candidate.Program(theirs.fileno()).serve()
            finally:
                ours.close()
                theirs.close()
    del sys.modules[candidate.MODULE]


def _try(nest: _Nest, connection: int) -> bytes:
    """One candidate, from fork to the death of its last process; the report."""
    started = time.monotonic()
    folder = "" if nest.settings["walls"] else _fresh_folder()
    child = walls.fork_apart(nest.namespace)
    if child == 0:
        _become_candidate(nest, connection, folder)
    os.close(connection)
    handle = os.pidfd_open(child)
    try:
        nest.poll.register(handle, READY)
        ending = _watch(nest, child, handle)
        if ending != b"e":
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, KILL)
        _, status, used = os.wait4(child, 0)
    finally:
        nest.poll.unregister(handle)
        os.close(handle)
    if nest.sockets >= 0 and os.pread(nest.sockets, len(NO_SOCKETS), 0) != NO_SOCKETS:
        _await_no_sockets(nest)
    try:
        told = os.eventfd_read(nest.begun)
    except BlockingIOError:
        told = 0
    if folder:
        _sweep(folder, nest.processes)
    code = os.waitstatus_to_exitcode(status)
    if told != BEGUN and not (ending == b"k" and not told):
        ending, code = b"x", max(0, told - BEGUN)
    elif ending == b"e" and code < 0:
        ending = b"s"
    return REPORT.pack(ending, abs(code), used.ru_utime + used.ru_stime, time.monotonic() - started)


def _become_candidate(nest: _Nest, connection: int, folder: str) -> None:
    """The child: enclose, say so, then serve. Never returns."""
    code, said = 1, False
    try:
        os.dup2(connection, nest.highest, False)
        if folder:
            os.chdir(folder)
        for step in nest.steps:
            step()
        said = True
        nest.program.serve()
        code = 0
    except OSError as error:
        if not said:
            os.eventfd_write(nest.begun, BEGUN + (error.errno or 0))
    finally:
        os._exit(code)


def _watch(nest: _Nest, child: int, handle: int) -> bytes:
    """Wait until the child ends (``e``), is to be stopped (``k``) or has used up what it may."""
    settings = nest.settings
    deadline = time.monotonic() + settings["wall_seconds"]
    while True:
        ready = dict(nest.poll.poll(LOOK_EVERY))
        if handle in ready:
            return b"e"
        if ready:
            order = nest.control.recv(1)
            if not order:
                os.kill(child, KILL)
                os._exit(0)  # whoever gave orders is gone
            if order == b"L" and _ends(handle):
                return b"e"
            return b"k"
        cpu, memory = _usage(nest.processes, nest.sockets)
        if cpu > settings["cpu_seconds"]:
            return b"t"
        if memory > settings["memory_bytes"]:
            return b"m"
        if time.monotonic() > deadline:
            return b"w"


def _ends(handle: int) -> bool:
    """Whether a candidate that hung up is seen dying."""
    poll = select.poll()
    poll.register(handle, READY)
    return bool(poll.poll(LAST_MOMENT))


def _usage(processes: int, sockets: int) -> tuple[float, int]:
    """CPU seconds and bytes of memory of the candidate and all that it has started, living or waited for.

    Buffers of sockets are the kernel's memory, which no process has in its own figures: each socket counts with what
    it can hold.
    """
    ticks, pages = 0, 0
    for process in _family(processes):
        try:
            fields = _stat(processes, process)
            _, resident, shared, *_ = map(int, _read(processes, f"{process}/statm").split())
        except (OSError, ValueError):
            continue  # it has just ended
        ticks += sum(map(int, fields[11:15]))
        pages += resident - shared
    return ticks / _TICK, pages * _PAGE + _sockets(sockets) * socket_bytes()


def _sockets(counter: int) -> int:
    """The sockets of the network namespace, which the candidate has to itself; 0 where the kernel does not count them.

    Sockets that were sent over others and not received are among them, although no process has a descriptor of them.
    """
    if counter < 0:
        return 0
    first_line = os.pread(counter, 64, 0).partition(b"\n")[0]
    return int(first_line.rpartition(b" ")[2])


def _await_no_sockets(nest: _Nest) -> None:
    """Wait until the kernel has collected sockets that were sent into each other: their names outlive a candidate.

    Where that does not happen the nest ends, and with it the namespace.
    """
    deadline = time.monotonic() + COLLECTED
    while _sockets(nest.sockets):
        for each in _socket.socketpair():
            each.close()  # closing any socket starts the collection
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.001)


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
                os.kill(process, KILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if not left else 0)[0]:
                pass
        if not left:
            break
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
