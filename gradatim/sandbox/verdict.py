"""Values of a sandboxed run: the command, its execution, and the verdict on a candidate.

An ``Invocation`` is one command with its files and limits. An ``Execution`` is the result of a sandbox: ending, output
and usage of the program; whether an exit with 0 means that tests passed is the caller's decision. A ``Verdict`` is one
of five outcomes with a reason of one line. The reason often quotes output of an untrusted program, so the constructor
makes it safe to print.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .limits import Limits

Ending = Literal["exited", "signalled", "timeout", "memory"]


@dataclass(frozen=True)
class Invocation:
    """Arguments of ``Sandbox.run``; see there."""

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

    ``ending``: ``exited`` by itself; ``signalled``, killed by a signal; ``timeout``, exceeded its CPU time or wall
    clock limit; ``memory``, killed for exceeding its memory or number of files. A program whose allocation fails at the
    address-space limit ends in its own way, usually with an error message.
    ``code``: the exit code, or the signal's number. As in a shell, an exit code of 128 + n is read as signal n.
    ``cut``: an output was longer than its limit, or could not be read to its end.
    ``cpu_seconds``, ``wall_seconds``: of the whole tree, including the few milliseconds of the sandbox's setup.
    ``files``: the requested files by name, those that exist and are within the limits.
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
        """The ending in words, for the reason of a verdict."""
        if self.ending == "exited":
            return f"exited with {self.code}"
        if self.ending == "signalled":
            has_name = self.code in {number.value for number in signal.Signals}
            return f"was killed by {signal.Signals(self.code).name if has_name else f'signal {self.code}'}"
        return {"timeout": "ran out of time", "memory": "held too much memory"}[self.ending]

    @property
    def ok(self) -> bool:
        """Whether the program exited by itself with 0."""
        return self.ending == "exited" and self.code == 0


Outcome = Literal["passed", "failed", "timeout", "invalid", "unjudged"]
REASON_LENGTH = 300


@dataclass(frozen=True)
class Verdict:
    """``passed``; ``failed``; ``timeout``, too slow; ``invalid``, not executable; ``unjudged``, undecided.

    ``reason`` is one line, safe to print: escaped and cut by the constructor. ``cpu_seconds`` is the CPU time of the
    candidate.
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
    """``text`` on one line: white space collapsed, control characters escaped, cut at ``length``."""
    if isinstance(text, bytes):
        text = text[: 8 * length].decode("utf-8", "backslashreplace")
    line = " ".join(text[: 8 * length].split())
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)
    return safe if len(safe) <= length else safe[: length - 1] + "…"
