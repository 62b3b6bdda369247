"""Resource limits of an untrusted program.

``Limits`` is a plain value. Kernel resource limits, the size of the work folder's file system (``bwrap``) and
measurements from outside (``supervise``) enforce it. CPU time decides whether a program was too slow, because it does
not depend on the load of the machine; the wall clock limit is a generous fallback for programs that wait instead of
computing.

Control groups (version 2) as an additional limit, where the user may create them.

A control group also counts kernel memory and files in memory, and at every moment instead of at intervals. It is an
additional layer and the others suffice, because few systems let an ordinary user create a group: only below a folder
that was delegated to the user with the controllers ``memory`` and ``pids``, as systemd does for a user's services
(``systemd-run --user --scope``). ``find_cgroup`` tries it once; ``gradatim doctor`` reports if it is unavailable.

Each run has its own group, which is removed at its end.

Values of a sandboxed run: the command, its execution, and the verdict on a candidate.

An ``Invocation`` is one command with its files and limits. An ``Execution`` is the result of a sandbox: ending, output
and usage of the program; whether an exit with 0 means that tests passed is the caller's decision. A ``Verdict`` is one
of five outcomes with a reason of one line. The reason often quotes output of an untrusted program, so the constructor
makes it safe to print.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import UserError

MIB = 1 << 20
STACK_BYTES = 8 * MIB
"""Stack size of the main thread: the usual value, set so that a recursion ends at the same depth everywhere."""


@dataclass(frozen=True)
class Limits:
    """The limits of one run; all whole-tree limits count the program with everything it starts.

    ``cpu_seconds``: CPU time of the tree, in seconds; more is the ending ``timeout``.
    ``wall_seconds``: seconds on the clock; None is four times the CPU time and ten seconds.
    ``memory_bytes``: memory of the tree and, with ``address_space``, the address space of each process.
    ``address_space``: False for runtimes that map far more than they use (Java, Go, node); only the tree is measured.
    ``file_bytes``: the size of one file; ``folder_bytes``: of all files that the program writes, together.
    ``output_bytes``: bytes kept of stdout and of stderr; further output is read and discarded.
    ``open_files``: descriptors of one process. ``processes``: processes and threads of the tree.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float | None = None
    memory_bytes: int = 1 << 30
    address_space: bool = True
    file_bytes: int = 16 * MIB
    folder_bytes: int = 64 * MIB
    output_bytes: int = MIB
    open_files: int = 64
    processes: int = 64

    def __post_init__(self) -> None:
        floors = {
            "cpu_seconds": 0.01,
            "wall_seconds": 0.01,
            "memory_bytes": 4 * MIB,
            "file_bytes": 0,
            "folder_bytes": 0,
            "output_bytes": 0,
            "open_files": 8,
            "processes": 1,
        }
        for name, minimum in floors.items():
            value = getattr(self, name)
            if name == "wall_seconds" and value is None:
                continue
            integral = name not in ("cpu_seconds", "wall_seconds")
            number = isinstance(value, int if integral else int | float) and not isinstance(value, bool)
            if not number or not minimum <= value < 1 << 62 or not math.isfinite(value):
                allowed = f"{'a integral number' if integral else 'a number'} of at least {minimum}"
                raise UserError(f"the limit {name} has an invalid value", given=repr(value), allowed=allowed)

    @property
    def wall(self) -> float:
        """Wall clock limit in seconds, with the default applied."""
        return 4 * self.cpu_seconds + 10 if self.wall_seconds is None else float(self.wall_seconds)


CONTROLLERS = frozenset({"memory", "pids"})
SLACK_BYTES = 32 << 20
"""Allowance for memory of the sandbox and the kernel, in addition to the program's. ``supervise`` is stricter."""

SLACK_PROCESSES = 8
ATTEMPTS = 100


