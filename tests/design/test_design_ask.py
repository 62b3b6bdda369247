"""What a teacher is asked who designs a curriculum, how often, and what it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradatim.design import Terms, describe_samples, design_facts, request_design
from gradatim.errors import RecipeError, UserError
from gradatim.programs import generate
from gradatim.schedule import make_bands
from gradatim.stage import BandProgress, Counts, Fitted, StageResult, StageSpec, SuiteResult
from gradatim.teacher.llm_teacher import LanguageTeacher, ScriptedChat
from gradatim.teacher.oracle import Oracle
from gradatim.teacher.reply_store import Cached

TERMS = Terms(("easy", "hard"), 1, 1000, 4, {"shuffled": {}}, ("next_token",))
GOOD = json.dumps({"reason": "All.", "cycles": [{"stages": [{"name": "a", "share": 1, "bands": {"easy": 1}}]}]})
SHORT = json.dumps({"reason": "Less.", "cycles": [{"stages": [{"name": "a", "share": 0.5, "bands": {"easyy": 1}}]}]})
FACTS = '{"bands": ["easy", "hard"]}'


def teaching(*replies: str | None) -> tuple[LanguageTeacher, ScriptedChat]:
    chat = ScriptedChat(list(replies))
    return LanguageTeacher(chat), chat


def test_a_good_design_takes_one_request() -> None:
    teacher, chat = teaching(GOOD)
    outcome = request_design(teacher, FACTS, TERMS)
    assert outcome.require_design().cycles[0][0] == StageSpec("a", (1.0, 0.0), 1000)
    assert (outcome.replies, outcome.faults) == ((GOOD,), ((),))
    assert len(chat.asked) == 1
    assert chat.asked[0].temperature == 0
    message = chat.asked[0].messages[-1][1]
    assert FACTS in message
    assert '"maxItems": 4' in message  # the form, with its bounds
    assert outcome.used["requests"] == 1
    assert outcome.used["asked"] == {"design": 1}


def test_faults_are_mended_once_with_the_reply_and_every_fault_in_view() -> None:
    teacher, chat = teaching(SHORT, GOOD)
    outcome = request_design(teacher, FACTS, TERMS)
    assert outcome.require_design().reason == "All."
    assert outcome.replies == (SHORT, GOOD)
    assert len(outcome.faults[0]) == 3  # the band, nothing that is used, the budget
    message = chat.asked[1].messages[-1][1]
    assert SHORT in message
    assert FACTS in message
    assert all(f"- {fault}" in message for fault in outcome.faults[0])
    assert outcome.used["asked_again"] == {"design-mend": 1}


def test_half_of_a_surrogate_pair_in_a_reply_can_be_shown_to_the_teacher_again() -> None:
    teacher, chat = teaching('{"reason": "\ud83d"}', GOOD)
    assert request_design(teacher, FACTS, TERMS).require_design().reason == "All."
    assert all(text.encode() for _, text in chat.asked[1].messages)


@pytest.mark.parametrize("second", [SHORT, "no JSON", "", None])
def test_what_cannot_be_used_twice_is_an_error_with_its_faults_and_no_third_request(second: str | None) -> None:
    teacher, chat = teaching("nonsense", second, GOOD)
    outcome = request_design(teacher, FACTS, TERMS)
    assert outcome.design is None
    assert outcome.replies == ("nonsense", second or None)
    assert len(chat.asked) == 2
    with pytest.raises(RecipeError) as error:
        outcome.require_design()
    assert error.value.faults == outcome.faults[1]
    assert outcome.faults[1][0] in str(error.value)


@pytest.mark.parametrize("first", [None, "", "  \n"])
def test_a_reply_that_never_came_is_asked_for_again(first: str | None) -> None:
    teacher, chat = teaching(first, GOOD)
    assert request_design(teacher, FACTS, TERMS).require_design().reason == "All."
    assert "no reply could be had" in chat.asked[1].messages[-1][1]


def test_thousands_of_faults_do_not_become_a_letter_of_thousands_of_lines() -> None:
    stage = {"name": "!", "share": 2, "bands": {"x": 1}}
    teacher, chat = teaching(json.dumps({"reason": "r", "cycles": [{"stages": [stage] * 900}]}), GOOD)
    outcome = request_design(teacher, FACTS, TERMS)
    assert len(outcome.faults[0]) > 2000
    assert chat.asked[1].messages[-1][1].count("\n- ") < 40


def test_the_same_question_is_answered_from_the_store_and_another_draw_is_asked_anew(tmp_path: Path) -> None:
    chats = [ScriptedChat([SHORT, GOOD], name="one"), ScriptedChat([], name="one"), ScriptedChat([GOOD], name="one")]
    first, again, third = (LanguageTeacher(Cached(chat, tmp_path)) for chat in chats)
    outcome = request_design(first, FACTS, TERMS)
    stored = request_design(again, FACTS, TERMS)
    assert (stored.design, stored.replies, stored.faults) == (outcome.design, outcome.replies, outcome.faults)
    assert chats[1].asked == []
    assert request_design(third, FACTS, TERMS, draw=1).replies == (GOOD,)
    assert chats[2].asked[0].temperature > 0


def test_it_is_asked_in_the_words_of_a_user_who_has_words_of_his_own(tmp_path: Path) -> None:
    (tmp_path / "design.md").write_text("Plan this: {facts}\nas {form}")
    chat = ScriptedChat([SHORT, GOOD])
    request_design(LanguageTeacher(chat, tmp_path), FACTS, TERMS)
    first, second = (request.messages[-1][1] for request in chat.asked)
    assert first.startswith(f"Plan this: {FACTS}")
    assert "Mend every one of them" in second  # what the folder lacks comes from the package


def test_the_oracle_designs_nothing() -> None:
    with pytest.raises(UserError, match="no opinion of a curriculum"):
        request_design(Oracle(), FACTS, TERMS)


@pytest.fixture(scope="module")
def samples() -> dict[str, Any]:
    table = generate(60, levels=["1.1", "3.1"], seed=2).table
    lengths = np.array([len(prompt) for prompt in table["prompt"].to_pylist()])
    scores = lengths.astype(float)
    scores[7] = np.nan
    bands = make_bands(scores, quantiles=[0.5], names=("easy", "hard"))
    return describe_samples(table, bands, scores, lengths, "size")


def test_the_samples_are_told_in_numbers_that_add_up(samples: dict[str, Any]) -> None:
    easy, hard = samples["bands"]
    assert easy["samples"] + hard["samples"] + samples["without_a_difficulty"] == samples["samples"] == 60
    assert easy["difficulty"]["most"] < hard["difficulty"]["least"]
    assert easy["mean_characters"] < hard["mean_characters"]
    assert samples["levels"] == {"1.1": 30, "3.1": 30}
    assert json.loads(json.dumps(samples, allow_nan=False)) == samples


def result(loss: float = 1.5) -> StageResult:
    spec = StageSpec("start", (1.0, 0.5), 400, objective="answer_only")
    suite = SuiteResult("output", "greedy", {"all": {"all": Counts(171, 349)}})
    progress = {"easy": BandProgress(0.25, 0.75, 8), "hard": BandProgress(2.0, 0.125, 8)}
    return StageResult(0, 0, spec, 50, {}, Fitted(3, 404, 9, 0, loss, 0.1, "00"), (suite,), progress)


def test_the_learning_curves_are_those_of_validation_and_nothing_of_the_test_set(samples: dict[str, Any]) -> None:
    plan = ((StageSpec("rest", (1.0, 1.0), 1000),),)
    terms = Terms(("easy", "hard"), 1, 1000, 4, {"shuffled": {}, "sorted": {"first": "hard"}}, ("next_token",), plan)
    feedback = {"grades": {"easy": 3, "hard": 7}, "rows": 10, "teacher": {"cost": 5}}
    text = design_facts(terms, cycle=1, samples=samples, setting={"x": 1}, so_far=[result()], feedback=feedback)
    facts = json.loads(text)
    (so_far,) = facts["stages_so_far"]
    assert so_far["validation"]["hard"] == {"answers_right": 0.125, "loss": 2.0, "samples": 8}
    assert (so_far["bands"], so_far["objective"], so_far["training_loss"]) == (
        {"easy": 1, "hard": 0.5},
        "answer_only",
        1.5,
    )
    assert "171" not in text
    assert "349" not in text
    assert facts["questions_after_the_last_cycle"] == {"grades": {"easy": 3, "hard": 7}}
    (cycle,) = facts["plan_for_the_rest"]
    assert cycle["stages"][0]["share"] == 1
    assert facts["budget_left"] == {"tokens": 1000, "x": 1}
    assert "(first: hard)" in facts["orders"]["sorted"]
    assert design_facts(terms, cycle=1, samples=samples, setting={"x": 1}, so_far=[result()], feedback=feedback) == text


def test_a_loss_that_is_no_number_is_told_as_unknown(samples: dict[str, Any]) -> None:
    facts = json.loads(design_facts(TERMS, cycle=0, samples=samples, setting={}, so_far=[result(float("nan"))]))
    assert facts["stages_so_far"][0]["training_loss"] is None
