"""Standard input, output and error, in whatever state the process was given them.

A descriptor from 0 to 2 that is closed at the start is taken by the next file that is opened, and what is then said to
the terminal lands in that file: so each is opened on the null device first. Standard error may be lost without an end
to the work; a result that cannot be written to standard output is an error of its own.
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
    """Standard output is a pipe that nothing reads any more."""


class OutputFailed(WorkFailed):
    """Standard output cannot be written; the work before it is done."""


def open_streams() -> frozenset[int]:
    """Open descriptors 0 to 2 where they are closed, and Python's streams on them; returns those that were closed."""
    closed = frozenset(number for number in range(3) if not _is_open(number))
    for number in sorted(closed):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY
        got = os.open(os.devnull, mode)
        if got != number:  # in a thread's race alone
            os.dup2(got, number)
            os.close(got)
        os.set_inheritable(number, True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            kind: Literal["r", "w"] = "r" if number == 0 else "w"
            stream = open(number, kind, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    for each in (sys.stdout, sys.stderr):
        # A name that is no UTF-8, or a letter that an old terminal has not, is shown escaped.
        if isinstance(each, io.TextIOWrapper) and each.errors in ("strict", "surrogateescape"):
            each.reconfigure(errors="backslashreplace")
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def check_output_stream(closed: frozenset[int]) -> None:
    """Raise ``UserError`` when standard output was closed at the start: the result would have no place."""
    if 1 in closed:
        raise UserError("standard output is closed", where="stdout", hint="> FILE, or > /dev/null")


@contextlib.contextmanager
def careful_streams() -> Iterator[None]:
    """Inside, standard output and error are written as the module says."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Messages(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


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
    """Standard output: a full disk is an error, a reader that has gone is told apart from other broken pipes."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        raise ReaderGone

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        raise OutputFailed(
            f"cannot write ({error.strerror or error})", where="stdout", hint="the same command with > FILE"
        ) from error


class _Messages(_Stream):
    """Standard error: what cannot be written is lost."""

    def broken(self, text: str) -> int:
        discard(self.stream)
        return len(text)

    def fail(self, error: OSError, text: str) -> int:
        discard(self.stream)
        return len(text)


def discard(stream: TextIO) -> None:
    """Let what ``stream`` still holds go to the null device: it would fail once more at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
