"""Environments of mobile networks: the samples, the simulator beside mobile-env's own, rewards, difficulties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradatim import mobile
from gradatim.difficulty import DIFFICULTIES
from gradatim.errors import DataError, RecipeError, UserError
from gradatim.mobile.environment import Environment, environments_of, layout, level_of, read_environment
from gradatim.mobile.rewards import REWARDS
from gradatim.source import SOURCES
from gradatim.stage import Feedback
from gradatim.table import make_table

pytest.importorskip("mobile_env", reason="the extra mobile is not installed")
mobile.require_packages("tests")

from mobile_env.core.channels import OkumuraHata  # noqa: E402
from mobile_env.core.entities import BaseStation, UserEquipment  # noqa: E402
from mobile_env.scenarios.small import MComSmall  # noqa: E402

from gradatim.mobile import play as playing  # noqa: E402
from gradatim.mobile.network import Network, PaddedHandler, TabulatedChannel  # noqa: E402

SMALL = Environment(layout(3, 0, 0), users=5, speed=1.5, steps=15, seed=3)


def steps(network, actions):
    """The observations and rewards of an episode."""
    first, _ = network.reset()
    played = [network.step(action) for action in actions]
    return [first, *(each[0] for each in played)], [each[1] for each in played], played[-1]


def actions(users, stations, count=15):
    return np.random.default_rng(0).integers(0, stations + 1, (count, users))


def test_a_network_without_padding_is_that_of_mobile_env():
    seeded = {"seed": 3, "EP_MAX_TIME": 15, "movement_params": {"reset_rng_episode": True}}
    theirs = steps(MComSmall(seeded), actions(5, 3))
    ours = steps(Network(SMALL, PaddedHandler(5, 3, REWARDS.get("utility")())), actions(5, 3))
    assert all(np.array_equal(a.astype(np.float32), b) for a, b in zip(theirs[0], ours[0], strict=True))
    assert ours[1] == pytest.approx(theirs[1], abs=1e-12)
    assert ours[2][2:4] == theirs[2][2:4] == (False, True)


def test_a_padded_network_is_the_same_episode_with_zeros_beside_it():
    small, large = (Network(SMALL, PaddedHandler(*size, REWARDS.get("utility")())) for size in ((5, 3), (7, 4)))
    chosen = actions(5, 3)
    padded = np.concatenate([chosen, np.full((15, 2), 4)], axis=1)  # of absent users, on an absent station
    first, second = steps(small, chosen), steps(large, padded)
    assert first[1] == second[1]
    for plain, wide in zip(first[0], second[0], strict=True):
        features, rows = wide.reshape(7, 9), plain.reshape(5, 7)
        assert np.array_equal(np.delete(features[:5], [3, 7], axis=1), rows)
        assert not features[5:].any()
        assert not features[:, [3, 7]].any()


def test_an_action_on_an_absent_station_changes_nothing():
    network = Network(SMALL, PaddedHandler(5, 4, REWARDS.get("utility")()))
    network.reset()
    network.step([4, 4, 4, 4, 4])
    assert network.connected_users() == 0


def test_the_table_of_path_losses_has_the_bits_of_the_channel():
    settings = MComSmall.default_config()
    station, user = BaseStation(0, (110, 130), **settings["bs"]), UserEquipment(0, **settings["ue"])
    plain, table = OkumuraHata(), TabulatedChannel()
    for user.x, user.y in np.random.default_rng(1).uniform(0, 200, (300, 2)).tolist():
        assert table.snr(station, user) == plain.snr(station, user) == table.snr(station, user)


def test_an_episode_repeats_by_its_seed_and_differs_by_another():
    handler = PaddedHandler(5, 3, REWARDS.get("utility")())
    first = Network(SMALL, handler)
    runs = [steps(network, actions(5, 3))[0] for network in (first, first, Network(SMALL, handler))]
    other = steps(Network(replace(SMALL, seed=4), handler), actions(5, 3))[0]
    assert all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
    assert not np.array_equal(runs[0][0], other[0])


def test_rewards_are_quantities_of_the_network():
    network = Network(SMALL, PaddedHandler(5, 3, REWARDS.get("utility")()))
    network.reset()
    for _ in range(3):
        playing_actions = playing.nearest_station([network])[0]
        network.step(playing_actions)
    values = {entry.name: REWARDS.get(entry.name)()(network) for entry in REWARDS}
    assert values["utility"] == pytest.approx(np.mean(list(network.utilities.values())))
    assert values["worst_user"] == min(network.utilities.values())
    assert values["connected"] == network.connected_users() / 5 > 0
    assert values["utility_and_connected"] == pytest.approx((values["utility"] + values["connected"]) / 2)


def test_the_text_of_an_environment_is_read_back():
    assert read_environment(SMALL.text) == SMALL
    assert SMALL.level == level_of(3, 5, 1.5) == "3 stations, 5 users, speed 1.5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\n", "not JSON"),
        ("[1, 2]", "keys"),
        ('{"stations": [[1, 2]], "users": 1, "speed": 0, "steps": 5}', "keys"),
        ('{"stations": [[1, 999]], "users": 1, "speed": 0, "steps": 5, "seed": 1}', "999"),
        ('{"stations": [], "users": 1, "speed": 0, "steps": 5, "seed": 1}', "stations"),
        ('{"stations": [[1, 2]], "users": 0, "speed": 0, "steps": 5, "seed": 1}', "0 is no whole number"),
        ('{"stations": [[1, 2]], "users": true, "speed": 0, "steps": 5, "seed": 1}', "True"),
        ('{"stations": [[1, 2]], "users": 1, "speed": -1, "steps": 5, "seed": 1}', "speed"),
    ],
)
def test_a_text_of_another_kind_is_an_error_in_one_line(text, said):
    with pytest.raises(DataError, match="no environment") as caught:
        environments_of(make_table({"prompt": [SMALL.text, text], "answer": ["", ""]}))
    assert "row 1" in str(caught.value)
    assert said in str(caught.value)


def test_layouts_begin_with_the_small_scenario_and_keep_stations_apart():
    assert layout(2, 0, 5) == ((110, 130), (65, 80))
    assert layout(5, 0, 5)[:3] == layout(3, 0, 9)
    first, second = layout(4, 1, 5), layout(4, 2, 5)
    assert first != second
    assert first == layout(4, 1, 5)
    assert len(set(first)) == 4


KINDS = [{"stations": 1, "users": 2, "speed": 0}, {"stations": 3, "users": 2, "speed": 5, "layouts": 2}]


def test_the_source_draws_environments_by_seed_and_cycle():
    source = SOURCES.make("mobile", options={"count": 6, "environments": KINDS, "steps": 30, "seed": 4})
    drawn = source.draw(0, Feedback())
    environments = environments_of(drawn.table)
    assert drawn.table["level"].to_pylist() == [env.level for env in environments]
    assert drawn.facts["levels"] == {"1 station, 2 users, speed 0": 6, "3 stations, 2 users, speed 5": 6}
    assert len({env.text for env in environments}) == 12
    assert [len({env.stations for env in part}) for part in (environments[:6], environments[6:])] == [1, 2]
    assert source.plan(0).questions == 12
    assert source.draw(0, Feedback()).table.equals(drawn.table)
    assert not source.draw(1, Feedback()).table.equals(drawn.table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 5, "environments": []}, "there is no kind of environment"),
        ({"count": 5, "environments": [KINDS[0], KINDS[0]]}, "occurs twice"),
        ({"count": 0, "environments": KINDS}, "count"),
        ({"count": 5, "environments": [{"stations": 1, "users": 2}]}, "speed"),
        ({"count": 5, "environments": [{**KINDS[0], "cars": 1}]}, "cars"),
        ({"count": 5, "environments": [{**KINDS[0], "users": 1000}]}, "users"),
    ],
)
def test_wrong_options_of_the_source_are_one_line(options, said):
    with pytest.raises(RecipeError, match="data") as caught:
        SOURCES.make("mobile", options=options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_grows_with_users_stations_and_speed():
    base = Environment(layout(2, 0, 0), users=3, speed=1.0, steps=10, seed=0)
    harder = [replace(base, users=4), replace(base, stations=layout(3, 0, 0)), replace(base, speed=2.0)]
    texts = [env.text for env in (base, *harder)]
    scores = DIFFICULTIES.make("load", options={})(make_table({"prompt": texts, "answer": [""] * 4}))
    assert scores.tolist() == [12.0, 16.0, 18.0, 18.0]


def test_the_rule_of_the_nearest_station_connects_users_and_is_a_difficulty():
    still = replace(SMALL, speed=0.0)
    episode = playing.reference(still)
    assert 0 < episode.utility < 1
    assert 0 < episode.connected_at_end <= 5
    score = DIFFICULTIES.make("nearest_station", options={})(make_table({"prompt": [still.text], "answer": [""]}))
    assert score.tolist() == [1 - episode.utility]


@pytest.mark.parametrize("name", ["load", "nearest_station"])
def test_a_sample_that_is_no_environment_has_no_difficulty(name):
    scores = DIFFICULTIES.make(name, options={})(make_table({"prompt": ["a = 1\n", SMALL.text], "answer": ["", ""]}))
    assert np.isnan(scores).tolist() == [True, False]


def test_a_missing_package_names_the_extra(monkeypatch):
    found = mobile.importlib.util.find_spec
    monkeypatch.setattr(mobile.importlib.util, "find_spec", lambda name: None if name == "gymnasium" else found(name))
    with pytest.raises(UserError, match=r"pip install 'gradatim\[mobile\]'") as caught:
        mobile.require_packages("student.kind: policy")
    assert "gymnasium" in str(caught.value)
    assert caught.value.exit_code == 2
