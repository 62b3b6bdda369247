"""Each sample gets one faulty answer from the places that the recipe weighs; nothing right passes for a fault."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.distillation import deliver
from gradatim.errors import DataError, RecipeError
from gradatim.programs import commented, generate, run_program
from gradatim.stage import Feedback
from gradatim.table import make_table
from gradatim.teacher import TEACHERS

SAMPLES = generate(60, seed=4).table


def by_running(samples, attempts):
    """What the interpreter proves about attempts at TinyPy outputs."""

    def told(prompt, attempt):
        try:
            return commented(run_program(prompt)) == attempt
        except DataError:
            return None

    return [told(prompt, attempt) for prompt, attempt in zip(samples["prompt"].to_pylist(), attempts, strict=True)]


def untold(samples, attempts):
    return [None] * len(attempts)


def attempts_at(samples, attempt, verdict="failed"):
    """A feedback in which the student tried every sample with one attempt."""
    rows = samples.num_rows
    return Feedback(
        0, pa.table({"id": samples["id"], "attempt": pa.array([attempt] * rows), "verdict": pa.array([verdict] * rows)})
    )


def delivered(samples=SAMPLES, feedback=None, *, shares, teacher=None, right=by_running, seed=1):
    return deliver(samples, feedback or Feedback(), shares=shares, teacher=teacher, right=right, seed=seed)


class Parrot:
    """A teacher whose faults are given: a fixed list by draw, as a chat of few words would give them."""

    def __init__(self, faults):
        self.given, self.draws = faults, []

    def faults(self, samples, *, draw=0):
        self.draws.append(draw)
        return [self.given[draw] for _ in range(samples.num_rows)]


def test_faults_come_from_all_places_in_about_their_shares():
    samples = generate(200, seed=2).table
    done = delivered(
        samples,
        attempts_at(samples, "# none\n"),
        shares={"student": 2, "mutation": 1, "teacher": 1},
        teacher=TEACHERS.get("oracle")(),
    )
    assert done.facts["none"] == done.facts["given"] == 0
    assert 75 <= done.facts["student"] <= 125
    assert 30 <= done.facts["mutation"] <= 70
    assert 30 <= done.facts["teacher"] <= 70
    assert sum(done.facts["kinds"].values()) == done.facts["mutation"]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([{"mutation": 1}, {"teacher": 1}, {"mutation": 1, "teacher": 3}]))
def test_no_faulty_answer_is_right_and_only_rejected_changes(seed, shares):
    done = delivered(shares=shares, teacher=TEACHERS.get("oracle")(), seed=seed)
    rejected = done.table["rejected"].to_pylist()
    assert not any(
        told and text is not None for told, text in zip(by_running(SAMPLES, rejected), rejected, strict=True)
    )
    assert done.table.drop_columns(["rejected"]).equals(SAMPLES.drop_columns(["rejected"]))
    assert done.facts["none"] == rejected.count(None) <= 2


def test_the_same_call_gives_the_same_table_and_another_seed_another():
    first, again, other = (delivered(shares={"mutation": 1}, seed=seed) for seed in (3, 3, 4))
    assert first.table.equals(again.table)
    assert first.facts == again.facts
    assert not first.table.equals(other.table)


def test_a_sample_keeps_its_fault_whatever_other_rows_there_are():
    whole = delivered(shares={"mutation": 1}).table
    assert delivered(SAMPLES.slice(10, 5), shares={"mutation": 1}).table.equals(whole.slice(10, 5))


def test_an_attempt_that_proves_right_is_thrown_away_and_counted_and_the_next_place_asked():
    samples = make_table(
        {
            "prompt": ["a = 4\nprint(a)\n# output\n"] * 2,
            "answer": ["# 5\n", "# 4\n"],  # the first sample's own answer is wrong
            "language": ["python"] * 2,
            "id": ["x", "y"],
        }
    )
    done = delivered(samples, attempts_at(samples, "# 4 \n"), shares={"student": 9, "mutation": 1}, right=by_running)
    assert done.facts["equal"]["student"] == 1  # the right answer's own text, blanks apart
    feedback = attempts_at(samples, "# 4\n")
    done = delivered(samples.slice(0, 1), feedback, shares={"student": 1})
    assert done.facts["proved_right"]["student"] == 1
    assert done.facts["none"] == done.facts["passed_on"]["student"] == 1
    done = delivered(samples.slice(0, 1), feedback, shares={"student": 1e9, "mutation": 1})
    assert done.facts["mutation"] == done.facts["proved_right"]["student"] == done.facts["passed_on"]["student"] == 1


def test_only_failed_attempts_at_the_very_question_are_the_students_faults():
    for verdict in ("passed", "timeout", "invalid", "unjudged"):
        done = delivered(feedback=attempts_at(SAMPLES, "# no\n", verdict), shares={"student": 1})
        assert done.facts["none"] == SAMPLES.num_rows
    other = attempts_at(generate(5, seed=99).table, "# no\n")
    assert delivered(feedback=other, shares={"student": 1}).facts["student"] == 0
    assert delivered(feedback=attempts_at(SAMPLES, " \n"), shares={"student": 1}).facts["student"] == 0
    done = delivered(feedback=attempts_at(SAMPLES, "# no\n"), shares={"student": 1})
    assert set(done.table["rejected"].to_pylist()) == {"# no\n"}


def test_what_cannot_be_told_is_taken_and_counted():
    samples = make_table({"prompt": ["def f(a):\n"], "answer": ["    return a + 1\n"], "language": ["python"]})
    done = delivered(samples, shares={"mutation": 1}, right=untold)
    assert done.facts["mutation"] == done.facts["untold"]["mutation"] == 1


def test_mutants_that_prove_right_are_tried_a_few_times_only():
    asked = Counter()

    def always(samples, attempts):
        asked.update(samples["id"].to_pylist())
        return [True] * len(attempts)

    done = delivered(shares={"mutation": 1}, right=always)
    assert done.facts["none"] == SAMPLES.num_rows
    assert max(asked.values()) == 4


def test_a_teacher_without_a_mistake_is_asked_once_more_with_another_draw():
    teacher = Parrot([None, "# wrong\n"])
    done = delivered(shares={"teacher": 1}, teacher=teacher)
    assert teacher.draws == [0, 1]
    assert done.facts["teacher"] == SAMPLES.num_rows
    silent = Parrot([None, None])
    assert delivered(shares={"teacher": 1}, teacher=silent).facts["passed_on"]["teacher"] == SAMPLES.num_rows
    assert silent.draws == [0, 1]


def test_a_faulty_answer_that_is_there_already_stays():
    samples = SAMPLES.set_column(
        SAMPLES.schema.get_field_index("rejected"),
        SAMPLES.schema.field("rejected"),
        pa.array(["# mine\n", *[None] * (SAMPLES.num_rows - 1)], pa.large_string()),
    )
    done = delivered(samples, shares={"mutation": 1})
    assert done.table["rejected"][0].as_py() == "# mine\n"
    assert done.facts["given"] == 1


def test_an_empty_table_is_delivered():
    assert delivered(SAMPLES.slice(0, 0), shares={"mutation": 1}).table.num_rows == 0


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ({"mutations": 1}, "did you mean 'mutation'"),
        ({"mutation": -1}, "0 or more"),
        ({"mutation": float("nan")}, "0 or more"),
        ({"mutation": 0}, "one above 0"),
        ({}, "one above 0"),
        ({"teacher": 1}, "need a teacher"),
    ],
)
def test_shares_that_cannot_be_used_are_told(shares, told):
    with pytest.raises(RecipeError, match=told):
        delivered(shares=shares)
