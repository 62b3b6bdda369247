"""Model folders behind a server that a run starts itself: vLLM, SGLang or any program with OpenAI's protocol.

``ModelServer`` runs a command line for one model folder at a time and waits until the server lists a model. An adapter
is merged into its base first, in a temporary folder, as ``load.load_student`` merges it in memory.
``ServedModel`` is such a model as an argument of suites and attempts: texts come from the server, prompts are formatted
here by the tokenizer of the folder, and the weights are loaded here only where a suite or a judge reads them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ..client import capabilities
from ..errors import TeacherFailed, UserError, WorkFailed
from ..model import hub, load
from ..options import parse_json
from ..stage import Event, Events, Model, ignore_events

PLACEHOLDERS = ("{model}", "{port}")
LONGEST_START = 3600.0
"""Seconds until a server must answer: it reads and compiles the model."""
LONGEST_END = 30.0
"""Seconds after SIGTERM until a server is killed."""
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of a launcher of several processes, whose group the server must not join."""


def check_command(command: str) -> list[str]:
    """The words of a command line with the placeholders {model} and {port}. Raises ``UserError``."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError("this is no command line", where="--server", given=command, hint=str(error)) from error
    missing = [name for name in PLACEHOLDERS if not any(name in word for word in words)]
    if missing:
        raise UserError(
            f"the command of a server lacks {' and '.join(missing)}",
            where="--server",
            given=command,
            allowed="a command line with {model}, the folder, and {port}",
            hint="--server 'vllm serve {model} --port {port}'",
        )
    if shutil.which(words[0]) is None:
        raise UserError("there is no such program", where="--server", given=words[0], hint="its path")
    return words


class ModelServer:
    """The server of one model folder at a time; a context manager, whose end ends the server."""

    def __init__(self, command: str, events: Events = ignore_events) -> None:
        self.words, self.events = check_command(command), events
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._merged: tempfile.TemporaryDirectory[str] | None = None
        self._address = self._model = ""

    @property
    def program(self) -> str:
        """The name of the program."""
        return Path(self.words[0]).name

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def address(self, folder: Path) -> tuple[str, str]:
        """The base URL and the model's name of the server for ``folder``, which is started unless it runs.

        Raises ``WorkFailed`` for a server that ends or does not answer.
        """
        running = self._process is not None and self._process.poll() is None
        if self._folder != folder or not running:
            self.stop()
            self._start(folder)
        return self._address, self._model

    def _start(self, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        values = {"{model}": str(self._whole(folder).resolve()), "{port}": str(port)}
        words = [word.replace("{model}", values["{model}"]).replace("{port}", values["{port}"]) for word in self.words]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server
        environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
        # A session of its own: Ctrl-C reaches the run, which ends the server after its last reply.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._folder, self._address = folder, f"http://127.0.0.1:{port}/v1"
        try:
            self._model = self._wait(words)
        except BaseException:
            self.stop()
            raise

    def _whole(self, folder: Path) -> Path:
        """``folder``, or for an adapter a temporary folder with the merged model."""
        if not hub.is_adapter(folder):
            return folder
        self._merged = tempfile.TemporaryDirectory()
        load.export(folder, Path(self._merged.name), merge=True)
        return Path(self._merged.name)

    def _wait(self, words: list[str]) -> str:
        """The first model that the server lists, once it answers."""
        assert self._process is not None
        started = time.monotonic()
        self.events(Event("start", "start the server"))
        while time.monotonic() < started + LONGEST_START:
            if self._process.poll() is not None:
                raise self._failure(f"the server ended with exit code {self._process.returncode}", words)
            with contextlib.suppress(TeacherFailed):
                names = capabilities.model_names(self._address, key=None, seconds=5.0)
                if names:
                    self.events(Event("finish", "start the server"))
                    return names[0]
            self.events(Event("advance", "start the server", int(time.monotonic() - started)))
            time.sleep(0.25)
        raise self._failure(f"the server did not answer within {LONGEST_START:.0f} s", words)

    def _failure(self, message: str, words: list[str]) -> WorkFailed:
        assert self._log is not None
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 4000))
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        hint = f"the command by hand: {shlex.join(words)}"
        return WorkFailed(message, where="--server", given=lines[-1][:300] if lines else "no output", hint=hint)

    def stop(self) -> None:
        """End the server, if one runs, and its child processes."""
        process, self._process, self._folder = self._process, None, None
        if process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LONGEST_END)
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._merged is not None:
            self._merged.cleanup()
            self._merged = None


@dataclass(frozen=True)
class ServedModel:
    """A model folder whose texts come from a server. ``open``: loads the model here."""

    folder: Path
    server: ModelServer
    tokenizer: Any
    open: Callable[[], Model]

    @cached_property
    def model(self) -> Any:
        """The weights, loaded here at first use."""
        return self.open().model

    @cached_property
    def context(self) -> int:
        """The length of the model's context in tokens."""
        if hub.is_adapter(self.folder):
            return int(load.config_of(str(self.folder), "model").max_position_embeddings)
        config = parse_json((self.folder / "config.json").read_bytes())
        return int(config.get("max_position_embeddings") or config["n_positions"])
