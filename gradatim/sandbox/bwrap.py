"""The bubblewrap command line of a sandboxed program.

``minimal_root`` contains the part that all runs share, read-only: the system's programs and libraries, the few files of
``/etc`` that they require, a few devices, a new ``/proc``; no home, no configuration, no host name.

``isolate`` wraps a command: separate namespaces of every kind, a read-only root with little more than ``/usr``, a work
folder on a limited file system in memory, no environment, no new privileges, the filter of ``seccomp``. Files for the
work folder are passed through descriptors and never written to the host's disk. The first process of the process
namespace is a short shell script, because the kernel withholds many signals from that process. The script sets the
resource limits (inside, where the process limit counts this program only) and waits; when it ends, the kernel kills all
other processes. Its memory cannot be accessed by the program, although both have the same user: its shell is a copy
without read permission.

The command is started by ``supervise`` for programs, by ``interpreter`` for Python workers.

Dropping of root's privileges before bubblewrap starts.

The kernel enforces no process limit for root, and files that bubblewrap creates for root are owned by root. So root
starts bubblewrap as an unused, unprivileged user, a different one for each slot (``drop_privileges``). A folder that
such a user cannot reach, such as one below ``/root``, is first mounted in a reachable place, in a mount namespace that
ends with the run (``reachable``). For other users, nothing precedes bubblewrap.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError, WorkFailed
from . import seccomp
from .inside.serializer import SIGNALS
from .limits import STACK_BYTES, Limits

SLOTS = 62
"""Number of simultaneous runs of one process with a separate user; further runs share the last one."""

STAGES = ("/mnt", "/media", "/srv", "/opt")
"""Folders present on every system; one is covered by an empty file system, in the run's own mount namespace."""


