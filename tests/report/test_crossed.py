"""Intervals over seeds and test items: coverage by simulation, clusters of equal forms, the use in the report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from make_study import make_study
from verdict_files import write_evaluation

from gradatim.evaluation.crossed import ItemScores, crossed_error
from gradatim.evaluation.statistics import arm_interval, paired_difference, power, t_interval
from gradatim.reporting import collect, markdown_table, summarise


def study(chance: np.random.Generator, seeds: int, forms: int, effect: float = 0.0) -> ItemScores:
    """Two arms, correct or not: forms differ in difficulty (mean 1/2), seeds in what they learn, items of a form agree.

    The arms share seeds and items; ``effect`` is the difference of their true accuracies.
    """
    codes = np.repeat(np.arange(forms), chance.integers(1, 4, forms))
    difficulty = chance.beta(1.5, 1.5, forms)
    learnt = chance.normal(0, 0.01, seeds)
    values: dict[str, dict[int, np.ndarray]] = {"a": {}, "b": {}}
    for arm, mean in (("a", effect), ("b", 0.0)):
        taste = chance.normal(0, 0.12, forms)  # arms find other forms hard
        for seed in range(seeds):
            own = learnt[seed] + chance.normal(0, 0.01)
            # One draw for a form: its items are solved or missed together.
            solved = chance.random(forms) < np.clip(difficulty + taste + mean + own, 0, 1)
            values[arm][seed] = solved[codes].astype(float)
    return ItemScores(values, codes)


def means(items: ItemScores, arm: str) -> dict[int, float]:
    return {seed: float(values.mean()) for seed, values in items.values[arm].items()}


def test_the_interval_of_an_arm_covers_its_true_accuracy_where_that_of_seeds_alone_does_not() -> None:
    chance, hits, alone = np.random.default_rng(1), 0, 0
    studies = 400
    for _ in range(studies):
        items = study(chance, seeds=5, forms=200)
        scores = means(items, "a")
        full, seeds = arm_interval("a", scores, items), t_interval(list(scores.values()))
        assert full is not None
        assert seeds is not None
        hits += 0.5 in full
        alone += 0.5 in seeds
    margin = 3 * math.sqrt(0.95 * 0.05 / studies)
    assert abs(hits / studies - 0.95) < margin
    assert alone / studies < 0.88


def test_the_interval_of_a_paired_difference_covers_the_true_difference() -> None:
    chance, hits, claims = np.random.default_rng(2), 0, 0
    studies = 400
    for _ in range(studies):
        items = study(chance, seeds=6, forms=200)
        row = paired_difference("a", "b", {arm: means(items, arm) for arm in "ab"}, items=items)
        assert row.interval is not None
        assert row.item_variance is not None
        hits += 0.0 in row.interval
        claims += row.p is not None and row.p < 0.05
    margin = 3 * math.sqrt(0.95 * 0.05 / studies)
    assert abs(hits / studies - 0.95) < margin
    assert claims / studies < 0.05 + margin


def test_items_of_one_form_count_as_one_cluster() -> None:
    chance = np.random.default_rng(3)
    values = (chance.random((5, 100)) < chance.random(100)).astype(float)
    once = crossed_error(values, np.arange(100))
    copies = np.tile(values, (1, 4))
    clustered = crossed_error(copies, np.tile(np.arange(100), 4))
    independent = crossed_error(copies, np.arange(400))
    assert once is not None
    assert clustered is not None
    assert independent is not None
    assert clustered.items == pytest.approx(once.items)
    assert independent.items < 0.3 * once.items


def test_the_variance_is_never_below_that_of_the_seeds() -> None:
    chance = np.random.default_rng(4)
    for _ in range(50):
        values = (chance.random((4, 30)) < 0.5).astype(float)
        error = crossed_error(values, np.arange(30))
        assert error is not None
        assert error.variance >= values.mean(axis=1).var(ddof=1) / 4 - 1e-15


def test_one_seed_or_one_form_gives_no_error() -> None:
    assert crossed_error(np.ones((1, 9)), np.arange(9)) is None
    assert crossed_error(np.ones((3, 9)), np.zeros(9, np.int64)) is None


def test_verdicts_that_do_not_give_the_score_leave_the_interval_of_the_seeds() -> None:
    chance = np.random.default_rng(5)
    items = study(chance, seeds=3, forms=50)
    scores = {seed: value + 0.1 for seed, value in means(items, "a").items()}
    assert arm_interval("a", scores, items) == t_interval(list(scores.values()))


def test_more_seeds_do_not_reduce_the_items_part_in_the_power() -> None:
    assert power(0.02, 0.01, 1000) > 0.999
    assert power(0.02, 0.01, 1000, item_variance=0.02**2) < 0.25


def test_the_report_has_wider_intervals_with_verdicts_and_says_what_they_cover(tmp_path: Path) -> None:
    folder = make_study(tmp_path, seeds=(1, 2, 3), arms=("baseline", "hybrid"), tests=400)
    before = summarise(collect(folder))
    assert not before.covers_items
    assert "the runs have no verdicts per sample" in markdown_table(collect(folder))
    chance = np.random.default_rng(6)
    order = chance.permutation(400)
    for run in folder.glob("*/seed-*"):
        stage = max(run.glob("cycle-00/stage-*"))
        result = json.loads((stage / "result.json").read_text())
        solved = np.zeros(400, bool)
        solved[order[: result["evaluations"][0]["counts"]["all"]["all"]["passed"]]] = True
        write_evaluation(stage, solved.tolist())
        evaluation = json.loads((stage / "evaluation-output.json").read_text())
        evaluation["counts"] = result["evaluations"][0]["counts"]
        (stage / "evaluation-output.json").write_text(json.dumps(evaluation))
    after = summarise(collect(folder))
    assert after.covers_items
    assert "over seeds and test items" in markdown_table(collect(folder))
    for arm in ("baseline", "hybrid"):
        wide, narrow = after.row(arm).interval, before.row(arm).interval
        assert wide is not None
        assert narrow is not None
        assert wide.high - wide.low > narrow.high - narrow.low
        assert after.row(arm).mean == before.row(arm).mean


def test_an_arm_without_a_finished_run_has_no_interval():
    """A study in progress has such arms beside finished ones."""
    items = ItemScores({"a": {1: np.array([1.0, 0.0]), 2: np.array([1.0, 1.0])}}, np.array([0, 1]))
    assert arm_interval("b", {}, items) is None
    assert arm_interval("a", {1: 0.5, 2: 1.0}, items) is not None
