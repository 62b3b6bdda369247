"""The report of data without levels, of code and chat rows, and of losses that are not one quantity."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
from make_study import make_run, make_study

from gradatim.cli.main import main
from gradatim.reporting import collect, results, summarise
from gradatim.reporting.charts import charts
from gradatim.reporting.curves import quantities
from gradatim.reporting.html import render
from gradatim.reporting.items import items
from gradatim.reporting.notices import unused_rows
from gradatim.reporting.terms import budget_of
from gradatim.reporting.units import plural, unit_of
from gradatim.stage import Counts


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return collect(make_study(tmp_path_factory.mktemp("runs") / "s", (1,), ("baseline", "hybrid")))


@pytest.fixture(scope="module")
def own_data(study):
    """The study with the recipe of a data file, without levels."""

    def changed(run):
        stages = [
            replace(
                stage,
                evaluations=[
                    replace(
                        result,
                        counts={**result.counts, "level": {"none": result.counts["all"]["all"]}},
                        examples=[{**example, "level": "none"} for example in result.examples],
                    )
                    for result in stage.evaluations
                ],
            )
            for stage in run.stages
        ]
        return replace(run, stages=tuple(stages), settings={**run.settings, "data": {"source": "file"}})

    return replace(study, runs=tuple(map(changed, study.runs)))


def test_levels_that_are_all_missing_have_no_figure_and_no_label(own_data):
    drawn = charts(own_data, summarise(own_data), ())["charts"]
    assert "level" not in drawn
    assert "band" in drawn
    assert all("level" not in item.labels for item in items(own_data, summarise(own_data)))


def test_other_data_than_tinypy_are_called_samples_and_tinypy_is_not_explained(own_data, study):
    assert "test programs" not in (page := render(own_data))
    assert "on 2,000 test samples" in page or "test samples" in page
    assert "TinyPy" not in page
    assert "<dt>TinyPy</dt>" in render(study)


@pytest.mark.parametrize(
    ("suite", "unit"), [("line", "line"), ("token", "character"), ("functional", "problem"), ("output", "sample")]
)
def test_a_suite_counts_its_own_units(own_data, suite, unit):
    assert unit_of(own_data, suite) == unit


def test_one_is_singular():
    assert (plural(1, "program"), plural(2_000, "program")) == ("1 program", "2,000 programs")


def with_losses(study, train, **values):
    """``study`` with the training settings ``train`` and one row of the metrics."""
    runs = [
        replace(
            run,
            settings={**run.settings, "train": train},
            curve=(replace(run.curve[0], **{"loss": None, "validation_loss": None, **values}),),
            stages=tuple(replace(stage, spec=replace(stage.spec, objective=None)) for stage in run.stages),
        )
        for run in study.runs
    ]
    return replace(study, runs=tuple(runs))


LOSSES = {"loss": 1.0, "validation_loss": 2.0, "validation_answer_loss": 3.0}


@pytest.mark.parametrize(
    ("train", "panel"),
    [
        ({"objective": "answer_only", "prompt_loss_weight": 1}, "answer"),
        ({"objective": "next_token", "prompt_loss_weight": 0}, "answer"),
        ({"objective": "next_token", "prompt_loss_weight": 1}, "all"),
        ({"objective": "next_token", "prompt_loss_weight": 0.1}, "objective"),
        ({"objective": "trace_supervision", "prompt_loss_weight": 0}, "objective"),
    ],
)
def test_a_training_loss_is_drawn_with_the_validation_loss_of_its_quantity_alone(study, train, panel):
    lines = {
        quantity.name: {series.part: series.values[0] for series in quantity.series}
        for quantity in quantities(with_losses(study, train, **LOSSES))
        if quantity.name in ("answer", "all", "objective")
    }
    validation = {"answer": {"validation": 3.0}, "all": {"validation": 2.0}, "objective": {}}
    expected = {name: {**validation[name], **({"training": 1.0} if name == panel else {})} for name in validation}
    assert lines == {name: parts for name, parts in expected.items() if parts}


def test_rows_that_are_not_used_are_named(study):
    facts = {"source": {"rejected": {"no answer": 3}, "duplicates": 1}, "samples without a difficulty": 2}
    run = study.runs[0]
    stage = replace(run.stages[-1], fitted=replace(run.stages[-1].fitted, dropped=7))
    results = [
        replace(result, counts={**result.counts, "outcome": {"too_long": Counts(0, 4)}}) for result in stage.evaluations
    ]
    run = replace(
        run,
        tables=(replace(run.tables[0], facts=facts),),
        stages=(*run.stages[:-1], replace(stage, evaluations=results)),
    )
    changed = replace(study, runs=(run, *study.runs[1:]))
    assert unused_rows(changed, summarise(changed)) == (
        "3 rows of the data file dropped: no answer.",
        "1 duplicate row of the data file dropped.",
        "2 samples without a difficulty: in no band, not trained on.",
        "Baseline: 7 samples of a stage too long for the model, not trained on.",
        "Baseline: 4 test programs longer than the context, counted as wrong.",
    )


def test_a_curve_of_one_point_is_a_marker(study):
    from gradatim.reporting.figures import learning_curves

    drawing = learning_curves(with_losses(study, {"objective": "answer_only"}, **LOSSES))
    assert "use " in drawing


def test_results_hold_counts_and_the_form_of_json_is_stable(study):
    content = results(study)
    assert set(content) == {
        "title", "verdict", "sentence", "support", "metric", "baseline", "majority", "arms", "controls", "metrics",
        "notes", "missing",
    }  # fmt: skip
    arm = content["arms"][1]
    assert arm["seeds"][0]["total"] == 2_000
    assert arm["difference"]["mean"] == pytest.approx(
        (arm["seeds"][0]["passed"] - content["arms"][0]["seeds"][0]["passed"]) / 2_000
    )
    assert json.loads(json.dumps(content, allow_nan=False)) == content


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "mine", "hybrid", 1)


def test_report_prints_json_and_csv_and_writes_no_page(folder, capsys):
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "single"
    assert main(["report", str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["suite"], row["group"]) for row in rows} >= {("output", "all"), ("output", "level"), ("line", "all")}
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_predictions_by_item_are_written_and_replaced_only_by_their_own_kind(folder, tmp_path, capsys, suffix):
    path = tmp_path / f"predictions{suffix}"
    for _ in range(2):
        assert main(["report", str(folder), "--json", "--predictions", str(path)]) == 0
    text = path.read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text))) if suffix == ".csv" else [*map(json.loads, text.splitlines())]
    assert len(rows) == 8
    assert {row["prediction"] for row in rows if row["passed"] in (False, "False")} == {"# 1\n", "# 4\n", "# 7\n"}
    path.write_text("mine\n")
    capsys.readouterr()
    assert main(["report", str(folder), "--json", "--predictions", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("options", [("--json", "--csv"), ("--json", "--watch", "5"), ("--predictions", "a.txt")])
def test_options_of_a_report_that_exclude_each_other_are_one_line(folder, capsys, options):
    assert main(["report", str(folder), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_watched_report_is_written_until_its_runs_are_finished(folder, monkeypatch):
    (folder / "finished.json").unlink()
    pages = []

    def finish(seconds):
        pages.append((folder / "report.html").read_text("utf-8"))
        (folder / "finished.json").write_text("{}")

    monkeypatch.setattr("gradatim.cli.training.time.sleep", finish)
    assert main(["report", str(folder), "--watch", "5"]) == 0
    assert 'http-equiv="refresh" content="5.0"' in pages[0]
    assert "1 run is not finished" in pages[0]
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text("utf-8")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"budget": {"tokens": 900}, "cycles": 3}, 900),
        ({"budget": {"tokens": None, "steps": 40}, "student": {"preset": "tiny"}}, None),
        ({"budget": {"tokens": None, "steps": 40}, "student": {"kind": "policy"}}, 40),
        ({}, None),
    ],
)
def test_the_budget_is_that_of_all_cycles_and_never_counts_optimizer_steps_as_tokens(settings, budget):
    assert budget_of(settings) == budget
