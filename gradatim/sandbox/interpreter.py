"""Long-lived Python interpreters in a sandbox, controlled over a socket.

An ``Interpreter`` runs one of the two main functions of ``inside`` (``fork_server``, ``tester``) in a sandbox with a
socket as its only connection. It is the Python of this process without its site packages, except for those named, so
that a candidate cannot import a package that contains a problem set's solutions. This module starts, connects and
kills; ``workers`` implements the protocol.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import platform
import signal
import site
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, WorkFailed
from . import seccomp
from .bwrap import isolate
from .inside.fork_server import LENGTH
from .inside.writer import encode
from .limits import MIB, Limits

__all__ = ["PACKAGES", "Damaged", "Interpreter", "Role"]

Role = Literal["fork_server", "tester"]

PATIENCE = 20.0
"""Seconds beyond all limits after which an unresponsive interpreter counts as broken."""

FOLDER = Path(__file__).resolve().parent
PYTHON, PACKAGES, GRADATIM = "/python", "/packages", "/gradatim"
START = "import sys; sys.path[:0] = [sys.argv[2]]; from inside.{0} import main; main()"
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "LD_BIND_NOW": "1"}
"""With the last one, the linker resolves every function once at the start, and not again in each fork."""
NEW_USER = 0x10000000
INT = struct.Struct("@i")
PORTION = 4096


class Damaged(Exception):
    """Failure of a part of the checker; ``role`` is that of the interpreter, or ``sandbox``."""

    def __init__(self, role: str, what: str) -> None:
        super().__init__(what)
        self.role = role


class Interpreter:
    """A sandboxed Python process and its control socket."""

    def __init__(
        self, role: Role, settings: Mapping[str, Any], *, packages: Sequence[str], unsafe: bool, slot: int
    ) -> None:
        self._role, self._name = role, role.replace("_", " ")
        self._buffer = b""
        self._control, remote = socket.socketpair()
        # The kernel's timeout: Python's would add a poll before each call.
        patience = struct.pack("@ll", math.ceil(settings["tests_wall_seconds"] + PATIENCE), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._control.setsockopt(socket.SOL_SOCKET, option, patience)
        with remote:
            start = _start_unsafe if unsafe else _start_isolated
            self._process = start(role, remote.fileno(), packages, slot)
        data, _ = encode(dict(settings))
        with contextlib.suppress(OSError):  # await_ready reports a process that has already ended
            self._control.sendall(LENGTH.pack(len(data)) + data)

    def await_ready(self) -> None:
        """Wait until it accepts commands."""
        try:
            if self.receive(1) == b"R":
                return
            fallback = b"an unexpected message"
        except Damaged as error:
            fallback = str(error).encode()
        self._kill_group()
        _, detail = self._process.communicate()
        detail = b" ".join((detail or b"").splitlines()[-3:]) or fallback
        raise WorkFailed(
            f"the {self._name} of the Python checker does not start",
            given=detail.decode("utf-8", "backslashreplace"),
            hint="gradatim doctor",
        )

    def send(self, data: bytes, descriptor: int | None = None) -> None:
        """Send all of ``data``, with ``descriptor`` attached to its first byte. Raises ``Damaged``."""
        try:
            if descriptor is not None:
                sent = self._control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, INT.pack(descriptor))])
                data = data[sent:]
            if data:
                self._control.sendall(data)
        except OSError as error:
            raise Damaged(self._role, str(error)) from error

    def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes. Raises ``Damaged``."""
        data = self._buffer
        while len(data) < size:
            try:
                chunk = self._control.recv(PORTION)
            except OSError as error:
                raise Damaged(self._role, str(error)) from error
            if not chunk:
                raise Damaged(self._role, f"the {self._name} has ended")
            data += chunk
        self._buffer = data[size:]
        return data[:size]

    def kill(self) -> None:
        """Kill it; the kernel then kills all processes in its namespaces."""
        # Closing the socket ends every read on both sides; the process itself is inside a sandbox.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._kill_group()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._control.close()

    def _kill_group(self) -> None:
        """Kill its whole group: if bubblewrap is killed during its setup, its child would wait forever."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _start_unsafe(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Start it without sandbox (``--unsafe``), as an ordinary process of this user."""
    command = [sys.executable, "-S", "-s", "-P", "-c", START.format(role), str(control), str(FOLDER)]
    return _popen(command, [control], {**ENVIRONMENT, "PATH": os.defpath})


