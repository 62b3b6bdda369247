"""Maps of episodes in mobile networks: stations, walks and connections of the users, as SVG without a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..mobile.environment import SIDE
from .data import StudyData
from .summary import Summary

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDTH = 300
"""Pixels of the side of a map."""
_ARM = 4
"""Half the side of a station's triangle, in metres."""


@dataclass(frozen=True)
class EpisodeMap:
    """The map of one episode of the last stage of a run, as an ``svg`` element, with its ``result`` in words."""

    arm: str
    title: str
    seed: int
    level: str
    result: str
    svg: Markup


def episode_maps(study: StudyData, summary: Summary) -> tuple[EpisodeMap, ...]:
    """The first recorded episode of the main suite of the first finished run of each arm; empty for other suites."""
    maps = []
    for row in summary.rows:
        for run in study.finished(row.arm)[:1]:
            result = run.evaluation(summary.suite, summary.protocol)
            for example in result.examples if result else ():
                if (drawn := _svg(example.get("map"))) is not None:
                    text, level = str(example.get("attempt", "")), str(example.get("level", ""))
                    maps.append(EpisodeMap(row.arm, row.title, run.seed, level, text, drawn))
                    break
    return tuple(maps)


def _svg(content: Any) -> Markup | None:
    """The drawing of a recorded episode; None for content of another shape. Every number is formatted here."""
    from markupsafe import Markup

    try:
        stations = [(int(x), int(y)) for x, y in content["stations"]]
        users = [[(int(x), int(y), [int(n) for n in used]) for x, y, used in walk] for walk in content["users"]]
        lines = [line for walk in users for line in _walk(walk, stations)]
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    parts = [f'<rect x="0" y="0" width="{SIDE}" height="{SIDE}" class="ground"/>', *lines]
    parts += [
        f'<path d="M{x - _ARM} {_down(y) + _ARM}L{x + _ARM} {_down(y) + _ARM}L{x} {_down(y) - _ARM}Z" class="station"/>'
        for x, y in stations
    ]
    label = f"{len(stations)} stations and the walks of {len(users)} users"
    frame = f'viewBox="-2 -2 {SIDE + 4} {SIDE + 4}" width="{_WIDTH}" height="{_WIDTH}"'
    return Markup(f'<svg role="img" aria-label="{label}" {frame}>{"".join(parts)}</svg>')


def _walk(walk: Sequence[tuple[int, int, Sequence[int]]], stations: Sequence[tuple[int, int]]) -> list[str]:
    """The line of a user by its connections, its start, and the connections at its end."""
    drawn = []
    for (x1, y1, used), (x2, y2, _) in pairwise(walk):
        kind = "on" if used else "off"
        drawn.append(f'<line x1="{x1}" y1="{_down(y1)}" x2="{x2}" y2="{_down(y2)}" class="{kind}"/>')
    x, y, used = walk[-1]
    for number in used:
        a, b = stations[number]
        drawn.append(f'<line x1="{x}" y1="{_down(y)}" x2="{a}" y2="{_down(b)}" class="link"/>')
    first = walk[0]
    drawn.append(f'<circle cx="{first[0]}" cy="{_down(first[1])}" r="2.5" class="{"on" if first[2] else "off"}"/>')
    return drawn


def _down(y: int) -> int:
    """A height above the lower border as one below the upper border."""
    return SIDE - y
