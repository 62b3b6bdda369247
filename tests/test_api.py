"""The six functions do what the verbs do, from Python."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradatim
from gradatim import api
from gradatim.errors import DataError, RecipeError, RunFolderError, Stopped
from gradatim.experiment.plan import SPECIAL_TOKENS, character_count, parameters, plan_run
from gradatim.experiment.recipe import Recipe, load
from gradatim.programs import generate
from gradatim.stage import Event
from gradatim.table import make_table, write_table

SMALL = ("data.count=300", "data.split.test=20", "data.split.validation=20", "budget.tokens=6000")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest student."""
    folder = tmp_path_factory.mktemp("api") / "run"
    gradatim.run("smoke/baseline", folder, changes=SMALL)
    return folder


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(api).failed == 0


@pytest.mark.parametrize(
    "first",
    [
        "import gradatim.experiment.run",
        "from gradatim.evaluation import SUITES",
        "import gradatim.reporting, gradatim.cli",
    ],
)
def test_no_submodule_hides_a_function_whatever_was_imported_first(first):
    code = (
        f"{first}\nimport gradatim\nfrom gradatim import run\n"
        "print([callable(getattr(gradatim, name)) for name in gradatim.__all__], callable(run))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[True, True, True, True, True, True] True\n"


def test_no_submodule_of_the_package_has_the_name_of_a_function():
    names = {path.stem for path in Path(gradatim.__file__).parent.iterdir()}
    assert names.isdisjoint([*gradatim.__all__, "CurriculumMixin", "CurriculumSampler"])
    with pytest.raises(AttributeError, match="nothing"):
        _ = gradatim.nothing


def test_score_takes_a_table_a_file_and_a_folder(tmp_path):
    table = make_table({"answer": ["a = 1\n", "for i in range(3) :\n\tprint(i)\n"]})
    write_table(table, tmp_path / "t.parquet")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    scored = [gradatim.score(each, ["om"]) for each in (table, tmp_path / "t.parquet", str(tmp_path / "code"))]
    assert scored[0]["om"].to_pylist() == scored[1]["om"].to_pylist()
    assert scored[2]["om"].to_pylist() == scored[0]["om"].to_pylist()[:1]


def test_a_folder_that_datasets_saved_is_not_taken_for_source_files(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    assert not api.is_source_folder(tmp_path)
    assert api.is_source_folder(tmp_path.parent)


def test_plan_is_exact_where_the_run_can_be_compared(finished):
    planned = gradatim.plan("smoke/baseline", changes=SMALL, data=True)
    result = json.loads(next(finished.glob("cycle-00/stage-*/result.json")).read_text())
    table = json.loads((finished / "cycle-00" / "table.json").read_text())
    assert [planned.stages[0].samples, dict(planned.stages[0].bands or {})] == [
        result["samples"],
        result["composition"],
    ]
    assert planned.data is not None
    assert planned.data["train"] == table["rows"]
    assert [band.samples for band in planned.bands] == table["bands"]["counts"]


def test_plan_reads_the_corpus_that_a_run_has_made(finished):
    heard: list[Event] = []
    recipe = load("smoke/baseline", SMALL)
    planned = plan_run(recipe, store=finished / "data", events=heard.append)
    assert heard == []
    assert planned == plan_run(recipe, data=True)


@pytest.mark.parametrize("schedule", ["baseline", "sequential", "incremental", "hybrid", "reverse", "only", "warmup"])
def test_the_stages_of_a_plan_spend_the_budget_with_and_without_data(schedule):
    changes = (*SMALL, f"schedule.name={schedule}")
    without, having = (gradatim.plan("smoke/baseline", changes=changes, data=data) for data in (False, True))
    assert sum(stage.tokens for stage in without.stages) == without.tokens == 6000
    shown = [(stage.stage, stage.fractions, stage.ends, stage.tokens, stage.steps) for stage in without.stages]
    assert shown == [(each.stage, each.fractions, each.ends, each.tokens, each.steps) for each in having.stages]


@pytest.mark.parametrize("preset", ["paper", "gpt2-tied", "modern", "modern-small", "llama", "small", "tiny"])
def test_the_parameters_of_a_plan_are_those_of_the_model(preset):
    from gradatim.model.architecture import create, freeze, trainable_parameters

    recipe = load("smoke/baseline", (f"student.preset={preset}",))
    vocabulary = character_count(recipe, None) + SPECIAL_TOKENS
    model = create(preset, vocabulary=vocabulary, context=192, special={"pad_token_id": 0, "eos_token_id": 1}, seed=0)
    freeze(model)
    assert parameters(recipe) == trainable_parameters(model)


def test_a_plan_draws_no_samples_unless_it_is_told_to(tmp_path):
    heard: list[Event] = []
    (tmp_path / "own.jsonl").write_text('{"answer": "a = 1"}\n')
    own = Recipe.model_validate({"data": {"source": "file", "path": str(tmp_path / "own.jsonl")}})
    for recipe in (load("smoke/baseline"), own):
        for store in (None, tmp_path / "missing", tmp_path):
            assert plan_run(recipe, store=store, events=heard.append).data is None
    assert heard == []


def test_run_goes_on_where_events_stopped_it(tmp_path):
    heard: list[str] = []

    def stop_in_training(event: Event) -> None:
        heard.append(event.task)
        if event.kind == "advance" and event.task.startswith("train") and event.done:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        gradatim.run("smoke/baseline", tmp_path, changes=SMALL, events=stop_in_training)
    assert heard[-1].startswith("train")
    stages = gradatim.run("smoke/baseline", tmp_path, changes=SMALL)
    assert stages[-1].fitted.resumed_at == 1


def test_a_recipe_object_needs_a_folder():
    with pytest.raises(RecipeError, match="needs a folder"):
        gradatim.run(load("smoke/baseline"))


def test_recipes_have_folders_of_their_name():
    assert gradatim.api.default_folder("smoke/baseline") == Path("runs/smoke-baseline")
    assert gradatim.api.default_folder("recipes/smoke/baseline.yaml") == Path("runs/smoke-baseline")


def test_a_recipe_of_ones_own_runs_under_its_stem(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 1\n")
    assert gradatim.api.default_folder(tmp_path / "mine.yaml") == Path("runs/mine")


def test_evaluate_opens_a_run_folder_and_a_model_folder_alike(finished):
    samples = generate(10, levels=("1.1",), seed=4).table
    model = next(finished.glob("cycle-00/stage-*/model"))
    found = [gradatim.evaluate(each, samples, protocol="greedy") for each in (finished, str(model))]
    assert found[0].counts == found[1].counts
    assert found[0].counts["all"]["all"].total == 10


def test_a_run_without_a_finished_stage_has_no_model(tmp_path):
    (tmp_path / "cycle-00" / "stage-00-all").mkdir(parents=True)
    with pytest.raises(DataError, match="no finished model"):
        gradatim.evaluate(tmp_path, generate(2).table)


def test_the_metrics_of_score_may_be_objects():
    def constant(samples, *, workers=1):
        return np.full(samples.num_rows, 2.5)

    table = make_table({"answer": ["a = 1\n"]})
    assert gradatim.score(table, {"mine": constant})["mine"].to_pylist() == [2.5]


def test_a_study_runs_its_arms_and_report_reads_them_again(tmp_path):
    done = gradatim.study(["smoke/baseline"], tmp_path / "both", seeds=1, changes=SMALL)
    assert [(run.arm, run.seed, run.finished) for run in done.runs] == [("baseline", 1, True)]
    page = tmp_path / "report.html"
    assert gradatim.report(tmp_path / "both", page) == gradatim.report([str(tmp_path / "both")]) == done
    assert "Gradatim" in page.read_text("utf-8")


def test_a_study_refuses_one_recipe_under_two_names_and_an_unknown_baseline(tmp_path):
    with pytest.raises(RecipeError, match="named twice"):
        gradatim.study(["smoke/baseline", "smoke/baseline"], tmp_path)
    with pytest.raises(RecipeError, match="not an arm"):
        gradatim.study(["smoke/baseline"], tmp_path, baseline="other")


def test_a_report_of_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(RunFolderError, match="no run in this folder"):
        gradatim.report(tmp_path)
