"""Runs whose schedule looks at the student: stopped anywhere they end alike, and they learn what was drawn."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from gradatim.errors import DataError, RecipeError, Stopped
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.model.tokenizer import Encoded
from gradatim.stage import Event, Mixture, Stage, StageResult, StageSpec
from gradatim.training.batches import Packed, make_sampler


def weights(history: list[StageResult]) -> list[tuple[str, str]]:
    return [(result.spec.name, result.fitted.weights) for result in history]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("name", ["smoke/frontier", pytest.param("smoke/mastery", marks=pytest.mark.slow)])
def test_a_run_stopped_again_and_again_ends_with_the_same_weights(name: str, store: Path, tmp_path: Path) -> None:
    recipe = load(name, ["schedule.parts=3", "budget.tokens=6000", "evaluate.suites=[]"])
    whole = run(recipe, tmp_path / "whole", store=store)
    heard, stops = 0, 0

    def stop(event: Event) -> None:
        nonlocal heard
        heard += event.kind != "note"  # every start repeats the notes
        if event.kind != "note" and heard % 5 == 0:
            raise Stopped("by the test")

    for _ in range(40):
        try:
            again = run(recipe, tmp_path / "again", store=store, events=stop)
            break
        except Stopped:
            stops += 1
    assert stops > 2
    assert weights(again) == weights(whole)
    assert [(each.progress, each.probed) for each in again] == [(each.progress, each.probed) for each in whole]


def test_what_the_schedule_looked_at_is_in_the_run_folder(store: Path, tmp_path: Path) -> None:
    history = run(load("smoke/self-paced", ["evaluate.suites=[]"]), tmp_path, store=store)
    assert [result.spec.by for result in history] == ["difficulty", "loss"]
    assert [result.probed for result in history] == [50, 50]
    first = tmp_path / "cycle-00" / f"stage-00-{history[0].spec.name}"
    assert json.loads((first / "result.json").read_text())["probed"] == 50
    with np.load(first / "probe.npz") as probe:
        assert set(probe.files) == {"rows", "loss", "tokens"}
    assert history[1].samples < 50


def test_a_plan_shows_an_adaptive_schedule_while_nothing_is_known() -> None:
    plan = plan_run(load("smoke/bandit"), data=False)
    assert [stage.stage.partition("-")[2] for stage in plan.stages] == ["easy", "medium", "hard", "easy"]
    assert sum(stage.tokens for stage in plan.stages) == plan.tokens


def test_a_plan_with_data_knows_the_categories() -> None:
    plan = plan_run(load("smoke/blocked"), data=True)
    assert plan.stages[0].samples == sum(plan.stages[0].bands.values()) > 1000
    with pytest.raises(DataError, match="there is only one category"):
        plan_run(load("smoke/blocked", ["schedule.category=language"]), data=True)


def test_orders_and_weights_do_not_go_with_random_crops() -> None:
    for name in ("smoke/folded", "smoke/frontier", "smoke/fade"):
        with pytest.raises(RecipeError, match=r"train\.batching.*allowed: packed"):
            plan_run(load(name, ["train.batching=random_crops"]), data=False)


def test_a_batcher_draws_the_mixture_and_goes_on_from_any_position() -> None:
    sizes = np.array([8] * 40 + [16] * 40)
    tokens = np.repeat(np.arange(80), sizes).astype(np.uint16)
    encoded = Encoded(tokens, np.concatenate([[0], np.cumsum(sizes)]), sizes // 2)
    mixture = Mixture(np.repeat([0, 1], 40), np.ones(80), (1.0, 0.0), (0.0, 1.0))
    stage = Stage(StageSpec("s", (1.0, 1.0), 40_000), 0, np.arange(80), 5, 0, 40_000, mixture=mixture)
    packed = Packed(encoded, stage, 4, 63, 0, sampler=make_sampler(stage, stage.rows, sizes, 4 * 63))
    seen = list(islice(packed.stream(packed.start), 150))
    hard = np.array([np.mean(batch.inputs >= 40) for batch, _ in seen])
    assert hard[:10].mean() < 0.15 < 0.4 < hard[70:85].mean() < 0.6 < 0.85 < hard[-10:].mean()
    for at in (0, 31, 100):
        batch, position = next(packed.stream(seen[at][1]))
        assert np.array_equal(batch.inputs, seen[at + 1][0].inputs)
        assert position == seen[at + 1][1]


def test_sorted_once_is_packed_tight_from_the_second_pass_on() -> None:
    sizes = np.full(40, 8)
    encoded = Encoded(np.repeat(np.arange(40), 8).astype(np.uint16), np.arange(0, 321, 8), sizes // 2)
    spec = StageSpec("s", (1.0,), 640, order="sorted", order_options={"passes": "once"})
    packed = Packed(encoded, Stage(spec, 0, np.arange(40), 5, 0, 640), 1, 31, 0)
    lines = [batch.inputs[0, ::8].tolist() for batch, _ in islice(packed.stream(packed.start), 20)]
    first, second = ([row for line in some for row in line] for some in (lines[:10], lines[10:]))
    assert first == sorted(second) == list(range(40))
    assert second != first


@pytest.mark.parametrize("metric", ["column", "given"])
def test_a_mixture_over_levels_follows_the_measured_answers(metric: str, store: Path, tmp_path: Path) -> None:
    changes = [
        f"difficulty={{metric: {metric}, bands: {{names: [a, b, c], thresholds: [1.5, 2.15]}}}}",
        "schedule={name: mixture, parts: 3, floor: 0.25}",
        "budget.tokens=6000",
        "evaluate.suites=[]",
    ]
    history = run(load("smoke/baseline", changes), tmp_path, store=store)
    assert history[0].spec.mixture is None
    for before, result in pairwise(history):
        if all(measured.right == 1 for measured in before.progress.values()):
            continue
        assert result.spec.mixture is not None
        assert sum(result.spec.mixture[0]) == pytest.approx(1)
    plan = plan_run(load("smoke/baseline", changes), data=True)
    assert [band.name for band in plan.bands] == ["a", "b", "c"]
