"""The estimated duration of runs and studies, from a few measured steps."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import pytest

from gradatim.errors import RecipeError
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.experiment.study import plan_study
from gradatim.experiment.timing import measure_run, measure_study

SMALL = [
    *("data.count=300", "data.split.test=20", "data.split.validation=20", "budget.tokens=12000", "train.batch_size=4"),
    *("threads=1", "evaluate.suites=[{suite: output, limit: 10, stages: last}]"),
]


def test_the_estimate_of_a_run_is_near_its_duration_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recipe = load("smoke/baseline", SMALL)
    estimate = measure_run(recipe)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")] == []
    assert estimate.measured >= 3
    started = time.monotonic()
    (stage,) = run(recipe, tmp_path / "run")
    taken = time.monotonic() - started
    assert estimate.steps == pytest.approx(stage.fitted.steps, rel=0.2)
    assert taken / 8 < estimate.total < taken * 8  # the load of the machine may change in between
    assert estimate.training > 0
    assert estimate.evaluation > 0


def test_arms_that_train_alike_are_measured_once_and_all_seeds_count():
    arms = {name: load("smoke/baseline", [*SMALL, f"title={name}"]) for name in ("one", "other")}
    estimate = measure_study(plan_study(arms, 4))
    assert estimate.arms["one"] is estimate.arms["other"]
    assert estimate.total * estimate.parallel == pytest.approx(4 * sum(arm.total for arm in estimate.arms.values()))


def test_a_duration_that_depends_on_a_teacher_is_one_line():
    with pytest.raises(RecipeError, match="depends on a teacher's replies"):
        measure_run(load("smoke/designed"))


def test_plan_shows_the_time_of_a_recipe_on_request(tmp_path, monkeypatch, capsys):
    from gradatim.cli.main import main

    monkeypatch.chdir(tmp_path)
    command = ["plan", "smoke/baseline", "--time", *(part for change in SMALL for part in ("--set", change))]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "time on this machine: about" in shown
    assert " ms, measured over " in shown
    assert main([*command, "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["time"]
    parts = ("preparation", "training", "validation", "evaluation")
    assert estimate["total"] == pytest.approx(sum(estimate[part] for part in parts))
    assert list(Path().iterdir()) == []
