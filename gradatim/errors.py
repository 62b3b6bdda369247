"""What can go wrong, and whose turn it is to act?

Every error that a user can meet is one of these, and its text is one line that answers, in this order:
where · what is wrong · what was given · what is allowed · what to try. The command line prints that line
and exits with the class's ``exit_code``; the library raises the exception. Nothing here prints.

    GradatimError
    ├── UserError (2)            the user's mistake: nothing was changed
    │   ├── RecipeError          an unknown key, a wrong type, parts that do not fit together
    │   ├── UnknownPart          a name that no registry has
    │   ├── DataError            a file or table that cannot be used
    │   ├── ToolchainMissing     a compiler or runtime that is not on this machine
    │   ├── RunFolderError       a run folder that is locked, or was made by another recipe
    │   └── SandboxMissing       this machine has no complete sandbox for programs
    ├── WorkFailed (1)           the work itself failed: what was done is kept
    │   ├── TrainingDiverged     the loss is NaN or exploded
    │   ├── StorageFailed        the disk is full or cannot be written
    │   ├── TeacherFailed        the teacher's endpoint does not answer
    │   └── BudgetReached        the teacher has used up what it may cost
    └── Stopped (130)            the user stopped the run: everything is saved
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BudgetReached",
    "DataError",
    "GradatimError",
    "RecipeError",
    "RunFolderError",
    "SandboxMissing",
    "Stopped",
    "StorageFailed",
    "TeacherFailed",
    "ToolchainMissing",
    "TrainingDiverged",
    "UnknownPart",
    "UserError",
    "WorkFailed",
    "did_you_mean",
]


class GradatimError(Exception):
    """The root of the tree. All arguments but ``what`` may be left out; ``str(error)`` is one line."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        given: object = None,
        allowed: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.given, self.allowed, self.hint = what, where, given, allowed, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where is not None else self.what
        if self.given is not None:
            line += f"; given: {self.given}"
        if self.allowed is not None:
            line += f"; allowed: {self.allowed}"
        if self.hint is not None:
            line += f"; try: {self.hint}"
        return " ".join(line.split())


class UserError(GradatimError):
    """The user's mistake; nothing was changed."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot be run. ``faults`` holds every fault found, one line each."""

    def __init__(self, what: str, *, faults: Iterable[str] = (), **parts: object) -> None:
        self.faults = tuple(faults)
        super().__init__(what, **parts)  # type: ignore[arg-type]


class UnknownPart(UserError):
    """A name that no registry has."""


class DataError(UserError):
    """A file or a table that cannot be used."""


class ToolchainMissing(UserError):
    """A compiler or runtime that is not on this machine; the hint is the command that installs it."""


class RunFolderError(UserError):
    """A run folder that is in use, or was made by another recipe."""


class SandboxMissing(UserError):
    """This machine has no complete sandbox, so no untrusted program is run."""


class WorkFailed(GradatimError):
    """The work itself failed; what was done before is kept."""


class TrainingDiverged(WorkFailed):
    """The loss became NaN, infinite or exploded; the last good checkpoint is kept."""


class StorageFailed(WorkFailed):
    """The disk is full or cannot be written."""


class TeacherFailed(WorkFailed):
    """The teacher's endpoint does not answer; every reply received is kept."""


class BudgetReached(WorkFailed):
    """The teacher may cost no more; ``tokens`` and ``money`` were spent, and every reply received is kept."""

    def __init__(self, what: str, *, tokens: int, money: float, **parts: object) -> None:
        self.tokens, self.money = tokens, money
        super().__init__(what, **parts)  # type: ignore[arg-type]


class Stopped(GradatimError):
    """The user stopped the run; everything is saved and the same command goes on."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest of ``known``, or None when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None
