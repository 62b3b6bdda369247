"""How does a Python get behind walls and stay there, taking orders?

An ``Interpreter`` runs one of the two main functions of ``inside`` (``nest``, ``tester``) in a sandbox, with a socket
as its only way out. It runs the Python that runs this process, without its site packages: of those, only the
packages that are named are there, so that a package that holds a problem set's solutions cannot be imported by a
candidate. This module starts, feeds and kills; what is said over the socket is the business of ``workers``.
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
from .bwrap import enclose
from .inside.codec import encode
from .inside.nest import LENGTH
from .limits import MIB, Limits

__all__ = ["PACKAGES", "Damaged", "Interpreter", "Role"]

Role = Literal["nest", "tester"]

PATIENCE = 20.0
"""Seconds on top of all limits after which an interpreter that says nothing counts as broken."""

HERE = Path(__file__).resolve().parent
PYTHON, PACKAGES, OURS = "/python", "/packages", "/gradatim"
START = "import sys; sys.path[:0] = [sys.argv[2]]; from inside.{0} import main; main()"
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "LD_BIND_NOW": "1"}
"""The last one has the linker look up every function once, at the start, and not again in each fork."""
NEW_USER = 0x10000000
INT = struct.Struct("@i")
PORTION = 4096


class Damaged(Exception):
    """Something that a check needs is gone or broken; ``role`` is the interpreter's, or ``walls``."""

    def __init__(self, role: str, what: str) -> None:
        super().__init__(what)
        self.role = role


class Interpreter:
    """A Python behind walls that stays, and the socket by which it is told what to do."""

    def __init__(
        self, role: Role, settings: Mapping[str, Any], *, packages: Sequence[str], unsafe: bool, slot: int
    ) -> None:
        self._role = role
        self._ahead = b""
        self._control, theirs = socket.socketpair()
        # The kernel's own timeout: Python's would ask before each call whether it can be made.
        patience = struct.pack("@ll", math.ceil(settings["tests_wall_seconds"] + PATIENCE), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._control.setsockopt(socket.SOL_SOCKET, option, patience)
        with theirs:
            start = _start_bare if unsafe else _start_enclosed
            self._process = start(role, theirs.fileno(), packages, slot)
        data, _ = encode(dict(settings))
        with contextlib.suppress(OSError):  # one that is gone already is noticed, with its words, by await_ready
            self._control.sendall(LENGTH.pack(len(data)) + data)

    def await_ready(self) -> None:
        """Wait until it takes orders."""
        try:
            if self.receive(1) == b"R":
                return
            words = b"an unexpected message"
        except Damaged as error:
            words = str(error).encode()
        self._end()
        _, said = self._process.communicate()
        said = b" ".join((said or b"").splitlines()[-3:]) or words
        raise WorkFailed(
            f"the {self._role} of the Python checker does not start",
            given=said.decode("utf-8", "backslashreplace"),
            hint="gradatim doctor",
        )

    def send(self, data: bytes, descriptor: int | None = None) -> None:
        """Send all of ``data``, with a descriptor beside its first byte when one is given. Raises ``Damaged``."""
        try:
            if descriptor is not None:
                sent = self._control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, INT.pack(descriptor))])
                data = data[sent:]
            if data:
                self._control.sendall(data)
        except OSError as error:
            raise Damaged(self._role, str(error)) from error

    def receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises ``Damaged``."""
        data = self._ahead
        while len(data) < size:
            try:
                part = self._control.recv(PORTION)
            except OSError as error:
                raise Damaged(self._role, str(error)) from error
            if not part:
                raise Damaged(self._role, f"the {self._role} has gone")
            data += part
        self._ahead = data[size:]
        return data[:size]

    def kill(self) -> None:
        """End it; the kernel takes everything in its namespaces along."""
        # Closing the socket makes both ends of every read return; the process itself may be deep in a sandbox.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._end()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._control.close()

    def _end(self) -> None:
        """Kill its whole group: bubblewrap that dies while it sets up leaves a child that would wait for ever."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _start_bare(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Without walls, because the user said so: the same program as any other process of this user."""
    command = [sys.executable, "-S", "-s", "-P", "-c", START.format(role), str(control), str(HERE)]
    return _popen(command, [control], {**ENVIRONMENT, "PATH": os.defpath})


def _start_enclosed(role: Role, control: int, packages: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
    """Behind walls. The nest is root of its own user namespace and keeps one right there: to make namespaces."""
    python, mounts, hidden = _interpreter()
    mounts[HERE / "inside"] = f"{OURS}/inside"
    for name in packages:
        mounts |= _package(name)
    command = [python, "-S", "-s", "-P", "-c", START.format(role), str(control), OURS]
    options = [part for path in hidden for part in ("--tmpfs", path, "--remount-ro", path)]
    read, write = os.pipe()
    try:
        # Tests are trusted with the times of device nodes; the nest mounts these read-only.
        os.write(write, _nest_filter() if role == "nest" else seccomp.program(file_times=True))
        options += ["--seccomp", str(read)]
        if role == "nest":
            options += ["--uid", "0", "--gid", "0", "--cap-add", "CAP_SYS_ADMIN"]
        os.close(write)
        with enclose(
            command,
            limits=Limits(processes=1000, folder_bytes=16 * MIB),
            mounts=mounts,
            environment=ENVIRONMENT,
            keep_fds=(control,),
            per_process=False,
            slot=slot,
        ) as enclosed:
            return _popen(_with_options(enclosed.argv, options), (*enclosed.pass_fds, read), {})
    finally:
        os.close(read)


def _nest_filter() -> bytes:
    """The filter of system calls, with what the nest needs let through first: mounts, its own kinds of namespaces.

    Its children inherit the filter, because loading one in each child would cost more than the fork. To them these
    three calls are closed all the same: the kernel gives them only to one with a right that the children have given
    up. A new user namespace, which would bring that right back, stays forbidden to all. File times may be set, because
    the nest mounts its device nodes read-only.
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
    """bubblewrap's command line with more options behind those it has; of two that differ the later one counts."""
    place = argv.index("--args") + 2
    return [*argv[:place], *options, *argv[place:]]


def _interpreter() -> tuple[str, dict[Path, str], list[str]]:
    """The interpreter's path inside, what must be mounted for it, and the folders of site packages to be hidden."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix).resolve()
    packages = [Path(each) for each in site.getsitepackages([str(base)])]
    system = [each for pattern in ("*-packages",) for root in SYSTEM for each in Path(root).glob(f"python3*/{pattern}")]
    if base.is_relative_to("/usr"):
        return str(base / "bin" / version), {}, _folders([*packages, *system])
    moved = [Path(PYTHON) / each.relative_to(base) for each in packages if each.is_dir()]
    return f"{PYTHON}/bin/{version}", {base: PYTHON}, [*map(str, moved), *_folders(system)]


SYSTEM = ("/usr/lib", "/usr/local/lib")


def _folders(paths: Sequence[Path]) -> list[str]:
    return sorted({str(each) for each in paths if each.is_dir() and not each.is_symlink()})


def _package(name: str) -> dict[Path, str]:
    """The folders of an installed package, with the libraries its wheel brings along, and their places inside."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"there is no package {name!r} to give to programs", hint=f"pip install {name}")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    libraries = folder.with_name(f"{name}.libs")
    return {each: f"{PACKAGES}/{each.name}" for each in (folder, libraries) if each.is_dir()}


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
