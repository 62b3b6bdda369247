"""What a plan says that cycles will ask of the student and of the teacher."""

from __future__ import annotations

import json

import pytest

from gradatim.errors import RecipeError
from gradatim.experiment.plan import plan_cycles, plan_run, plan_teacher
from gradatim.experiment.recipe import load, parse
from gradatim.teacher.prompts import CHARACTERS, FRAME, Lengths, estimate, load_prompts

API = {
    "cycles": 3,
    "data": {"source": "taught", "count": 300, "new": 100, "split": {"by": "text", "validation": 20, "test": 50}},
    "teacher": {
        "name": "api",
        "base_url": "http://127.0.0.1:9/v1",
        "model": "m",
        "key": "NO_SUCH_KEY",
        "max_tokens": 256,
    },
    "rejected_answers": {"sources": {"student": 1, "teacher": 1}, "verify": "text"},
    "feedback": {
        "questions": 80,
        "num_samples": 2,
        "temperature": 0.5,
        "judges": [{"judge": "output"}, {"judge": "rubric"}],
    },
    "difficulty": {"metric": "size"},
    "budget": {"tokens": 30_000},
    "student": {"preset": "tiny"},
}


def changed(**sections):
    return parse(
        {**API, **{name: {**API[name], **new} if isinstance(new, dict) else new for name, new in sections.items()}}
    )


def test_a_recipe_of_one_cycle_without_a_teacher_has_nothing_to_tell():
    plan = plan_run(load("smoke/baseline"), data=False)
    assert (plan.cycles, plan.teacher) == ((), None)


def test_the_plan_of_the_oracle_counts_what_a_run_then_asks():
    plan = plan_run(load("smoke/distill-tinypy"), data=True)
    assert [(cycle.questions, cycle.samples) for cycle in plan.cycles] == [(400, 300), (150, 450), (150, 600)]
    assert [(cycle.attempts, cycle.feedback) for cycle in plan.cycles] == [(0, 120), (450, 120), (600, 0)]
    assert [dict(cycle.by_grade) for cycle in plan.cycles] == [{}, *[{"hard": 75, "easy": 75}] * 2]
    assert plan.teacher is not None
    assert (plan.teacher["prompt_tokens"], plan.teacher["cost"]) == (None, 0.0)


def test_each_cycle_counts_the_requests_of_each_kind():
    assert [dict(cycle.requests) for cycle in plan_cycles(parse(API))] == [
        {"questions": 300, "answers": 300, "faults": 230, "rubric": 160},  # nobody has tried anything yet
        {"questions": 100, "answers": 100, "faults": 165, "rubric": 2 * 330 + 160},
        {"questions": 100, "answers": 100, "faults": 215, "rubric": 2 * 430},
    ]


def test_without_accumulating_a_cycle_has_its_new_questions_alone():
    assert [cycle.samples for cycle in plan_cycles(changed(data={"accumulate": False}))] == [230, 100, 100]


def test_static_cycles_have_the_same_samples_and_no_new_questions():
    cycles = plan_cycles(changed(data={"new": 0}))
    assert [(cycle.samples, dict(cycle.by_grade)) for cycle in cycles] == [(230, {}), (230, {}), (230, {})]
    assert "questions" not in cycles[1].requests


def test_the_ratio_parts_new_questions_without_losing_one():
    cycles = plan_cycles(changed(data={"new": 100, "ratio": {"hard": 2, "easy": 1}}))
    assert cycles[1].by_grade == {"hard": 67, "easy": 33}


def test_the_scoring_model_spares_the_teacher_its_share():
    judges = [{"judge": "scoring", "share": 0.25}]
    assert plan_cycles(changed(feedback={"judges": judges}))[0].requests["rubric"] == 40


def test_tokens_are_the_prompts_words_and_what_is_put_into_them_and_replies_at_their_most():
    prompts = load_prompts()
    lengths = Lengths(question=100, answer=50)
    found = estimate({"answer": 10}, prompts, lengths, max_tokens=256, prices=(2.0, 8.0))
    words = len(prompts.texts["answer"]) - len("{language}{question}{fence}") + 100 + 2 * 8
    assert found.prompt_tokens == round(10 * words / CHARACTERS) + 10 * FRAME
    assert found.completion_tokens == 2560
    assert found.cost == pytest.approx((found.prompt_tokens * 2 + 2560 * 8) / 1e6)


def test_a_planned_prompt_is_about_as_long_as_the_real_one():
    prompts = load_prompts()
    question, answer = "Write a function f(x). " * 10, "def f(x):\n    return x\n" * 5
    values = {"question": question, "answer": answer, "language": "Python", "fence": "python"}
    for name in ("answer", "fault", "new-hard", "rubric"):
        real = sum(len(text) for _, text in prompts.messages(name, {**values, "attempt": answer}))
        planned = estimate({name: 1}, prompts, Lengths(len(question), len(answer)), max_tokens=1)
        assert (planned.prompt_tokens - FRAME) * CHARACTERS == pytest.approx(real, rel=0.03), name


def test_a_cost_is_told_only_where_prices_are():
    told = plan_teacher(parse(API), plan_cycles(parse(API)))
    assert (told["cost"], told["prices"]) == (None, None)
    priced = changed(teacher={"prices": [0.5, 1.5]})
    told = plan_teacher(priced, plan_cycles(priced))
    assert told["cost"] == pytest.approx((told["prompt_tokens"] * 0.5 + told["completion_tokens"] * 1.5) / 1e6)
    assert told["completion_tokens"] == 256 * sum(told["requests"].values())


def test_a_plan_asks_no_endpoint_and_needs_no_key():
    recipe = parse(API)
    plan = plan_run(recipe)
    assert plan.data is None
    assert plan.teacher is not None
    with pytest.raises(RecipeError, match="a plan sends it no requests"):
        plan_run(recipe, data=True)
    json.dumps(plan.plain())


def test_seeds_tell_their_lengths_and_how_many_answers_are_missing(tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"prompt": "p" * 100, "answer": "a" * 60}, {"prompt": "q" * 200, "answer": ""}]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = changed(data={"seeds": str(seeds)})
    cycles = plan_cycles(recipe)
    assert cycles[0].requests["answers"] == 1
    assert "questions" not in cycles[0].requests
    assert plan_teacher(recipe, cycles)["characters"] == {
        "question": 150.0,
        "answer": 30.0,
        "tests": 0.0,
        "measured": True,
    }
