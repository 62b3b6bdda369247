"""What the judges see: outputs, tests, code, points."""

from __future__ import annotations

import pytest
from graders import Grading

from gradatim.distillation import JUDGES, View
from gradatim.distillation.judge import begins_program, form_of, program_text
from gradatim.distillation.judges import by_output, by_tests, first_decision, proof, score_of
from gradatim.errors import RecipeError
from gradatim.languages import LANGUAGES
from gradatim.languages.language import Extracted, Fault
from gradatim.languages.python import StaticView
from gradatim.table import make_table
from gradatim.table.rows import asks_for_output

ADD = 'def add(a, b):\n    """The sum."""\n'
WORDS = "Write a function add(a, b) that gives the sum of two numbers."
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n"
ASSERTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"
RIGHT = "def add(a, b):\n    return a + b\n"
PYTHON = LANGUAGES.get("python")


def asked(prompt, answer, tests=None, language="python", count=1):
    columns = {"prompt": prompt, "answer": answer, "tests": tests, "language": language}
    return make_table({name: [value] * count for name, value in columns.items()})


def judged(name, samples, attempts, grader=None, **options):
    return JUDGES.get(name)(grader, **options)(samples, attempts)


def verdicts(views):
    return [view.verdict for view in views]


def test_a_view_has_a_score_exactly_when_it_was_judged():
    for score, verdict in ((None, "failed"), (0.5, "unjudged"), (1.5, "passed"), (float("nan"), "failed")):
        with pytest.raises(ValueError, match="score"):
            View(score, verdict)


def test_the_output_must_be_the_answer_to_the_character():
    attempts = ["# 4\n", "# 4", "# 4\n\n", "# 5\n", ""]
    views = judged("output", asked("print(4)\n# output\n", "# 4\n", count=5), attempts)
    assert verdicts(views) == ["passed", "failed", "failed", "failed", "failed"]
    assert [view.score for view in views] == [1, 0, 0, 0, 0]


def test_without_an_answer_and_for_another_program_the_output_cannot_say():
    assert verdicts(judged("output", asked("p", ""), ["x"])) == ["unjudged"]
    code = asked(ADD, "    return a + b\n", ASSERTS, count=2)
    assert verdicts(judged("output", code, ["    return a + b\n", "    return b + a\n"])) == ["passed", "unjudged"]


def test_a_prompt_is_a_programs_beginning_or_words():
    assert begins_program(ADD, PYTHON)
    assert begins_program("import math\n\n\ndef area(r):\n", PYTHON)
    assert begins_program("// The sum.\nint add(int a, int b) {\n", LANGUAGES.get("c"))
    for words in (
        WORDS,
        f"Complete this:\n{ADD}",
        f"# Task\nWrite add.\n```python\n{ADD}```\n",
        "",
        '"""\nAdd.\n"""\n',
    ):
        assert not begins_program(words, PYTHON)


def test_a_fence_makes_a_reply_a_rest_a_completion_and_a_whole_program_a_solution():
    assert form_of(ADD, "    return a + b\n", PYTHON) == "completion"
    assert form_of(ADD, f"```python\n{RIGHT}```\n", PYTHON) == "reply"
    for prompt in (WORDS, ADD):
        assert form_of(prompt, RIGHT, PYTHON) == "solution"
    assert form_of(WORDS, f"Here it is:\n\n{RIGHT}", PYTHON) == "reply"
    assert form_of(WORDS, "x = 1\nprint(x)\n", PYTHON) == "solution"
    assert form_of(ADD, "\n\ndef subtract(a, b):\n    return a - b\n", PYTHON) == "completion"
    assert (
        form_of("int add(int a, int b) {\n", "int add(int a, int b) { return a + b; }\n", LANGUAGES.get("c"))
        == "solution"
    )


def test_a_completion_with_fences_of_tildes_in_it_is_found_whole():
    code = '    """\n~~~~\n"""\n    return a + b\n'
    found = PYTHON.extract(program_text(ADD, code, PYTHON))
    assert (found.state, found.code.strip()) == ("fenced", (ADD + code).strip())


def test_an_output_is_asked_for_after_its_line_only():
    assert asks_for_output("a = 4\nprint(a)\n# output\n")
    assert not asks_for_output("print('# output')\n")


def test_tests_try_completions_replies_and_whole_programs(walls):
    attempts = ["    return a + b\n", "    return a - b\n", f"So:\n```python\n{RIGHT}```\n", "", "    return (\n"]
    views = judged("tests", asked(ADD, attempts[0], CHECK, count=5), attempts)
    assert verdicts(views) == ["passed", "failed", "passed", "invalid", "invalid"]
    words = [RIGHT, f"```python\n{RIGHT}```\n", "def add(a, b):\n    return 0\n", "I cannot."]
    for tests in (ASSERTS, CHECK):
        views = judged("tests", asked(WORDS, RIGHT, tests, count=4), words)
        assert verdicts(views) == ["passed", "passed", "failed", "invalid"], tests


def test_an_endless_program_is_a_timeout_and_costs_the_question_its_point(walls):
    (view,) = judged("tests", asked(ADD, "x", ASSERTS), ["    while True: pass\n"], seconds=0.1)
    assert (view.verdict, view.score) == ("timeout", 0)