def drop_privileges(slot: int) -> list[str]:
    """Command prefix with which root starts a command as an unprivileged user; empty for other users."""
    if os.geteuid() != 0:
        return []
    user = str(spare_user(os.getpid(), slot))
    setpriv = shutil.which("setpriv") or "setpriv"
    return [setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--"]


def spare_user(process: int, slot: int) -> int:
    """Unused user id: far above the usual ones, or at the end of the ids that this user namespace maps."""
    last = 0
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        inside, _, count = map(int, line.split())
        last = max(last, inside + count - 1)
    if last >= 3_000_000_000:
        return 2_000_000_000 + (process % (1 << 22)) * 64 + slot % 64
    return max(1, last - 1 - (process * 64 + slot) % 512)


def reachable(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Paths as the unprivileged user reaches them, and the command prefix that mounts them there.

    Raises ``UserError`` for a missing path.
    """
    sources = []
    for path in paths:
        try:
            sources.append(Path(path).resolve(strict=True))
        except (OSError, ValueError) as error:
            raise UserError("this cannot be mounted in a sandbox", given=str(path)[:200], hint=str(error)) from error
    closed = [source for source in sources if os.geteuid() == 0 and not _open_to_all(source)]
    if not closed:
        return [str(source) for source in sources], []
    stage = next(folder for folder in STAGES if not any(source.is_relative_to(folder) for source in sources))
    steps = [f"mount -t tmpfs -o mode=755,size=1m none {stage}"]
    staged = {source: f"{stage}/{number}" for number, source in enumerate(closed)}
    for source, target in staged.items():
        steps.append(f"{'mkdir -p' if source.is_dir() else 'touch'} {target}")
        steps.append(f"mount --bind {shlex.quote(str(source))} {target}")
    unshare = shutil.which("unshare") or "unshare"
    prefix = [unshare, "--mount", "--", "/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), "stage"]
    return [staged.get(source, str(source)) for source in sources], prefix


def _open_to_all(path: Path) -> bool:
    """Whether all users may traverse every parent folder."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


WORK = "/work"
ETC = ("ld.so.cache", "alternatives", "java-*")
"""Library index, and the link targets of Debian's compilers and Java."""

DEVICES = ("null", "full", "random", "urandom")
"""No ``/dev/zero``: a shared mapping of it is memory that no process counts. ``/dev/full`` also reads as zeros."""

COVERED = ("/proc/cmdline",)
"""Files of /proc about the host, each covered by a device file on a mount without devices, which cannot be opened."""


@functools.cache
def minimal_root() -> tuple[str, ...]:
    """Arguments for the shared part of the root: system programs, few files of /etc, few devices."""
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
    # The writable folders that libraries expect are links to the work folder: one file system, one limit.
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
"""Executed before the script of the first process, which cannot write to its own files of /proc."""

PASSWD = f"sandbox:x:{INSIDE_UID}:{INSIDE_UID}::{WORK}:/bin/sh\n".encode()


@dataclass(frozen=True)
class IsolatedCommand:
    """A command line to start with ``pass_fds`` open and an empty environment; ``close`` it after the start.

    The environment must be empty because bubblewrap's own can be read from inside.
    """

    argv: tuple[str, ...]
    pass_fds: tuple[int, ...]
    owned: tuple[int, ...] = ()

    def close(self) -> None:
        """Close this process's copies of the descriptors created for the command."""
        for descriptor in self.owned:
            os.close(descriptor)

    def __enter__(self) -> IsolatedCommand:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def isolate(
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
    prefix: Sequence[str] = (),
    slot: int = 0,
) -> IsolatedCommand:
    """Command line that runs ``command`` in the sandbox, in the folder ``/work``.

    ``mounts``: host folder or file -> read-only path inside. ``keep_fds`` stay open in the command, under the same
    numbers. ``status_fd`` receives the output of ``bwrap --json-status-fd``: the host's process id of the first process
    inside, and its exit code. ``collect`` names files that are written as a tar to ``collect_fd`` after the command.
    ``per_process`` False leaves CPU time, address space, file size and open files to the command, which is then trusted
    to limit them before it runs anything else. ``prefix`` precedes the whole command line, as that of a control group.
    ``slot`` distinguishes simultaneous runs.

    Raises ``UserError`` for invalid names, commands or mounts, ``WorkFailed`` if this process has no descriptors or
    memory left for the files.
    """
    check_command(command, environment)
    for target in mounts.values():
        if not PurePosixPath(target).is_absolute() or "\0" in target:
            raise UserError("the target of a mount must be an absolute path", given=repr(target))
    script = init_script(limits, collect=collect, collect_fd=collect_fd, per_process=per_process)
    sources, staging = reachable(mounts)
    contents = _Contents()
    try:
        arguments = _arguments(contents, files, list(zip(sources, mounts.values(), strict=True)), environment, limits)
        if status_fd is not None:
            arguments += ["--json-status-fd", str(status_fd)]
        arguments_fd = contents.add("arguments", "\0".join([*arguments, ""]).encode("utf-8", "surrogateescape"))
    except OSError as error:
        contents.close()
        raise WorkFailed(
            "the files of a program cannot be passed to the sandbox", where="sandbox", given=str(error)
        ) from error
    except BaseException:
        contents.close()
        raise
    bwrap = shutil.which("bwrap") or "bwrap"
    argv = (
        *prefix,
        *staging,
        *drop_privileges(slot),
        bwrap,
        "--args",
        arguments_fd,
        "--",
        *(SHELL, "-c", BEGIN, "begin"),
        *("-c", script, "init"),
        *command,
    )
    inherited = (number for number in (*keep_fds, status_fd, collect_fd) if number is not None)
    return IsolatedCommand(argv, (*contents.descriptors, *inherited), tuple(contents.descriptors))


def init_script(
    limits: Limits,
    *,
    collect: Sequence[str] = (),
    collect_fd: int | None = None,
    per_process: bool = True,
    processes: bool = True,
) -> str:
    """Shell script that sets limits, runs ``"$@"``, waits, and returns its exit code, also after a signal.

    Messages of the shell ("Killed") are discarded; the program's stderr bypasses it as descriptor 3.
    """
    lines = [
        "exec 3>&2 2>/dev/null",
        # The kernel blocks signals to the first process except those that it handles.
        "trap : INT TERM HUP QUIT",
        "ulimit -c 0",
        f"ulimit -s {STACK_BYTES >> 10}",
        # No locked memory; few queued signals, if the shell supports that limit.
        "ulimit -l 0",
        f"ulimit -i {SIGNALS}",
    ]
    if per_process:
        # One second more than the limit: ``supervise`` decides, and this is the fallback.
        lines += [f"ulimit -t {math.ceil(limits.cpu_seconds) + 1}", f"ulimit -f {max(1, limits.file_bytes >> 9)}"]
        lines += [f"ulimit -n {limits.open_files}"]
        lines += [f"ulimit -v {limits.memory_bytes >> 10}"] if limits.address_space else []
    if processes:
        # The option differs between shells; the shell itself counts as one process.
        lines += [f"ulimit -u {limits.processes + 1} || ulimit -p {limits.processes + 1} || exit 125"]
    lines += ['(exec "$@" 2>&3 3>&-)', "code=$?"]
    if collect and collect_fd is not None:
        names = " ".join(shlex.quote(check_name(name)) for name in collect)
        # The pipe is opened by path, because the shell cannot redirect to descriptors above 9.
        lines += [f"tar -chf /proc/self/fd/{collect_fd} -C {WORK} --ignore-failed-read -- {names}"]
    return "\n".join([*lines, "exit $code"])


def check_command(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise ``UserError`` for a command line or an environment that cannot be passed to a system call."""
    if not command or isinstance(command, str):
        raise UserError("a command must be a list of words", given=repr(command))
    for word in (*command, *environment, *environment.values()):
        if "\0" in word:
            raise UserError("a command line or environment cannot hold a NUL byte", given=repr(word[:60]))
    longest = max(map(len, command))
    if longest > 100_000:
        raise UserError("a word of a command is too long", given=longest, allowed=100_000, hint="pass it as a file")
    for name in environment:
        if not name or "=" in name:
            raise UserError("invalid name of an environment variable", given=repr(name))


def check_name(name: str) -> str:
    """``name``, if it is a path below the work folder; ``UserError`` otherwise."""
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise UserError(
            "invalid name of a file in the work folder", given=repr(name[:80]), allowed="a plain relative path"
        )
    return name


def _arguments(
    contents: _Contents,
    files: Mapping[str, bytes],
    mounts: Sequence[tuple[str, str]],
    environment: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """Arguments of bubblewrap; the contents that they refer to are added to ``contents``."""
    arguments = [f"--unshare-{kind}" for kind in NAMESPACES]
    arguments += ["--uid", INSIDE_UID, "--gid", INSIDE_UID, "--hostname", "sandbox", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    arguments += ["--seccomp", contents.add("seccomp", seccomp.program()), *minimal_root()]
    arguments += ["--file", contents.add("passwd", PASSWD), "/etc/passwd"]
    # The kernel protects the memory of a process whose executable is unreadable, also from the same user.
    arguments += ["--perms", "0111", "--file", contents.add("shell", _shell()), FIRST]
    for source, target in mounts:
        arguments += ["--ro-bind", source, target]
    # Input files do not count as written by the program; a page per file for its name.
    input_bytes = sum(len(content) + 2 * PAGE for content in files.values())
    arguments += ["--size", str(max(limits.folder_bytes + input_bytes, PAGE)), "--tmpfs", WORK]
    for name, content in files.items():
        arguments += ["--perms", "0755", "--file", contents.add("file", content), f"{WORK}/{check_name(name)}"]
    for name, value in {**ENVIRONMENT, **environment}.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--remount-ro", "/", "--chdir", WORK]


@functools.cache
def _shell() -> bytes:
    """Executable of the shell, for a copy that can be executed but not read."""
    return Path(SHELL).read_bytes()


class _Contents:
    """File contents passed to bubblewrap as descriptors of files in memory."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def add(self, name: str, content: bytes) -> str:
        """Descriptor, as a word, from which ``content`` can be read; ``OSError`` if there is no memory for it."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        self.descriptors.append(descriptor)
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return str(descriptor)

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)
