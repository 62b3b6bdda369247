"""Execution of untrusted programs, each in its own sandbox.

``Sandbox.run`` takes a command, the files of its work folder and limits, and returns an ``Execution``. One ``Sandbox``
serves an evaluation, from as many threads as there are processors; each run is isolated separately (``runners``), or
not at all with ``unsafe``. A run leaves no process, file or descriptor, also if it is interrupted, and no state passes
from one run to the next.

Test of the sandbox on this machine, with the reason and the remedy if it is incomplete.

``sandbox_support`` runs a small program in the sandbox, once per process and exactly as ``Sandbox`` would; the program
tests every layer from inside. Version numbers and settings are not relied upon. If a layer is missing, the result
contains the reason and the command that fixes it; only the user can decide to run programs anyway (``--unsafe``).

One run of a program: in the sandbox (``run_isolated``), or without it if the user requires so (``run_unsafe``).

``run_isolated`` starts the program in bubblewrap, supervises it and extracts the requested files. bubblewrap reports
the first process inside and its exit code through a separate pipe; without an exit code the sandbox was never set up,
which is an error and never a verdict on the program.

With ``run_unsafe`` (``--unsafe``) the program has all access of its user. Only ordinary means apply: resource limits, a
private temporary folder, a process group, an empty environment, and termination of all processes that can be found
afterwards: the tree below the first process, its group, and every process with the run's nonce in its environment. A
malicious program can escape.
"""

from __future__ import annotations

import functools
import io
import json
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SandboxMissing, Stopped, StorageFailed, UserError, WorkFailed
from . import seccomp
from .bwrap import ENVIRONMENT, SLOTS, WORK, check_command, check_name, init_script, isolate
from .limits import Execution, Invocation, Limits, find_cgroup, group, printable
from .supervise import Sink, Tree, descendants, start_process, supervise, terminate

NONCE_VARIABLE = "GRADATIM_RUN"


def run_unsafe(invocation: Invocation, register: Callable[[Tree], AbstractContextManager[object]]) -> Execution:
    """Run a program without sandbox; ``register`` holds its tree meanwhile. ``StorageFailed`` on a full disk."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(invocation.files))
        argv = _command(invocation, folder)
        environment = _environment(invocation, folder)
        process = start_process(argv, invocation.stdin, environment=environment, folder=folder)
        tree = UnsafeTree(process.pid, environment[NONCE_VARIABLE])
        stack.callback(tree.kill_by_nonce)
        stack.callback(terminate, process, tree)
        with register(tree):
            result = supervise(process, tree, stdin=invocation.stdin, limits=invocation.limits)
        # Remaining processes are found by the nonce, before the files are read.
        tree.kill_by_nonce()
        files = _collected(folder, invocation) if result.killed is None else {}
        return result.execution(files)


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Private temporary folder with the program's files, removed at the end of the context."""
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
    """Restore the permissions that a program has removed from its folders, and remove again."""
    with suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        shutil.rmtree(path, ignore_errors=True) if remove is not os.unlink else os.unlink(path)


def _collected(folder: Path, invocation: Invocation) -> dict[str, bytes]:
    """The requested regular files within the limits. Links are not followed, as they may point anywhere."""
    collected = {}
    for name in invocation.collect:
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= invocation.limits.file_bytes:
            with suppress(OSError):
                collected[name] = path.read_bytes()
    return collected


def _environment(invocation: Invocation, folder: Path) -> dict[str, str]:
    """Environment of the program, with a nonce to find its processes by."""
    paths = _host_paths(folder, invocation.mounts)
    environment = {**ENVIRONMENT, **invocation.environment}
    return {name: _substituted(value, paths) for name, value in environment.items()} | {
        NONCE_VARIABLE: secrets.token_hex(16)
    }


def _command(invocation: Invocation, folder: Path) -> list[str]:
    """The command with substituted paths, started by a shell that sets the resource limits."""
    paths = _host_paths(folder, invocation.mounts)
    script = init_script(invocation.limits, processes=False)
    return ["/bin/sh", "-c", script, "init", *(_substituted(word, paths) for word in invocation.command)]


def _host_paths(folder: Path, mounts: Mapping[Path, str]) -> dict[str, str]:
    return {WORK: str(folder)} | {target: str(Path(source).resolve()) for source, target in mounts.items()}


def _substituted(word: str, paths: Mapping[str, str]) -> str:
    """``word`` with sandbox paths replaced by host paths, as whole paths: ``-I/work``, ``a:/cache/b``."""
    if not any(path in word for path in paths):
        return word
    longest_first = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
    pattern = rf"(?:(?<![\w./-])|(?<=-[A-Z]))({longest_first})(?=/|:|$)"
    return re.sub(pattern, lambda match: paths[match[1]], word)


