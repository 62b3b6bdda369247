"""Fork server (zygote): a sandboxed Python interpreter with warm imports that forks one isolated child per candidate.

The child isolates itself (``isolation``) and serves (``candidate``) on a socket that the fork server receives with the
command and never reads. No candidate's source is ever in the fork server, so none can be found in the memory of a later
child. Candidates run one at a time; the next one starts when all processes of the previous one are dead.

The fork server measures the whole process tree: CPU time decides ``timeout``, with the wall clock as a fallback, and
memory is summed. Commands come over the control socket, one byte each: ``J`` with a descriptor starts a candidate,
``S`` stops it, ``L`` stops it after the connection was lost. Each ``J`` is answered by exactly one report at the end.
The verdict is decided by the tester.
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

from . import candidate, isolation
from .reader import decode
from .rpc import REQUEST, message
from .serializer import socket_bytes
from .writer import encode

REPORT = struct.Struct("<cidd")
"""Ending (``e`` exited, ``s`` signalled, ``t`` CPU time, ``w`` wall clock, ``m`` memory, ``k`` stopped, ``x`` not
started), the exit code, signal or errno, CPU seconds, wall seconds."""

LENGTH = struct.Struct("<I")
POLL_MILLISECONDS = 50
NO_SOCKETS = b"sockets: used 0\n"
COLLECTION_SECONDS = 2.0
"""Seconds allowed for the kernel to collect a candidate's unreachable sockets."""

EXIT_MILLISECONDS = 200
"""Milliseconds to wait for the end of a candidate that has closed its connection."""

ANCILLARY = _socket.CMSG_SPACE(4)
MAX_DESCRIPTORS = 1 << 20
READY, KILL = select.POLLIN, 9
STARTED = 1
"""Value that a child adds to the counter before it runs untrusted code; more is the errno of a failed step."""

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
"""Modules that most programs import. Each further module makes every fork slower: more pages to map and to copy."""

REHEARSALS = 12
REHEARSAL_PROGRAMS = (
    "from typing import List\n\n\ndef f(x, y):\n    return [item for item in x if item] + [y]\n",
    "def f(x, y):\n    raise ValueError(f'{x} and {y}')\n",
)

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _ForkServer(NamedTuple):
    """State for every fork. A child runs ``steps`` first; then ``program`` serves, on the descriptor ``highest``."""

    control: _socket.socket
    poll: select.poll
    processes: int
    sockets: int
    namespace: int
    started: int
    highest: int
    steps: tuple[isolation.Step, ...]
    program: candidate.CandidateServer
    settings: dict[str, Any]


def main() -> None:
    """Execute commands until the control socket closes. ``sys.argv[1]`` is its descriptor."""
    control = receive_control()
    settings = receive_settings(control)
    _warm(settings["packages"])
    _rehearse()
    server = _isolate(control, settings)
    gc.collect()
    gc.freeze()
    server.control.sendall(b"R")
    while True:
        command, ancillary, _, _ = server.control.recvmsg(1, ANCILLARY)
        if not command:
            return
        if command == b"J" and ancillary:
            server.control.sendall(_run_candidate(server, int.from_bytes(ancillary[0][2], sys.byteorder)))


def _isolate(control: _socket.socket, settings: dict[str, Any]) -> _ForkServer:
    """Isolate the fork server. Its descriptors are above all numbers that a candidate may use."""
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sockets = _socket_counter() if settings["sandboxed"] else -1  # without sandbox the namespace is the host's
    namespace = isolation.prepare(settings["sandboxed"])
    if settings["sandboxed"]:
        isolation.limit_all(settings)  # without sandbox the process limit would count all of the user's processes
    socket_bytes()  # cached before the first fork
    started = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    highest = min(settings["open_files"], resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8) - 1
    moved = []
    for descriptor in (control.detach(), processes, started, namespace, sockets):
        moved.append(-1 if descriptor < 0 else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, highest + 1))
    os.closerange(3, highest + 1)
    os.closerange(max(moved) + 1, MAX_DESCRIPTORS)
    control = _socket.socket(fileno=moved[0])
    poll = select.poll()
    poll.register(control, select.POLLIN)
    steps: tuple[isolation.Step, ...] = (
        *isolation.isolation_steps(settings, settings["sandboxed"]),
        partial(os.eventfd_write, moved[2], STARTED),
        partial(os.closerange, 3, highest),
        partial(os.closerange, highest + 1, MAX_DESCRIPTORS),
    )
    program = candidate.CandidateServer(highest)
    return _ForkServer(control, poll, moved[1], moved[4], moved[3], moved[2], highest, steps, program, settings)


