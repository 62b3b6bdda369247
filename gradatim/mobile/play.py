"""Episodes of a policy, several side by side, and the rule that serves as reference.

The utility of an episode is the mean over users and steps on a scale from 0 (no user ever has a connection) to 1 (the
largest utility at every step): mobile-env's utility from -1 to 1, halved and shifted. It is the same for every reward
that a policy is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..stage import Event, Events, ignore_events
from .environment import Environment
from .network import Network, PaddedHandler
from .rewards import utility

SIDE_BY_SIDE = 50
"""Episodes that are played side by side by default."""
TRACE_STEPS = 4
"""Steps between two points of a trace."""


class Shape(Protocol):
    """The size of a policy."""

    @property
    def users(self) -> int:
        """Users that it observes."""
        ...

    @property
    def stations(self) -> int:
        """Stations that it observes."""
        ...


class Policy(Protocol):
    """A policy that acts in a batch of episodes."""

    @property
    def shape(self) -> Shape:
        """The size of observations and actions."""
        ...

    def act(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Actions (episodes × users) for observations (episodes × features)."""
        ...


@dataclass(frozen=True)
class Episode:
    """The result of an episode.

    ``utility`` and ``connected``: means over users and steps, in [0, 1]; ``connected_at_end``: users with a connection
    at the last step. ``trace``: for each user a list of (x, y, stations in use) every ``TRACE_STEPS`` steps, empty
    unless recorded.
    """

    utility: float
    connected: float
    connected_at_end: int
    trace: tuple[tuple[tuple[int, int, tuple[int, ...]], ...], ...] = ()


def play(
    policy: Policy,
    environments: Sequence[Environment],
    *,
    batch: int | None = None,
    traced: int = 0,
    task: str = "play",
    events: Events = ignore_events,
) -> list[Episode]:
    """One episode of the likeliest actions in each environment. ``traced``: record the first ones.

    Raises ``DataError`` for an environment that is larger than the policy. ``events`` may raise ``Stopped``.
    """
    shape = policy.shape
    check_sizes(environments, shape)
    handler = PaddedHandler(shape.users, shape.stations, utility())
    size = batch or SIDE_BY_SIDE
    episodes: list[Episode] = []
    events(Event("start", task, 0, len(environments)))
    for start in range(0, len(environments), size):
        networks = [Network(environment, handler) for environment in environments[start : start + size]]
        record = [start + index < traced for index in range(len(networks))]
        episodes += _side_by_side(networks, record, lambda running, seen: policy.act(seen))
        events(Event("advance", task, len(episodes), len(environments)))
    events(Event("finish", task, len(environments), len(environments)))
    return episodes


def check_sizes(environments: Sequence[Environment], shape: Shape) -> None:
    """Raise ``DataError`` for an environment with more users or stations than ``shape``."""
    for environment in environments:
        for name, count in (("users", environment.users), ("stations", len(environment.stations))):
            most = getattr(shape, name)
            if count > most:
                raise DataError(
                    f"an environment has more {name} than the policy observes",
                    where=environment.level,
                    given=count,
                    allowed=f"at most {most}",
                    hint=f"student.{name}: {count} in a new run",
                )


def check_one_length(environments: Sequence[Environment]) -> None:
    """Raise ``DataError`` unless all episodes have one length: a rollout consists of whole episodes."""
    lengths = sorted({environment.steps for environment in environments})
    if len(lengths) > 1:
        raise DataError(
            "the episodes of a training have one length",
            where="data",
            given=" and ".join(f"{steps} steps" for steps in lengths),
            hint="equal steps in all environments",
        )


Act = Callable[[Sequence[Network], npt.NDArray[np.float32]], Any]


def _side_by_side(networks: Sequence[Network], record: Sequence[bool], act: Act) -> list[Episode]:
    """The episodes of ``networks`` until all have ended."""
    observations = [network.reset()[0] for network in networks]
    sums = np.zeros((len(networks), 2))
    traces: list[list[list[tuple[int, int, tuple[int, ...]]]]] = [[[] for _ in network.users] for network in networks]
    running = list(range(len(networks)))
    for step in range(max(network.environment.steps for network in networks)):
        running = [index for index in running if step < networks[index].environment.steps]
        actions = act([networks[index] for index in running], np.stack([observations[index] for index in running]))
        for index, action in zip(running, actions, strict=True):
            network = networks[index]
            places = [(int(user.x), int(user.y)) for user in network.users.values()]
            observations[index], _, _, _, _ = network.step(action)
            sums[index] += (network.mean_utility() + 1) / 2, network.connected_users() / network.NUM_USERS
            if record[index] and step % TRACE_STEPS == 0:
                for user, (x, y) in enumerate(places):
                    traces[index][user].append((x, y, _stations_of(network, user)))
    return [
        Episode(
            float(total / network.environment.steps),
            float(share / network.environment.steps),
            network.connected_users(),
            tuple(map(tuple, trace)) if recorded else (),
        )
        for (total, share), network, trace, recorded in zip(sums, networks, traces, record, strict=True)
    ]


def _stations_of(network: Network, user: int) -> tuple[int, ...]:
    """The numbers of the stations that a user is connected to."""
    connected = network.connections
    return tuple(
        number for number, station in network.stations.items() if network.users[user] in connected.get(station, ())
    )


def nearest_station(networks: Sequence[Network], observations: Any = None) -> list[list[int]]:
    """The rule of reference: each user is connected to the nearest station in its range and to no other.

    A user changes one connection per step: it first drops another station.
    """
    return [[_nearest(network, user) for user in range(network.NUM_USERS)] for network in networks]


def _nearest(network: Network, user: int) -> int:
    equipment = network.users[user]
    best = max(network.stations, key=lambda number: network.channel.snr(network.stations[number], equipment))
    others = [number for number in _stations_of(network, user) if number != best]
    if others:
        return others[0] + 1
    station = network.stations[best]
    unconnected = equipment not in network.connections.get(station, ())
    return best + 1 if unconnected and network.check_connectivity(station, equipment) else 0


@lru_cache(maxsize=100_000)
def reference(environment: Environment) -> Episode:
    """The episode of the rule ``nearest_station`` in an environment."""
    handler = PaddedHandler(environment.users, len(environment.stations), utility())
    return _side_by_side([Network(environment, handler)], [False], nearest_station)[0]
