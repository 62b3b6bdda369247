"""What is known about a candidate after it has been tried?

A ``Verdict`` is one of five outcomes and one line that says why. The line often quotes what an untrusted program
wrote, so it is made safe to print here, once, and nowhere else. This module decides no outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Outcome", "Verdict", "printable"]

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