def _socket_counter() -> int:
    """Descriptor of the namespace's socket counter; -1 if there is none."""
    try:
        return os.open("/proc/self/net/sockstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def receive_control() -> _socket.socket:
    """Control socket, moved to the lowest free descriptor: the host may have thousands open."""
    descriptor = int(sys.argv[1])
    control = _socket.socket(fileno=fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))
    os.close(descriptor)
    return control


def receive_settings(control: _socket.socket) -> dict[str, Any]:
    """Receive the first message: a dict, preceded by its length."""
    (length,) = LENGTH.unpack(control.recv(LENGTH.size, _socket.MSG_WAITALL))
    settings: dict[str, Any] = decode(control.recv(length, _socket.MSG_WAITALL))[0]
    return settings


def _warm(packages: str) -> None:
    """Import common modules once, and detach the standard streams."""
    # ``random`` registers a new seed after each fork: the same program must give the same answers every time.
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in WARM:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register
    sys.modules["random"].seed(0)
    if packages:
        sys.path.append(packages)
    sys.path[:] = [folder for folder in sys.path if folder]
    sys.argv[:] = ["candidate"]
    # The output of a program is discarded, and printing never blocks.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _rehearse() -> None:
    """Run trusted programs here, so that the interpreter's lazy initialisation happens once and not in every fork.

    The first compilation creates a type for each node of Python's syntax; code that has run often is specialised. No
    candidate data is present yet.
    """
    for _ in range(REHEARSALS):
        for source in REHEARSAL_PROGRAMS:
            client, server = _socket.socketpair()
            try:
                for request in (("load", source, ("f",)), ("call", 0, ([1, 2], "x"), ())):
                    client.sendall(message(REQUEST, encode(request)[0]))
                client.shutdown(_socket.SHUT_WR)
                candidate.CandidateServer(server.fileno()).serve()
            finally:
                client.close()
                server.close()
    del sys.modules[candidate.MODULE]


def _run_candidate(server: _ForkServer, connection: int) -> bytes:
    """Run one candidate, from the fork to the end of its last process; the report."""
    start = time.monotonic()
    folder = "" if server.settings["sandboxed"] else _new_folder()
    child = isolation.fork_isolated(server.namespace)
    if child == 0:
        _become_candidate(server, connection, folder)
    os.close(connection)
    handle = os.pidfd_open(child)
    try:
        server.poll.register(handle, READY)
        ending = _watch(server, child, handle)
        if ending != b"e":
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, KILL)
        _, status, usage = os.wait4(child, 0)
    finally:
        server.poll.unregister(handle)
        os.close(handle)
    if server.sockets >= 0 and os.pread(server.sockets, len(NO_SOCKETS), 0) != NO_SOCKETS:
        _await_no_sockets(server)
    try:
        counter = os.eventfd_read(server.started)
    except BlockingIOError:
        counter = 0
    if folder:
        _clean_up(folder, server.processes)
    code = os.waitstatus_to_exitcode(status)
    if counter != STARTED and not (ending == b"k" and not counter):
        ending, code = b"x", max(0, counter - STARTED)
    elif ending == b"e" and code < 0:
        ending = b"s"
    return REPORT.pack(ending, abs(code), usage.ru_utime + usage.ru_stime, time.monotonic() - start)


