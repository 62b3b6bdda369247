"""Evaluation during stages: it changes no weight, survives a stop, and ends where the stage's own evaluation does."""

import hashlib
import json
from pathlib import Path

import pytest

from gradatim import reporting
from gradatim.errors import Stopped
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.reporting.target import to_target
from gradatim.stage import Event

SMALL = [
    "data.count=400",
    "data.split.test=20",
    "data.split.validation=30",
    "budget.tokens=16000",
    "train.batch_size=4",
]
EVERY = "evaluate.every=4000"


def weights(folder: Path) -> list[str]:
    files = sorted(folder.glob("cycle-*/stage-*/model/model.safetensors"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def examinations(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "evaluations" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examined") / "run"
    suites = "evaluate.suites=[{suite: output}, {suite: output, split: validation}, {suite: token, stages: last}]"
    run(load("smoke/baseline", [*SMALL, EVERY, suites]), path)
    return path


def test_the_suites_of_every_stage_run_at_each_multiple_and_change_no_weight(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    run(load("smoke/baseline", SMALL), plain, store=folder / "data")
    assert weights(folder) == weights(plain)
    rows = examinations(folder)
    assert [row["run_tokens"] // 4000 for row in rows] == [1, 2, 3]
    for row in rows:
        assert [(entry["suite"], entry["split"], entry["total"]) for entry in row["evaluations"]] == [
            ("output", "test", 20),
            ("output", "validation", 30),
        ]
    losses = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "evaluations" not in line]
    assert losses == (plain / "metrics.jsonl").read_text().splitlines()
    assert not list(folder.glob("cycle-*/stage-*/examined"))


def test_a_stopped_and_resumed_run_has_the_same_metrics(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    calls = 0

    def stop(event: Event) -> None:
        nonlocal calls
        calls += event.task.startswith("train")
        if calls in (9, 20):
            calls += 1
            raise Stopped("stopped")

    recipe = load("smoke/baseline", [*SMALL, EVERY])
    whole = tmp_path / "whole"
    run(recipe, whole, store=folder / "data")
    for _ in range(2):
        with pytest.raises(Stopped):
            run(recipe, target, store=folder / "data", events=stop)
    run(recipe, target, store=folder / "data", events=stop)
    assert examinations(whole)
    assert (target / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert weights(target) == weights(whole)


def test_validation_and_test_results_are_kept_apart_in_a_report(folder: Path) -> None:
    study = reporting.collect(folder)
    (data,) = study.runs
    assert study.evaluations() == (("output", "greedy"), ("output", "greedy, validation"), ("token", "greedy"))
    for protocol, total in (("greedy", 20), ("greedy, validation", 30)):
        points = data.accuracies("output", protocol)
        assert [point.total for point in points] == [total] * 4
        assert points[-1].tokens == data.tokens
        assert points[-1].seconds == data.stages[-1].fitted.seconds
        assert [point.tokens for point in points] == sorted(point.tokens for point in points)
    assert to_target(study, 1.0).rows[0].reaches[0].low == data.tokens


def test_the_label_and_the_verdicts_name_the_validation_samples(folder: Path) -> None:
    table = reporting.read_verdicts(folder, "output-validation")
    samples = reporting.evaluation_samples(folder, "validation")
    assert samples is not None
    assert sorted(table["id"].to_pylist()) == sorted(samples["id"].to_pylist())
    assert table["difficulty"].null_count == 0


def test_a_run_on_validation_samples_alone_is_noted_and_has_its_own_metric(tmp_path: Path, folder: Path) -> None:
    changes = [*SMALL, "evaluate.split=validation", "budget.tokens=3000"]
    run(load("smoke/baseline", changes), tmp_path / "run", store=folder / "data")
    study = reporting.collect(tmp_path / "run")
    assert any("fresh data.seed" in note for note in study.notes)
    summary = reporting.summarise(study)
    assert (summary.suite, summary.protocol) == ("output", "greedy, validation")
    assert "validation" in reporting.headline(summary).sentence