def _start_isolated(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Start it in a sandbox. The fork server is root of its user namespace and may create namespaces there."""
    python, mounts, hidden = _interpreter()
    mounts[FOLDER / "inside"] = f"{GRADATIM}/inside"
    for name in packages:
        mounts |= _package(name)
    command = [python, "-S", "-s", "-P", "-c", START.format(role), str(control), GRADATIM]
    options = [word for path in hidden for word in ("--tmpfs", path, "--remount-ro", path)]
    read, write = os.pipe()
    try:
        # Tests are trusted with the times of device nodes; the fork server mounts these read-only.
        os.write(write, _fork_server_filter() if role == "fork_server" else seccomp.program(file_times=True))
        options += ["--seccomp", str(read)]
        if role == "fork_server":
            options += ["--uid", "0", "--gid", "0", "--cap-add", "CAP_SYS_ADMIN"]
        os.close(write)
        with isolate(
            command,
            limits=Limits(processes=1000, folder_bytes=16 * MIB),
            mounts=mounts,
            environment=ENVIRONMENT,
            keep_fds=(control,),
            per_process=False,
            slot=slot,
        ) as isolated:
            return _popen(_with_options(isolated.argv, options), (*isolated.pass_fds, read), {})
    finally:
        os.close(read)


def _fork_server_filter() -> bytes:
    """System call filter of the fork server, which first allows its mounts and namespaces.

    Its children inherit the filter, because loading one in each child would cost more than the fork. They still cannot
    use these three calls: the kernel requires a capability that the children have dropped. A new user namespace, which
    would restore that capability, is forbidden to all. File times may be set, because the fork server mounts its device
    nodes read-only.
    """
    audit, column = seccomp.ARCHITECTURES[platform.machine()]
    mount, setns, unshare = (seccomp.NUMBERS[name][column] for name in ("mount", "setns", "unshare"))
    steps = (
        (seccomp.LOAD, 0, 0, seccomp.ARCHITECTURE),
        (seccomp.EQUAL, 0, 7, audit),
        (seccomp.LOAD, 0, 0, seccomp.NUMBER),
        (seccomp.EQUAL, 4, 0, mount),
        (seccomp.EQUAL, 3, 0, setns),
        (seccomp.EQUAL, 0, 3, unshare),
        (seccomp.LOAD, 0, 0, seccomp.FIRST),
        (seccomp.SET, 1, 0, NEW_USER),
        (seccomp.RETURN, 0, 0, seccomp.ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps) + seccomp.program(file_times=True)


def _with_options(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """bubblewrap's command line with further options after the existing ones, which they override."""
    index = argv.index("--args") + 2
    return [*argv[:index], *options, *argv[index:]]


def _interpreter() -> tuple[str, dict[Path, str], list[str]]:
    """Path of the interpreter inside, its mounts, and the folders of site packages to hide."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix).resolve()
    packages = [Path(folder) for folder in site.getsitepackages([str(base)])]
    system = [folder for root in SYSTEM for folder in Path(root).glob("python3*/*-packages")]
    if base.is_relative_to("/usr"):
        return str(base / "bin" / version), {}, _folders([*packages, *system])
    moved = [Path(PYTHON) / folder.relative_to(base) for folder in packages if folder.is_dir()]
    return f"{PYTHON}/bin/{version}", {base: PYTHON}, [*map(str, moved), *_folders(system)]


SYSTEM = ("/usr/lib", "/usr/local/lib")


def _folders(paths: Sequence[Path]) -> list[str]:
    return sorted({str(path) for path in paths if path.is_dir() and not path.is_symlink()})


def _package(name: str) -> dict[Path, str]:
    """Folders of an installed package and of its wheel's libraries, with their paths inside."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {name!r} for programs is not installed", hint=f"pip install {name}")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    libraries = folder.with_name(f"{name}.libs")
    return {path: f"{PACKAGES}/{path.name}" for path in (folder, libraries) if path.is_dir()}


def _popen(
    command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=descriptors,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
