"""Does the reader see what the folders say, and say what it could not read?"""

from __future__ import annotations

import json
import shutil

import pytest
from make_study import BUDGET, make_run, make_study

from gradatim.errors import DataError, RunFolderError
from gradatim.reporting import collect


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("runs") / "study", seeds=(1, 2), arms=("baseline", "hybrid"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "study")


def test_every_arm_and_seed_of_a_study_is_read(folder):
    study = collect(folder)
    assert [(run.arm, run.seed) for run in study.runs] == [
        ("baseline", 1), ("baseline", 2), ("hybrid", 1), ("hybrid", 2),
    ]  # fmt: skip
    assert study.baseline == "baseline"
    assert study.missing == ()
    assert study.notes == ()


def test_what_a_run_wrote_comes_back(folder):
    run = collect(folder).of("hybrid")[0]
    assert [stage.spec.name for stage in run.stages] == ["easy", "easy+medium", "easy+medium+hard"]
    assert run.tokens == pytest.approx(BUDGET, abs=2)
    assert run.evaluation("output", "greedy").counts["all"]["all"].total == 2_000
    assert run.tables[0].bands.edges == (2.0, 4.0)
    assert any(point.validation_loss for point in run.curve)


def test_a_run_alone_needs_no_study(folder):
    study = collect(folder / "hybrid" / "seed-2")
    assert [(run.arm, run.seed) for run in study.runs] == [("hybrid", 2)]
    assert study.baseline is None


def test_the_seed_of_a_run_alone_comes_from_its_recipe(tmp_path):
    study = collect(make_run(tmp_path / "mine", "hybrid", 42))
    assert [(run.arm, run.seed) for run in study.runs] == [("mine", 42)]
    assert study.arms[0].title == "The hybrid arm"


def test_runs_named_one_by_one_are_compared_and_the_reader_is_told_with_what(folder):
    study = collect([folder / "hybrid" / "seed-1", folder / "baseline" / "seed-1"])
    assert study.baseline == "baseline"
    assert any("the arm “baseline” is used" in note for note in study.notes)


def test_a_run_that_never_started_is_named(copy):
    shutil.rmtree(copy / "hybrid" / "seed-2")
    assert collect(copy).missing == ("Hybrid, seed 2: not started",)


def test_a_run_without_its_last_stage_is_not_compared(copy):
    shutil.rmtree(copy / "hybrid" / "seed-2" / "cycle-00" / "stage-02-easy+medium+hard")
    (copy / "hybrid" / "seed-2" / "finished.json").unlink()
    study = collect(copy)
    assert len(study.missing) == 1
    assert study.missing[0].startswith("Hybrid, seed 2: 2 stages finished, in stage 3, 1,800,000 training tokens, loss")
    assert [run.seed for run in study.finished("hybrid")] == [1]


@pytest.mark.parametrize("name", ["environment.json", "cycle-00/table.json", "metrics.jsonl"])
def test_an_unreadable_file_is_named_and_the_rest_is_read(copy, name):
    (copy / "hybrid" / "seed-2" / name).write_text('{"half": \n and no more\n')
    study = collect(copy)
    assert any(f"hybrid/seed-2/{name}" in note for note in study.notes)
    assert len(study.runs) == 4


def test_a_result_of_another_shape_is_named_and_its_run_is_unfinished(copy):
    (copy / "baseline" / "seed-1" / "cycle-00" / "stage-00-all" / "result.json").write_text('{"cycle": 0}')
    study = collect(copy)
    assert any("baseline/seed-1/cycle-00/stage-00-all/result.json" in note for note in study.notes)
    assert len(study.missing) == 1
    assert study.missing[0].startswith("Baseline, seed 1: in stage 1, 1,800,000 training tokens")


def test_a_running_run_is_shown_with_its_share_of_the_budget_and_its_loss(copy):
    run = copy / "hybrid" / "seed-2"
    shutil.rmtree(run / "cycle-00")
    (run / "finished.json").unlink()
    (run / "recipe.yaml").write_text("seed: 2\nbudget: {tokens: 250000}\n")
    row = {"cycle": 0, "stage": 0, "name": "easy", "step": 5, "tokens": 30_000, "run_tokens": 30_000, "loss": 3.14159}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    progress = "in stage 1, 30,000 of 250,000 (12%) training tokens, loss 3.14"
    assert collect(copy).missing == (f"Hybrid, seed 2: {progress}",)


def test_single_runs_have_no_planned_seeds_of_other_runs(folder):
    assert collect([folder / "hybrid" / "seed-1", folder / "baseline" / "seed-2"]).missing == ()


def test_a_half_written_last_line_of_metrics_is_a_run_at_work_and_no_fault(copy):
    with (copy / "hybrid" / "seed-1" / "metrics.jsonl").open("a") as file:
        file.write('{"cycle": 0, "sta')
    assert collect(copy).notes == ()


def test_notes_tell_nothing_of_the_machine(copy):
    (copy / "hybrid" / "seed-2" / "environment.json").write_text("[")
    (copy / "hybrid" / "seed-2" / "cycle-00" / "table.json").write_text("[")
    assert not any(str(copy.parent) in note for note in collect(copy).notes)


def test_test_sets_of_different_size_are_told(copy):
    path = copy / "hybrid" / "seed-1" / "cycle-00" / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_rows": 77}))
    assert any("not comparable" in note for note in collect(copy).notes)


def test_bands_written_with_their_outer_edges_are_read_too(copy):
    path = copy / "baseline" / "seed-1" / "cycle-00" / "table.json"
    content = json.loads(path.read_text())
    content["bands"]["edges"] = [0.0, 2.0, 4.0, 99.0]
    path.write_text(json.dumps(content))
    assert collect(copy).runs[0].tables[0].bands.edges == (2.0, 4.0)


def test_a_folder_without_a_run_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run in this folder.*gradatim run"):
        collect(tmp_path)


def test_the_same_arm_and_seed_twice_is_refused(folder):
    with pytest.raises(DataError, match="two runs have arm 'hybrid' and seed 1"):
        collect([folder, folder / "hybrid" / "seed-1"])
