"""Execution of untrusted programs, each in its own sandbox.

``Sandbox.run`` takes a command, the files of its work folder and limits, and returns an ``Execution``. One ``Sandbox``
serves an evaluation, from as many threads as there are processors; each run is isolated separately (``runners``), or
not at all with ``unsafe``. A run leaves no process, file or descriptor, also if it is interrupted, and no state passes
from one run to the next.

Test of the sandbox on this machine, with the reason and the remedy if it is incomplete.

``sandbox_support`` runs a small program in the sandbox, once per process and exactly as ``Sandbox`` would; the program
tests every layer from inside. Version numbers and settings are not relied upon. If a layer is missing, the result
contains the reason and the command that fixes it; only the user can decide to run programs anyway (``--unsafe``).
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import SandboxMissing, Stopped, UserError
from . import seccomp
from .bwrap import SLOTS, check_command, check_name, isolate
from .limits import Limits, find_cgroup
from .runners import run_isolated, run_unsafe
from .supervise import Tree
from .verdict import Execution, Invocation

PROBE = """
test ! -e /root && test ! -e /home && test ! -e /etc/shadow || echo root
(: >/usr/probe) 2>/dev/null && echo read-only
(: >probe) || echo folder
before=$(stat -c %Y%y /dev/null); touch /dev/null; test "$before" = "$(stat -c %Y%y /dev/null)" || echo devices
(: </proc/cmdline) 2>/dev/null && echo boot-parameters
(: <>/proc/1/mem) 2>/dev/null && echo first-process
test "$(id -u)" = 1000 || echo user
test "$(ls /proc | grep -c '^[0-9]')" -lt 8 || echo processes
grep -q '^NoNewPrivs:.*1' /proc/self/status || echo privileges
grep -q '^CapEff:.*0000000000000000' /proc/self/status || echo capabilities
grep -q '^Seccomp:.*2' /proc/self/status || echo seccomp
test "$(grep -c : /proc/net/dev)" -le 1 || echo network
test "$(env | wc -l)" -le 8 || echo environment
grep -q "^Max processes  *17 " /proc/self/limits || echo limits
(n=0; while test $n -lt 40; do sleep 2 >/dev/null 2>&1 & n=$((n + 1)); done; echo process-limit) 2>/dev/null
echo done
"""
"""Script for the sandbox: prints the name of every ineffective layer, then ``done``."""


@dataclass(frozen=True)
class SandboxSupport:
    """Result of the test. ``missing``: layers that are unavailable, empty if none; ``advice``: how to get them."""

    missing: tuple[str, ...]
    reason: str = ""
    advice: str = ""

    @property
    def available(self) -> bool:
        """Whether the sandbox has all layers."""
        return not self.missing


@functools.cache
def sandbox_support() -> SandboxSupport:
    """Support of this machine, determined by a trial; about 50 ms, once."""
    if not sys.platform.startswith("linux"):
        return SandboxSupport(
            ("all",), f"the sandbox needs Linux; this is {platform.system()}", "Linux, or a virtual machine"
        )
    if platform.machine() not in seccomp.ARCHITECTURES:
        return SandboxSupport(
            ("seccomp",), f"there is no system call filter for {platform.machine()}", "x86-64 or aarch64"
        )
    if shutil.which("bwrap") is None:
        return SandboxSupport(("bubblewrap",), "bubblewrap is not installed", "apt install bubblewrap")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return SandboxSupport(
            ("user",),
            "setpriv, which starts programs as an unprivileged user, is not installed",
            "apt install util-linux",
        )
    return _test_layers()


def require_sandbox() -> None:
    """Raise ``SandboxMissing`` with the reason and the remedy unless the sandbox has all layers."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Every child process would inherit it, and the CPU time of their children would not be counted.
        raise SandboxMissing(
            "untrusted programs are not run: this process ignores SIGCHLD, so their CPU time cannot be counted",
            where="sandbox",
            hint="start gradatim from a shell or service that does not ignore SIGCHLD",
        )
    support = sandbox_support()
    if not support.available:
        raise SandboxMissing(
            f"untrusted programs are not run: {support.reason}",
            where="sandbox",
            given=f"missing: {', '.join(support.missing)}",
            hint=f"{support.advice}; or --unsafe, to run them without sandbox as your own user",
        )


def _test_layers() -> SandboxSupport:
    limits = Limits(cpu_seconds=5, processes=16)
    try:
        with isolate(["/bin/sh", "-c", PROBE], limits=limits, slot=63) as isolated:
            done = subprocess.run(
                isolated.argv,
                pass_fds=isolated.pass_fds,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return SandboxSupport(("bubblewrap",), f"bubblewrap cannot be started: {error}", "gradatim doctor")
    layers = done.stdout.decode("utf-8", "replace").split()
    if layers == ["done"]:
        return SandboxSupport(())
    complaint = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0] or f"exit code {done.returncode}"
    if layers[-1:] != ["done"]:
        return SandboxSupport(("namespaces",), complaint, advice(complaint))
    return SandboxSupport(
        tuple(layers[:-1]),
        f"these layers of the sandbox have no effect: {', '.join(layers[:-1])}",
        "report this machine's kernel",
    )


def advice(complaint: str, settings: Path = Path("/proc/sys")) -> str:
    """Remedy if an ordinary user cannot create namespaces: the setting that forbids it here, or the usual cause."""
    for setting, bad, good in (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
    ):
        try:
            value = (settings / setting).read_text("ascii").strip()
        except OSError:
            continue
        if value == bad:
            return f"sudo sysctl -w {setting.replace('/', '.')}={good}"
    if "nknown option" in complaint:
        return "bubblewrap 0.6 or later"
    if "fork" in complaint:
        return "Linux 5.14 or later, which counts the processes of a sandbox apart from its user's others; or root"
    return "in a container: docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined"


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
