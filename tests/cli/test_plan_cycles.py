"""``gradatim plan`` of recipes with several cycles."""

from __future__ import annotations

import json


def test_plan_tells_cycles_questions_and_that_the_oracle_costs_nothing(gradatim):
    said = gradatim("plan", "smoke/distill-tinypy", "--no-data")
    assert said.status == 0
    assert "75 hard, 75 easy" in said.out
    assert "700 calls, no tokens, no cost" in said.out


def test_plan_of_a_paid_teacher_says_what_is_an_estimate_and_what_is_a_bound(gradatim):
    changes = [
        "teacher.name=api",
        "teacher.base_url=http://127.0.0.1:9/v1",
        "teacher.model=m",
        "teacher.key=NO_SUCH_KEY",
    ]
    changes += ["teacher.prices=[1, 2]", "teacher.budget_money=5"]
    said = gradatim("plan", "smoke/distill-tinypy", *(part for each in changes for part in ("--set", each)))
    assert said.status == 0
    for words in (
        "at most 716,800 completion tokens (512 per request)",
        "cost: about",
        "estimated with",
    ):
        assert words in said.out
    assert "budget of the teacher: 5 money" in said.out


def test_the_plan_of_cycles_as_json_keeps_the_old_keys(gradatim):
    cycles, plain = (
        json.loads(gradatim("plan", name, "--no-data", "--json").out)
        for name in ("smoke/distill-tinypy", "smoke/baseline")
    )
    assert list(cycles) == list(plain)
    assert (plain["cycles"], plain["teacher"]) == ([], None)
    assert [cycle["cycle"] for cycle in cycles["cycles"]] == [0, 1, 2]
    assert cycles["teacher"]["requests"] == {"questions": 700}
