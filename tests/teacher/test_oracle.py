"""The exact teacher of TinyPy is always right; its new questions are of their parents' kind and no twins of them."""

from __future__ import annotations

import contextlib
import io
import re
from random import Random

import pytest

from gradatim.errors import DataError, RecipeError, UserError
from gradatim.programs import LEVELS, canonical, generate
from gradatim.table import make_table
from gradatim.teacher.oracle import Oracle, mutations, oracle, variation


@pytest.fixture(scope="module")
def programs():
    return generate(140, seed=4).table


def printed_by_python(prompt: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(prompt, {})
    return "".join(f"# {line}\n" for line in out.getvalue().splitlines())


def shape(prompt: str) -> list[str]:
    """The statements of a program without its names, numbers, operators and comparisons."""
    names = re.sub(r"\b[a-z]\b|\b\d+\b", "x", re.sub(r"range\([^)]*\)", "range()", prompt))
    return re.sub(r"[<>=!]=|[-+*/<>]", "o", names).splitlines()


def test_it_answers_what_python_prints(programs):
    assert Oracle().answers(programs) == programs["answer"].to_pylist()


def test_what_is_no_tinypy_or_fails_or_prints_nothing_has_no_answer():
    bad = ["import os\n# output\n", "print(1 / 0)\n# output\n", "a = 1\n# output\n", "if if\n"]
    table = make_table({"prompt": [*bad, "print(1)\n# output\n"], "answer": [""] * 5})
    teacher = Oracle()
    assert teacher.answers(table) == [None] * 4 + ["# 1\n"]
    assert teacher.faults(table)[:4] == [None] * 4
    assert teacher.questions(table, grade="hard")[0] is None
    assert teacher.facts["answers not to be had"] == 4


def test_a_fault_is_printed_lines_that_are_not_the_right_ones(programs):
    faults = Oracle().faults(programs)
    pairs = [(fault, right) for fault, right in zip(faults, programs["answer"].to_pylist(), strict=True) if fault]
    assert len(pairs) > 0.9 * programs.num_rows
    assert all(fault != right and re.fullmatch(r"(# [^\n]+\n)+", fault) for fault, right in pairs)


@pytest.mark.parametrize("digits", [9, 99])
def test_a_new_question_is_answered_as_python_answers_it(digits):
    parents = generate(70, digits=digits, seed=7).table
    for question in Oracle(digits=digits).questions(parents, grade="hard"):
        assert question.answer == printed_by_python(question.prompt)
        assert question.prompt.endswith("\n# output\n")
        assert all(int(number) <= digits for number in re.findall(r"\d+", question.prompt))


def test_a_new_question_has_its_parents_level_and_statements_and_is_no_twin(programs):
    teacher = Oracle()
    questions = teacher.questions(programs, grade="hard")
    prompts, levels = programs["prompt"].to_pylist(), programs["level"].to_pylist()
    assert [question.level for question in questions] == levels
    assert {question.language for question in questions} == {"python"}
    assert not any(canonical(new.prompt) == canonical(old) for new, old in zip(questions, prompts, strict=True))
    same = sum(shape(new.prompt) == shape(old) for new, old in zip(questions, prompts, strict=True))
    assert same == programs.num_rows - teacher.facts.get("redrawn", 0)
    assert same > 0.9 * programs.num_rows


def test_new_questions_by_level_are_other_programs_of_their_parents_levels(programs):
    teacher = Oracle(new_questions="level")
    questions = teacher.questions(programs, grade="hard")
    prompts, levels = programs["prompt"].to_pylist(), programs["level"].to_pylist()
    assert [question.level for question in questions] == levels
    assert teacher.facts["redrawn"] == programs.num_rows
    same = sum(shape(new.prompt) == shape(old) for new, old in zip(questions, prompts, strict=True))
    assert same < 0.3 * programs.num_rows
    assert all(question.answer == printed_by_python(question.prompt) for question in questions)
    assert questions == Oracle(new_questions="level").questions(programs, grade="hard")
    assert questions != Oracle(new_questions="level").questions(programs, grade="hard", draw=1)


def test_loops_of_new_questions_run_two_or_three_times():
    parents = generate(120, levels=["3.1", "3.2", "4.1"], seed=2).table
    teacher = Oracle()
    for question in teacher.questions(parents, grade="easy"):
        loop = re.search(r"^(?:for|while) .*:\n", question.prompt, re.MULTILINE)
        instrumented = question.prompt[: loop.end()] + "\tprint(111)\n" + question.prompt[loop.end() :]
        assert printed_by_python(instrumented).split().count("111") in (2, 3), question.prompt


def test_another_draw_seed_or_grade_gives_other_questions_and_the_same_gives_the_same(programs):
    def prompts(**options):
        teacher = Oracle(seed=options.pop("seed", 0))
        return [question.prompt for question in teacher.questions(programs, **{"grade": "hard", "draw": 0, **options})]

    first = prompts()
    assert first == prompts()
    for change in ({"draw": 1}, {"seed": 1}, {"grade": "easy"}):
        assert sum(a == b for a, b in zip(first, prompts(**change), strict=True)) < 0.2 * len(first)


def test_what_a_row_gets_hangs_on_its_id_and_not_on_its_place(programs):
    turned = programs.take(list(range(programs.num_rows))[::-1])
    teacher = Oracle()
    assert teacher.questions(turned, grade="hard")[::-1] == teacher.questions(programs, grade="hard")
    assert teacher.faults(turned)[::-1] == teacher.faults(programs)


def test_a_loop_that_is_not_the_grammars_is_redrawn_from_the_level():
    prompt = "a = 1\nwhile a < 100 :\n\ta = a * 2\nprint(a)\n# output\n"
    parent = make_table({"prompt": [prompt], "answer": ["# 128\n"], "level": ["4.1"], "language": ["python"]})
    teacher = Oracle()
    (question,) = teacher.questions(parent, grade="hard")
    assert teacher.facts["redrawn"] == 1
    assert question.answer == printed_by_python(question.prompt)
    nowhere = parent.set_column(parent.column_names.index("level"), "level", [[None]])
    assert teacher.questions(nowhere, grade="hard") == [None]


def test_a_variation_leaves_comments_and_keywords_alone():
    program = variation("total = 3\nif not total < 2 and total > 1 :\n\tprint(total)\n# output\n", 9, Random(1))
    assert program.endswith("# output\n")
    assert "if not " in program
    assert " and " in program
    assert "total" not in program


def test_mutations_change_one_place_and_come_once_each():
    program = "a = 3\nprint(a + 4)\n# output\n"
    programs = list(mutations(program, Random(0)))
    assert len(programs) == len(set(programs)) > 5
    assert program not in programs
    assert {"a = 3\nprint(a - 4)\n# output\n", "a = 4\nprint(a + 4)\n# output\n"} <= set(programs)


def test_seeds_are_the_generators_programs():
    seeds = Oracle(levels=["1.1", "3.2"]).seeds(20, seed=5)
    generated = generate(20, levels=["1.1", "3.2"], seed=5).table
    assert [question.prompt for question in seeds] == generated["prompt"].to_pylist()
    assert {question.level for question in seeds} == {"1.1", "3.2"}


def test_it_has_no_opinion_and_knows_its_grades(programs):
    with pytest.raises(UserError, match=r"no opinion.*judge output"):
        Oracle().rubric(programs, [""] * programs.num_rows)
    with pytest.raises(UserError, match="did you mean 'hard'"):
        Oracle().questions(programs, grade="hrad")


def test_wrong_options_are_the_users_mistake():
    with pytest.raises(DataError, match="digits"):
        oracle(digits=3)
    with pytest.raises(DataError, match="no such TinyPy level"):
        oracle(levels=["9.9"])
    with pytest.raises(RecipeError, match="no option 'level'"):
        oracle(level="1.1")
    published = {level for level in LEVELS if not level.startswith("0.")}
    assert published == {question.level for question in oracle().seeds(70, seed=1)}
