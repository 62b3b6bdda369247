"""Training of a stage with PPO of Stable-Baselines3.

A rollout is a number of whole episodes side by side, followed by the updates of PPO. Between two rollouts the state
consists of the weights, the optimizer and the number of rollouts: random numbers are seeded by (stage, rollout), and
the environments of the next episodes follow from their numbers (``order``). A stage therefore resumes bit for bit from
a checkpoint of safetensors and JSON, without pickles. Its budget is counted in agent steps and exceeded by less than
one rollout.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from ..errors import RunFolderError, Stopped, TrainingDiverged
from ..mobile.environment import Environment
from ..mobile.network import Episodes, PaddedHandler
from ..mobile.rewards import REWARDS
from ..model.hardware import forked_random_state, reproducible
from ..random_streams import dropout_seed
from ..record import Metrics, read_json, settle, write_folder, write_json
from ..stage import Event, Events, Examination, Fitted, Stage, Trainer, ignore_events
from .masked import (
    MaskedPolicy,
    PolicyShape,
    load_weights,
    make_policy,
    net_arch,
    save_policy,
    weights_of,
)
from .order import EpisodeOrder
from .settings import PolicySettings

AGAIN = "remove the folder: the stage starts again from its beginning"


@dataclass(frozen=True)
class State:
    """The position between two rollouts. ``loss``: the negative mean reward of the last one; ``seconds``: training."""

    step: int = 0
    tokens: int = 0
    loss: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class PolicyTrainer(Trainer):
    """Implementation of ``stage.Trainer`` for policies. ``seed`` initialises the weights.

    ``environments``: those of the cycle's training table, all with one number of steps.
    """

    environments: Sequence[Environment]
    metrics: Metrics
    seed: int
    settings: PolicySettings
    examination: Examination | None = None

    @property
    def shape(self) -> PolicyShape:
        """The size of the policy."""
        return PolicyShape(self.settings.users, self.settings.stations, self.settings.hidden)

    def initial(self) -> MaskedPolicy:
        """The policy before training."""
        with forked_random_state():
            torch.manual_seed(self.seed)
            return make_policy(self.shape)

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """See ``stage.Trainer``. Raises ``TrainingDiverged``; the last checkpoint stays."""
        try:
            with reproducible(), forked_random_state(), numpy_random_state():
                return _Training(self, stage, folder, previous, events).run()
        finally:
            self.metrics.close()


@contextlib.contextmanager
def numpy_random_state() -> Iterator[None]:
    """NumPy's global random state, which permutes the batches of PPO, is restored on exit."""
    before = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(before)


