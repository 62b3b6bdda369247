"""Runs that are not comparable have no difference, no interval and no headline; the reason is given instead."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from make_study import ARMS, make_run, make_study

from gradatim.reporting import collect, headline, markdown_table, summarise
from gradatim.reporting.comparison import setting_differences
from gradatim.stage import Counts

TWO = ("baseline", "hybrid")


def changed(folder, **settings):
    """The recipe of the run in ``folder`` with other sections."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
    return folder


def result_of(*folders):
    summary = summarise(collect(list(folders)))
    return headline(summary), summary


def is_refused(summary, arm, reason):
    row = summary.row(arm)
    assert row.difference is None
    assert any(reason in line for line in summary.incomparable[arm])
    return True


@pytest.mark.parametrize("factor", [0.5, 2])
def test_arms_with_other_budgets_have_no_difference(tmp_path, factor):
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=TWO, noise=0.004))

    def scaled(run):
        if run.arm != "hybrid":
            return run
        stages = [
            replace(stage, fitted=replace(stage.fitted, tokens=round(factor * stage.fitted.tokens)))
            for stage in run.stages
        ]
        return replace(run, stages=tuple(stages), settings={**run.settings, "budget": {"tokens": 1}})

    summary = summarise(replace(study, runs=tuple(scaled(run) for run in study.runs)))
    assert is_refused(summary, "hybrid", "training tokens, Baseline 1,800,000")
    result = headline(summary)
    assert result.verdict == "incomparable"
    assert "points" not in " ".join((result.sentence, *result.support))


def test_a_schedule_that_ends_below_an_equal_budget_is_compared(tmp_path):
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=TWO, noise=0.004))
    budget = {"budget": {"tokens": 2_000_000}}
    runs = [replace(run, settings={**run.settings, **budget}) for run in study.runs]
    runs = [replace(run, stages=run.stages[:2]) if run.arm == "hybrid" else run for run in runs]
    assert not summarise(replace(study, runs=tuple(runs))).incomparable


def with_test_set(folder, corpus, answers):
    """The run in ``folder`` with a dataset whose test set has ``answers``."""
    path = folder / "cycle-00" / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "corpus": corpus}))
    rows = [{"prompt": f"print({answer})", "answer": str(answer)} for answer in answers]
    (folder / "data" / corpus).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / corpus / "test.parquet")
    return folder


@pytest.mark.parametrize(("answers", "compared"), [((1, 2), True), ((1, 3), False)])
def test_test_sets_are_compared_by_their_samples(tmp_path, answers, compared):
    base = with_test_set(make_run(tmp_path / "baseline", "baseline", 1), "aaaa", (1, 2))
    arm = with_test_set(make_run(tmp_path / "hybrid", "hybrid", 1), "bbbb", answers)
    result, summary = result_of(base, arm)
    if compared:
        assert summary.row("hybrid").difference.mean is not None
    else:
        assert is_refused(summary, "hybrid", "another test set than The baseline arm")
        assert result.verdict == "incomparable"


def test_other_numbers_of_test_items_have_no_difference(tmp_path):
    base, arm = make_run(tmp_path / "baseline", "baseline", 1), make_run(tmp_path / "hybrid", "hybrid", 1, tests=500)
    _, summary = result_of(base, arm)
    assert is_refused(summary, "hybrid", "500 test items, The baseline arm 2,000")


def test_a_run_is_not_compared_with_a_copy_of_its_recipe(tmp_path):
    base = make_run(tmp_path / "baseline", "baseline", 1)
    copy = make_run(tmp_path / "again", "baseline", 2)
    result, summary = result_of(base, copy)
    assert is_refused(summary, "again", "only seeds differ")
    assert result.verdict == "incomparable"


def test_two_arms_of_one_name_with_other_recipes_stay_apart(tmp_path):
    first = make_run(tmp_path / "a" / "hybrid", "hybrid", 1)
    second = changed(make_run(tmp_path / "b" / "hybrid", "hybrid", 2), student={"preset": "tiny"})
    study = collect([first, second])
    assert [arm.name for arm in study.arms] == ["hybrid", "b/hybrid"]
    assert len({arm.title for arm in study.arms}) == 2


