"""``gradatim export``: one line for bad input, one line of proof for good input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gradatim.api import read_samples_of
from gradatim.export.write import export_model


def assert_refused(said, *words):
    assert said.status == 2, said
    assert said.err.count("\n") == 1, said.err
    assert [word for word in words if word not in said.err] == []


def test_an_export_prints_its_proof(gradatim, finished):
    (test,) = finished.glob("data/*/test.parquet")
    said = gradatim("export", finished, "--data", test, "--limit", 10, "--lm-eval", "--out", "out")
    assert said.status == 0, said.err
    folder, proof = said.out.splitlines()
    assert folder == "out"
    assert "lost" in proof
    assert "won" in proof
    assert "MB" in proof
    assert "CPU ms a token" in proof
    assert len(Path("out/lm_eval/tinypy_output.jsonl").read_text().splitlines()) == 10
    task = Path("out/lm_eval/tinypy_output.yaml").read_text()
    assert "custom_dataset: !function tinypy_output.load" in task


def test_each_phase_of_an_export_is_a_line_without_a_terminal(gradatim, finished):
    (test,) = finished.glob("data/*/test.parquet")
    said = gradatim("export", finished, "--bits", 16, "--data", test, "--limit", 5, "--out", "out")
    assert said.status == 0, said.err
    done = [line.partition(": done in ")[0] for line in said.err.splitlines() if ": done in " in line]
    compared = ["compare tokens", "compare log-probabilities, 32 bits"]
    assert done == [
        *("read the model and the samples", "write hf, 32 bits", *compared, "write hf, 16 bits"),
        *("compare tokens", "compare log-probabilities", "measure the speed"),
        *("evaluate the original", "evaluate the export"),
    ]


def test_the_slow_phases_of_an_export_send_the_share_done(finished, tmp_path):
    (test,) = finished.glob("data/*/test.parquet")
    (model,) = finished.glob("cycle-00/stage-*/model")
    sent = []
    export_model(model, tmp_path / "out", data=read_samples_of(test, limit=5), events=sent.append)
    for task in ("compare log-probabilities", "measure the speed", "evaluate the export"):
        shares = [(event.done, event.total) for event in sent if event.task == task and event.kind == "advance"]
        assert shares == [(number, 5) for number in range(1, 6)], task


def test_the_json_of_an_export_holds_counts(gradatim, finished):
    said = json.loads(gradatim("export", finished, "--bits", 16, "--out", "out", "--json").out)
    assert (said["format"], said["bits"], said["total"]) == ("hf", 16, None)
    assert said["positions"] > 0
    stored = json.loads(Path("out/export.json").read_text())
    assert {**stored, "folder": None} == {**said, "folder": None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "ggf"], ["--to", "did you mean 'gguf'"]),
        (["--to", "onnx", "--bits", "5"], ["--bits", "given: 5", "allowed: 32, 8, 4"]),
        (["--push", "a/b/c"], ["--push", "OWNER/NAME"]),
        (["--lm-eval"], ["--lm-eval", "--data FILE"]),
        (["--data", "nowhere.parquet"], ["nowhere.parquet"]),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(gradatim, finished, arguments, words):
    assert_refused(gradatim("export", finished, *arguments, "--out", "out"), *words)
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_no_model_is_one_line(gradatim, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(gradatim("export", "empty", "--to", "gguf", "--out", "out"), "no finished model here")


def test_the_folder_of_a_study_is_one_line_with_a_run_of_it(gradatim, finished):
    shutil.copytree(finished, "study/baseline/seed-1")
    words = ["a study with 1 trained run", str(Path("study/baseline/seed-1"))]
    assert_refused(gradatim("export", "study", "--to", "gguf", "--out", "out"), *words)


def test_a_model_with_damaged_weights_is_one_line_and_writes_nothing(gradatim, finished):
    model = next(finished.glob("cycle-00/stage-*/model"))
    shutil.copytree(model, "damaged")
    Path("damaged/model.safetensors").write_bytes(b"no weights")
    assert_refused(gradatim("export", "damaged", "--out", "out"), "cannot be opened")
    assert [path.name for path in Path().iterdir()] == ["damaged"]


def test_a_missing_package_names_its_extra(gradatim, finished, monkeypatch):
    monkeypatch.setattr("gradatim.export.onnx.find_spec", lambda name: None)
    said = gradatim("export", finished, "--to", "onnx", "--out", "out")
    assert_refused(said, "needs the package 'onnx'", "pip install 'gradatim[onnx]'")
