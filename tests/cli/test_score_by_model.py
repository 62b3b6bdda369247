"""``gradatim score`` with metrics that ask a model, and how metrics agree."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from gradatim.reporting import read_verdicts


@pytest.fixture
def model(finished):
    """The model of a finished run: a plain folder."""
    return sorted(finished.glob("cycle-00/stage-*/model"))[-1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))


def test_a_model_scores_a_file_and_the_second_time_the_bytes_are_the_same(gradatim, model, tmp_path):
    gradatim("generate", "a.parquet", "--count", 20, "--level", "1.1,2.1")
    asked = ["score", "a.parquet", "--metric", "loss,perplexity,attention,p_correct,size", "--model", model]
    said = gradatim(*asked, "--out", "b.parquet", "--json")
    assert said.status == 0, said.err
    told = json.loads(said.out)["metrics"]
    assert {name: each["scored"] for name, each in told.items()} == dict.fromkeys(told, 20)
    assert gradatim(*asked, "--out", "c.parquet").status == 0
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()


def test_samples_longer_than_the_context_are_counted_and_said(gradatim, model, tmp_path):
    rows = [{"prompt": "a = 1\n", "answer": "# 1\n"}, {"prompt": "a = 1\n", "answer": "1" * 4000}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = gradatim("score", "a.jsonl", "--metric", "loss", "--model", model, "--json")
    told = json.loads(said.out)["metrics"]["loss"]
    assert (told["scored"], told["causes"]) == (1, {"longer than the model's context": 1})
    assert "1 samples have no score" in said.err


def test_correlate_shows_the_matrix_and_what_predicts_passes(gradatim, tmp_path):
    gradatim("generate", "a.parquet", "--count", 30)
    ids = pq.read_table(tmp_path / "a.parquet")["id"].to_pylist()
    (tmp_path / "r.jsonl").write_text(
        "".join(json.dumps({"id": each, "passed": place % 3 > 0}) + "\n" for place, each in enumerate(ids))
    )
    asked = ["score", "a.parquet", "--metric", "om,size,halstead", "--correlate"]
    found = json.loads(gradatim(*asked, "--passes", "r.jsonl", "--json").out)["correlations"]
    assert found["metrics"] == ["om", "size", "halstead"]
    assert found["spearman"][0][0] == pytest.approx(1.0)
    assert found["predictions"]["size"]["failed"] == 10
    shown = gradatim(*asked).out
    assert "+1.00" in shown
    assert "AUC" not in shown
    assert gradatim("score", "a.parquet", "--passes", "r.jsonl").status == 2


def test_the_results_of_a_finished_run_say_what_each_difficulty_predicts_on_a_page(gradatim, finished, tmp_path):
    table = next(finished.glob("data/*/test*.parquet"))
    asked = ["score", table, "--metric", "om,size", "--correlate", "--passes", finished]
    told = json.loads(gradatim(*asked, "--report", "agree.html", "--json").out)["correlations"]["predictions"]
    counts = read_verdicts(finished).column("outcome").to_pylist()
    right, wrong = counts.count("passed"), counts.count("failed")
    assert right + wrong == len(counts) > 12
    assert {name: (each["passed"], each["failed"]) for name, each in told.items()} == dict.fromkeys(
        ("om", "size"), (right, wrong)
    )
    page = (tmp_path / "agree.html").read_text()
    assert "Verdicts of output" in page
    assert '<th scope="row">size</th>' in page
    said = gradatim(*asked, "--report", "agree.md")
    assert "correlations: agree.md" in said.out
    assert "Verdicts of output" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "a.html"], "--report: this option needs --correlate; try: --correlate"),
        (["--correlate", "--report", "a.txt"], "--report: a correlation report is HTML or Markdown"),
        (["--correlate", "--passes", "."], "no run with per-sample results"),
        (["--correlate", "--passes", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_reported_is_said_before_anything_is_scored(gradatim, arguments, said, tmp_path):
    answer = gradatim("score", tmp_path / "nothing.parquet", *arguments)
    assert answer.status == 2
    assert said in answer.err


def test_questions_with_options_are_scored_among_them(gradatim, model, tmp_path):
    rows = [{"question": f"a = {n}", "options": ["1", "2", "33"], "answer": n % 3} for n in range(6)]
    rows.append({"question": "a", "options": ["1"], "answer": 0})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = gradatim("score", "q.jsonl", "--metric", "size,compression", "--out", "q.parquet", "--json")
    assert (said.status, json.loads(said.out)["rows"]) == (0, 6)
    assert "row 7: 1 options" in said.err
    assert pq.read_table(tmp_path / "q.parquet")["options"].to_pylist()[0] == [" 1", " 2", " 33"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "loss"], "needs a model"),
        (["--metric", "loss", "--model", "./nowhere"], "there is no such model"),
        (["--metric", "loss", "--model", "nobody/nothing"], "not in the local cache and cannot be fetched"),
        (["--metric", "loss", "--model", "nothing.gguf"], "there is no such model"),
        (["--metric", "size", "--model", "nowhere"], "none of the metrics uses a model"),
        (["--metric", "size", "--set", "unit=lines"], "METRIC.KEY=VALUE"),
        (["--metric", "size", "--set", "size.units=lines"], "did you mean 'unit'"),
        (["--metric", "loss", "--model", "."], "not a model"),
    ],
)
def test_mistakes_are_one_line(gradatim, arguments, said):
    gradatim("generate", "a.parquet", "--count", 5)
    answer = gradatim("score", "a.parquet", *arguments)
    assert answer.status == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_an_option_of_a_metric_is_set(gradatim):
    gradatim("generate", "a.parquet", "--count", 5)
    told = gradatim("score", "a.parquet", "--metric", "size", "--set", "size.unit=lines", "--json")
    assert json.loads(told.out)["metrics"]["size"]["most"] < 30
