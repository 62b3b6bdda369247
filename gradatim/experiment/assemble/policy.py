"""The kind of student ``policy``: it acts in mobile networks and is trained with PPO of Stable-Baselines3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ... import mobile
from ...errors import RecipeError, UnknownPart
from ...lazy import np
from ...mobile.environment import environments_of
from ...mobile.rewards import REWARDS
from ...mobile.source import MobileSource
from ...model import hardware
from ...options import strict
from ...policy.settings import PolicySettings
from ...random_streams import initialization_seed
from ...stage import BandProgress, Examination, Model, Needs, Probe, Source
from .student import Student, StudentContext

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ...corpus import Corpus
    from ...distillation.attempts import GradedAttempts
    from ...mobile.environment import Environment
    from ...policy.masked import LoadedPolicy
    from ...policy.ppo import PolicyTrainer
    from ...record import Metrics
    from ...schedule import Bands

Positive = Annotated[int, Field(ge=1)]


@strict("student: {kind: policy}")
def policy(
    context: StudentContext,
    /,
    *,
    users: Annotated[
        Positive, Field(description="Users that the policy observes and acts for: those of the largest environment.")
    ],
    stations: Annotated[Positive, Field(description="Stations that it observes: those of the largest environment.")],
    hidden: Annotated[
        tuple[int, ...], Field(description="Widths of the hidden layers of actor and critic.")
    ] = PolicySettings.hidden,
    reward: Annotated[
        str, Field(description="Reward: `gradatim list rewards`. Evaluations measure the utility, whatever the reward.")
    ] = PolicySettings.reward,
    num_envs: Annotated[int, Field(description="Episodes side by side in a rollout.")] = PolicySettings.num_envs,
    episodes: Annotated[
        int, Field(description="Episodes one after the other in a rollout, between two updates of the policy.")
    ] = PolicySettings.episodes,
    batch_size: Annotated[int, Field(description="Agent steps in a minibatch of PPO.")] = PolicySettings.batch_size,
    n_epochs: Annotated[int, Field(description="Passes of PPO through a rollout.")] = PolicySettings.n_epochs,
    learning_rate: Annotated[float, Field(description="Learning rate of Adam.")] = PolicySettings.learning_rate,
    gamma: Annotated[float, Field(description="Discount factor.")] = PolicySettings.gamma,
    gae_lambda: Annotated[
        float, Field(description="Lambda of generalised advantage estimation.")
    ] = PolicySettings.gae_lambda,
    clip_range: Annotated[float, Field(description="Clipping of the probability ratio.")] = PolicySettings.clip_range,
    ent_coef: Annotated[float, Field(description="Weight of the entropy in the loss.")] = PolicySettings.ent_coef,
    vf_coef: Annotated[float, Field(description="Weight of the value loss.")] = PolicySettings.vf_coef,
    max_grad_norm: Annotated[float, Field(description="Gradient clipping by norm.")] = PolicySettings.max_grad_norm,
    reset_optimizer: Annotated[
        bool, Field(description="Adam's moments start anew at each stage, or continue over the run.")
    ] = PolicySettings.reset_optimizer,
    checkpoint_seconds: Annotated[
        float, Field(description="Seconds between checkpoints within a stage.")
    ] = PolicySettings.checkpoint_seconds,
) -> Student:
    """A policy that acts in mobile networks, trained with PPO (extra `mobile`). The budget is in agent steps."""
    settings = PolicySettings(
        users, stations, hidden, reward, num_envs, episodes, batch_size, n_epochs, learning_rate, gamma, gae_lambda,
        clip_range, ent_coef, vf_coef, max_grad_norm, reset_optimizer, checkpoint_seconds,
    )  # fmt: skip
    return PolicyStudent(context, settings)


@dataclass(frozen=True)
class PolicyStudent(Student):
    """A policy with its settings."""

    context: StudentContext
    settings: PolicySettings
    unit = "agent step"
    name = "policy"
    design_prompt = "design-policy"

    @property
    def restarts(self) -> bool:
        """Whether the optimizer starts anew at each stage."""
        return self.settings.reset_optimizer

    @property
    def step(self) -> int:
        """Agent steps between two updates."""
        steps = self.context.data.get("steps", EPISODE)
        return self.settings.rollout(steps if isinstance(steps, int) else EPISODE)

    @property
    def objective(self) -> str:
        """The reward."""
        return self.settings.reward

    @property
    def objectives(self) -> Mapping[str, str]:
        """The registered rewards."""
        return {entry.name: entry.summary for entry in REWARDS}

    @property
    def design_facts(self) -> Mapping[str, Any]:
        """Agent steps between two updates; whether the optimizer starts anew."""
        return {
            "agent_steps_in_a_rollout": self.step,
            "a_token_is": "an agent step",
            "optimizer_begins_anew_at_each_stage": self.restarts,
        }

    def check(self, source: Source) -> None:
        """Check the packages, the reward, and the sizes of the environments."""
        mobile.require_packages("student.kind: policy")
        self.check_objective(self.settings.reward, "student.reward")
        if not isinstance(source, MobileSource):
            return  # samples of a file are checked when they are read
        for kind in source.kinds:
            for name in ("users", "stations"):
                count, most = getattr(kind, name), getattr(self.settings, name)
                if count > most:
                    raise RecipeError(
                        f"an environment has more {name} than the policy observes",
                        where="data.environments",
                        given=kind.level,
                        allowed=f"at most {most} {name}",
                        hint=f"student.{name}: {count}",
                    )

    def check_objective(self, name: str, where: str) -> None:
        """Raise ``UnknownPart`` unless ``name`` is a reward."""
        try:
            REWARDS.get(name, where=where)
        except UnknownPart as error:
            raise UnknownPart(
                f"there is no reward called {name!r}: the objectives of a policy are rewards",
                where=where,
                allowed=error.allowed,
                hint=error.hint,
            ) from error

    def parameters(self) -> int:
        """Weights and biases of actor and critic."""
        features = self.settings.users * (2 * self.settings.stations + 1)
        widths = [features, *self.settings.hidden]
        hidden = sum((inner + 1) * outer for inner, outer in pairwise(widths))
        actions = self.settings.users * (self.settings.stations + 1)
        return 2 * hidden + (widths[-1] + 1) * (actions + 1)

    def trainer(self, dataset: Corpus, metrics: Metrics, examination: Examination | None = None) -> PolicyTrainer:
        """The trainer on the environments of a dataset. ``DataError`` for environments that do not fit."""
        from ...policy import ppo

        mobile.require_packages("student.kind: policy")
        hardware.use_threads(self.context.threads)
        environments = self._environments(dataset, "train")
        return ppo.PolicyTrainer(
            environments, metrics, initialization_seed(self.context.seed), self.settings, examination
        )

    def _environments(self, dataset: Corpus, part: Any) -> list[Environment]:
        from ...mobile import play

        environments = environments_of(dataset.table(part))
        play.check_sizes(environments, self.settings)
        play.check_one_length(environments)
        return environments

    def initial_model(self, dataset: Corpus, metrics: Metrics) -> Model:
        """The policy before training."""
        from ...policy.masked import LoadedPolicy

        made = self.trainer(dataset, metrics)
        return LoadedPolicy(made.shape, made.initial())

    def open_model(self, folder: Path) -> LoadedPolicy:
        """See ``policy.masked.load_policy``."""
        from ...policy.masked import load_policy

        mobile.require_packages("student.kind: policy")
        hardware.use_threads(self.context.threads)
        return load_policy(folder)

    def measure(
        self,
        needs: Needs,
        model: Model,
        dataset: Corpus,
        bands: Bands,
        band_indices: npt.NDArray[Any],
        seed: int,
        probe: Path,
    ) -> dict[str, Any]:
        """By band of the validation environments, ``loss``: 1 - the mean utility; ``right``: the share of episodes
        that reach the utility of the nearest-station rule. Of a probe, ``loss``: the negative logarithm of the utility.
        """
        from ...inference.loglikelihood import save_probe
        from ...mobile.play import play, reference
        from ...schedule import probe_rows

        acting: Any = model
        result: dict[str, Any] = {"progress": {}, "probed": 0}
        if needs.band_loss:
            environments = self._environments(dataset, "validation")
            episodes = play(acting, environments, task="validate", events=self.context.events)
            for band, name in enumerate(bands.names):
                inside = [index for index, own in enumerate(band_indices) if own == band]
                if inside:
                    good = [episodes[i].utility >= reference(environments[i]).utility - ROUNDING for i in inside]
                    loss = 1 - sum(episodes[i].utility for i in inside) / len(inside)
                    result["progress"][name] = asdict(BandProgress(loss, sum(good) / len(inside), len(inside)))
        if needs.sample_loss:
            rows = probe_rows(bands, needs.probe, seed)
            training = self._environments(dataset, "train")
            episodes = play(acting, [training[row] for row in rows], task="probe", events=self.context.events)
            # exp(-loss) is the utility, so that p (1 - p) is largest at half of it.
            losses = [-math.log(max(episode.utility, LEAST_UTILITY)) for episode in episodes]
            save_probe(Probe(rows, np.array(losses), np.ones(len(rows), dtype=np.int64)), probe)
            result["probed"] = len(rows)
        return result

    def attempts(self, model: Model, questions: pa.Table, seed: int) -> GradedAttempts:
        """One episode in each of the environments, graded by its utility.

        The verdict is ``passed`` where the utility is at least that of the nearest-station rule.
        """
        from ...distillation.attempts import graded
        from ...distillation.judge import Thresholds, View
        from ...mobile.play import play, reference

        acting: Any = model
        environments = environments_of(questions)
        views, texts = [], []
        for environment, episode in zip(
            environments, play(acting, environments, task="attempts", events=self.context.events), strict=True
        ):
            rule = reference(environment).utility
            passed = episode.utility >= rule - ROUNDING
            reason = f"utility {episode.utility:.3f}, that of the nearest station {rule:.3f}"
            views.append(View(min(max(episode.utility, 0.0), 1.0), "passed" if passed else "failed", reason))
            texts.append(f"{episode.connected_at_end} of {environment.users} users connected at the end")
        return graded(questions, texts, {"utility": views}, Thresholds(self.context.easy, self.context.hard))


EPISODE = 100
"""Steps of an episode, unless ``data.steps`` has another number."""
LEAST_UTILITY = 1e-6
ROUNDING = 1e-9
