"""The network of a policy: Stable-Baselines3's actor-critic, with a mask of the actions, and its files.

The policy observes and acts for the largest environment of its run. Actions of absent users and on absent stations have
probability 0, so that they add nothing to entropy, likelihood and gradient. Absence is read from the observation: the
SNR of a present station at a present user is above zero (``mobile.network``).

A model folder has ``policy.safetensors`` and ``policy.json``. Stable-Baselines3's own archives are pickles, which could
execute code, and are neither written nor read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy

from ..errors import DataError, RunFolderError
from ..mobile.network import action_space, observation_space
from ..record import read_json, write_json

WEIGHTS, CONFIG = "policy.safetensors", "policy.json"
IMPOSSIBLE = -1e8
"""Logit of a masked action."""


@dataclass(frozen=True)
class PolicyShape:
    """Size of a policy: ``users`` and ``stations`` of its observations and actions, widths of its ``hidden`` layers."""

    users: int
    stations: int
    hidden: tuple[int, ...]


class MaskedPolicy(ActorCriticPolicy):
    """An actor-critic with masked actions; arguments as for its superclass."""

    possible: torch.Tensor

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions, values and log-probabilities of a batch of observations."""
        self.possible = self._possible_actions(obs)
        return super().forward(obs, deterministic)

    def evaluate_actions(
        self, obs: Any, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values, log-probabilities and entropy of a batch of observations and actions."""
        self.possible = self._possible_actions(obs)
        return super().evaluate_actions(obs, actions)

    def get_distribution(self, obs: Any) -> Distribution:
        """The distribution of the actions."""
        self.possible = self._possible_actions(obs)
        return super().get_distribution(obs)

    def _possible_actions(self, obs: torch.Tensor) -> torch.Tensor:
        """A mask in the order of the logits: for each user no change, then each station that is present."""
        stations = int(self.action_space.nvec[0]) - 1  # type: ignore[attr-defined]
        features = obs.reshape(len(obs), -1, 2 * stations + 1)
        present = features[:, :, stations : 2 * stations] > 0
        return torch.cat([torch.ones_like(present[:, :, :1]), present], dim=2).reshape(len(obs), -1)

    def _get_action_dist_from_latent(self, latent_pi: torch.Tensor) -> Distribution:
        logits = self.action_net(latent_pi).masked_fill(~self.possible, IMPOSSIBLE)
        return self.action_dist.proba_distribution(action_logits=logits)  # type: ignore[call-arg]


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy for evaluation; an implementation of ``stage.Model`` whose ``tokenizer`` is None."""

    shape: PolicyShape
    model: MaskedPolicy
    tokenizer: None = None

    @torch.no_grad()
    def act(self, observations: Any) -> Any:
        """The likeliest actions (int64, episodes × users) for a batch of observations (float32)."""
        self.model.set_training_mode(False)
        tensor = torch.as_tensor(observations)
        return self.model.get_distribution(tensor).get_actions(deterministic=True).numpy()


def make_policy(shape: PolicyShape) -> MaskedPolicy:
    """A policy with weights from torch's random generator."""
    spaces = observation_space(shape.users, shape.stations), action_space(shape.users, shape.stations)
    return MaskedPolicy(*spaces, lambda _: 0.0, net_arch=net_arch(shape))


def net_arch(shape: PolicyShape) -> dict[str, list[int]]:
    """The hidden layers of actor and critic, as Stable-Baselines3 takes them."""
    return {"pi": list(shape.hidden), "vf": list(shape.hidden)}


def weights_of(policy: MaskedPolicy) -> dict[str, torch.Tensor]:
    """All weights by name, as tensors of their own."""
    return {name: value.detach().clone().contiguous() for name, value in policy.state_dict().items()}


def save_policy(policy: MaskedPolicy, shape: PolicyShape, folder: Path) -> None:
    """Write the files of a policy into ``folder``."""
    save_file(weights_of(policy), folder / WEIGHTS)
    write_json(folder / CONFIG, {"kind": "policy", **asdict(shape)})


def load_weights(policy: MaskedPolicy, file: Path, hint: str) -> None:
    """Load the weights of ``file`` in place; ``RunFolderError`` when they are damaged or of another size."""
    try:
        policy.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError, OSError) as error:
        problem = "the weights of a policy are damaged or of another size"
        raise RunFolderError(problem, where=file, given=str(error).split("\n")[0], hint=hint) from error


def load_policy(folder: Path) -> LoadedPolicy:
    """The policy in a model folder; ``DataError`` when there is none."""
    if not (folder / CONFIG).is_file():
        raise DataError("this folder has no policy", where=folder, hint="the folder model/ of a stage of a policy")
    shape = read_json(folder / CONFIG, _shape)
    policy = make_policy(shape)
    load_weights(policy, folder / WEIGHTS, "train the stage again")
    return LoadedPolicy(shape, policy)


def _shape(content: Any) -> PolicyShape:
    users, stations = int(content["users"]), int(content["stations"])
    return PolicyShape(users, stations, tuple(int(width) for width in content["hidden"]))
