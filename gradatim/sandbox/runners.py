"""How is a program run where no walls can be had, when the user has explicitly said so?

``--unsafe`` means what it says: the program can read, write and reach whatever its user can. What is still kept is
what ordinary means give: resource limits, a private temporary folder, a process group of its own, an empty
environment, and an end for everything that can be found afterwards: the tree below the first process, its group, and
whatever still carries the mark that the run's environment has. A program that means to escape can.

What does one run behind walls look like, from the first descriptor to the last?

``run_walled`` puts a program into its enclosure, supervises it and takes out the files asked for. bubblewrap tells,
through a pipe of its own, which process is the first one inside and what its exit code was; when it tells no
exit code the walls were never up, and that is an error here, never a verdict on the program.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import StorageFailed, WorkFailed
from .bwrap import ENVIRONMENT, WORK, enclose, initial
from .cgroup import group
from .limits import Limits
from .supervise import Sink, Tree, descendants, end, start, supervise
from .verdict import Execution, Invocation, printable

__all__ = ["BareTree", "WalledTree", "read_status", "run_bare", "run_walled"]


MARK = "GRADATIM_RUN"


def run_bare(asked: Invocation, known: Callable[[Tree], AbstractContextManager[object]]) -> Execution:
    """Run what is asked without walls; ``known`` is told its tree while it lives. ``StorageFailed`` on a full disk."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(asked.files))
        argv = _command(asked, folder)
        environment = _environment(asked, folder)
        process = start(argv, asked.stdin, environment=environment, folder=folder)
        tree = BareTree(process.pid, environment[MARK])
        stack.callback(tree.kill_marked)
        stack.callback(end, process, tree)
        with known(tree):
            ended = supervise(process, tree, stdin=asked.stdin, limits=asked.limits)
        # What the program left running is found by its mark, before its files are read.
        tree.kill_marked()
        files = _collected(folder, asked) if ended.killed is None else {}
        return ended.execution(files)


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A private temporary folder with the program's files in it; gone when the context is left."""
    folder: Path | None = None
    try:
        try:
            folder = Path(tempfile.mkdtemp(prefix="gradatim-"))
            for name, content in files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                target.chmod(0o755)
        except OSError as error:
            raise StorageFailed(str(error), where="sandbox", hint="free disk space, or set TMPDIR") from error
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, onerror=_open_and_retry)


def _open_and_retry(remove: Callable[..., object], path: str, _error: object) -> None:
    """A program may take the rights away from folders that it made; their owner can give them back."""
    with suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        shutil.rmtree(path, ignore_errors=True) if remove is not os.unlink else os.unlink(path)


def _collected(folder: Path, asked: Invocation) -> dict[str, bytes]:
    """The plain files asked for that keep the limits. Links are not followed: they may lead anywhere."""
    found = {}
    for name in asked.collect:
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= asked.limits.file_bytes:
            with suppress(OSError):
                found[name] = path.read_bytes()
    return found


def _environment(asked: Invocation, folder: Path) -> dict[str, str]:
    """What the program sees, and a mark to find its processes by."""
    places = _places(folder, asked.mounts)
    given = {**ENVIRONMENT, **asked.environment}
    return {name: _moved(value, places) for name, value in given.items()} | {MARK: secrets.token_hex(16)}


def _command(asked: Invocation, folder: Path) -> list[str]:
    """The command with its places moved, started by a shell that sets the resource limits."""
    places = _places(folder, asked.mounts)
    init = initial(asked.limits, processes=False)
    return ["/bin/sh", "-c", init, "init", *(_moved(word, places) for word in asked.command)]


def _places(folder: Path, mounts: Mapping[Path, str]) -> dict[str, str]:
    return {WORK: str(folder)} | {place: str(Path(source).resolve()) for source, place in mounts.items()}


def _moved(word: str, places: Mapping[str, str]) -> str:
    """``word`` with every place inside replaced by the host's, as whole paths: ``-I/work``, ``a:/cache/b``."""
    if not any(place in word for place in places):
        return word
    longest_first = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
    pattern = rf"(?:(?<![\w./-])|(?<=-[A-Z]))({longest_first})(?=/|:|$)"
    return re.sub(pattern, lambda found: places[found[1]], word)


class BareTree:
    """The processes of one run without walls: what was seen below the first process, and what carries the mark."""

    def __init__(self, root: int, mark: str) -> None:
        self._root, self._mark = root, f"{MARK}={mark}".encode()

    def root(self) -> int:
        """The first process."""
        return self._root

    def kill(self) -> None:
        """Kill the tree, its group, and every process of the machine whose environment carries the mark."""
        for process in list(descendants(self._root)):
            _kill(process)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root, signal.SIGKILL)
        self.kill_marked()

    def kill_marked(self) -> None:
        """Kill what carries the mark, until a look finds nothing: a program may fork while it is looked for."""
        for _ in range(20):
            if not any([_kill(process) for process in self._marked()]):
                return

    def _marked(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):
                    if self._mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return found


