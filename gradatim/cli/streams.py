"""Standard input, output and error streams that may be closed, broken or full.

A closed descriptor 0 to 2 would be reused by the next file that is opened, and messages would land in that file: each
is opened on the null device first. A failure of standard error is ignored; a result that cannot be written to standard
output raises ``OutputFailed``.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal, TextIO

from ..errors import UserError, WorkFailed

__all__ = ["OutputFailed", "ReaderGone", "careful_streams", "check_output_stream", "open_streams"]


class ReaderGone(Exception):
    """Standard output is a pipe whose reader has closed it."""


class OutputFailed(WorkFailed):
    """Standard output cannot be written; the work itself is complete."""


def open_streams() -> frozenset[int]:
    """Open closed descriptors 0 to 2 and Python's streams on them; return the descriptors that were closed."""
    closed = frozenset(number for number in range(3) if not _is_open(number))
    for number in sorted(closed):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY
        descriptor = os.open(os.devnull, mode)
        if descriptor != number:  # only in a race with another thread
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.set_inheritable(number, True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            kind: Literal["r", "w"] = "r" if number == 0 else "w"
            stream = open(number, kind, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    for output in (sys.stdout, sys.stderr):
        # File names that are not UTF-8 and characters outside the terminal's encoding are escaped.
        if isinstance(output, io.TextIOWrapper) and output.errors in ("strict", "surrogateescape"):
            output.reconfigure(errors="backslashreplace")
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def check_output_stream(closed: frozenset[int]) -> None:
    """Raise ``UserError`` when standard output was closed at the start: the result would be lost."""
    if 1 in closed:
        raise UserError("standard output is closed", where="stdout", hint="> FILE, or > /dev/null")


@contextlib.contextmanager
def careful_streams() -> Iterator[None]:
    """Context in which failures of standard output and error are handled (see the module)."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Messages(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


class _Stream:
    """A text stream whose failures are handled by ``fail``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            return self.broken(text)
        except OSError as error:
            return self.fail(error, text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.broken("")
        except OSError as error:
            self.fail(error, "")

    def broken(self, text: str) -> int:
        raise NotImplementedError

    def fail(self, error: OSError, text: str) -> int:
        raise NotImplementedError


class _Output(_Stream):
    """Standard output: a closed pipe raises ``ReaderGone``, any other failure ``OutputFailed``."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        raise ReaderGone

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        raise OutputFailed(
            f"cannot write ({error.strerror or error})", where="stdout", hint="the same command with > FILE"
        ) from error


class _Messages(_Stream):
    """Standard error: failed writes are discarded."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        return len(text)

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        return len(text)


def discard(stream: TextIO) -> None:
    """Redirect ``stream`` to the null device: flushing its buffer at exit would fail again."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