class _Training:
    """The training of one stage."""

    def __init__(
        self, trainer: PolicyTrainer, stage: Stage, folder: Path, previous: Path | None, events: Events
    ) -> None:
        self.trainer, self.stage, self.folder, self.events = trainer, stage, folder, events
        self.settings = settings = trainer.settings
        steps = trainer.environments[0].steps
        self.rollout = settings.rollout(steps)
        self.order = EpisodeOrder(stage, steps, self.rollout)
        self.weights = weights_of(trainer.initial())
        reward = REWARDS.make(stage.spec.objective or settings.reward, where="student.reward", options={})
        self.handler = PaddedHandler(settings.users, settings.stations, reward)
        self.state, self.saved_at = State(), time.monotonic()
        settle(folder / "checkpoint")
        checkpoint = folder / "checkpoint"
        resumed = (checkpoint / "state.json").exists()
        if resumed:
            self.state = read_json(checkpoint / "state.json", _state)
        self.algorithm = self._algorithm(settings, steps)
        self.policy: MaskedPolicy = self.algorithm.policy  # type: ignore[assignment]
        self.policy.load_state_dict(self.weights)
        if resumed:
            load_weights(self.policy, checkpoint / "policy.safetensors", AGAIN)
            load_optimizer(self.policy.optimizer, checkpoint, AGAIN)
        elif previous is not None:
            load_weights(self.policy, previous / "model" / "policy.safetensors", "train that stage again")
            if not settings.reset_optimizer:
                load_optimizer(self.policy.optimizer, previous / "optimizer", "train that stage again")
        self.resumed_at = self.state.step
        trainer.metrics.rewind(stage.cycle, stage.index, self.state.step or -1)

    def _algorithm(self, settings: PolicySettings, steps: int) -> PPO:
        """PPO on the episodes from the next one on."""
        done = self.state.step * settings.num_envs * settings.episodes
        environments = DummyVecEnv(
            [
                partial(Episodes, self._environment, self.handler, done + number, settings.num_envs)
                for number in range(settings.num_envs)
            ]
        )
        return PPO(
            MaskedPolicy,
            environments,
            learning_rate=settings.learning_rate,
            n_steps=steps * settings.episodes,
            batch_size=settings.batch_size,
            n_epochs=settings.n_epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.ent_coef,
            vf_coef=settings.vf_coef,
            max_grad_norm=settings.max_grad_norm,
            policy_kwargs={"net_arch": net_arch(self.trainer.shape)},
            device="cpu",
        )

    def _environment(self, episode: int) -> Environment:
        return self.trainer.environments[self.order.row(episode)]

    def run(self) -> Fitted:
        """Train until the budget is spent; save the state when ``Stopped`` is raised."""
        budget, task = self.stage.spec.tokens, f"train {self.stage.spec.name}"
        self.events(Event("start", task, self.state.tokens, budget, unit="steps"))
        self.started, before = time.monotonic(), self.state.seconds
        try:
            while self.state.tokens < budget:
                self._update(before)
                done = min(self.state.tokens, budget)
                self.events(Event("advance", task, done, budget, unit="steps", loss=self.state.loss))
                if time.monotonic() - self.saved_at > self.settings.checkpoint_seconds:
                    self._save()
        except Stopped:
            self._save()
            raise
        self._save()
        digest = self._finish()
        self.events(Event("finish", task, budget, budget))
        parameters = sum(value.numel() for value in self.policy.parameters())
        seconds = round(before + time.monotonic() - self.started, 3)
        state = self.state
        return Fitted(
            state.step, state.tokens, parameters, 0, state.loss, seconds, digest, self.resumed_at,
            total_parameters=parameters,
        )  # fmt: skip

    def _update(self, before: float) -> None:
        """One rollout and the updates of PPO."""
        seed = dropout_seed(int(self.stage.seed), self.state.step, 0)
        torch.manual_seed(seed)
        np.random.seed(seed % (1 << 32))
        try:
            self.algorithm.learn(self.rollout, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        except ValueError as error:
            if "Expected parameter" not in str(error):  # of a distribution with NaN
                raise
            self._diverged(math.nan)
        reward = float(self.algorithm.rollout_buffer.rewards.mean())
        if not all(bool(value.isfinite().all()) for value in self.policy.parameters()):
            self._diverged(math.nan)
        previous, logged = self.state.tokens, self.algorithm.logger.name_to_value
        self.state = State(
            self.state.step + 1, previous + self.rollout, -reward, before + time.monotonic() - self.started
        )
        row: dict[str, Any] = {
            "cycle": self.stage.cycle,
            "stage": self.stage.index,
            "name": self.stage.spec.name,
            "step": self.state.step,
            "tokens": self.state.tokens,
            "run_tokens": self.stage.first_token + self.state.tokens,
        }
        values = {
            "reward": reward,
            "learning_rate": self.settings.learning_rate,
            "policy_loss": float(logged["train/policy_gradient_loss"]),
            "value_loss": float(logged["train/value_loss"]),
            "entropy": -float(logged["train/entropy_loss"]),
            "kl": float(logged["train/approx_kl"]),
        }
        self.trainer.metrics.append({**row, **values})
        if self.trainer.examination is not None and self.state.tokens < self.stage.spec.tokens:
            self._examine(self.trainer.examination, row, row["run_tokens"] - self.rollout)

    def _examine(self, examination: Examination, row: Mapping[str, Any], previous: int) -> None:
        """Append the counts of an evaluation when a multiple of ``examination.every`` lies after ``previous`` steps."""
        if previous // examination.every == row["run_tokens"] // examination.every:
            return
        started, target = time.monotonic(), self.folder / "examined"
        write_folder(target, partial(save_policy, self.policy, self.trainer.shape))
        self.trainer.metrics.append({**row, "evaluations": examination.evaluate(target)})
        shutil.rmtree(target)
        self.started += time.monotonic() - started

    def _diverged(self, value: float) -> None:
        raise TrainingDiverged(
            "the weights of the policy are not finite",
            where=f"stage {self.stage.spec.name}, rollout {self.state.step}",
            given=value,
            hint="a lower student.learning_rate, with another --out",
        )

    def _save(self) -> None:
        """Write a checkpoint, replacing an older one."""

        def fill(target: Path) -> None:
            save_file(weights_of(self.policy), target / "policy.safetensors")
            save_optimizer(self.policy.optimizer, target)
            write_json(target / "state.json", asdict(self.state))

        self.trainer.metrics.close()
        write_folder(self.folder / "checkpoint", fill)
        self.saved_at = time.monotonic()

    def _finish(self) -> str:
        """Write the trained policy, and the optimizer from which the next stage continues; return their digest."""
        self.trainer.metrics.close()
        write_folder(self.folder / "model", partial(save_policy, self.policy, self.trainer.shape))
        if not self.settings.reset_optimizer:
            write_folder(self.folder / "optimizer", partial(save_optimizer, self.policy.optimizer))
        return weights_digest(self.policy)


def _state(content: Any) -> State:
    return State(int(content["step"]), int(content["tokens"]), float(content["loss"]), float(content["seconds"]))


def weights_digest(policy: MaskedPolicy) -> str:
    """SHA-256 over the names and bytes of all weights, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(weights_of(policy).items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the state of the optimizer into ``folder``: a tensor per parameter and quantity."""
    state = optimizer.state_dict()["state"]
    tensors = {
        f"{number}.{name}": value.detach().clone() for number, values in state.items() for name, value in values.items()
    }
    save_file(tensors, folder / "optimizer.safetensors")


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path, hint: str) -> None:
    """Load the state that ``save_optimizer`` wrote; ``RunFolderError`` when it is damaged."""
    content = optimizer.state_dict()
    try:
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(folder / "optimizer.safetensors").items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the optimizer state of a policy is damaged", where=folder, given=error, hint=hint
        ) from error
