"""The contract of a tracker, and the run that it is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker names it.

    ``project``: the study or a name of the user; ``group``: the arm; ``name``: the seed, unique within the group;
    ``id``: stored in the run folder, the same in every process that continues the run; ``folder``: for local files of
    the tracker.
    """

    project: str
    group: str
    name: str
    id: str
    folder: Path


class Tracker(Protocol):
    """One run of a tracker, with the methods of ``accelerate.tracking.GeneralTracker``.

    Any method may raise; the entry is then sent again later.
    """

    def start(self) -> None:
        """Open the run, or continue the one with the same id."""
        ...

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Store the recipe and the environment: flat names, values of type str, int, float, bool or None."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values`` at an optimizer step of the run. Steps never decrease, and may repeat."""
        ...

    def finish(self) -> None:
        """Send what is buffered and close the run."""
        ...

    def address(self) -> str:
        """URL, path or command at which a user finds the run; called while it is open."""
        return ""
