"""What does a forked child give up before it runs foreign code?

The nest is root of a user namespace of its own, with the one right to make namespaces and mounts there, and nothing
outside. Each child has its own process namespace (``fork_apart``): it can neither see nor signal the nest, and when
its first process dies the kernel kills all the others. In ``enclose`` the child takes a mount namespace of its own with
a fresh work folder; then it sets its resource limits and gives up every right. What it has written vanishes with its
namespace. It inherits an empty ``/proc`` and the filter of system calls, which lets nobody make what outlives a
process: shared memory, semaphores, queues.

Linux only; the calls that the standard library has no name for go through ctypes. Any of them failing raises
``OSError``: a child that cannot be enclosed runs nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Mapping
from typing import Any

__all__ = ["calm", "enclose", "fork_apart", "limit", "limit_all", "prepare", "renounce"]

NEWNS, NEWPID = 0x00020000, 0x20000000
NOSUID, NODEV, NOEXEC, READ_ONLY, REC, PRIVATE = 2, 4, 8, 1, 1 << 14, 1 << 18
SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_CHILD_SUBREAPER = 4, 38, 36
CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL, CAPABILITY_VERSION = 47, 4, 0x20080522

WORK = "/work"
OTHERS = 2
"""Processes of a sandbox that are not the candidate's: its first one and the nest."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(ctypes.c_int(option), *padded))


def _mount(kind: bytes | None, target: str, flags: int, data: str = "") -> None:
    _checked(_libc.mount(kind, target.encode(), kind, ctypes.c_ulong(flags), data.encode() or None))


def prepare(walls: bool) -> int:
    """What the nest does once; a descriptor of its own process namespace, -1 without walls."""
    _prctl(SET_DUMPABLE, 0)
    _prctl(SET_NO_NEW_PRIVS, 1)
    if not walls:
        _prctl(SET_CHILD_SUBREAPER, 1)
        return -1
    _mount(None, "/", REC | PRIVATE)
    _prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    # Covered for the nest too, which looks at it through the descriptor that it has opened before.
    _mount(b"tmpfs", "/proc", NOSUID | NODEV | NOEXEC | READ_ONLY, "size=0,nr_inodes=1")
    return own_namespace


def fork_apart(own_namespace: int) -> int:
    """``os.fork``, the child being the first process of a new process namespace."""
    if own_namespace < 0:
        return os.fork()
    _checked(_libc.unshare(NEWPID))
    child = -1
    try:
        child = os.fork()
    finally:
        if child:  # a second unshare is allowed only to one whose children would stay in its own namespace
            _checked(_libc.setns(own_namespace, NEWPID))
    return child


def enclose(folder_bytes: int) -> None:
    """A mount namespace with a work folder of the child's own."""
    _checked(_libc.unshare(NEWNS))
    inodes = max(64, folder_bytes // 4096)
    _mount(b"tmpfs", WORK, NOSUID | NODEV, f"size={folder_bytes},nr_inodes={inodes},mode=0700")
    os.chdir(WORK)


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


def renounce() -> None:
    """Give up every right, for good: without new privileges (``prepare``) no program that is started gives one back."""
    none = (_Capabilities * 2)()
    _checked(_libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION, 0)), ctypes.byref(none)))


def limit_all(limits: Mapping[str, Any]) -> None:
    """Resource limits that the nest sets for itself and every child inherits."""
    _set_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _set_limit(resource.RLIMIT_NPROC, limits["processes"] + OTHERS)
    for each in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set_limit(each, 0)


def limit(limits: Mapping[str, Any]) -> None:
    """Resource limits of one child. CPU time is watched closer by the nest; this ends what hides from it."""
    _set_limit(resource.RLIMIT_CPU, int(limits["cpu_seconds"]) + 2)
    _set_limit(resource.RLIMIT_NOFILE, limits["open_files"])
    if limits["address_space"]:
        _set_limit(resource.RLIMIT_AS, limits["memory_bytes"])


def _set_limit(kind: int, value: int) -> None:
    highest = resource.getrlimit(kind)[1]
    value = value if highest == resource.RLIM_INFINITY else min(value, highest)
    resource.setrlimit(kind, (value, value))


def calm() -> None:
    """A session of its own. Signals are as Python starts with: the nest never changed them."""
    os.setsid()
