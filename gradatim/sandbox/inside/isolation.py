"""Isolation of a forked child before it runs untrusted code: namespaces, limits, privileges.

The fork server is root of its own user namespace, with a single capability there: to create namespaces and mounts. Each
child has its own process namespace (``fork_isolated``): it can neither see nor signal the fork server, and when its
first process dies the kernel kills all others. The ``isolation_steps`` give it a mount namespace with an empty work
folder, set its resource limits and drop every privilege; its files vanish with the namespace. It inherits an empty
``/proc`` and the system call filter, which forbids objects that outlive a process: shared memory, semaphores, queues.

The fork server prepares the steps with all arguments before it forks: every page that a child writes to is copied, and
those copies, not the isolation, are most of the cost of a child.

Linux only; calls without a function in the standard library go through ctypes. A failing call raises ``OSError``, and a
child that cannot be isolated runs nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .serializer import SIGNALS

NEWNS, NEWPID = 0x00020000, 0x20000000
NOSUID, NODEV, NOEXEC, READ_ONLY, REC, PRIVATE = 2, 4, 8, 1, 1 << 14, 1 << 18
REMOUNT, BIND = 1 << 5, 1 << 12
SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_CHILD_SUBREAPER = 4, 38, 36
CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL, CAPABILITY_VERSION = 47, 4, 0x20080522

WORK = b"/work"
SERVICE_PROCESSES = 2
"""Processes of a sandbox that are not the candidate's: the first process and the fork server."""

_libc = ctypes.CDLL(None, use_errno=True)

Step = Callable[[], object]
"""Action on the calling process; ``OSError`` if it fails."""


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_mount, _unshare, _setns, _capset, _prctl = (
    getattr(_libc, name) for name in ("mount", "unshare", "setns", "capset", "prctl")
)
for _function in (_mount, _unshare, _setns, _capset, _prctl):
    _function.restype = _checked
_mount.argtypes = (ctypes.c_char_p,) * 3 + (ctypes.c_ulong, ctypes.c_char_p)
_prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


def prepare(sandboxed: bool) -> int:
    """Isolate the fork server itself; a descriptor of its process namespace, -1 without sandbox."""
    _prctl(SET_DUMPABLE, 0, 0, 0, 0)
    _prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not sandboxed:
        _prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return -1
    _mount(None, b"/", None, REC | PRIVATE, None)
    _prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for device in os.scandir("/dev"):
        if not device.is_symlink():
            _mount_read_only(device.path)
    own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    # Covered for the fork server too, which reads it through a descriptor opened before.
    _mount(b"tmpfs", b"/proc", b"tmpfs", NOSUID | NODEV | NOEXEC | READ_ONLY, b"size=0,nr_inodes=1")
    return own_namespace


def _mount_read_only(path: str) -> None:
    """Mount ``path`` read-only: a device stays writable, but its times, visible to all sandboxes, cannot change."""
    flags = os.statvfs(path).f_flag & (NOSUID | NODEV | NOEXEC)
    _mount(None, path.encode(), None, REMOUNT | BIND | READ_ONLY | flags, None)


FRESH_STREAMS: tuple[Step, ...] = (
    partial(os.closerange, 0, 3),
    partial(os.open, os.devnull, os.O_RDWR),
    partial(os.set_inheritable, 0, True),
    partial(os.dup2, 0, 1),
    partial(os.dup2, 0, 2),
)
"""New descriptors 0 to 2. Those of the fork server have status flags, an owner and locks that outlive a candidate."""


def fork_isolated(own_namespace: int) -> int:
    """``os.fork`` with the child as first process of a new process namespace."""
    if own_namespace < 0:
        return os.fork()
    _unshare(NEWPID)
    child = -1
    try:
        child = os.fork()
    finally:
        if child:  # a second unshare requires that children would be in the own namespace again
            _setns(own_namespace, NEWPID)
    return child


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


def isolation_steps(limits: Mapping[str, Any], sandboxed: bool) -> tuple[Step, ...]:
    """Steps of a new child, in this order; ``sandboxed`` False omits all that need a privilege.

    A new session, so that signals stay within it; a mount namespace with an empty work folder; limits; no capabilities,
    permanently, because no-new-privileges is set (``prepare``).
    """
    if not sandboxed:
        return (os.setsid, *FRESH_STREAMS, *_limit_steps(limits))
    inodes = max(64, limits["folder_bytes"] // 4096)
    options = f"size={limits['folder_bytes']},nr_inodes={inodes},mode=0700".encode()
    version, none = _Header(CAPABILITY_VERSION, 0), (_Capabilities * 2)()
    return (
        os.setsid,
        *FRESH_STREAMS,
        partial(_unshare, NEWNS),
        partial(_mount, b"tmpfs", WORK, b"tmpfs", NOSUID | NODEV, options),
        partial(os.chdir, WORK),
        *_limit_steps(limits),
        partial(_capset, ctypes.byref(version), ctypes.byref(none)),
    )


def _limit_steps(limits: Mapping[str, Any]) -> list[Step]:
    """Resource limits of one child. The fork server measures CPU time more closely; this limit is the fallback."""
    values = {resource.RLIMIT_CPU: int(limits["cpu_seconds"]) + 2, resource.RLIMIT_NOFILE: limits["open_files"]}
    if limits["address_space"]:
        values[resource.RLIMIT_AS] = limits["memory_bytes"]
    return [partial(resource.setrlimit, kind, (_capped(kind, value),) * 2) for kind, value in values.items()]


def limit_all(limits: Mapping[str, Any]) -> None:
    """Set resource limits of the fork server, inherited by every child."""
    _set_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _set_limit(resource.RLIMIT_NPROC, limits["processes"] + SERVICE_PROCESSES)
    _set_limit(resource.RLIMIT_SIGPENDING, SIGNALS)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set_limit(kind, 0)


def _set_limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (_capped(kind, value),) * 2)


def _capped(kind: int, value: int) -> int:
    highest = resource.getrlimit(kind)[1]
    return value if highest == resource.RLIM_INFINITY else min(value, highest)
