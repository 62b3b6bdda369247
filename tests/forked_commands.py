"""Commands in processes of their own, forked from one process that has imported torch and transformers.

Those imports cost seconds of processor time for each ``python -m gradatim run``; a test that kills or stops a process
needs a real one, but none with imports of its own. ``multiprocessing`` starts the process to fork from at first use.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from gradatim.cli.launch import PRELOADED

FURTHER = ["pytest", "matplotlib.figure", "matplotlib.backends.backend_svg", "pandas", "pyarrow.dataset", "first_use"]
"""Modules that a run and its report import further, to import once as well."""


def forking() -> Any:
    """A context of ``multiprocessing`` whose processes have torch and transformers from the start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *FURTHER])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # of first_use
        forkserver.ensure_running()
    return context


class ForkedCommand:
    """``gradatim WORDS``, or ``script`` with these arguments, in a process of its own.

    It has a part of the interface of ``subprocess.Popen``.
    """

    def __init__(
        self,
        words: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        script: Path | None = None,
    ) -> None:
        self.args = [str(script or "gradatim"), *words]
        folder = tempfile.mkdtemp(prefix="command-")
        self._streams = [Path(folder, name) for name in ("stdout", "stderr")]
        for stream in self._streams:
            stream.touch()
        arguments = (self.args, str(cwd or Path.cwd()), dict(os.environ if env is None else env), self._streams)
        self._process = forking().Process(target=_command, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process that runs the command."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended the process; None while it runs."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """Standard output so far."""
        return self._streams[0].read_text()

    def poll(self) -> int | None:
        """``returncode``."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send ``number`` to the process if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error of the command, after its end."""
        self.wait(timeout)
        out, err = (stream.read_text() for stream in self._streams)
        return out, err


def run_command(
    words: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    script: Path | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run ``gradatim WORDS`` or ``script`` to its end; after ``timeout`` seconds the process is killed."""
    process = ForkedCommand(words, cwd, env, script)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _command(arguments: list[str], folder: str, environment: dict[str, str], streams: list[Path]) -> None:
    """In the forked process: the package's main function or a script, with its own folder, environment and output."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(streams, start=1):
        target = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(target, descriptor)
        os.close(target)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = arguments
    if arguments[0] != "gradatim":
        runpy.run_path(arguments[0], run_name="__main__")
        return

    from gradatim.__main__ import main

    sys.exit(main())
