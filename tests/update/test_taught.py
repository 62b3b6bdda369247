"""The source `taught`: seeds first, then new questions from what the student got wrong; every refusal is counted."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.distillation import NoNewQuestions
from gradatim.distillation.questions import apportion, round_robin, sample_index
from gradatim.errors import DataError, RecipeError
from gradatim.programs import canonical, commented, generate, run_program
from gradatim.source import TaughtSource
from gradatim.stage import Feedback
from gradatim.table import SCHEMA, make_table, sample_id
from gradatim.teacher import TEACHERS, Question

LEVELS = ["1.2", "2.2", "3.2"]
ORACLE = TEACHERS.get("oracle")(levels=LEVELS)


def taught(teacher=ORACLE, count=40, **options):
    return TaughtSource(teacher, count, **options)


def feedback_on(table, grades, cycle=0, held=None):
    """What a student that was graded so would leave; two attempts a question, as the feedback has them."""
    rows = table.append_column("grade", pa.array(grades, pa.string()))
    attempts = pa.concat_tables([rows, rows])
    known = table if held is None else pa.concat_tables([table, held])
    return Feedback(cycle, attempts, known, learnt=table)


def forms(table):
    return {canonical(prompt) for prompt in table["prompt"].to_pylist()}


class Words:
    """A teacher of questions in words: ``write(parent, draw)`` is the prompt, ``answer(prompt)`` the answer."""

    facts: ClassVar[dict[str, int]] = {}

    def __init__(self, write, answer=lambda prompt: "def f():\n    return 1\n"):
        self.write, self.answer, self.asked = write, answer, []

    def questions(self, parents, *, grade, draw=0):
        ids = parents["id"].to_pylist()
        self.asked += [(id, draw) for id in ids]
        prompts = [self.write(id, draw) for id in ids]
        return [None if prompt is None else Question(prompt, None, None, "python") for prompt in prompts]

    def answers(self, questions, *, draw=0):
        return [self.answer(prompt) for prompt in questions["prompt"].to_pylist()]


SEEDS = make_table({"prompt": [f"Seed {n}: {'x' * n}" for n in range(6)], "answer": ["a = 1\n"] * 6})


def in_words(teacher, grades=("hard",) * 6, **options):
    source = taught(teacher, 6, seeds=SEEDS, **options)
    return source, feedback_on(SEEDS, list(grades))


def test_the_first_cycle_has_the_teachers_seeds_with_right_answers():
    source = taught()
    drawn = source.draw(0, Feedback())
    table = drawn.table
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == drawn.facts["kept"] == drawn.facts["new"] == 40
    for row in table.to_pylist():
        assert commented(run_program(row["prompt"])) == row["answer"]
        assert row["id"] == sample_id("python", row["prompt"])
    assert set(table["level"].to_pylist()) == set(LEVELS)
    assert table.equals(source.draw(0, Feedback()).table)


def test_a_later_cycle_has_new_children_of_graded_parents_at_the_ratio():
    source = taught(accumulate=False, ratio={"hard": 3, "easy": 1})
    first = source.draw(0, Feedback()).table
    held = generate(50, levels=LEVELS, seed=77).table
    grades = ["hard"] * 10 + ["easy"] * 10 + ["middle"] * 10 + ["unjudged"] * 10
    feedback = feedback_on(first, grades, held=held)
    drawn = source.draw(1, feedback)
    table = drawn.table
    assert Counter(table["category"].to_pylist()) == {"hard": 30, "easy": 10}
    assert drawn.facts["parents"] == {"easy": 10, "middle": 10, "hard": 10}
    assert drawn.facts["wanted"] == drawn.facts["had"] == {"hard": 30, "easy": 10}
    assert drawn.facts["dry"] is None
    graded = dict(zip(first["id"].to_pylist(), grades, strict=True))
    assert all(graded[row["parent"]] == row["category"] for row in table.to_pylist())
    assert not forms(table) & (forms(first) | forms(held))
    assert len(forms(table)) == 40
    assert all(commented(run_program(row["prompt"])) == row["answer"] for row in table.to_pylist())
    assert table.equals(source.draw(1, feedback).table)


def test_former_samples_come_along_once_and_without_their_faulty_answers():
    source = taught(new=10)
    first = source.draw(0, Feedback()).table
    feedback = feedback_on(first, ["hard"] * 40)
    twice = pa.concat_tables([first, first.slice(0, 5)])
    twice = twice.set_column(3, SCHEMA.field("rejected"), pa.array(["# no\n"] * 45, pa.large_string()))
    drawn = source.draw(1, Feedback(0, feedback.table, feedback.known, learnt=twice))
    table = drawn.table
    assert (drawn.facts["learnt"], drawn.facts["new"], table.num_rows) == (40, 10, 50)
    assert table.slice(0, 40).to_pylist() == first.to_pylist()


def test_faulty_answers_that_the_seeds_gave_stay():
    seeds = SEEDS.set_column(3, SCHEMA.field("rejected"), pa.array(["no"] * 6, pa.large_string()))
    source = taught(Words(None), 6, seeds=seeds, new=0)
    assert source.draw(0, Feedback()).table["rejected"].to_pylist() == ["no"] * 6
    assert source.draw(1, feedback_on(seeds, ["hard"] * 6)).table["rejected"].to_pylist() == ["no"] * 6


def test_no_new_questions_means_the_same_samples_again():
    source = taught(new=0, accumulate=False)
    first = source.draw(0, Feedback()).table
    assert source.draw(1, feedback_on(first, ["hard"] * 40)).table.equals(first)
    with pytest.raises(DataError, match="no samples of former cycles"):
        source.draw(1, Feedback())


def test_a_grade_without_parents_leaves_its_questions_to_the_other():
    source = taught(accumulate=False)
    first = source.draw(0, Feedback()).table
    drawn = source.draw(1, feedback_on(first, ["easy"] * 20 + ["unjudged"] * 20))
    table = drawn.table
    assert set(table["category"].to_pylist()) == {"easy"}
    assert drawn.facts["moved"] == {"hard": 20}
    assert table.num_rows == 40


def test_random_parents_are_drawn_whatever_their_grade():
    source = taught(accumulate=False, grade="random")
    first = source.draw(0, Feedback()).table
    table = source.draw(1, feedback_on(first, ["hard"] * 5 + ["unjudged"] * 35)).table
    assert set(table["category"].to_pylist()) == {"random"}
    assert set(table["parent"].to_pylist()) == set(first["id"].to_pylist())


def test_when_nothing_is_graded_the_source_has_run_dry():
    source = taught()
    first = source.draw(0, Feedback()).table
    with pytest.raises(NoNewQuestions, match="no question has a grade"):
        source.draw(1, feedback_on(first, ["unjudged"] * 40))
    with pytest.raises(NoNewQuestions, match="cycle 1"):
        source.draw(1, Feedback())


def test_a_question_in_words_like_a_known_one_is_refused_and_asked_for_again():
    def write(id, draw):
        return f"Seed {'x' * (draw % 1000)}" if draw % 1000 < 2 else f"Sort list {id} by key {draw} and tell why"

    teacher = Words(write)
    source, feedback = in_words(teacher, accumulate=False, new=6, limit=0.9)
    drawn = source.draw(1, feedback)
    table = drawn.table
    assert table.num_rows == 6
    assert drawn.facts["refused"]["like_known"] >= 5
    assert max(Counter(teacher.asked).values()) == 1  # no parent twice in one draw: the reply would be the same


def test_a_source_that_has_run_dry_gives_what_there_is_and_says_why():
    source, feedback = in_words(Words(lambda id, draw: f"Only this for parent {id}"), accumulate=False, new=9)
    drawn = source.draw(1, feedback)
    table = drawn.table
    assert 0 < table.num_rows < 9
    assert drawn.facts["dry"] == f"new questions had: {table.num_rows} of 9 hard"
    assert drawn.facts["asked"] == 9 * 4  # the wanted ones, and three times as many again
    source, feedback = in_words(Words(lambda id, draw: None))
    with pytest.raises(NoNewQuestions, match=r"0 of 6 hard.*no_question 24"):
        source.draw(1, feedback)


def test_the_next_cycle_asks_with_draws_of_its_own():
    teacher = Words(lambda id, draw: f"{id} {draw} one two")
    source, feedback = in_words(teacher, limit=1.0)
    source.draw(1, feedback)
    source.draw(2, feedback)
    assert len(set(teacher.asked)) == len(teacher.asked) == 12


def test_a_cycle_that_asks_a_lone_parent_over_and_over_takes_no_draw_of_the_next():
    teacher = Words(lambda id, draw: None)
    source = taught(teacher, 1, seeds=SEEDS, rounds=1001)
    for cycle in (1, 2):
        with pytest.raises(NoNewQuestions):
            source.draw(cycle, feedback_on(SEEDS.slice(0, 1), ["hard"]))
    assert len(set(teacher.asked)) == len(teacher.asked) == 2 * 1002
    assert teacher.asked[:2] == [(SEEDS["id"][0].as_py(), 1000), (SEEDS["id"][0].as_py(), 1001)]


@given(st.sets(st.tuples(st.integers(0, 999_999), st.integers(0, 1 << 40)), min_size=2, max_size=50))
def test_no_two_laps_of_any_cycles_are_one_draw(laps):
    assert len({sample_index(cycle, lap) for cycle, lap in laps}) == len(laps)


def test_answers_that_are_missing_wrong_or_the_evaluations_are_left_out_and_counted():
    answers = {"Seed 0: ": None, "Seed 1: x": "wrong\n", "Seed 2: xx": "the very words of one problem of ours\n"}
    seeds = SEEDS.set_column(2, SCHEMA.field("answer"), pa.array([""] * 6, pa.large_string()))
    source = taught(
        Words(None, lambda prompt: answers.get(prompt, "right\n")),
        6,
        seeds=seeds,
        evaluation=["The very words of one problem of ours", "another problem", "a third problem of them"],
        right=lambda samples, attempts: [{"right\n": None, "wrong\n": False}.get(each) for each in attempts],
    )
    drawn = source.draw(0, Feedback())
    assert drawn.table["prompt"].to_pylist() == SEEDS["prompt"].to_pylist()[3:]
    assert drawn.facts["refused"] == {"same_problem": 1, "unanswered": 1, "wrong_answer": 1}


def test_a_seed_program_is_run_whatever_answer_it_came_with():
    prompts = ["a = 2\nprint(a)\n# output\n", "b = 3\nprint(b)\n# output\n", "print(1 / 0)\n# output\n"]
    seeds = make_table({"prompt": prompts, "answer": ["# 2\n", "# 4\n", "# 1\n"], "language": ["python"] * 3})
    source = taught(seeds=seeds)
    drawn = source.draw(0, Feedback())
    assert drawn.table["prompt"].to_pylist() == prompts[:1]
    assert drawn.facts["refused"] == {"cannot_run": 1, "wrong_answer": 1}
    with pytest.raises(DataError, match=r"no seed question.*wrong_answer 1"):
        taught(seeds=seeds.slice(1, 1)).draw(0, Feedback())


def test_more_seeds_than_asked_for_are_drawn_by_the_seed():
    seeds = generate(50, levels=LEVELS, seed=9).table
    first, other = (taught(seeds=seeds, count=10, seed=seed).draw(0, Feedback()).table for seed in (1, 2))
    assert first.num_rows == other.num_rows == 10
    assert first["id"].to_pylist() != other["id"].to_pylist()
    assert forms(first) <= forms(seeds)


def test_an_evaluation_that_is_the_seed_file_is_refused():
    evaluation = SEEDS["prompt"].to_pylist()
    with pytest.raises(DataError, match="6 of 6 seeds are in the evaluation"):
        taught(Words(None), 6, seeds=SEEDS, evaluation=evaluation).draw(0, Feedback())
    few = [*evaluation[:1], *(f"problem {n} of some others" for n in range(5))]
    source = taught(Words(None), 6, seeds=SEEDS, evaluation=few)
    drawn = source.draw(0, Feedback())
    assert drawn.table.num_rows == 5
    assert drawn.facts["refused"] == {"same_problem": 1}


def test_a_new_question_that_gives_the_evaluation_away_is_refused():
    problem = "return the number of vowels in a text without looking at accents"
    source, feedback = in_words(Words(lambda id, draw: f"Please {problem} {draw}"), evaluation=[problem])
    with pytest.raises(NoNewQuestions, match="problem_words 24"):
        source.draw(1, feedback)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 0}, "source.count"),
        ({"new": -1}, "source.new"),
        ({"rounds": -1}, "source.rounds"),
        ({"limit": 0}, "source.limit"),
        ({"ratio": {"hart": 1}}, "did you mean 'hard'"),
        ({"ratio": {"hard": -1}}, "0 or more"),
        ({"ratio": {"hard": 0}}, "no grade has a share"),
    ],
)
def test_options_that_cannot_be_used_are_told(options, told):
    with pytest.raises(RecipeError, match=told):
        taught(**options)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 500), st.dictionaries(st.sampled_from(["hard", "easy", "middle"]), st.floats(0.1, 9), min_size=1))
def test_questions_are_apportioned_to_the_last_one(count, ratio):
    groups = {name: None for name in ratio}
    wanted, moved = apportion(count, ratio, groups)
    assert sum(wanted.values()) == count
    assert moved == {}
    assert all(abs(wanted[name] - count * ratio[name] / sum(ratio.values())) < 1 for name in ratio)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_a_lap_has_each_parent_once(parents, seed, sizes):
    following = round_robin(parents, seed)
    seen = Counter()
    for most in sizes:
        draw, rows = following(most)
        assert 0 < len(rows) <= most
        seen.update((draw, row) for row in rows)
    assert set(seen.values()) == {1}
    draws = Counter(draw for draw, _ in seen)
    assert all(draws[draw] == parents for draw in range(max(draws)))


CODING = "Write a Python function `f()` that returns 1."


@pytest.mark.parametrize(
    ("answer_format", "answer"),
    [("fenced", "```python\ndef f():\n    return 1\n```"), ("code", "def f():\n    return 1\n")],
)
def test_seeds_and_answers_of_the_teacher_have_one_format(answer_format, answer):
    reply = "Here:\n\n```python\ndef f():\n    return 1\n```\n"
    seeds = make_table(
        {"prompt": [CODING, CODING + " "], "answer": ["def f():\n    return 1\n", ""], "tests": ["t", "t"]}
    )
    teacher = Words(None, lambda prompt: reply)
    table = taught(teacher, seeds=seeds, answer_format=answer_format).draw(0, Feedback()).table
    assert table["answer"].to_pylist() == [answer] * 2


def test_rejected_answers_of_seeds_have_the_format_of_the_right_ones():
    seeds = make_table(
        {"prompt": [CODING], "answer": ["def f():\n    return 1\n"], "rejected": ["def f():\n    return 2\n"]}
    )
    table = taught(Words(None), seeds=seeds, answer_format="fenced").draw(0, Feedback()).table
    assert table["rejected"].to_pylist() == ["```python\ndef f():\n    return 2\n```"]


def test_an_answer_without_a_program_is_refused_where_there_are_tests_and_words_stay_words():
    seeds = make_table({"prompt": [CODING, "What is a list?"], "answer": ["No idea, sorry."] * 2, "tests": ["t", None]})
    drawn = taught(Words(None), seeds=seeds, answer_format="fenced").draw(0, Feedback())
    assert drawn.table["prompt"].to_pylist() == ["What is a list?"]
    assert drawn.table["answer"].to_pylist() == ["No idea, sorry."]
    assert drawn.facts["refused"] == {"no_program": 1}
