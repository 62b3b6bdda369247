"""The simulator: mobile-env with padded observations and actions, and a table of path losses.

Observations and actions have the sizes of the largest environment of a run, so that one policy acts in all of them. The
features are those of mobile-env's central handler, user by user: connections, normalised signal-to-noise ratios (SNR),
utility. Users and stations beyond those of the environment have zeros, and a present one has an SNR above zero, which
is how a policy tells them apart (``policy.network``). Actions on absent stations do nothing.

Path loss depends on whole metres between a station and a user, so that a table replaces its computation: the same bits
at a multiple of the speed (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from mobile_env.core.base import MComCore
from mobile_env.core.channels import OkumuraHata
from mobile_env.core.entities import BaseStation, UserEquipment
from mobile_env.core.util import deep_dict_merge
from mobile_env.handlers.handler import Handler

from .environment import SIDE, Environment
from .rewards import Reward

Floats = npt.NDArray[np.float32]

_SNR: dict[tuple[Any, ...], float] = {}
"""SNR by distance and settings of station and user; at most (SIDE + 1)² entries for one setting."""


class TabulatedChannel(OkumuraHata):  # type: ignore[misc]
    """mobile-env's channel, whose results are kept by the distance in whole metres."""

    def snr(self, bs: BaseStation, ue: UserEquipment) -> float:
        """The SNR of a station at a user, as ``OkumuraHata`` computes it."""
        distance = abs(int(bs.x) - int(ue.x)), abs(int(bs.y) - int(ue.y))
        key = (*distance, bs.frequency, bs.tx_power, bs.height, ue.height, ue.noise)
        value = _SNR.get(key)
        if value is None:
            value = _SNR[key] = super().snr(bs, ue)
        return value


class PaddedHandler(Handler):  # type: ignore[misc]
    """Observations and actions of ``users`` users and ``stations`` stations for any smaller network."""

    def __init__(self, users: int, stations: int, reward: Reward) -> None:
        self.users, self.stations, self.step_reward = users, stations, reward

    def ue_obs_size(self, env: Network) -> int:
        """Features of one user."""
        return 2 * self.stations + 1

    def action_space(self, env: Network) -> spaces.MultiDiscrete:
        """For each user 0 (no change), or the number of a station whose connection is added or removed."""
        return action_space(self.users, self.stations)

    def observation_space(self, env: Network) -> spaces.Box:
        """The features of all users."""
        return observation_space(self.users, self.stations)

    def action(self, env: Network, action: Sequence[int]) -> dict[int, int]:
        """The action of each user of the network."""
        chosen = [int(number) for number in action[: env.NUM_USERS]]
        return {user: number if number <= env.NUM_STATIONS else 0 for user, number in enumerate(chosen)}

    def observation(self, env: Network) -> Floats:
        """The features, user by user: connections, SNR over the largest one, utility."""
        values = np.zeros((self.users, 2 * self.stations + 1), dtype=np.float32)
        idle = env.utility.scale(env.utility.lower)
        for row, user in enumerate(env.active):
            snrs = [env.channel.snr(station, user) for station in env.stations.values()]
            largest = max(snrs)
            for column, (station, snr) in enumerate(zip(env.stations.values(), snrs, strict=True)):
                values[row, column] = user in env.connections[station]
                values[row, self.stations + column] = snr / largest
            values[row, -1] = env.utilities.get(user, idle)
        return values.reshape(-1)

    def reward(self, env: Network) -> float:
        """The reward of the step."""
        return float(self.step_reward(env))


def action_space(users: int, stations: int) -> spaces.MultiDiscrete:
    """The actions of a policy of this size."""
    return spaces.MultiDiscrete([stations + 1] * users)


def observation_space(users: int, stations: int) -> spaces.Box:
    """The observations of a policy of this size."""
    return spaces.Box(low=-1.0, high=1.0, shape=(users * (2 * stations + 1),), dtype=np.float32)


class _NoMonitor:
    """In place of mobile-env's monitor, which records every metric of every step for a window."""

    def reset(self) -> None:
        """Nothing is recorded."""

    def update(self, simulation: Network) -> None:
        """Nothing is recorded."""

    def info(self) -> dict[str, Any]:
        """Nothing was recorded."""
        return {}


class Network(MComCore):  # type: ignore[misc]
    """The network of one ``Environment``; ``reset`` starts the same episode again."""

    def __init__(self, environment: Environment, handler: PaddedHandler) -> None:
        config = deep_dict_merge(
            self.default_config(),
            {
                "EP_MAX_TIME": environment.steps,
                "seed": environment.seed,
                "channel": TabulatedChannel,
                "handler": handler,
                "width": SIDE,
                "height": SIDE,
                "ue": {"velocity": environment.speed},
                "arrival_params": {"ep_time": environment.steps},
                # mobile-env ignores the seed of ``reset`` and the same key at the top.
                "movement_params": {"reset_rng_episode": True, "width": SIDE, "height": SIDE},
            },
        )
        stations = [BaseStation(number, place, **config["bs"]) for number, place in enumerate(environment.stations)]
        users = [UserEquipment(number, **config["ue"]) for number in range(environment.users)]
        super().__init__(stations, users, config)
        self.environment = environment
        self.monitor = _NoMonitor()

    def mean_utility(self) -> float:
        """Mean utility of the users in the step before, from -1 to 1."""
        return float(sum(self.utilities.values()) / len(self.utilities))

    def connected_users(self) -> int:
        """Number of users with a connection."""
        return len(set().union(*self.connections.values()))


class Episodes(gymnasium.Env):  # type: ignore[misc,type-arg]
    """An endless sequence of episodes: ``choose(number)`` is the environment of episode ``number``.

    ``number`` starts at ``first`` and grows by ``stride``, so that several of these share one sequence.
    """

    def __init__(self, choose: Any, handler: PaddedHandler, first: int, stride: int) -> None:
        self.choose, self.handler, self.number, self.stride = choose, handler, first, stride
        self.action_space = action_space(handler.users, handler.stations)
        self.observation_space = observation_space(handler.users, handler.stations)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start the next episode; seeds belong to the environments."""
        self.network = Network(self.choose(self.number), self.handler)
        self.number += self.stride
        observation, _ = self.network.reset()
        return observation, {}

    def step(self, action: Any) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """One step of the episode, which ends by its time alone."""
        observation, reward, terminated, truncated, _ = self.network.step(action)
        return observation, reward, terminated, truncated, {}