def test_without_tests_or_a_known_language_nothing_is_run():
    samples = make_table(
        {"prompt": [ADD] * 2, "answer": ["x"] * 2, "tests": [None, ASSERTS], "language": ["python", "cobol"]}
    )
    views = judged("tests", samples, ["    return a + b\n"] * 2)
    assert verdicts(views) == ["unjudged", "unjudged"]
    assert len({view.reason for view in views}) == 2


def test_code_is_scored_by_how_far_it_gets(walls):
    attempts = [
        f"```python\n{RIGHT}```\n",
        f"```python\nimport os\n{RIGHT}```\n",
        f"```python\n{RIGHT}\nadd(1)\n```\n",
        f"```python\n{RIGHT}",
        "```python\ndef add(a, b:\n```\n",
        "I cannot help with that.",
    ]
    views = judged("static", asked(WORDS, RIGHT, count=6), attempts)
    assert verdicts(views) == ["passed", "passed", "failed", "failed", "failed", "invalid"]
    scores = [view.score for view in views]
    assert scores == pytest.approx([1, 0.9, 0.8, 0.8, 0.2, 0])
    assert "cut off" in views[3].reason
    assert "1 warning" in views[1].reason


def test_the_static_score_is_the_documented_mean():
    code = Extracted("x", "fenced", 1)
    warned = (Fault(1, 1, "unused"),)
    for view, score in (
        (StaticView(code, True, True, True, True, (), warned), 0.9),
        (StaticView(code, True, True, True, None), 1.0),
        (StaticView(code, True, True, False, None, warned), 0.4),
        (StaticView(Extracted("x", "incomplete", 1), False, False, None, None, warned), 0.0),
        (StaticView(Extracted("", "none", 0), False, False), 0.0),
    ):
        assert score_of(view) == pytest.approx(score)


def test_an_output_is_no_program_to_look_at():
    assert verdicts(judged("static", asked("print(4)\n# output\n", "# 4\n"), ["# 4\n"])) == ["unjudged"]


def test_points_become_sixths_and_unread_ones_no_number():
    points = {"good": 6.0, "fair": 4.5, "lost": None, "odd": 7.0, "worse": float("nan")}
    grader = Grading(lambda answer, attempt: points[attempt])
    views = judged("rubric", asked("q", "a", count=5), list(points), grader)
    assert [view.score for view in views] == [1, 0.75, None, None, None]
    assert verdicts(views) == ["passed", "failed", "unjudged", "unjudged", "unjudged"]
    assert judged("rubric", asked("q", "a"), ["fair"], grader, passing=4.0)[0].verdict == "passed"


def test_the_same_attempt_is_paid_for_once():
    grader = Grading(lambda answer, attempt: float(len(attempt)))
    views = judged("rubric", asked("q", "a", count=4), ["x", "xx", "x", "xx"], grader)
    assert [view.score for view in views] == pytest.approx([1 / 6, 2 / 6, 1 / 6, 2 / 6])
    assert [attempt for _, attempt in grader.asked] == ["x", "xx"]


@pytest.mark.parametrize("name", ["rubric", "scoring"])
def test_a_judge_that_asks_a_teacher_refuses_to_go_without(name):
    with pytest.raises(RecipeError, match="needs a teacher"):
        JUDGES.get(name)(None)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("tests", {"workers": 0, "seconds": -1}, "workers: must be 1 or more"),
        ("static", {"seconds": 0}, "seconds: must be above 0"),
        ("rubric", {"passing": 7}, "given: 7"),
        ("scoring", {"share": 1.0, "held_out": 0}, "held_out: must lie between"),
        ("scoring", {"least_agreement": 1}, "least_agreement"),
    ],
)
def test_options_that_cannot_work_are_refused(name, options, said):
    with pytest.raises(RecipeError, match=said):
        JUDGES.get(name)(Grading(lambda answer, attempt: 1), **options)


def test_right_is_what_is_proved_and_opinions_prove_nothing(walls):
    assert by_output()(asked("p", "# 1\n", count=2), ["# 1\n", "# 2\n"]) == [True, False]
    samples = make_table(
        {
            "prompt": [ADD, ADD, ADD, "print(1)\n# output\n", "q"],
            "answer": ["    return a + b\n"] * 3 + ["# 1\n", ""],
            "tests": [ASSERTS] * 3 + [None, None],
        }
    )
    texts = ["    return a + b\n", "    return b + a\n", "    return b - a\n", "# 2\n", "x"]
    assert by_output()(samples, texts) == [True, None, None, False, None]
    assert by_tests()(samples, texts) == [True, True, False, None, None]
    assert first_decision(by_output(), by_tests())(samples, texts) == [True, True, False, False, None]
    with pytest.raises(RecipeError, match="verify nothing"):
        proof(JUDGES.get("static")())


def test_a_later_right_is_asked_only_about_what_is_open():
    seen = []

    def late(samples, attempts):
        seen.append((samples.num_rows, list(attempts)))
        return [False] * len(attempts)

    samples = asked("p", "a", "t", count=2)
    assert first_decision(by_output(), late)(samples, ["a", "b"]) == [True, False]
    assert seen == [(1, ["b"])]
