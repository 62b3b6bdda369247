"""``gradatim plan`` of a schedule that a teacher designs: who is asked, when, and what is shown of it."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Handler, Serving, completion, serving

from gradatim.errors import RecipeError
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.run import run
from gradatim.teacher.llm_teacher import CHECK

SMALL = [
    *("data.count=260", "data.split.test=20", "data.split.validation=30", "cycles=1", "budget.tokens=1500"),
    *("train.batch_size=2", "evaluate.suites=[{suite: output, limit: 3, stages: last}]"),
]
STAGES = [
    {"name": "start", "share": 0.4, "bands": {"easy": 1, "medium": 0.5}, "end": "easiest", "order": "sorted"},
    {"name": "all", "share": 0.6, "bands": {"easy": 1, "medium": 1, "hard": 1}},
]
REASON = "Start [red]small[/red] \x1b[31mnow."
GOOD = json.dumps({"reason": REASON, "cycles": [{"stages": STAGES}]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serving]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        mends = "It cannot be used" in body["messages"][-1]["content"]
        handler.send(200, completion(GOOD if mends else GOOD.replace("0.6", "0.7")))

    with serving() as made:
        made.otherwise = answer
        yield made


def over_http(server: Serving, *changes: str) -> Recipe:
    teacher = f"teacher={{name: api, base_url: '{server.url}', model: m, key: null, retries: 0, prices: [1, 2]}}"
    return load("smoke/designed", [*SMALL, teacher, *changes])


def test_a_plan_shows_the_table_that_was_designed_and_the_run_then_pays_nothing(
    server: Serving, tmp_path: Path
) -> None:
    plan = plan_run(over_http(server), data=True)
    assert [(stage.stage, stage.tokens, stage.order) for stage in plan.stages] == [
        ("start", 600, "sorted"),
        ("all", 900, "shuffled"),
    ]
    assert plan.stages[0].bands is not None
    assert plan.stages[0].bands["hard"] == 0 < plan.stages[0].bands["medium"] < plan.stages[1].bands["medium"]
    assert plan.design == {"asked": True, "reason": "Start [red]small[/red] [31mnow.", "requests": 2, "revises": False}
    assert len(server.heard) == 2
    plan_run(over_http(server, "seed=5"), data=True)
    stages = run(over_http(server), tmp_path / "run")
    assert len([text for text in server.asked() if text != CHECK]) == 2
    assert [(done.spec.name, done.spec.tokens, done.samples) for done in stages] == [
        (stage.stage, stage.tokens, stage.samples) for stage in plan.stages
    ]
    used = json.loads((tmp_path / "run" / "cycle-00" / "design.json").read_text())["teacher"]
    assert (used["requests"], used["cached"], used["paid"]["requests"], used["paid"]["cost"]) == (2, 2, 0, 0)


def test_a_plan_without_data_asks_nobody_and_says_so(server: Serving) -> None:
    plan = plan_run(over_http(server), data=False)
    assert server.heard == []
    assert plan.stages == ()
    assert plan.design == {"asked": False, "reason": None, "requests": None, "revises": False}
    assert plan.steps == 4  # ceil(1500 / (2 x 192))
    assert plan.disk["models"] is None
    assert plan.teacher is not None
    assert plan.teacher["requests"] == {"designs": 1}
    assert plan.teacher["prompt_tokens"] > 1000


def test_what_a_teacher_cannot_mend_stops_the_plan_with_its_faults(server: Serving) -> None:
    server.otherwise = lambda handler, body: handler.send(200, completion('{"reason": "x"}'))
    with pytest.raises(RecipeError, match="cycles: missing"):
        plan_run(over_http(server), data=True)
    assert len(server.heard) == 2


def test_the_estimate_is_near_what_is_asked(server: Serving) -> None:
    plan = plan_run(over_http(server), data=True)
    asked = sum(len(message["content"]) for message in server.heard[0]["messages"]) / 3.5
    assert plan.teacher is not None
    assert 0.5 < plan.teacher["prompt_tokens"] / asked < 1.5


def test_the_command_shows_the_stages_the_reason_and_what_asking_takes(gradatim) -> None:
    shown = gradatim("plan", "smoke/designed", "--data")
    assert shown.status == 0
    for words in (
        "50% easiest (215)",
        "designed by the teacher scripted (1 request",
        "reason: A short start",
        "1 or 2 requests before the first cycle, and 1 or 2 before each later cycle",
        "teacher: designs",
    ):
        assert words in " ".join(shown.out.split())
    silent = " ".join(gradatim("plan", "smoke/designed", "--no-data").out.split())
    assert "when the samples are drawn (--data requests the design now)" in silent
    assert "reason: " not in silent
    assert "start" not in silent


def test_the_words_of_a_teacher_are_shown_and_not_obeyed(gradatim) -> None:
    shown = gradatim(
        "plan", "smoke/designed", "--data", "--set", "cycles=1", "--set", f"teacher.replies={json.dumps([GOOD])}"
    )
    assert "reason: Start [red]small[/red] [31mnow." in shown.out
    assert "\x1b" not in shown.out


def test_a_plan_as_json_has_its_design_and_others_have_none(gradatim) -> None:
    designed, plain = (
        json.loads(gradatim("plan", f"smoke/{name}", "--data", "--json").out) for name in ("designed", "hybrid")
    )
    assert list(designed) == list(plain)
    assert plain["design"] is None
    assert designed["design"]["reason"] == "A short start with easy samples, then all of them."
    assert [stage["cycle"] for stage in designed["stages"]] == [0, 0, 1]


def test_steps_of_a_plan_count_accumulated_batches_as_one() -> None:
    once, four = (
        plan_run(load("smoke/baseline", [f"train.gradient_accumulation_steps={n}"]), data=False) for n in (1, 4)
    )
    assert once.steps == -(-30_000 // (8 * 192))
    assert four.steps == -(-30_000 // (4 * 8 * 192))
    assert (
        plan_run(load("smoke/baseline", ["budget={steps: 7}", "train.gradient_accumulation_steps=3"]), data=False).steps
        == 7
    )
