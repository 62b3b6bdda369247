"""Exception classes of the package.

The text of each is one line: location, problem, value given, values allowed, suggestion. The library raises the
exception; the command line prints its line and exits with the class's ``exit_code``.

    GradatimError
    ├── UserError (2)            a mistake in the input: nothing was changed
    │   ├── RecipeError          an unknown key, a wrong type, components that are incompatible
    │   ├── UnknownPart          a name that is in no registry
    │   ├── DataError            a file or table that cannot be used
    │   ├── ToolchainMissing     a compiler or runtime that is not installed
    │   ├── RunFolderError       a run folder that is locked or belongs to another recipe
    │   └── SandboxMissing       this machine has no sandbox for untrusted programs
    ├── WorkFailed (1)           the work itself failed: finished work is kept
    │   ├── TrainingDiverged     the loss is NaN, infinite or exploded
    │   ├── StorageFailed        the disk is full or not writable
    │   ├── ProcessLost          another process of the same training ended
    │   ├── TeacherFailed        the teacher's endpoint does not respond
    │   ├── TrackerFailed        a tracker cannot be reached
    │   └── BudgetReached        the teacher's budget is spent
    └── Stopped (130)            the user stopped the run: everything is saved
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from typing import Any


class GradatimError(Exception):
    """Base class. ``message``: the problem. All other arguments are optional; ``str(error)`` is one line."""

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        given: object = None,
        allowed: object = None,
        hint: str | None = None,
    ) -> None:
        self.message, self.where, self.given, self.allowed, self.hint = message, where, given, allowed, hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """All attributes, without a call of ``__init__``: its keyword arguments are not in ``args``."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}" if self.where is not None else self.message
        if self.given is not None:
            line += f"; given: {self.given}"
        if self.allowed is not None:
            line += f"; allowed: {self.allowed}"
        if self.hint is not None:
            line += f"; try: {self.hint}"
        return " ".join(line.split())


class UserError(GradatimError):
    """A mistake in the input; nothing was changed."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot be run. ``faults``: all faults, one line each."""

    def __init__(self, message: str, *, faults: Iterable[str] = (), **details: object) -> None:
        self.faults = tuple(faults)
        super().__init__(message, **details)  # type: ignore[arg-type]


class UnknownPart(UserError):
    """A name that is in no registry."""


class DataError(UserError):
    """An unusable file or table."""


class ToolchainMissing(UserError):
    """A compiler or runtime that is not installed; the hint is the command that installs it."""


class RunFolderError(UserError):
    """A run folder that is in use or belongs to another recipe."""


class SandboxMissing(UserError):
    """No sandbox for untrusted programs on this machine, so none is run."""


class WorkFailed(GradatimError):
    """The work itself failed; finished work is kept."""


class TrainingDiverged(WorkFailed):
    """The loss became NaN, infinite or exploded; the last good checkpoint is kept."""


class StorageFailed(WorkFailed):
    """A full disk or a file that is not writable."""


class ProcessLost(WorkFailed):
    """Another process of the same training ended.

    ``reported``: rank 0 ended in order, by an error that it reports itself, with ``exit_code``.
    """

    def __init__(self, message: str, *, reported: bool = False, exit_code: int = 1, **details: object) -> None:
        self.reported, self.exit_code = reported, exit_code
        super().__init__(message, **details)  # type: ignore[arg-type]


class TeacherFailed(WorkFailed):
    """The teacher's endpoint does not respond; every reply received is kept."""


class TrackerFailed(WorkFailed):
    """A tracker cannot be reached or refuses entries; the entries that it took are recorded."""


class BudgetReached(WorkFailed):
    """The teacher's budget is spent: ``tokens`` and ``money``. Every reply received is kept."""

    def __init__(self, message: str, *, tokens: int, money: float, **details: object) -> None:
        self.tokens, self.money = tokens, money
        super().__init__(message, **details)  # type: ignore[arg-type]


class Stopped(GradatimError):
    """The user stopped the run; all state is saved and the same command resumes it."""

    exit_code = 130


def did_you_mean(name: str, names: Iterable[str]) -> str | None:
    """A hint that names the closest other name among ``names``, None without a close one."""
    matches = difflib.get_close_matches(name, [other for other in names if other != name], n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else None
