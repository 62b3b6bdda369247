"""A real student answers, and feedback comes out."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graders import CONTEXT, Grading

from gradatim.distillation import FEEDBACK, JUDGES
from gradatim.distillation.attempts import probe
from gradatim.distillation.judge import Judge, Thresholds
from gradatim.errors import DataError, RecipeError
from gradatim.evaluation import SUITES
from gradatim.table import make_table


def output():
    return {"output": (JUDGES.get("output")(), 1.0)}


def test_it_grades_what_the_suite_output_counts(student, samples):
    suite = SUITES.get("output")()(student, samples, seed=0).counts["all"]["all"]
    probed = probe(student, samples, output())
    assert 8 < suite.passed < 32  # a student that knows something and not everything
    assert probed.facts["grades"] == {
        "easy": suite.passed, "middle": 0, "hard": suite.total - suite.passed, "unjudged": 0
    }  # fmt: skip


def test_every_attempt_is_a_row_in_the_schema_of_feedback(student, samples):
    table = probe(student, samples, output(), draws=3, temperature=1.0, seed=4).table
    assert table.schema == pa.schema([*FEEDBACK, pa.field("judge_output", pa.float64())])
    assert table["id"].to_pylist() == [each for each in samples["id"].to_pylist() for _ in range(3)]
    assert table["draw"].to_pylist() == [0, 1, 2] * samples.num_rows
    for row in table.to_pylist():
        assert row["verdict"] == ("passed" if row["attempt"] == row["answer"] else "failed")
        assert row["score"] == row["judge_output"] == (row["verdict"] == "passed")


def test_a_grade_is_the_questions_and_follows_the_mean_of_its_draws(student, samples):
    limits = Thresholds(easy=1.0, hard=0.3)
    probed = probe(student, samples, output(), draws=4, temperature=1.0, seed=1, thresholds=limits)
    by_id = {}
    for row in probed.table.to_pylist():
        by_id.setdefault(row["id"], []).append((row["score"], row["grade"]))
    seen = set()
    for rows in by_id.values():
        mean = sum(score for score, _ in rows) / 4
        grade = "easy" if mean >= 1 else "hard" if mean < 0.3 else "middle"
        assert {said for _, said in rows} == {grade}
        seen.add(grade)
    assert seen == {"easy", "middle", "hard"}
    assert sum(probed.facts["grades"].values()) == samples.num_rows


def test_the_same_seed_gives_the_same_feedback_whatever_the_batch(student, samples):
    one = probe(student, samples, output(), draws=2, temperature=0.8, seed=3)
    other = probe(student, samples, output(), draws=2, temperature=0.8, seed=3, batch=7)
    assert one.table.equals(other.table)
    assert one.facts == other.facts
    again = probe(student, samples, output(), draws=2, temperature=0.8, seed=5)
    assert again.table["attempt"] != one.table["attempt"]


def test_facts_are_plain_and_add_up(student, samples):
    judges = output() | {"static": (JUDGES.get("static")(), 1.0)}
    facts = probe(student, samples, judges).facts
    assert json.loads(json.dumps(facts)) == facts
    count = samples.num_rows
    assert sum(sum(each.values()) for each in facts["verdicts"].values()) == facts["attempts"] == count
    assert sum(sum(each.values()) for each in facts["levels"].values()) == count
    assert set(facts["levels"]) == {"1.1", "1.2"}
    assert facts["judges"]["output"]["judged"] == count
    assert facts["judges"]["static"]["judged"] == 0
    assert sum(facts["judges"]["static"]["unjudged"].values()) == count
    assert facts["finish"]["eos"] > 0


def test_what_nobody_could_judge_is_neither_easy_nor_hard(student, samples):
    grader = Grading(lambda answer, attempt: None)
    probed = probe(student, samples, {"rubric": (JUDGES.get("rubric")(grader), 1.0)})
    assert probed.facts["grades"] == {"easy": 0, "middle": 0, "hard": 0, "unjudged": samples.num_rows}
    assert set(probed.table["verdict"].to_pylist()) == {"unjudged"}
    assert all(math.isnan(score) for score in probed.table["score"].to_pylist())


def test_one_judge_that_cannot_say_leaves_the_score_to_the_others(student, samples):
    grader = Grading(lambda answer, attempt: 3.0 if attempt == answer else None)
    judges = output() | {"rubric": (JUDGES.get("rubric")(grader), 1.0)}
    rows = probe(student, samples, judges).table.to_pylist()
    assert {row["score"] for row in rows if row["verdict"] == "passed"} == {0.75}
    assert {row["score"] for row in rows if row["verdict"] == "failed"} == {0.0}
    assert all(math.isnan(row["judge_rubric"]) for row in rows if row["verdict"] == "failed")


def test_a_question_that_cannot_be_read_says_nothing_about_the_student(student, samples):
    odd = make_table(
        {"prompt": ["a = 1\n" * CONTEXT, "§\n# output\n"], "answer": ["# 1\n"] * 2, "language": ["python"] * 2}
    )
    asked = pa.concat_tables([samples.slice(0, 2), odd])
    seen = []

    class Listening(Judge):
        proves = True

        def __call__(self, samples, attempts, *, events):
            seen.extend(samples["prompt"].to_pylist())
            return JUDGES.get("output")()(samples, attempts, events=events)

    probed = probe(student, asked, {"output": (Listening(), 1.0)})
    assert probed.table["grade"].to_pylist()[2:] == ["unjudged"] * 2
    assert seen == samples["prompt"].to_pylist()[:2]
    assert {"too_long", "unknown_character"} < set(probed.facts["finish"])
    assert len(probed.facts["judges"]["output"]["unjudged"]) == 2


def test_questions_of_one_id_are_asked_once(student, samples):
    twice = pa.concat_tables([samples.slice(0, 3), samples.slice(1, 1)])
    probed = probe(student, twice, output())
    assert (probed.table.num_rows, probed.facts["questions"], probed.facts["duplicates"]) == (3, 3, 1)


def test_progress_is_told_and_a_stop_passes_through(student, samples):
    heard = []
    probe(student, samples, output(), events=heard.append)
    assert [heard[0].kind, heard[-1].kind] == ["start", "finish"]

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(student, samples, output(), events=stop)


def test_feedback_survives_being_written(student, samples, tmp_path):
    table = probe(student, samples, output()).table
    pq.write_table(table, tmp_path / "feedback.parquet")
    again = pq.read_table(tmp_path / "feedback.parquet")
    assert again.schema.names == table.schema.names
    assert again["attempt"] == table["attempt"]
    assert again["grade"] == table["grade"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draws": 2}, "at temperature 0 all draws are one text"),
        ({"draws": 0}, "draws: must be 1 or more"),
        ({"temperature": -1.0}, "temperature: must be 0 or more"),
        ({"new_tokens": 0}, "new_tokens: must be 1 or more"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_written(student, samples, options, said):
    with pytest.raises(RecipeError, match=said):
        probe(student, samples, output(), **options)


def test_no_questions_and_missing_columns_are_errors(student, samples):
    with pytest.raises(DataError, match="no questions"):
        probe(student, samples.slice(0, 0), output())
    with pytest.raises(DataError, match="no column 'tests'"):
        probe(student, samples.drop_columns("tests"), output())
