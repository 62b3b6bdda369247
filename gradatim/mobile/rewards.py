"""Rewards: the quantities that a policy is trained on, by name.

A reward is a function of the network after a step. Policies are compared by their utility, whatever they were trained
on, since values of two rewards have no common scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from ..options import strict
from ..registry import Registry


class StepResult(Protocol):
    """A network after a step (``network.Network``): ``utilities`` by user, from -1 to 1, and the number of users."""

    NUM_USERS: int
    utilities: Mapping[Any, float]

    def mean_utility(self) -> float:
        """Mean utility of the users, from -1 to 1."""
        ...

    def connected_users(self) -> int:
        """Number of users with a connection."""
        ...


Reward: TypeAlias = Callable[[StepResult], float]
"""The reward of the step before."""

REWARDS: Registry[Callable[..., Reward]] = Registry("reward", arguments=0)


@REWARDS.register("utility")
@strict("the reward 'utility'")
def utility() -> Reward:
    """Mean utility of the users, from -1 to 1: mobile-env's own reward."""
    return lambda network: network.mean_utility()


@REWARDS.register("connected")
@strict("the reward 'connected'")
def connected() -> Reward:
    """Share of the users with a connection, from 0 to 1, whatever their data rate."""
    return lambda network: network.connected_users() / network.NUM_USERS


@REWARDS.register("worst_user")
@strict("the reward 'worst_user'")
def worst_user() -> Reward:
    """Utility of the user with the lowest one, from -1 to 1: fairness before the mean."""
    return lambda network: min(network.utilities.values())


@REWARDS.register("utility_and_connected")
@strict("the reward 'utility_and_connected'")
def utility_and_connected() -> Reward:
    """Mean of the rewards utility and connected."""
    return lambda network: (network.mean_utility() + network.connected_users() / network.NUM_USERS) / 2