def _kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return False
    return True


STATUS_BYTES = 4096
ARCHIVE_BYTES = 20480
"""What a tar takes at its end, and with it the names."""


def run_walled(
    asked: Invocation, slot: int, known: Callable[[Tree], AbstractContextManager[object]], groups: Path | None = None
) -> Execution:
    """Run what is asked behind walls.

    ``slot`` is no other run's at this time; ``known`` holds the tree meanwhile; ``groups`` is where to make a control
    group. Raises ``WorkFailed`` when the walls could not be put up.
    """
    limits = asked.limits
    with ExitStack() as stack:
        try:
            cgroup = stack.enter_context(group(groups, limits)) if groups else None
        except OSError as error:
            raise WorkFailed("a control group cannot be made", where="sandbox", given=str(error)) from error
        status, status_end = stack.enter_context(_pipe(STATUS_BYTES))
        most = len(asked.collect) * (limits.file_bytes + 4096) + ARCHIVE_BYTES
        archive, archive_end = stack.enter_context(_pipe(most)) if asked.collect else (None, None)
        with enclose(
            asked.command,
            limits=limits,
            files=asked.files,
            mounts=asked.mounts,
            environment=asked.environment,
            status_fd=status_end.fileno(),
            collect=asked.collect,
            collect_fd=archive_end.fileno() if archive_end else None,
            first=cgroup.words() if cgroup else (),
            slot=slot,
        ) as enclosed:
            process = start(enclosed.argv, asked.stdin, pass_fds=enclosed.pass_fds)
        tree = WalledTree(process, status)
        stack.callback(tree.close)
        stack.callback(end, process, tree)
        stack.enter_context(known(tree))
        status_end.close()
        if archive_end:
            archive_end.close()
        more = [status, archive] if archive else [status]
        ended = supervise(process, tree, stdin=asked.stdin, limits=limits, more=more, folder=WORK)
        if ended.killed is None and cgroup and cgroup.full():
            ended = replace(ended, killed="memory")
        if ended.killed is None and "exit-code" not in read_status(bytes(status.kept)):
            said = printable(bytes(ended.stderr.kept)) or f"exit code {ended.code}"
            raise WorkFailed("the walls could not be put up", where="sandbox", given=said, hint="gradatim doctor")
        files = {}
        if archive and ended.killed is None:
            files = _unpacked(bytes(archive.kept), asked.collect, limits)
        return ended.execution(files)


def read_status(written: bytes) -> dict[str, Any]:
    """What bubblewrap has written to its status descriptor so far: ``child-pid``, later ``exit-code``."""
    known: dict[str, Any] = {}
    for line in written.splitlines():
        with suppress(ValueError):
            known |= json.loads(line)
    return known


class WalledTree:
    """The processes of one run behind walls: all die with the first one inside."""

    def __init__(self, process: subprocess.Popen[bytes], status: Sink) -> None:
        self._process, self._status = process, status
        self._root: int | None = None
        self._handle: int | None = None

    def root(self) -> int | None:
        """The host's number of the first process inside, once bubblewrap has told it."""
        if self._root is None:
            number = read_status(bytes(self._status.kept)).get("child-pid")
            if isinstance(number, int):
                self._root = number
                # A handle, because a number may be another process's by the time it is used.
                with suppress(OSError):
                    self._handle = os.pidfd_open(number)
        return self._root

    def kill(self) -> None:
        """Kill the first process inside, and so all; bubblewrap waits for them and then ends by itself."""
        self.root()
        with suppress(OSError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            elif self._process.returncode is None:
                # Its group: what bubblewrap has begun with would wait for it for ever.
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give the handle back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def _pipe(most: int) -> Iterator[tuple[Sink, io.FileIO]]:
    """A sink, and the end that a program writes to; both are closed with the context."""
    reading, writing = os.pipe()
    # A user without rights opens it anew, by its name in /proc.
    os.fchmod(writing, 0o622)
    with io.FileIO(reading, "rb"), io.FileIO(writing, "wb") as end_of_program:
        yield Sink(reading, most), end_of_program


def _unpacked(archive: bytes, names: Sequence[str], limits: Limits) -> dict[str, bytes]:
    """The files of the archive that were asked for. It was made inside, so it may be anything at all."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                if member.isreg() and member.name in names and member.size <= limits.file_bytes:
                    content = tar.extractfile(member)
                    if content is not None:
                        found[member.name] = content.read()
    except (tarfile.TarError, ValueError, OSError, EOFError, RecursionError):
        # Whatever could be read up to here is what the program left.
        return found
    return found
