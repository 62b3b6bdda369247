"""How is one untrusted program run to its end?

``Sandbox.run`` takes a command, the files of its work folder and limits, and gives an ``Execution``. A sandbox is made
once for an evaluation and used from as many threads as there are processors; each run has walls of its own
(``walled``), or none when that is what the user asked for (``bare``). A run leaves no process, file or descriptor
behind, also when it is interrupted. The sandbox judges nothing, and keeps nothing from one run to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import Stopped, UserError
from .bwrap import check_command, check_name
from .cgroup import find_cgroup
from .limits import Limits
from .preflight import require_walls
from .rights import SLOTS
from .runners import run_bare, run_walled
from .supervise import Tree
from .verdict import Execution, Invocation

__all__ = ["Sandbox"]


class Sandbox:
    """Runs programs behind walls, or without them when ``unsafe``; a context manager, to be shared by threads.

    Raises ``SandboxMissing`` with the reason and the fix when the walls cannot be had and ``unsafe`` is False.
    """

    def __init__(self, *, unsafe: bool = False) -> None:
        if not unsafe:
            require_walls()
        self.unsafe = unsafe
        self._groups = None if unsafe else find_cgroup()
        self._lock = threading.Lock()
        self._slots = set(range(SLOTS))
        self._running: set[Tree] = set()
        self._closed = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what other threads still run; their ``run`` raises ``Stopped``, as does every later one."""
        with self._lock:
            self._closed = True
            for tree in self._running:
                tree.kill()

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes] = {},
        stdin: bytes = b"",
        limits: Limits | None = None,
        mounts: Mapping[Path, str] = {},
        environment: Mapping[str, str] = {},
        collect: Sequence[str] = (),
    ) -> Execution:
        """Run ``command`` in ``/work``, which holds ``files`` (executable), until it and all it started have ended.

        ``mounts``: host folder or file, open to everybody's reading, -> its place inside, to be read only.
        ``environment`` is added to PATH, HOME,
        TMPDIR and LANG. ``collect``: files of the work folder to hand back when the command has ended by itself.
        Without walls, ``/work`` and the mounts' places are other paths, and are replaced in command and environment.

        Raises ``UserError`` for what cannot be a command, a name or a mount; ``WorkFailed`` when the program could not
        be started; ``Stopped`` when the sandbox has been closed.
        """
        check_command(command, environment)
        for name in (*files, *collect):
            check_name(name)
        if len(set(collect)) != len(collect):
            raise UserError("a file is to be collected twice", given=", ".join(collect))
        asked = Invocation(command, files, stdin, limits or Limits(), mounts, environment, collect)
        with self._slot() as slot:
            if self.unsafe:
                execution = run_bare(asked, self._known)
            else:
                execution = run_walled(asked, slot, self._known, self._groups)
        if self._closed:
            raise Stopped("the sandbox has been closed")
        return execution

    @contextmanager
    def _slot(self) -> Iterator[int]:
        """A number that no other run has at this time."""
        with self._lock:
            if self._closed:
                raise Stopped("the sandbox has been closed")
            slot = self._slots.pop() if self._slots else SLOTS
        try:
            yield slot
        finally:
            with self._lock:
                if slot < SLOTS:
                    self._slots.add(slot)

    @contextmanager
    def _known(self, tree: Tree) -> Iterator[None]:
        """While ``tree`` lives, ``close`` can kill it."""
        with self._lock:
            self._running.add(tree)
            if self._closed:
                tree.kill()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(tree)
