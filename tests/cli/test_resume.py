"""Runs and studies that failed, stopped or were started by mistake: ``--fresh`` and ``gradatim resume``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gradatim.errors import RunFolderError, Stopped
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.experiment.study import plan_study, stored_plan, study
from gradatim.stage import Event

TINY = [
    *("data.count=200", "data.split.test=10", "data.split.validation=10", "budget.tokens=1500"),
    *("evaluate.suites=[]", "train.evaluations_per_stage=0"),
]
CHANGES = [part for change in TINY for part in ("--set", change)]
ROWS = [{"question": f"a = {n}" + "\nprint(a)" * (n % 3 + 1) + "\n", "answer": f"# {n}\n"} for n in range(60)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_file(folder: Path, columns: str) -> list[str]:
    """Options of a run on a file whose columns a correct mapping names prompt and answer."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    changes = ["data.source=file", "data.path=rows.jsonl", f"data.columns={columns}", "difficulty.metric=size"]
    changes += ["data.split={by: text, validation: 5, test: 5}", "difficulty.bands.quantiles=[0.3, 0.6]", *TINY[3:]]
    return [part for change in changes for part in ("--set", change)]


def test_after_a_failed_start_the_corrected_command_runs_with_fresh(gradatim, tmp_path):
    failed = gradatim("run", "smoke/baseline", "--out", "r", *own_file(tmp_path, "{prompt: questoin, answer: answer}"))
    assert failed.status == 2
    corrected = ["run", "smoke/baseline", "--out", "r", *own_file(tmp_path, "{prompt: question, answer: answer}")]
    before = contents(tmp_path / "r")
    refused = gradatim(*corrected)
    assert refused.status == 2
    assert "made by another recipe" in refused.err
    assert "--fresh, as nothing was learnt there yet" in refused.err
    assert contents(tmp_path / "r") == before
    again = gradatim(*corrected, "--fresh")
    assert again.status == 0, again.err
    assert (tmp_path / "r" / "finished.json").exists()


def test_fresh_discards_no_training(gradatim, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "r")
    before = contents(tmp_path / "r")
    for command in (["run", "smoke/baseline"], ["study", "smoke/baseline"]):
        outcome = gradatim(*command, "--out", "r", "--fresh", *CHANGES)
        assert outcome.status == 2
        assert "--fresh does not discard" in outcome.err
        assert "gradatim resume r" in outcome.err
        assert contents(tmp_path / "r") == before
    other = gradatim("run", "smoke/baseline", "--out", "r", *CHANGES)
    assert "gradatim resume r" in other.err
    assert "--fresh" not in other.err


def test_fresh_touches_no_folder_of_another_program(gradatim, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metrics.jsonl").write_text("mine")
    outcome = gradatim("run", "smoke/baseline", "--out", "r", "--fresh", *CHANGES)
    assert outcome.status == 2
    assert contents(tmp_path) == {"r/metrics.jsonl": b"mine"}


def test_a_stopped_run_is_resumed_by_its_folder_alone(gradatim, tmp_path):
    def stop(event: Event) -> None:
        if event.task == "train all" and event.done > 400:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        run(load("smoke/baseline", TINY), tmp_path / "r", events=stop)
    outcome = gradatim("resume", "r", "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)[0]["folder"] == "r"
    result = json.loads((tmp_path / "r" / "cycle-00" / "stage-00-all" / "result.json").read_text())
    assert result["fitted"]["resumed_at"] > 0


def test_a_study_is_resumed_and_started_afresh_by_its_folder(gradatim, tmp_path):
    arms = {"baseline": load("smoke/baseline", TINY), "hybrid": load("smoke/hybrid", TINY)}
    plan = plan_study(arms, 1, title="Two arms")

    def stop(event: Event) -> None:
        if event.task == "runs":
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        study(plan, tmp_path / "s", events=stop)
    assert stored_plan(tmp_path / "s") == plan
    other = gradatim("study", "smoke/reverse", "--seeds", 1, "--out", "s", *CHANGES)
    assert "--fresh, as nothing was learnt there yet" in other.err
    outcome = gradatim("resume", "s", "--workers", 1)
    assert outcome.status == 0, outcome.err
    assert len(list(tmp_path.glob("s/*/seed-*/finished.json"))) == 2
    facts = json.loads((tmp_path / "s" / "study.json").read_text())
    (tmp_path / "s" / "study.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "recipes"}))
    of_runs = stored_plan(tmp_path / "s")  # as earlier versions stored a study
    assert {arm: recipe.schedule for arm, recipe in of_runs.arms.items()} == {
        arm: recipe.schedule for arm, recipe in plan.arms.items()
    }
    assert outcome.out.count("report: s/report.html") == 1
    assert gradatim("study", "smoke/reverse", "--seeds", 1, "--out", "s", "--fresh", *CHANGES).status == 2
    shutil.rmtree(tmp_path / "s" / "hybrid")
    with pytest.raises(RunFolderError, match="does not store the recipe of an arm"):
        stored_plan(tmp_path / "s")


@pytest.mark.parametrize(
    ("folder", "words"), [("gone", "there is no such folder"), ("empty", "there is no run to resume")]
)
def test_a_folder_without_a_run_is_one_line(gradatim, tmp_path, folder, words):
    (tmp_path / "empty").mkdir()
    outcome = gradatim("resume", folder)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err
    assert contents(tmp_path) == {}