def _become_candidate(server: _ForkServer, connection: int, folder: str) -> None:
    """Child process: isolate, report success, then serve. Never returns."""
    code, isolated = 1, False
    try:
        os.dup2(connection, server.highest, False)
        if folder:
            os.chdir(folder)
        for step in server.steps:
            step()
        isolated = True
        server.program.serve()
        code = 0
    except OSError as error:
        if not isolated:
            os.eventfd_write(server.started, STARTED + (error.errno or 0))
    finally:
        os._exit(code)


def _watch(server: _ForkServer, child: int, handle: int) -> bytes:
    """Wait until the child ends (``e``), is stopped (``k``) or exceeds a limit."""
    settings = server.settings
    deadline = time.monotonic() + settings["wall_seconds"]
    while True:
        ready = dict(server.poll.poll(POLL_MILLISECONDS))
        if handle in ready:
            return b"e"
        if ready:
            command = server.control.recv(1)
            if not command:
                os.kill(child, KILL)
                os._exit(0)  # the host process has ended
            if command == b"L" and _exits_soon(handle):
                return b"e"
            return b"k"
        cpu, memory = _usage(server.processes, server.sockets)
        if cpu > settings["cpu_seconds"]:
            return b"t"
        if memory > settings["memory_bytes"]:
            return b"m"
        if time.monotonic() > deadline:
            return b"w"


def _exits_soon(handle: int) -> bool:
    """Whether a candidate that has closed its connection ends shortly."""
    poll = select.poll()
    poll.register(handle, READY)
    return bool(poll.poll(EXIT_MILLISECONDS))


def _usage(processes: int, sockets: int) -> tuple[float, int]:
    """CPU seconds and bytes of memory of the candidate's process tree, including processes already waited for.

    Socket buffers are kernel memory that no process figure includes: each socket counts with its capacity.
    """
    ticks, pages = 0, 0
    for process in _descendants(processes):
        try:
            fields = _stat(processes, process)
            _, resident, shared, *_ = map(int, _read(processes, f"{process}/statm").split())
        except (OSError, ValueError):
            continue  # the process has just ended
        ticks += sum(map(int, fields[11:15]))
        pages += resident - shared
    return ticks / _TICK, pages * _PAGE + _sockets(sockets) * socket_bytes()


def _sockets(counter: int) -> int:
    """Number of sockets in the candidate's network namespace; 0 if the kernel does not count them.

    Includes sockets that were sent over others and not received, of which no process has a descriptor.
    """
    if counter < 0:
        return 0
    first_line = os.pread(counter, 64, 0).partition(b"\n")[0]
    return int(first_line.rpartition(b" ")[2])


def _await_no_sockets(server: _ForkServer) -> None:
    """Wait until the kernel has collected sockets that were sent into each other: their names outlive a candidate.

    If that takes too long, the fork server ends and its namespace with it.
    """
    deadline = time.monotonic() + COLLECTION_SECONDS
    while _sockets(server.sockets):
        for end in _socket.socketpair():
            end.close()  # closing any socket starts the collection
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.001)


def _descendants(processes: int) -> list[int]:
    """All descendants of the fork server; orphans are adopted by the candidate's first process or the fork server."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(processes):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                children.setdefault(int(_stat(processes, int(name))[1]), []).append(int(name))
    family: list[int] = []
    pending = [os.getpid()]
    while pending:
        new = children.pop(pending.pop(), [])
        family += new
        pending += new
    return family


def _stat(processes: int, process: int) -> list[bytes]:
    """Fields of ``stat`` after the process name, which may contain any character."""
    return _read(processes, f"{process}/stat").rpartition(b")")[2].split()


def _read(folder: int, path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _new_folder() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="gradatim-")


def _clean_up(folder: str, processes: int) -> None:
    """Without sandbox: kill the remaining processes that can be found, and remove the work folder."""
    for _ in range(100):
        remaining = _descendants(processes)
        for process in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, KILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if not remaining else 0)[0]:
                pass
        if not remaining:
            break
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
