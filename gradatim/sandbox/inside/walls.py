"""What does a forked child give up before it runs foreign code?

The nest is root of a user namespace of its own, with the one right to make namespaces and mounts there, and nothing
outside. Each child has its own process namespace (``fork_apart``): it can neither see nor signal the nest, and when
its first process dies the kernel kills all the others. By its ``steps`` the child takes a mount namespace of its own
with a fresh work folder, sets its resource limits and gives up every right. What it has written vanishes with its
namespace. It inherits an empty ``/proc`` and the filter of system calls, which lets nobody make what outlives a
process: shared memory, semaphores, queues.

The nest makes the steps, with all their arguments, before it forks: whatever a child touches is a page to be copied
for it, and that, not the walls, is most of what a child costs.

Linux only; the calls that the standard library has no name for go through ctypes. Any of them failing raises
``OSError``: a child that cannot be enclosed runs nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .bounds import SIGNALS

__all__ = ["Step", "fork_apart", "limit_all", "prepare", "steps"]

NEWNS, NEWPID = 0x00020000, 0x20000000
NOSUID, NODEV, NOEXEC, READ_ONLY, REC, PRIVATE = 2, 4, 8, 1, 1 << 14, 1 << 18
REMOUNT, BIND = 1 << 5, 1 << 12
SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_CHILD_SUBREAPER = 4, 38, 36
CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL, CAPABILITY_VERSION = 47, 4, 0x20080522

WORK = b"/work"
OTHERS = 2
"""Processes of a sandbox that are not the candidate's: its first one and the nest."""

_libc = ctypes.CDLL(None, use_errno=True)

Step = Callable[[], object]
"""Something done to the process that calls it; ``OSError`` when it cannot be done."""


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_mount, _unshare, _setns, _capset, _prctl = (
    getattr(_libc, name) for name in ("mount", "unshare", "setns", "capset", "prctl")
)
for _each in (_mount, _unshare, _setns, _capset, _prctl):
    _each.restype = _checked
_mount.argtypes = (ctypes.c_char_p,) * 3 + (ctypes.c_ulong, ctypes.c_char_p)
_prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


def prepare(walls: bool) -> int:
    """What the nest does once; a descriptor of its own process namespace, -1 without walls."""
    _prctl(SET_DUMPABLE, 0, 0, 0, 0)
    _prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not walls:
        _prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return -1
    _mount(None, b"/", None, REC | PRIVATE, None)
    _prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for device in os.scandir("/dev"):
        if not device.is_symlink():
            _close_to_changes(device.path)
    own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    # Covered for the nest too, which looks at it through the descriptor that it has opened before.
    _mount(b"tmpfs", b"/proc", b"tmpfs", NOSUID | NODEV | NOEXEC | READ_ONLY, b"size=0,nr_inodes=1")
    return own_namespace


def _close_to_changes(path: str) -> None:
    """Mount ``path`` read-only. A device can still be written to, but its times, which all sandboxes see, are fixed."""
    kept = os.statvfs(path).f_flag & (NOSUID | NODEV | NOEXEC)
    _mount(None, path.encode(), None, REMOUNT | BIND | READ_ONLY | kept, None)


FRESH_STREAMS: tuple[Step, ...] = (
    partial(os.closerange, 0, 3),
    partial(os.open, os.devnull, os.O_RDWR),
    partial(os.set_inheritable, 0, True),
    partial(os.dup2, 0, 1),
    partial(os.dup2, 0, 2),
)
"""New descriptors 0 to 2. Those of the nest have status flags, an owner and locks that outlive a candidate."""


def fork_apart(own_namespace: int) -> int:
    """``os.fork``, the child being the first process of a new process namespace."""
    if own_namespace < 0:
        return os.fork()
    _unshare(NEWPID)
    child = -1
    try:
        child = os.fork()
    finally:
        if child:  # a second unshare is allowed only to one whose children would stay in its own namespace
            _setns(own_namespace, NEWPID)
    return child


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


def steps(limits: Mapping[str, Any], walls: bool) -> tuple[Step, ...]:
    """What a fresh child does first, in this order; ``walls`` False leaves out all that needs a right to be done.

    A session of its own, so that its signals reach nobody else; a mount namespace with a work folder of its own;
    limits; no right any more, for good: without new privileges (``prepare``) no program that is started gives one back.
    """
    if not walls:
        return (os.setsid, *FRESH_STREAMS, *_limit(limits))
    inodes = max(64, limits["folder_bytes"] // 4096)
    options = f"size={limits['folder_bytes']},nr_inodes={inodes},mode=0700".encode()
    version, none = _Header(CAPABILITY_VERSION, 0), (_Capabilities * 2)()
    return (
        os.setsid,
        *FRESH_STREAMS,
        partial(_unshare, NEWNS),
        partial(_mount, b"tmpfs", WORK, b"tmpfs", NOSUID | NODEV, options),
        partial(os.chdir, WORK),
        *_limit(limits),
        partial(_capset, ctypes.byref(version), ctypes.byref(none)),
    )


def _limit(limits: Mapping[str, Any]) -> list[Step]:
    """Resource limits of one child. CPU time is watched closer by the nest; this ends what hides from it."""
    wanted = {resource.RLIMIT_CPU: int(limits["cpu_seconds"]) + 2, resource.RLIMIT_NOFILE: limits["open_files"]}
    if limits["address_space"]:
        wanted[resource.RLIMIT_AS] = limits["memory_bytes"]
    return [partial(resource.setrlimit, kind, (_possible(kind, value),) * 2) for kind, value in wanted.items()]


def limit_all(limits: Mapping[str, Any]) -> None:
    """Resource limits that the nest sets for itself and every child inherits."""
    _set_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _set_limit(resource.RLIMIT_NPROC, limits["processes"] + OTHERS)
    _set_limit(resource.RLIMIT_SIGPENDING, SIGNALS)
    for each in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set_limit(each, 0)


def _set_limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (_possible(kind, value),) * 2)


def _possible(kind: int, value: int) -> int:
    highest = resource.getrlimit(kind)[1]
    return value if highest == resource.RLIM_INFINITY else min(value, highest)
