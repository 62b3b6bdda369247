"""Which part of the host does a program see?

``minimal_root`` names, as arguments of bubblewrap, what is the same for every run: the system's programs and libraries,
the few files of ``/etc`` that they do not work without, a few devices, a fresh ``/proc``. All of it can be read only.
Nothing of it belongs to a user: no home, no configuration, no name of the machine. The work folder is ``enclosure``'s.

Which command line puts a program behind walls?

``enclose`` turns a command into one that runs it inside bubblewrap: every namespace of its own, a root that can only
be read and holds little more than ``/usr``, a work folder that is a file system of its own, in memory and limited,
no environment, no new rights, the filter of ``seccomp``. Files for the work folder travel through descriptors, so the
host's disk never holds them. The command is not the first process of its process namespace, because the kernel hides
many signals from that one: a few lines of shell are, which set the resource limits (inside, where a process limit
counts this program only) and wait. When that first process ends, the kernel kills whatever else is there. Its memory
cannot be read or written from inside, although it has the program's user: its shell is a copy without read permission.

``enclose`` starts nothing; ``supervise`` does, for programs that end, and ``workers`` for interpreters that stay.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError, WorkFailed
from . import seccomp
from .inside.bounds import SIGNALS
from .limits import STACK_BYTES, Limits
from .rights import drop_rights, reachable

__all__ = ["ENVIRONMENT", "WORK", "Enclosed", "check_command", "check_name", "enclose", "initial", "minimal_root"]


WORK = "/work"
ETC = ("ld.so.cache", "alternatives", "java-*")
"""The library index, and what Debian's compilers and Java are links to."""

DEVICES = ("null", "full", "random", "urandom")
"""No ``/dev/zero``: mapped as shared it is memory that is counted for no process. ``/dev/full`` reads as zeros, too."""

COVERED = ("/proc/cmdline",)
"""Files of /proc that tell of the host. A device file on a mount without devices covers each: it cannot be opened."""


@functools.cache
def minimal_root() -> tuple[str, ...]:
    """The part of the root that is the same for all: the system's programs, few files of /etc, few devices."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for path in sorted(Path("/").glob("*bin")) + sorted(Path("/").glob("lib*")):
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for pattern in ETC:
        for path in sorted(Path("/etc").glob(pattern)):
            arguments += ["--ro-bind", str(path.resolve()), str(path)]
    for device in DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd"]
    # What libraries expect to write to is the work folder by other names: one file system, one limit.
    arguments += ["--symlink", WORK, "/dev/shm", "--symlink", WORK, "/tmp"]
    arguments += ["--proc", "/proc"]
    for covered in COVERED:
        arguments += ["--ro-bind", "/dev/null", covered]
    return tuple(arguments)


ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": WORK, "TMPDIR": WORK, "LANG": "C.UTF-8"}
NAMESPACES = ("user", "ipc", "pid", "net", "uts", "cgroup")
INSIDE_UID = "1000"
PAGE = 4096
SHELL, FIRST = "/bin/sh", "/first"
BEGIN = f'echo 1000 >/proc/self/oom_score_adj; exec {FIRST} "$@"'
"""Before the first process's own lines, because it may not write to its own files of /proc."""

PASSWD = f"sandbox:x:{INSIDE_UID}:{INSIDE_UID}::{WORK}:/bin/sh\n".encode()


@dataclass(frozen=True)
class Enclosed:
    """A command line to start with ``pass_fds`` open and an empty environment; ``close`` it once it is started.

    The environment must be empty because bubblewrap's own can be read from inside.
    """

    argv: tuple[str, ...]
    pass_fds: tuple[int, ...]
    owned: tuple[int, ...] = ()

    def close(self) -> None:
        """Close this process's copies of the descriptors that were made for the command."""
        for each in self.owned:
            os.close(each)

    def __enter__(self) -> Enclosed:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def enclose(
    command: Sequence[str],
    *,
    limits: Limits,
    files: Mapping[str, bytes] = {},
    mounts: Mapping[Path, str] = {},
    environment: Mapping[str, str] = {},
    keep_fds: Sequence[int] = (),
    status_fd: int | None = None,
    collect: Sequence[str] = (),
    collect_fd: int | None = None,
    per_process: bool = True,
    first: Sequence[str] = (),
    slot: int = 0,
) -> Enclosed:
    """The command line that runs ``command`` behind walls, with ``/work`` as its folder.

    ``mounts`` are host folders or files, to be read only, and their places inside. ``keep_fds`` stay open in the
    command, under the same numbers. ``status_fd`` receives what ``bwrap --json-status-fd`` writes: the host's number of
    the first process inside, and its exit code. ``collect`` names files that are written, as a tar, to ``collect_fd``
    after the command. ``per_process`` False leaves CPU time, address space, file size and open files to the command,
    which is then trusted to set them before it runs anything else. ``first`` are words to put before all others, as a
    control group's. ``slot`` tells apart what runs at the same time.

    Raises ``UserError`` for names, commands or mounts that cannot be used, ``WorkFailed`` when this process has no
    descriptors or memory left for the files.
    """
    check_command(command, environment)
    for place in mounts.values():
        if not PurePosixPath(place).is_absolute() or "\0" in place:
            raise UserError("the place of a mount must be an absolute path", given=repr(place))
    init = initial(limits, collect=collect, collect_fd=collect_fd, per_process=per_process)
    sources, staging = reachable(mounts)
    handed = _Handed()
    try:
        arguments = _arguments(handed, files, list(zip(sources, mounts.values(), strict=True)), environment, limits)
        if status_fd is not None:
            arguments += ["--json-status-fd", str(status_fd)]
        described = handed.add("arguments", "\0".join([*arguments, ""]).encode("utf-8", "surrogateescape"))
    except OSError as error:
        handed.close()
        raise WorkFailed("a program's files cannot be handed over", where="sandbox", given=str(error)) from error
    except BaseException:
        handed.close()
        raise
    bwrap = shutil.which("bwrap") or "bwrap"
    argv = (
        *first,
        *staging,
        *drop_rights(slot),
        bwrap,
        "--args",
        described,
        "--",
        *(SHELL, "-c", BEGIN, "begin"),
        *("-c", init, "init"),
        *command,
    )
    kept = (each for each in (*keep_fds, status_fd, collect_fd) if each is not None)
    return Enclosed(argv, (*handed.descriptors, *kept), tuple(handed.descriptors))