class UnsafeTree:
    """Process tree of a run without sandbox: descendants of the first process, and processes with the nonce."""

    def __init__(self, root: int, nonce: str) -> None:
        self._root, self._variable = root, f"{NONCE_VARIABLE}={nonce}".encode()

    def root(self) -> int:
        """The first process."""
        return self._root

    def kill(self) -> None:
        """Kill the tree, its group, and every process on the machine with the nonce in its environment."""
        for process in list(descendants(self._root)):
            _kill(process)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root, signal.SIGKILL)
        self.kill_by_nonce()

    def kill_by_nonce(self) -> None:
        """Kill processes with the nonce until none is found: a program may fork during the search."""
        for _ in range(20):
            if not any([_kill(process) for process in self._with_nonce()]):
                return

    def _with_nonce(self) -> list[int]:
        processes = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):
                    if self._variable in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        processes.append(int(name))
        return processes


def _kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return False
    return True


STATUS_BYTES = 4096
ARCHIVE_BYTES = 20480
"""Allowance for the end of a tar and the file names."""


def run_isolated(
    invocation: Invocation,
    slot: int,
    register: Callable[[Tree], AbstractContextManager[object]],
    groups: Path | None = None,
) -> Execution:
    """Run a program in the sandbox.

    ``slot`` is unique among simultaneous runs; ``register`` holds the tree meanwhile; ``groups`` is the parent of the
    run's control group. Raises ``WorkFailed`` if the sandbox could not be set up.
    """
    limits = invocation.limits
    with ExitStack() as stack:
        try:
            cgroup = stack.enter_context(group(groups, limits)) if groups else None
        except OSError as error:
            raise WorkFailed("a control group cannot be created", where="sandbox", given=str(error)) from error
        status, status_end = stack.enter_context(_pipe(STATUS_BYTES))
        archive_limit = len(invocation.collect) * (limits.file_bytes + 4096) + ARCHIVE_BYTES
        archive, archive_end = stack.enter_context(_pipe(archive_limit)) if invocation.collect else (None, None)
        with isolate(
            invocation.command,
            limits=limits,
            files=invocation.files,
            mounts=invocation.mounts,
            environment=invocation.environment,
            status_fd=status_end.fileno(),
            collect=invocation.collect,
            collect_fd=archive_end.fileno() if archive_end else None,
            prefix=cgroup.prefix() if cgroup else (),
            slot=slot,
        ) as isolated:
            process = start_process(isolated.argv, invocation.stdin, pass_fds=isolated.pass_fds)
        tree = IsolatedTree(process, status)
        stack.callback(tree.close)
        stack.callback(terminate, process, tree)
        stack.enter_context(register(tree))
        status_end.close()
        if archive_end:
            archive_end.close()
        sinks = [status, archive] if archive else [status]
        result = supervise(process, tree, stdin=invocation.stdin, limits=limits, sinks=sinks, folder=WORK)
        if result.killed is None and cgroup and cgroup.full():
            result = replace(result, killed="memory")
        if result.killed is None and "exit-code" not in read_status(bytes(status.data)):
            detail = printable(bytes(result.stderr.data)) or f"exit code {result.code}"
            raise WorkFailed("the sandbox could not be set up", where="sandbox", given=detail, hint="gradatim doctor")
        files = {}
        if archive and result.killed is None:
            files = _unpacked(bytes(archive.data), invocation.collect, limits)
        return result.execution(files)


def read_status(output: bytes) -> dict[str, Any]:
    """Parse bubblewrap's status output so far: ``child-pid``, later ``exit-code``."""
    status: dict[str, Any] = {}
    for line in output.splitlines():
        with suppress(ValueError):
            status |= json.loads(line)
    return status


class IsolatedTree:
    """Process tree of a sandboxed run: all processes die with the first one inside."""

    def __init__(self, process: subprocess.Popen[bytes], status: Sink) -> None:
        self._process, self._status = process, status
        self._root: int | None = None
        self._handle: int | None = None

    def root(self) -> int | None:
        """Host process id of the first process inside, None until bubblewrap has reported it."""
        if self._root is None:
            number = read_status(bytes(self._status.data)).get("child-pid")
            if isinstance(number, int):
                self._root = number
                # A handle, because a process id may be reused before it is needed.
                with suppress(OSError):
                    self._handle = os.pidfd_open(number)
        return self._root

    def kill(self) -> None:
        """Kill the first process inside and thereby all; bubblewrap waits for them and then exits."""
        self.root()
        with suppress(OSError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            elif self._process.returncode is None:
                # The whole group: a child of bubblewrap in its setup would wait for it forever.
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the process handle."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def _pipe(limit: int) -> Iterator[tuple[Sink, io.FileIO]]:
    """A sink and the writing end of its pipe, both closed with the context."""
    reading, writing = os.pipe()
    # An unprivileged user opens it again, by its path in /proc.
    os.fchmod(writing, 0o622)
    with io.FileIO(reading, "rb"), io.FileIO(writing, "wb") as end_of_program:
        yield Sink(reading, limit), end_of_program


def _unpacked(archive: bytes, names: Sequence[str], limits: Limits) -> dict[str, bytes]:
    """The requested files of the archive, which is untrusted because it was created inside."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                if member.isreg() and member.name in names and member.size <= limits.file_bytes:
                    content = tar.extractfile(member)
                    if content is not None:
                        files[member.name] = content.read()
    except (tarfile.TarError, ValueError, OSError, EOFError, RecursionError):
        # The files read so far are returned.
        return files
    return files


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
