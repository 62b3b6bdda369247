"""Training of policies: exact resume, equal seeds, masks, the order of episodes."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from gradatim import mobile
from gradatim.errors import DataError, RecipeError, RunFolderError, Stopped
from gradatim.mobile.environment import Environment, layout
from gradatim.policy.settings import PolicySettings
from gradatim.record import Metrics
from gradatim.stage import Mixture, Stage, StageSpec

pytest.importorskip("stable_baselines3", reason="the extra mobile is not installed")
mobile.require_packages("tests")

import torch  # noqa: E402

from gradatim.mobile.network import Network, PaddedHandler  # noqa: E402
from gradatim.mobile.play import play, reference  # noqa: E402
from gradatim.mobile.rewards import REWARDS  # noqa: E402
from gradatim.policy.masked import LoadedPolicy, PolicyShape, load_policy, make_policy  # noqa: E402
from gradatim.policy.order import EpisodeOrder  # noqa: E402
from gradatim.policy.ppo import PolicyTrainer  # noqa: E402

SETTINGS = PolicySettings(
    users=3, stations=2, hidden=(16, 16), num_envs=3, episodes=2, batch_size=60, n_epochs=2, checkpoint_seconds=1e9
)
ENVIRONMENTS = [Environment(layout(2, 0, 0), users=3, speed=1.5, steps=10, seed=seed) for seed in range(20)]
ROLLOUT = SETTINGS.rollout(10)


def stage(tokens=4 * ROLLOUT, seed=11, **changes):
    rows = np.arange(len(ENVIRONMENTS))
    return replace(Stage(StageSpec("all", (1.0,), tokens), 0, rows, seed, 0, tokens), **changes)


def fit(folder, *, events=lambda event: None, settings=SETTINGS, previous=None, of=None):
    trainer = PolicyTrainer(ENVIRONMENTS, Metrics(folder / "metrics.jsonl"), 5, settings)
    return trainer.fit(of or stage(), folder / "stage", previous, events)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    return folder, fit(folder)


def weights(folder):
    return load_policy(folder / "stage" / "model").model.state_dict()


def test_the_same_seed_gives_the_same_weights_and_metrics(trained, tmp_path):
    folder, fitted = trained
    again = fit(tmp_path)
    assert again.weights == fitted.weights
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert (fitted.steps, fitted.tokens) == (4, 4 * ROLLOUT)
    assert fit(tmp_path / "other", of=stage(seed=12)).weights != fitted.weights


def test_training_stopped_after_each_rollout_ends_with_the_same_bytes(trained, tmp_path):
    folder, fitted = trained

    def stop(event):
        if event.kind == "advance":
            raise Stopped("stopped")

    for _ in range(3):
        with pytest.raises(Stopped):
            fit(tmp_path, events=stop)
    assert {path.suffix for path in (tmp_path / "stage" / "checkpoint").iterdir()} == {".safetensors", ".json"}
    resumed = fit(tmp_path)
    assert resumed.weights == fitted.weights
    assert resumed.resumed_at == 3
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(tmp_path).items())


def test_the_optimizer_continues_over_stages_unless_it_is_reset(trained, tmp_path):
    folder, _ = trained
    kept = replace(SETTINGS, reset_optimizer=False)
    first = tmp_path / "first"
    assert fit(first, settings=kept).weights == trained[1].weights
    second = stage(ROLLOUT, seed=3)
    with_moments = fit(tmp_path / "kept", settings=kept, previous=first / "stage", of=second)
    without = fit(tmp_path / "reset", previous=folder / "stage", of=second)
    assert with_moments.weights != without.weights
    assert not (folder / "stage" / "optimizer").exists()


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    def stop(event):
        if event.kind == "advance":
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        fit(tmp_path, events=stop)
    (tmp_path / "stage" / "checkpoint" / "optimizer.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="optimizer state of a policy is damaged") as caught:
        fit(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_policy_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no policy"):
        load_policy(tmp_path)


@pytest.mark.slow
def test_four_thousand_steps_are_trained_and_examined_within_twenty_seconds(tmp_path):
    settings = PolicySettings(users=5, stations=3, hidden=(32, 32), num_envs=10, episodes=2, batch_size=500, n_epochs=4)
    environments = [Environment(layout(3, 0, 0), users=5, speed=1.5, steps=50, seed=seed) for seed in range(20)]
    started = time.process_time()
    trainer = PolicyTrainer(environments, Metrics(tmp_path / "metrics.jsonl"), 5, settings)
    fitted = trainer.fit(stage(4000), tmp_path / "stage", None)
    episodes = play(load_policy(tmp_path / "stage" / "model"), environments[:6])
    assert time.process_time() - started < 20
    assert fitted.tokens == 4000
    assert all(0 <= episode.utility <= 1 and 0 <= episode.connected <= 1 for episode in episodes)


def test_actions_of_absent_users_and_on_absent_stations_have_no_probability():
    policy = make_policy(PolicyShape(4, 3, (8,)))
    network = Network(ENVIRONMENTS[0], PaddedHandler(4, 3, REWARDS.get("utility")()))  # 3 users, 2 stations
    seen = torch.as_tensor(network.reset()[0])[None]
    users = policy.get_distribution(seen).distribution
    assert [(each.probs[0] > 1e-6).tolist() for each in users] == [[True, True, True, False]] * 3 + [
        [True, False, False, False]
    ]
    assert float(users[3].entropy().detach()) == pytest.approx(0, abs=1e-6)
    taken, _, probability = policy(seen.repeat(200, 1))
    assert taken[:, 3].unique().tolist() == [0]
    assert not (taken == 3).any()
    assert torch.isfinite(probability).all()


def test_a_policy_plays_the_same_episode_alone_and_beside_others():
    torch.manual_seed(0)
    policy = LoadedPolicy(PolicyShape(3, 2, (8,)), make_policy(PolicyShape(3, 2, (8,))))
    together = play(policy, ENVIRONMENTS[:5])
    assert [play(policy, [environment])[0] for environment in ENVIRONMENTS[:5]] == together
    assert play(policy, ENVIRONMENTS[:5], batch=2) == together


def test_a_larger_environment_than_the_policy_is_an_error():
    policy = LoadedPolicy(PolicyShape(2, 2, (8,)), make_policy(PolicyShape(2, 2, (8,))))
    with pytest.raises(DataError, match="more users than the policy observes"):
        play(policy, ENVIRONMENTS)


@pytest.mark.slow
def test_training_improves_on_the_untrained_policy(tmp_path):
    """Two standing users beside one station: 8,000 steps find most of the utility that the nearest station gives."""
    still = [Environment(((100, 100),), users=2, speed=0.0, steps=20, seed=seed) for seed in range(10)]
    settings = replace(
        SETTINGS, users=2, stations=1, num_envs=10, episodes=2, batch_size=200, n_epochs=6, learning_rate=3e-3
    )
    trainer = PolicyTrainer(still, Metrics(tmp_path / "metrics.jsonl"), 5, settings)
    rows = np.arange(len(still))
    trainer.fit(Stage(StageSpec("all", (1.0,), 8000), 0, rows, 1, 0, 8000), tmp_path / "stage", None)
    before, after = (
        np.mean([episode.utility for episode in play(policy, still)])
        for policy in (LoadedPolicy(trainer.shape, trainer.initial()), load_policy(tmp_path / "stage" / "model"))
    )
    rule = np.mean([reference(environment).utility for environment in still])
    assert after > before
    assert after > 0.8 * rule


def test_the_order_of_episodes_is_a_function_of_their_numbers():
    order, again = (EpisodeOrder(stage(), 10, ROLLOUT) for _ in range(2))
    rows = [order.row(episode) for episode in range(60)]
    assert [again.row(episode) for episode in reversed(range(60))] == rows[::-1]
    assert [sorted(rows[start : start + 20]) for start in (0, 20, 40)] == [list(range(20))] * 3
    assert rows[:20] != rows[20:40]


def test_a_mixture_has_the_shares_of_its_groups():
    groups = np.array([0] * 10 + [1] * 10)
    shares = (0.8, 0.2)
    spec = StageSpec("mixed", (1.0, 1.0), 4000, mixture=(shares, shares))
    mixed = Stage(spec, 0, np.arange(20), 7, 0, 4000, mixture=Mixture(groups, np.ones(20), shares, shares))
    order, again = (EpisodeOrder(mixed, 10, ROLLOUT) for _ in range(2))
    rows = [order.row(episode) for episode in range(400)]
    assert np.mean(np.array(rows) < 10) == pytest.approx(0.8, abs=0.03)
    assert again.row(399) == rows[399]


@pytest.mark.parametrize(
    ("option", "value"), [("num_envs", 0), ("learning_rate", 0.0), ("gamma", 1.5), ("hidden", ()), ("clip_range", 0.0)]
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(RecipeError, match=f"student.{option}"):
        replace(SETTINGS, **{option: value})