def initial(
    limits: Limits,
    *,
    collect: Sequence[str] = (),
    collect_fd: int | None = None,
    per_process: bool = True,
    processes: bool = True,
) -> str:
    """The shell's lines that set limits, run ``"$@"``, wait, and hand its exit code on, also when it was a signal.

    The shell's own words ("Killed") go nowhere; the program's stderr passes by in descriptor 3.
    """
    lines = [
        "exec 3>&2 2>/dev/null",
        # The kernel shields the first process from all signals of the others but those that a shell listens to.
        "trap : INT TERM HUP QUIT",
        "ulimit -c 0",
        f"ulimit -s {STACK_BYTES >> 10}",
        # No locked memory; few queued signals, where the shell has a letter for them.
        "ulimit -l 0",
        f"ulimit -i {SIGNALS}",
    ]
    if per_process:
        # One second more than asked for: the watch decides, and this ends what hides from it.
        lines += [f"ulimit -t {math.ceil(limits.cpu_seconds) + 1}", f"ulimit -f {max(1, limits.file_bytes >> 9)}"]
        lines += [f"ulimit -n {limits.open_files}"]
        lines += [f"ulimit -v {limits.memory_bytes >> 10}"] if limits.address_space else []
    if processes:
        # Shells differ in the letter; the shell itself counts as one process.
        lines += [f"ulimit -u {limits.processes + 1} || ulimit -p {limits.processes + 1} || exit 125"]
    lines += ['(exec "$@" 2>&3 3>&-)', "code=$?"]
    if collect and collect_fd is not None:
        names = " ".join(shlex.quote(check_name(name)) for name in collect)
        # A path of its own opens the pipe, because the shell has no words for descriptors above 9.
        lines += [f"tar -chf /proc/self/fd/{collect_fd} -C {WORK} --ignore-failed-read -- {names}"]
    return "\n".join([*lines, "exit $code"])


def check_command(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """``UserError`` for a command line or an environment that no system call takes."""
    if not command or isinstance(command, str):
        raise UserError("a command is a list of words", given=repr(command))
    for word in (*command, *environment, *environment.values()):
        if "\0" in word:
            raise UserError("a command line or environment cannot hold a NUL byte", given=repr(word[:60]))
    longest = max(map(len, command))
    if longest > 100_000:
        raise UserError("a word of a command is too long", given=longest, allowed=100_000, hint="pass it as a file")
    for name in environment:
        if not name or "=" in name:
            raise UserError("this cannot name a variable of the environment", given=repr(name))


def check_name(name: str) -> str:
    """``name`` when it is a path below the work folder; ``UserError`` otherwise."""
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise UserError(
            "this cannot name a file of the work folder", given=repr(name[:80]), allowed="a plain relative path"
        )
    return name


def _arguments(
    handed: _Handed,
    files: Mapping[str, bytes],
    mounts: Sequence[tuple[str, str]],
    environment: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """bubblewrap's arguments; the contents that they name go to ``handed``."""
    arguments = [f"--unshare-{each}" for each in NAMESPACES]
    arguments += ["--uid", INSIDE_UID, "--gid", INSIDE_UID, "--hostname", "sandbox", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    arguments += ["--seccomp", handed.add("seccomp", seccomp.program()), *minimal_root()]
    arguments += ["--file", handed.add("passwd", PASSWD), "/etc/passwd"]
    # The kernel protects the memory of a process whose program cannot be read, also from processes of the same user.
    arguments += ["--perms", "0111", "--file", handed.add("shell", _shell()), FIRST]
    for source, place in mounts:
        arguments += ["--ro-bind", source, place]
    # What the program is given does not count as written by it; a page each for the names.
    given = sum(len(content) + 2 * PAGE for content in files.values())
    arguments += ["--size", str(max(limits.folder_bytes + given, PAGE)), "--tmpfs", WORK]
    for name, content in files.items():
        arguments += ["--perms", "0755", "--file", handed.add("file", content), f"{WORK}/{check_name(name)}"]
    for name, value in {**ENVIRONMENT, **environment}.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--remount-ro", "/", "--chdir", WORK]


@functools.cache
def _shell() -> bytes:
    """The shell's program, for a copy that can be executed but not read."""
    return Path(SHELL).read_bytes()


class _Handed:
    """Contents that travel to bubblewrap through descriptors of files in memory."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def add(self, name: str, content: bytes) -> str:
        """The descriptor, as a word, to read ``content`` from; ``OSError`` when there is no room for it."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        self.descriptors.append(descriptor)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return str(descriptor)

    def close(self) -> None:
        """Close them all."""
        for each in self.descriptors:
            os.close(each)