def test_two_arms_of_one_name_and_seed_stay_apart(tmp_path):
    folders = [make_run(tmp_path / name / "hybrid", "hybrid", 1) for name in "ab"]
    assert [run.arm for run in collect(folders).runs] == ["hybrid", "b/hybrid"]


def test_runs_of_one_recipe_and_name_are_seeds_of_one_arm(tmp_path):
    folders = [make_run(tmp_path / "a" / "hybrid" / f"seed-{seed}", "hybrid", seed) for seed in (1, 2)]
    study = collect(folders)
    assert [arm.name for arm in study.arms] == ["hybrid"]
    assert study.seeds == (1, 2)


def test_two_studies_with_one_arm_by_other_recipes_keep_them_apart(tmp_path):
    first = make_study(tmp_path / "first", seeds=(1,), arms=TWO)
    second = make_study(tmp_path / "second", seeds=(2,), arms=TWO)
    changed(second / "hybrid" / "seed-2", student={"preset": "tiny"})
    assert [arm.name for arm in collect([first, second]).arms] == ["baseline", "hybrid", "second/hybrid"]


def test_a_wide_interval_is_no_lead(tmp_path):
    result, _ = result_of(make_study(tmp_path / "s", seeds=(1, 2), arms=TWO, noise=0.2))
    assert result.sentence == "No difference can be claimed with 2 seeds; that needs at least 5."
    assert "ahead" not in " ".join((result.sentence, *result.support))


def at(study, share, arms, majority=146):
    """``study`` with the accuracy ``share`` in ``arms``, whose most frequent answer is right ``majority`` times."""

    def scored(run):
        stages = tuple(
            replace(
                stage,
                evaluations=[
                    replace(result, counts={"all": {"all": Counts(round(share * 2_000), 2_000)}})
                    for result in stage.evaluations
                ],
            )
            for stage in run.stages
        )
        tables = tuple(replace(table, guessed=majority) for table in run.tables)
        return replace(run, tables=tables, stages=stages if run.arm in arms else run.stages)

    return replace(study, runs=tuple(scored(run) for run in study.runs))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.073])
def test_models_that_are_not_above_the_majority_answer_are_undertrained(tmp_path, share):
    study = at(collect(make_study(tmp_path / "s", seeds=range(5), arms=TWO)), share, TWO)
    result = headline(summarise(study))
    assert result.verdict == "undertrained"
    assert "the majority answer alone has 7.3\u00a0%" in result.sentence


def test_an_arm_below_the_majority_answer_is_named_beside_one_above(tmp_path):
    study = at(collect(make_study(tmp_path / "s", seeds=range(5), arms=TWO)), 0.05, ("baseline",))
    result = headline(summarise(study))
    assert result.verdict == "helped"
    assert any("Undertrained" in line and "Baseline (5.0\u00a0%)" in line for line in result.support)


def test_models_that_solve_nothing_are_undertrained_without_a_majority_answer(tmp_path):
    study = at(collect(make_study(tmp_path / "s", seeds=(1, 2), arms=TWO)), 0.0, TWO, majority=None)
    assert headline(summarise(study)).verdict == "undertrained"


def test_the_markdown_table_shows_no_difference_of_what_is_not_comparable(tmp_path):
    base = make_run(tmp_path / "baseline", "baseline", 1)
    text = markdown_table(collect([base, make_run(tmp_path / "hybrid", "hybrid", 1, tests=500)]))
    line = next(line for line in text.splitlines() if line.startswith("| The hybrid arm"))
    assert line.endswith("| – | – | – |")
    assert "not comparable" in text


def test_an_unfinished_arm_is_no_obstacle(tmp_path):
    folder = make_study(tmp_path / "s", seeds=(1,), arms=TWO)
    shutil.rmtree(folder / "hybrid" / "seed-1")
    assert not summarise(collect(folder)).incomparable


def test_only_the_settings_in_which_arms_differ_are_listed(tmp_path):
    folder = make_study(tmp_path / "s", seeds=(1, 2), arms=TWO)
    rows = dict(setting_differences(collect(folder)))
    assert rows == {"schedule.name": TWO}
    assert set(TWO) <= set(ARMS)
