"""Requests to a teacher in a run: tried before training, all reported, and never finished on unreadable replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import Handler, completion, fails, says

from gradatim.errors import TeacherFailed, UserError
from gradatim.experiment.assemble.teaching import _account
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.run import run
from gradatim.programs import generate
from gradatim.reporting import collect, write_report
from gradatim.reporting.cycles import teacher_use
from gradatim.reporting.summary import summarise
from gradatim.teacher.llm_teacher import CHECK


@pytest.fixture
def recipe(server, tmp_path, monkeypatch):
    """Two tiny cycles whose teacher is the server; ``changes`` of the recipe."""
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    samples = generate(60, levels=["1.1"], seed=3).table.select(["prompt", "answer"]).to_pylist()
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    server.program = samples[0]["prompt"].removesuffix("# output\n")

    def make(*changes: str, **teacher: Any) -> Recipe:
        options = {"name": "api", "base_url": server.url, "model": "m", "key": "TEACHER_KEY", "retries": 0, **teacher}
        return load(
            "smoke/distill-tinypy",
            [
                *(f"data.seeds={tmp_path / 'seeds.jsonl'}", "data.count=60", "data.new=4", "data.rounds=1"),
                *("data.split={by: canonical, validation: 10, test: 10}", "cycles=2", "feedback.questions=6"),
                *("difficulty={metric: size, bands: {names: [short, long], quantiles: [0.5]}}", "evaluate.suites=[]"),
                *(
                    "budget.tokens=3000",
                    "train.batch_size=4",
                    "train.evaluations_per_stage=0",
                    f"teacher={json.dumps(options)}",
                ),
                *changes,
            ],
        )

    return make


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (fails(401, "invalid key"), UserError, "refuses the key"),
        (fails(404, "no model m"), UserError, "no such model"),
        (fails(500), TeacherFailed, "does not answer"),
    ],
)
def test_endpoint_key_and_model_are_tried_before_anything_trains(recipe, server, tmp_path, action, error, words):
    server.otherwise = action
    with pytest.raises(error, match=words):
        run(recipe(), tmp_path / "run")
    assert set(server.asked()) == {CHECK}
    assert not list(tmp_path.glob("run/cycle-*"))


def test_a_missing_key_is_an_error_before_anything_trains(recipe, server, tmp_path, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(UserError, match="no key for this endpoint"):
        run(recipe(), tmp_path / "run")
    assert server.heard == []
    assert not list(tmp_path.glob("run/cycle-*"))


def test_all_requests_sent_are_reported_with_an_unknown_cost_without_prices(recipe, server, tmp_path):
    def repeat(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, completion(f"```python\n{server.program}```"))  # readable, and never new

    server.otherwise = repeat
    for name, prices in {"unknown": {}, "known": {"prices": [1.0, 2.0]}}.items():
        folder, before = tmp_path / name, len(server.heard)
        run(recipe(**prices, **({"extra": {"user": "another"}} if prices else {})), folder)
        assert "dry" in json.loads((folder / "finished.json").read_text())
        study = collect([folder])
        (total,) = [use for use in teacher_use(study, summarise(study)) if use.cycle is None]
        sent = len(server.heard) - before
        assert total.counts["requests"] - total.counts["cached"] == sent > 4
        assert ('<td class="n">unknown</td>' in _page(folder)) is (not prices)
        cost = total.counts["cost"]
        assert (cost != cost) is (not prices)
        if prices:
            assert cost == pytest.approx(sent * (10 * 1.0 + 5 * 2.0) / 1e6)


def _page(folder: Path) -> str:
    return write_report([folder], folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("judges", "words"),
    [("[{judge: rubric}]", "no grade of the teacher can be read"), ("[{judge: output}]", "can be read as a question")],
)
def test_a_run_whose_replies_are_all_unreadable_is_not_finished(recipe, server, tmp_path, judges, words):
    server.otherwise = says("I have no opinion on it.")
    with pytest.raises(TeacherFailed, match=words):
        run(recipe(f"feedback.judges={judges}"), tmp_path / "run")
    assert not (tmp_path / "run" / "finished.json").exists()
    assert list(tmp_path.glob("run/cycle-00/stage-00-*/result.json"))  # finished work is kept


def test_unreadable_grades_beside_another_judge_are_a_note(recipe, server, tmp_path):
    server.otherwise = says("I have no opinion on it.")
    notes: list[str] = []
    with pytest.raises(TeacherFailed, match="can be read as a question"):
        run(
            recipe("feedback.judges=[{judge: output}, {judge: rubric}]"),
            tmp_path / "run",
            events=lambda event: notes.append(event.text) if event.kind == "note" else None,
        )
    assert any("no grade of the teacher can be read" in note for note in notes)


def test_keys_that_later_versions_added_leave_the_account_of_a_run_as_it_was() -> None:
    """The accounts of the version before ``evaluate.split``, ``train.candidates`` and the others existed."""
    assert _account(load("distill/tinypy", [])) == "90012135b8bc"
    assert _account(load("adaptive/designed", [])) == "75413d7a90cb"
    assert _account(load("distill/tinypy", ["train.candidates=2"])) != "90012135b8bc"