class Cgroup:
    """One group, given by its folder in the cgroup file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prefix(self) -> list[str]:
        """Command prefix: the process joins the group, then executes the command."""
        join = f'echo 0 >{shlex.quote(str(self.folder / "cgroup.procs"))} && exec "$@"'
        return ["/bin/sh", "-c", join, "join"]

    def full(self) -> bool:
        """Whether the kernel has killed a process of the group because its memory was exhausted."""
        with suppress(OSError, ValueError):
            for line in (self.folder / "memory.events").read_text("ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill" and int(count) > 0:
                    return True
        return False

    def kill(self) -> None:
        """Kill all processes of the group."""
        with suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1", "ascii")


@functools.cache
def find_cgroup() -> Path | None:
    """Folder below which this process can create groups with both controllers, determined by a trial; or None."""
    try:
        parent = parent_of(
            Path("/proc/self/cgroup").read_text("utf-8"), Path("/proc/self/mountinfo").read_text("utf-8")
        )
        if parent is None:
            return None
        with group(parent, Limits()) as trial:
            done = subprocess.run([*trial.prefix(), "/bin/true"], env={}, capture_output=True, timeout=20)
        return parent if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def parent_of(membership: str, mounts: str, required: frozenset[str] = CONTROLLERS) -> Path | None:
    """The process's own group, or its parent if delegated to this user, with the controllers ``required``.

    ``membership`` is the text of ``/proc/self/cgroup``, ``mounts`` that of ``mountinfo``. A group that systemd has not
    delegated is not used, not even by root, who could write to it.
    """
    path = next((line[3:] for line in membership.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if path is None or not after.startswith("cgroup2 ") or len(fields) < 5:
            continue
        inside = os.path.relpath(path, fields[3])
        here = Path(fields[4], inside)
        above = [here.parent] if inside != "." and os.geteuid() != 0 and _owner(here.parent) == os.geteuid() else []
        for folder in (here, *above):
            if not inside.startswith("..") and os.access(folder, os.W_OK) and required <= _delegated(folder):
                return folder
    return None


@contextmanager
def group(parent: Path, limits: Limits) -> Iterator[Cgroup]:
    """A group below ``parent`` with ``limits``; at the end of the context its processes are killed and it is removed.

    ``OSError`` if it cannot be created. Controllers that ``parent`` does not delegate are omitted.
    """
    cgroup = Cgroup(parent / f"gradatim-{os.getpid()}-{secrets.token_hex(4)}")
    cgroup.folder.mkdir()
    try:
        for file, value in (
            ("memory.max", limits.memory_bytes + limits.folder_bytes + SLACK_BYTES),
            ("memory.swap.max", 0),
            ("memory.oom.group", 1),
            ("pids.max", limits.processes + SLACK_PROCESSES),
        ):
            if (cgroup.folder / file).exists():
                (cgroup.folder / file).write_text(str(value), "ascii")
        yield cgroup
    finally:
        cgroup.kill()
        _remove(cgroup.folder)


def _remove(folder: Path) -> None:
    """Remove the group; the kernel may need a moment to release processes that have ended."""
    for _ in range(ATTEMPTS):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _delegated(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset((folder / "cgroup.subtree_control").read_text("ascii").split())
    return frozenset()


def _owner(folder: Path) -> int | None:
    with suppress(OSError):
        return folder.stat().st_uid
    return None


Ending = Literal["exited", "signalled", "timeout", "memory"]


@dataclass(frozen=True)
class Invocation:
    """Arguments of ``Sandbox.run``; see there."""

    command: Sequence[str]
    files: Mapping[str, bytes]
    stdin: bytes
    limits: Limits
    mounts: Mapping[Path, str]
    environment: Mapping[str, str]
    collect: Sequence[str]


@dataclass(frozen=True)
class Execution:
    """One run of a program.

    ``ending``: ``exited`` by itself; ``signalled``, killed by a signal; ``timeout``, exceeded its CPU time or wall
    clock limit; ``memory``, killed for exceeding its memory or number of files. A program whose allocation fails at the
    address-space limit ends in its own way, usually with an error message.
    ``code``: the exit code, or the signal's number. As in a shell, an exit code of 128 + n is read as signal n.
    ``cut``: an output was longer than its limit, or could not be read to its end.
    ``cpu_seconds``, ``wall_seconds``: of the whole tree, including the few milliseconds of the sandbox's setup.
    ``files``: the requested files by name, those that exist and are within the limits.
    """

    ending: Ending
    code: int
    stdout: bytes
    stderr: bytes
    cut: bool
    cpu_seconds: float
    wall_seconds: float
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """The ending in words, for the reason of a verdict."""
        if self.ending == "exited":
            return f"exited with {self.code}"
        if self.ending == "signalled":
            has_name = self.code in {number.value for number in signal.Signals}
            return f"was killed by {signal.Signals(self.code).name if has_name else f'signal {self.code}'}"
        return {"timeout": "ran out of time", "memory": "held too much memory"}[self.ending]

    @property
    def ok(self) -> bool:
        """Whether the program exited by itself with 0."""
        return self.ending == "exited" and self.code == 0


Outcome = Literal["passed", "failed", "timeout", "invalid", "unjudged"]
REASON_LENGTH = 300


@dataclass(frozen=True)
class Verdict:
    """``passed``; ``failed``; ``timeout``, too slow; ``invalid``, not executable; ``unjudged``, undecided.

    ``reason`` is one line, safe to print: escaped and cut by the constructor. ``cpu_seconds`` is the CPU time of the
    candidate.
    """

    outcome: Outcome
    reason: str
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", printable(self.reason))

    @property
    def passed(self) -> bool:
        """Whether the candidate passed."""
        return self.outcome == "passed"


def printable(text: str | bytes, length: int = REASON_LENGTH) -> str:
    """``text`` on one line: white space collapsed, control characters escaped, cut at ``length``."""
    if isinstance(text, bytes):
        text = text[: 8 * length].decode("utf-8", "backslashreplace")
    line = " ".join(text[: 8 * length].split())
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)
    return safe if len(safe) <= length else safe[: length - 1] + "…"
