"""One environment of a mobile network as a sample: the JSON text of its prompt, and the label of its level.

    {"stations": [[110, 130], [65, 80]], "users": 5, "speed": 1.5, "steps": 100, "seed": 17}

Positions are metres on a square of ``SIDE`` × ``SIDE``; ``speed`` is metres per step; ``seed`` determines the initial
positions and the walks of the users. Equal texts are equal episodes for equal actions.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..options import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

SIDE = 200
"""Side of the square in metres, as in mobile-env's small scenario."""
SMALL_SCENARIO = ((110, 130), (65, 80), (120, 30))
"""Stations of mobile-env's small scenario, of which the first ones are layout 0."""
MOST_STATIONS, MOST_USERS, MOST_STEPS, MOST_SPEED = 20, 100, 10_000, SIDE
_MARGIN, _APART = 20, 40
"""Least distance in metres of a random station from the border, and from another station."""

Position = tuple[int, int]


@dataclass(frozen=True)
class Environment:
    """A network with ``users`` that walk at ``speed`` metres per step for ``steps`` steps."""

    stations: tuple[Position, ...]
    users: int
    speed: float
    steps: int
    seed: int

    @property
    def text(self) -> str:
        """The prompt of the sample."""
        speed = int(self.speed) if self.speed == int(self.speed) else self.speed
        content = {
            "stations": [list(position) for position in self.stations],
            "users": self.users,
            "speed": speed,
            "steps": self.steps,
            "seed": self.seed,
        }
        return json.dumps(content)

    @property
    def level(self) -> str:
        """The label of all environments of this size, whatever their layout and seed."""
        return level_of(len(self.stations), self.users, self.speed)


def level_of(stations: int, users: int, speed: float) -> str:
    """The label of a kind of environment: ``3 stations, 5 users, speed 1.5``."""
    return f"{_number(stations, 'station')}, {_number(users, 'user')}, speed {speed:g}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def read_environment(text: str, where: str = "an environment") -> Environment:
    """The environment of a prompt. ``DataError`` for any other text."""
    try:
        content = parse_json(text)
        if not isinstance(content, dict) or set(content) != {"stations", "users", "speed", "steps", "seed"}:
            raise ValueError("the keys are not stations, users, speed, steps and seed")
        environment = Environment(
            tuple((_whole(x, SIDE, 0), _whole(y, SIDE, 0)) for x, y in content["stations"]),
            _whole(content["users"], MOST_USERS),
            float(content["speed"]),
            _whole(content["steps"], MOST_STEPS),
            _whole(content["seed"], 1 << 62, 0),
        )
        if not 1 <= len(environment.stations) <= MOST_STATIONS or not 0 <= environment.speed <= MOST_SPEED:
            raise ValueError("the number of stations or the speed is out of range")
    except (ValueError, TypeError) as error:
        raise DataError(
            "a sample is no environment of a mobile network",
            where=where,
            given=f"{text[:80]}: {error}",
            hint="data.source: mobile, or samples with the prompts that it writes",
        ) from error
    return environment


def environments_of(samples: pa.Table) -> list[Environment]:
    """The environments of a table of samples. ``DataError`` with the row of the first sample that is none."""
    return [read_environment(text, f"row {row}") for row, text in enumerate(samples["prompt"].to_pylist())]


def _whole(value: Any, most: int, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{value!r} is no whole number from {least} to {most}")
    return value


def layout(stations: int, number: int, seed: int) -> tuple[Position, ...]:
    """Layout ``number`` of a count of stations: 0 is that of mobile-env's small scenario as far as it has stations.

    All other layouts, and further stations, are random positions from ``seed``, apart from each other where there is
    room.
    """
    placed: list[Position] = list(SMALL_SCENARIO[:stations]) if number == 0 else []
    rng = random.Random(f"layout/{seed}/{number}/{stations}")
    while len(placed) < stations:
        candidates = [(rng.randint(_MARGIN, SIDE - _MARGIN), rng.randint(_MARGIN, SIDE - _MARGIN)) for _ in range(30)]
        placed.append(next((place for place in candidates if _distance(place, placed) >= _APART), candidates[0]))
    return tuple(placed)


def _distance(position: Position, others: Sequence[Position]) -> float:
    """Distance to the nearest of ``others``; infinite without any."""
    x, y = position
    return min((((x - a) ** 2 + (y - b) ** 2) ** 0.5 for a, b in others), default=float("inf"))
