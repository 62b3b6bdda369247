"""What is to be run, and what happened to it?

An ``Invocation`` is one command with all it needs. An ``Execution`` is what a sandbox hands back: how the program
ended, what it wrote, what it used. It judges nothing: whether an exit with 0 means that tests passed is for the caller
to know.

What is known about a candidate after it has been tried?

A ``Verdict`` is one of five outcomes and one line that says why. The line often quotes what an untrusted program
wrote, so it is made safe to print here, once, and nowhere else. This module decides no outcome.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .limits import Limits

__all__ = ["Ending", "Execution", "Invocation", "Outcome", "Verdict", "printable"]


Ending = Literal["exited", "signalled", "timeout", "memory"]


@dataclass(frozen=True)
class Invocation:
    """What ``Sandbox.run`` was asked for; its docstring says what each part means."""

    command: Sequence[str]
    files: Mapping[str, bytes]
    stdin: bytes
    limits: Limits
    mounts: Mapping[Path, str]
    environment: Mapping[str, str]
    collect: Sequence[str]


@dataclass(frozen=True)
class Execution:
    """One run of a program.

    ``ending``: ``exited`` by itself; ``signalled``, killed by a signal; ``timeout``, used up its CPU time or the wall
    clock's guard; ``memory``, held more memory, or made more files, than it may, and was killed for it. A program that
    an address-space limit refuses memory ends as it likes, mostly with an error of its own.
    ``code``: the exit code, or the signal's number. As in every shell, a program that exits with 128 + n reads as
    killed by signal n. ``cut``: one of the outputs was longer than its limit, or could not be read to its end.
    ``cpu_seconds``, ``wall_seconds``: of the whole tree, with the few milliseconds that putting up the walls takes.
    ``files``: the files asked for, by name, as far as the program left them and they kept the limits.
    """

    ending: Ending
    code: int
    stdout: bytes
    stderr: bytes
    cut: bool
    cpu_seconds: float
    wall_seconds: float
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """The ending in words, for a verdict's reason."""
        if self.ending == "exited":
            return f"exited with {self.code}"
        if self.ending == "signalled":
            known = self.code in {each.value for each in signal.Signals}
            return f"was killed by {signal.Signals(self.code).name if known else f'signal {self.code}'}"
        return {"timeout": "ran out of time", "memory": "held too much memory"}[self.ending]

    @property
    def ok(self) -> bool:
        """Exited by itself with 0."""
        return self.ending == "exited" and self.code == 0


Outcome = Literal["passed", "failed", "timeout", "invalid", "unjudged"]
REASON_LENGTH = 300


@dataclass(frozen=True)
class Verdict:
    """``passed``; ``failed``; ``timeout``, too slow; ``invalid``, nothing to try; ``unjudged``, not decided.

    ``reason`` is one line, safe to print: it is escaped and cut when the verdict is made. ``cpu_seconds`` is what
    trying the candidate used.
    """

    outcome: Outcome
    reason: str
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", printable(self.reason))

    @property
    def passed(self) -> bool:
        """Whether the candidate passed."""
        return self.outcome == "passed"


def printable(text: str | bytes, length: int = REASON_LENGTH) -> str:
    """``text`` on one line: white space joined, what a terminal would act on written as escapes, cut at ``length``."""
    if isinstance(text, bytes):
        text = text[: 8 * length].decode("utf-8", "backslashreplace")
    line = " ".join(text[: 8 * length].split())
    safe = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)
    return safe if len(safe) <= length else safe[: length - 1] + "…"
