"""Settings of a policy and of its training with PPO. Names and defaults of PPO are those of Stable-Baselines3, except
for the rollout: several whole episodes side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecipeError


@dataclass(frozen=True)
class PolicySettings:
    """Options of ``student`` for the kind ``policy``; see the factory in ``experiment.assemble.policy``.

    ``users`` and ``stations``: the size of observations and actions.
    """

    users: int
    stations: int
    hidden: tuple[int, ...] = (64, 64)
    reward: str = "utility"
    num_envs: int = 10
    episodes: int = 2
    batch_size: int = 100
    n_epochs: int = 10
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    reset_optimizer: bool = True
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        least_one = ("users", "stations", "num_envs", "episodes", "batch_size", "n_epochs")
        bounds: dict[str, tuple[float, float]] = {name: (1, 1e6) for name in least_one}
        bounds |= {"learning_rate": (1e-12, 1e3), "gamma": (0, 1), "gae_lambda": (0, 1), "clip_range": (1e-9, 1e9)}
        bounds |= {"ent_coef": (0, 1e9), "vf_coef": (0, 1e9), "max_grad_norm": (1e-9, 1e9)}
        bounds |= {"checkpoint_seconds": (0, 1e9)}
        faults = [
            f"student.{name}: an option out of range (given {getattr(self, name):g}, allowed {low:g} to {high:g})"
            for name, (low, high) in bounds.items()
            if not low <= getattr(self, name) <= high
        ]
        if not self.hidden or not all(1 <= width <= 10_000 for width in self.hidden):
            faults.append(f"student.hidden: widths of layers from 1 to 10000 (given {list(self.hidden)})")
        if faults:
            raise RecipeError("; ".join(faults), faults=faults)

    def rollout(self, episode_steps: int) -> int:
        """Agent steps between two updates of the policy."""
        return self.num_envs * self.episodes * episode_steps
