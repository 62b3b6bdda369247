"""What does one run behind walls look like, from the first descriptor to the last?

``run_walled`` puts a program into its enclosure, supervises it and takes out the files asked for. bubblewrap tells,
through a pipe of its own, which process is the first one inside and what its exit code was; when it tells no
exit code the walls were never up, and that is an error here, never a verdict on the program.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import WorkFailed
from .cgroup import group
from .enclosure import enclose
from .execution import Execution, Invocation
from .limits import Limits
from .root import WORK
from .supervise import Sink, Tree, end, start, supervise
from .verdict import printable

__all__ = ["WalledTree", "read_status", "run_walled"]

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
