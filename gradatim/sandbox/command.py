"""Execution of untrusted programs, each in its own sandbox.

``Sandbox.run`` takes a command, the files of its work folder and limits, and returns an ``Execution``. One ``Sandbox``
serves an evaluation, from as many threads as there are processors; each run is isolated separately (``runners``), or
not at all with ``unsafe``. A run leaves no process, file or descriptor, also if it is interrupted, and no state passes
from one run to the next.
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
from .preflight import require_sandbox
from .privileges import SLOTS
from .runners import run_isolated, run_unsafe
from .supervise import Tree
from .verdict import Execution, Invocation

__all__ = ["Sandbox"]


class Sandbox:
    """Runner of sandboxed programs, unsandboxed if ``unsafe``; a context manager that threads may share.

    Raises ``SandboxMissing`` with the reason and the remedy if the sandbox is incomplete and ``unsafe`` is False.
    """

    def __init__(self, *, unsafe: bool = False) -> None:
        if not unsafe:
            require_sandbox()
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
        """Kill the programs of other threads; their ``run`` raises ``Stopped``, as does every later call."""
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
        """Run ``command`` in ``/work``, which contains ``files`` (executable), until its process tree has ended.

        ``mounts``: host folder or file, readable by all users -> read-only path inside. ``environment`` is added to
        PATH, HOME, TMPDIR and LANG. ``collect``: files of the work folder to return if the command ends by itself.
        Without sandbox, ``/work`` and the mounts have other paths, which are substituted in command and environment.

        Raises ``UserError`` for an invalid command, name or mount; ``WorkFailed`` if the program could not be started;
        ``Stopped`` if the sandbox has been closed.
        """
        check_command(command, environment)
        for name in (*files, *collect):
            check_name(name)
        if len(set(collect)) != len(collect):
            raise UserError("a file is listed twice in collect", given=", ".join(collect))
        invocation = Invocation(command, files, stdin, limits or Limits(), mounts, environment, collect)
        with self._slot() as slot:
            if self.unsafe:
                execution = run_unsafe(invocation, self._registered)
            else:
                execution = run_isolated(invocation, slot, self._registered, self._groups)
        if self._closed:
            raise Stopped("the sandbox has been closed")
        return execution

    @contextmanager
    def _slot(self) -> Iterator[int]:
        """A number that no other running program has."""
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
    def _registered(self, tree: Tree) -> Iterator[None]:
        """Register a running ``tree``, so that ``close`` can kill it."""
        with self._lock:
            self._running.add(tree)
            if self._closed:
                tree.kill()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(tree)
