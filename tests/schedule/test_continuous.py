"""Curricula that move without steps: fades, paces, and the stages that they make."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import RecipeError
from gradatim.results import decode_spec, decode_stage, encode
from gradatim.schedule import SCHEDULES, Bands, make_bands, preview, probe_rows, select_rows
from gradatim.schedule.matrix import competence
from gradatim.stage import BandProgress, Fitted, Probe, StageResult, StageSpec

THREE = ("easy", "medium", "hard")
SCORES = np.random.default_rng(0).permutation(np.arange(300.0))
BANDS = make_bands(SCORES)


def stages(name: str, bands: tuple[str, ...] = THREE, tokens: int = 120_000, **options: object) -> list[StageSpec]:
    return preview(SCHEDULES.get(name)(bands, tokens, **options), bands)


# Fade


def test_a_fade_begins_with_the_easiest_band_and_ends_with_all_alike() -> None:
    specs = stages("fade")
    assert specs[0].mixture == ((1, 0, 0), (0.5, 0.5, 0))
    assert specs[1].mixture == ((0.5, 0.5, 0), pytest.approx((1 / 3, 1 / 3, 1 / 3)))
    assert [spec.fractions for spec in specs] == [(1, 1, 0), (1, 1, 1)]


def test_a_fade_has_no_step_between_its_stages() -> None:
    specs = stages("fade", milestones={0: (1, 0, 0), 0.2: (3, 1, 0), 0.7: (0, 1, 1), 1: (0, 0, 1)}, replay=0.2)
    assert [spec.tokens for spec in specs] == [24_000, 60_000, 36_000]
    assert all(before.mixture[1] == after.mixture[0] for before, after in pairwise(specs))


def test_replay_in_a_fade_keeps_a_share_for_the_bands_met_before() -> None:
    last = stages("fade", milestones={0: (1, 0, 0), 0.5: (0, 1, 0), 1: (0, 0, 1)}, replay=0.2)[-1]
    assert last.mixture[1] == pytest.approx((0.1, 0.1, 0.8))


@pytest.mark.parametrize(
    "milestones",
    [
        {0: (1, 0, 0)},
        {0: (1, 0, 0), 0.9: (0, 0, 1)},
        {0: (1, 0), 1: (0, 1)},
        {0: (0, 0, 0), 1: (0, 0, 1)},
        {0: (1, 0, -1), 1: (0, 0, 1)},
        {0: (1, 0, float("nan")), 1: (0, 0, 1)},
        {"begin": (1, 0, 0), 1: (0, 0, 1)},
    ],
)
def test_milestones_that_do_not_fit_are_refused(milestones: object) -> None:
    with pytest.raises(RecipeError, match="milestone"):
        stages("fade", milestones=milestones)


def test_a_mixture_is_over_the_bands_and_gives_the_share_of_empty_ones_to_the_others() -> None:
    stage = select_rows(stages("fade")[1], BANDS, SCORES, seed=1)
    assert np.array_equal(stage.mixture.groups, BANDS.index[stage.rows])
    assert stage.rows.size == 300
    lacking = Bands(THREE, (1.0, 2.0), np.where(BANDS.index == 0, 1, BANDS.index).astype(np.int8))
    assert select_rows(stages("fade")[1], lacking, SCORES, seed=1).mixture.start == (0, 1, 0)


# Pacing


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["linear", "root", "convex"]),
    st.floats(0.001, 1),
    st.floats(0.01, 1),
    st.lists(st.floats(0, 1), min_size=2, max_size=9),
)
def test_competence_grows_from_its_start_to_everything(pace: str, start: float, until: float, times: list) -> None:
    at = [competence(time, pace, start, until) for time in sorted(times)]
    assert all(start * (1 - 1e-9) <= low <= high <= 1 for low, high in pairwise(at))
    assert competence(0, pace, start, until) == pytest.approx(start)
    assert competence(until, pace, start, until) == pytest.approx(1)


def test_the_paces_are_those_of_the_paper() -> None:
    assert competence(0.25, "linear", 0.01, 1.0) == pytest.approx(0.25 * 0.99 + 0.01)
    assert competence(0.25, "root", 0.01, 1.0) == pytest.approx((0.25 * (1 - 0.01**2) + 0.01**2) ** 0.5)
    root, linear, convex = (competence(0.3, pace, 0.01, 1.0) for pace in ("root", "linear", "convex"))
    assert root > linear > convex


def test_pacing_takes_the_easiest_rows_of_the_whole_table() -> None:
    spec = stages("pacing", pace="linear", start=0.25, until=1.0, parts=4)[1]
    rows = select_rows(spec, BANDS, SCORES, seed=1).rows
    assert set(SCORES[rows]) == set(np.arange(np.ceil(300 * spec.high)))


def test_pacing_with_replay_is_about_what_has_newly_opened() -> None:
    spec = stages("pacing", pace="linear", start=0.25, until=1.0, parts=4, replay=0.3)[2]
    stage = select_rows(spec, BANDS, SCORES, seed=1)
    fresh = stage.mixture.groups == 1
    assert stage.mixture.start == stage.mixture.end == pytest.approx((0.3, 0.7))
    assert SCORES[stage.rows[~fresh]].max() < SCORES[stage.rows[fresh]].min()
    assert fresh.sum() == pytest.approx(300 * (spec.high - spec.low), abs=1)
    everything = stages("pacing", until=0.5, parts=4, replay=0.3)[-1]
    assert (everything.low, everything.high, everything.replay) == (0, 1, 0)


def test_equal_difficulties_at_a_quantile_are_chosen_by_the_seed() -> None:
    flat = np.zeros(100)
    bands = make_bands(flat, thresholds=(), names=("one",))
    spec = StageSpec("s", (1.0,), 10, high=0.5)
    first, again, other = (set(select_rows(spec, bands, flat, seed=seed).rows) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 50


@pytest.mark.parametrize("options", [{"start": 0}, {"until": 2}, {"parts": 0}, {"replay": 1.0}, {"pace": "square"}])
def test_a_pace_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        stages("pacing", **options)


# What the student found hard


def test_a_stage_by_the_students_loss_takes_the_probed_rows_that_it_finds_easiest() -> None:
    rows = np.arange(0, 300, 3)
    loss = np.random.default_rng(1).permutation(100.0 * np.arange(100))
    spec = StageSpec("s", (1.0, 1.0, 1.0), 10, high=0.2, by="loss")
    found = select_rows(spec, BANDS, SCORES, seed=1, probe=Probe(rows, loss, np.full(100, 5))).rows
    assert set(found) == set(rows[loss < 2000])


def test_loss_is_per_token_and_the_pass_rate_is_of_the_whole_answer() -> None:
    rows, loss, tokens = np.arange(2), np.array([2.0, 1.5]), np.array([10, 1])
    for by, easier in (("loss", 0), ("pass_rate", 1)):
        spec = StageSpec("s", (1.0, 1.0, 1.0), 10, high=0.5, by=by)
        assert select_rows(spec, BANDS, SCORES, seed=1, probe=Probe(rows, loss, tokens)).rows.tolist() == [easier]


def test_the_frontier_weighs_rows_by_p_times_1_minus_p() -> None:
    chance = np.array([0.5, 0.9, 0.1, 1.0, 1e-9])
    probe = Probe(np.arange(5), -np.log(chance), np.full(5, 3))
    stage = select_rows(StageSpec("s", (1.0, 1.0, 1.0), 10, frontier=True), BANDS, SCORES, seed=1, probe=probe)
    weights = dict(zip(stage.rows.tolist(), stage.mixture.weights, strict=True))
    assert [weights[row] for row in range(3)] == pytest.approx([0.25, 0.09, 0.09])
    assert 0 < weights[3] == weights[4] < 0.001


def test_replay_at_the_frontier_goes_evenly_to_what_is_more_likely_right_than_not() -> None:
    probe = Probe(np.arange(4), -np.log([0.5, 0.9, 0.99, 0.1]), np.full(4, 3))
    spec = StageSpec("s", (1.0, 1.0, 1.0), 10, frontier=True, replay=0.5)
    stage = select_rows(spec, BANDS, SCORES, seed=1, probe=probe)
    weights = stage.mixture.weights[np.argsort(stage.rows)]
    p = np.array([0.5, 0.9, 0.99, 0.1])
    alone = p * (1 - p) / (p * (1 - p)).sum()
    assert weights / weights.sum() == pytest.approx(0.5 * alone + np.array([0, 0.25, 0.25, 0]))


def test_a_stage_that_needs_a_probe_says_so_when_there_is_none() -> None:
    with pytest.raises(RecipeError, match="there is no probe"):
        select_rows(StageSpec("s", (1.0, 1.0, 1.0), 10, frontier=True), BANDS, SCORES, seed=1)


def test_a_probe_is_of_rows_with_a_difficulty_and_depends_on_its_seed() -> None:
    bands = Bands(("one",), (), np.array([0, -1] * 50, dtype=np.int8))
    first, again, other = (probe_rows(bands, 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.size == 20
    assert (np.diff(first) > 0).all()
    assert (first % 2 == 0).all()
    assert probe_rows(bands, 0, 1).size == probe_rows(bands, 99, 1).size == 50


# Values


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": 0.5, "high": 0.5},
        {"high": 1.5},
        {"replay": 1.0},
        {"replay": 0.5, "order": "sorted"},
        {"mixture": ((1.0, 0.0), (0.5, 0.4))},
        {"mixture": ((1.0,), (1.0,))},
        {"mixture": ((1.0, 0.0), (1.5, -0.5))},
        {"mixture": ((1.0, 0.0), (1.0, 0.0)), "replay": 0.1},
        {"mixture": ((0.5, 0.5), (0.5, 0.5)), "fractions": (1.0, 0.0)},
    ],
)
def test_a_stage_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="stage 's'"):
        StageSpec(**{"name": "s", "fractions": (1.0, 1.0), "tokens": 10, **wrong})


def test_a_result_keeps_progress_and_mixture_in_json() -> None:
    spec = StageSpec("s", (1.0, 1.0), 10, mixture=((1.0, 0.0), (0.25, 0.75)))
    fitted = Fitted(3, 10, 9, 0, 1.5, 0.1, "00")
    result = StageResult(0, 0, spec, 4, {"easy": 4}, fitted, progress={"easy": BandProgress(0.5, 0.25, 4)}, probed=7)
    assert decode_stage(json.loads(json.dumps(encode(result)))) == StageResult(**{**vars(result), "evaluations": ()})


def test_a_result_of_an_older_version_is_still_read() -> None:
    spec = StageSpec("s", (1.0, 0.5), 10)
    new = {"order_options", "mixture", "low", "high", "by", "frontier", "replay"}
    old = {key: value for key, value in asdict(spec).items() if key not in new}
    assert decode_spec(json.loads(json.dumps(old))) == spec
    fitted = asdict(Fitted(3, 10, 9, 0, 1.5, 0.1, "00"))
    older = {"cycle": 0, "index": 0, "spec": old, "samples": 4, "composition": {}, "fitted": fitted, "evaluations": []}
    assert decode_stage(older).progress == {}
