"""Test environments of policies: the utility in each after every stage, and the map of one episode of each arm.

The verdicts of the suite ``episodes`` hold a utility in [0, 1] per environment. An episode *passes* where its utility
is at least that of the rule that connects every user to its nearest station; learnt, kept and forgotten follow from
that, as for programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import reporting
from ..reporting.maps import EpisodeMap, episode_maps

if TYPE_CHECKING:
    from ..reporting.data import StudyData

SUITE = "episodes"
MOST_ENVIRONMENTS = 1000
"""Rows of the table of a run."""


@dataclass(frozen=True)
class Cell:
    """The episode in one environment after one stage. ``change``: learnt, kept, forgotten or unlearnt."""

    utility: float
    change: str


@dataclass(frozen=True)
class Environment:
    """A row of the table: ``number`` of the test set, from 1, its level, and a cell per stage; None: not played."""

    number: int
    level: str
    cells: tuple[Cell | None, ...]


def environment_rows(stages: Sequence[Any | None]) -> tuple[Environment, ...]:
    """The rows from the verdict table of each stage (``reporting.read_verdicts``; None without), by level and number.

    Environments that no stage was evaluated on are left out.
    """
    levels: dict[int, str] = {}
    played: list[dict[int, tuple[float, bool]]] = []
    for table in stages:
        episodes: dict[int, tuple[float, bool]] = {}
        for verdict in [] if table is None else table.to_pylist():
            if verdict["total"]:
                levels[verdict["row"]] = str(verdict.get("level", "environment"))
                episodes[verdict["row"]] = float(verdict["passed"]), verdict["outcome"] == "passed"
        played.append(episodes)
    order = sorted(levels, key=lambda row: (levels[row], row))[:MOST_ENVIRONMENTS]
    return tuple(Environment(row + 1, levels[row], _cells(row, played)) for row in order)


def _cells(row: int, played: Sequence[Mapping[int, tuple[float, bool]]]) -> tuple[Cell | None, ...]:
    cells: list[Cell | None] = []
    before = False
    for episodes in played:
        if row not in episodes:
            cells.append(None)
            continue
        utility, passed = episodes[row]
        change = ("kept" if before else "learnt") if passed else ("forgotten" if before else "unlearnt")
        cells.append(Cell(utility, change))
        before = passed
    return tuple(cells)


def maps_of(study: StudyData) -> tuple[EpisodeMap, ...]:
    """The map of one episode of each arm with a finished run; empty for students that are no policies."""
    return episode_maps(study, reporting.summarise(study))
