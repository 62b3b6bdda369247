"""Is there a control group to put a program into, and how is it made?

A control group (version 2) counts what nothing else does: the kernel's own memory, files in memory, and all of it at
every moment, not at every look. It is an extra wall behind the others, which hold alone, because few places let an
ordinary user make one: below a folder that was handed over to the user with the controllers ``memory`` and
``pids``, as systemd does for what it starts for a user (``systemd-run --user --scope``). ``find_cgroup`` tries it once;
where it cannot be had, nothing here is used, and ``gradatim doctor`` says so.

Every run has a group of its own, gone when the run is over. This module starts no program.
"""

from __future__ import annotations

import functools
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .limits import Limits

__all__ = ["CONTROLLERS", "Cgroup", "find_cgroup", "group", "parent_of"]

CONTROLLERS = frozenset({"memory", "pids"})
SLACK_BYTES = 32 << 20
"""On top of the program's memory and files: the walls' own, and the kernel's. The watch is the closer limit."""

SLACK_PROCESSES = 8
ATTEMPTS = 100


class Cgroup:
    """One group: the folder that is its interface, and the words that put a command into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def words(self) -> list[str]:
        """To be put before a command: its process joins the group, then becomes the command."""
        join = f'echo 0 >{shlex.quote(str(self.folder / "cgroup.procs"))} && exec "$@"'
        return ["/bin/sh", "-c", join, "join"]

    def full(self) -> bool:
        """Whether the kernel has killed a process of the group because its memory was used up."""
        with suppress(OSError, ValueError):
            for line in (self.folder / "memory.events").read_text("ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill" and int(count) > 0:
                    return True
        return False

    def kill(self) -> None:
        """Kill whatever is in the group."""
        with suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1", "ascii")


@functools.cache
def find_cgroup() -> Path | None:
    """The folder below which this process can make groups with both controllers, found out by doing it; or None."""
    try:
        parent = parent_of(
            Path("/proc/self/cgroup").read_text("utf-8"), Path("/proc/self/mountinfo").read_text("utf-8")
        )
        if parent is None:
            return None
        with group(parent, Limits()) as trial:
            done = subprocess.run([*trial.words(), "/bin/true"], env={}, capture_output=True, timeout=20)
        return parent if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def parent_of(own: str, mounts: str, needed: frozenset[str] = CONTROLLERS) -> Path | None:
    """The process's own group, or the one above when that was handed to this user, with the controllers ``needed``.

    ``own`` is the text of ``/proc/self/cgroup``, ``mounts`` that of ``mountinfo``. A group that systemd keeps to itself
    is left alone, also by root, who could write to it.
    """
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if path is None or not after.startswith("cgroup2 ") or len(fields) < 5:
            continue
        inside = os.path.relpath(path, fields[3])
        here = Path(fields[4], inside)
        above = [here.parent] if inside != "." and os.geteuid() != 0 and _owner(here.parent) == os.geteuid() else []
        for folder in (here, *above):
            if not inside.startswith("..") and os.access(folder, os.W_OK) and needed <= _handed_down(folder):
                return folder
    return None


@contextmanager
def group(parent: Path, limits: Limits) -> Iterator[Cgroup]:
    """A group below ``parent`` that keeps ``limits``; with the context everything in it is killed and it is removed.

    ``OSError`` when it cannot be made. Controllers that ``parent`` does not hand down are left out.
    """
    made = Cgroup(parent / f"gradatim-{os.getpid()}-{secrets.token_hex(4)}")
    made.folder.mkdir()
    try:
        for file, value in (
            ("memory.max", limits.memory_bytes + limits.folder_bytes + SLACK_BYTES),
            ("memory.swap.max", 0),
            ("memory.oom.group", 1),
            ("pids.max", limits.processes + SLACK_PROCESSES),
        ):
            if (made.folder / file).exists():
                (made.folder / file).write_text(str(value), "ascii")
        yield made
    finally:
        made.kill()
        _remove(made.folder)


def _remove(folder: Path) -> None:
    """Remove the group; the kernel may take a moment to let go of processes that have ended."""
    for _ in range(ATTEMPTS):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _handed_down(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset((folder / "cgroup.subtree_control").read_text("ascii").split())
    return frozenset()


def _owner(folder: Path) -> int | None:
    with suppress(OSError):
        return folder.stat().st_uid
    return None
