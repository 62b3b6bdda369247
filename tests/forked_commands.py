"""Commands in processes of their own, forked from one process that has imported torch and transformers.

Those imports cost seconds of processor time for each ``python -m gradatim run``; a test that kills or stops a process
needs a real one, but none with imports of its own. ``multiprocessing`` starts the process to fork from at first use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import util
from pathlib import Path

from gradatim.cli.launch import PRELOADED

util.get_temp_dir()  # the process to fork from outlives the temporary folder of the tests


FURTHER = ["pytest", "matplotlib.figure", "matplotlib.backends.backend_svg", "pyarrow.dataset"]
"""Modules that a run and its report import further, to import once as well."""


class ForkedCommand:
    """``gradatim WORDS`` in a process of its own, with a part of the interface of ``subprocess.Popen``."""

    def __init__(self, words: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.args = ["gradatim", *words]
        folder = tempfile.mkdtemp(prefix="command-")
        self._streams = [Path(folder, name) for name in ("stdout", "stderr")]
        for stream in self._streams:
            stream.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED, *FURTHER])
        arguments = (self.args, str(cwd or Path.cwd()), dict(os.environ if env is None else env), self._streams)
        self._process = context.Process(target=_command, args=arguments)
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
    words: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``gradatim WORDS`` to its end; a process that has not ended after ``timeout`` seconds is killed."""
    process = ForkedCommand(words, cwd, env)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _command(arguments: list[str], folder: str, environment: dict[str, str], streams: list[Path]) -> None:
    """In the forked process: the main function of the package, with its own folder, environment and output."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, stream in enumerate(streams, start=1):
        target = os.open(stream, os.O_WRONLY | os.O_APPEND)
        os.dup2(target, descriptor)
        os.close(target)
    sys.argv = arguments

    from gradatim.__main__ import main

    sys.exit(main())
