"""Facts about CRUXEval: what is asked, what of a reply is the answer, and which answers are right."""

from __future__ import annotations

from typing import Any

import pytest
from behind_walls import lines, needs_data, walls

from gradatim.errors import DataError
from gradatim.evaluation.cruxeval import Crux, answer_in, crux_problems, cruxeval, question
from gradatim.evaluation.problems import Problem, Sample
from gradatim.evaluation.verdicts import judge
from gradatim.sandbox.limits import Limits

__all__ = ["walls"]  # a fixture

ROWS: list[dict[str, Any]] = [
    {"id": "s0", "code": "def f(a, b=2):\n    a.append(b)\n    return a", "input": "[1], 3", "output": "[1, 3]"},
    {"id": "s1", "code": "def f():\n    return 'x'", "input": "", "output": "'x'"},
]

OUTPUTS = {
    "the value": ("[1, 3]\n", "[1, 3]"),
    "the assertion": ("assert f([1], 3) == [1, 3]", "[1, 3]"),
    "the comparison": ("f([1], 3) == [1, 3]", "[1, 3]"),
    "closed": ("[1, 3]\n[/ANSWER]\nand so on", "[1, 3]"),
    "marked again": ("[ANSWER]\nassert f([1], 3) == [1, 3]\n[/ANSWER]", "[1, 3]"),
    "in a fence": ("```python\nassert f([1], 3) == [1, 3]\n```", "[1, 3]"),
    "in back-quotes": ("`[1, 3]`", "[1, 3]"),
    "a comparison of its own": ("1 == 2", "1 == 2"),
    "a tuple": ("1, 2", "1, 2"),
    "a text with equals signs": ("'a == b'", "'a == b'"),
    "other letters": ("assert f('ü') == 'ßü'", "'ßü'"),
}
INPUTS = {
    "the arguments": ("[1], 3", "[1], 3"),
    "the assertion": ("assert f([1], 3) == [1, 3]", "[1], 3"),
    "the call": ("f([1], b=(3))", "[1], b=(3)"),
    "named": ("a=[1], b=3", "a=[1], b=3"),
    "starred": ("*[[1], 3]", "*[[1], 3]"),
    "none": ("f()", ""),
    "brackets in a text": ("assert f(')(') == 1", "')('"),
}
NOTHING = ["", "  ", "I think it is", "1)\nimport os\n(1", "x += 5", "assert", "[" * 5000, "1 +", "\0", "x" * 30_000]


@pytest.mark.parametrize(("reply", "answer"), OUTPUTS.values(), ids=OUTPUTS)
def test_the_value_is_cut_out_of_a_reply(reply, answer):
    assert answer_in(reply, "output", open_tag=True) == answer


@pytest.mark.parametrize(("reply", "answer"), INPUTS.values(), ids=INPUTS)
def test_the_arguments_are_cut_out_of_a_reply(reply, answer):
    assert answer_in(reply, "input", open_tag=True) == answer


@pytest.mark.parametrize("reply", NOTHING)
@pytest.mark.parametrize("direction", ["output", "input"])
def test_what_is_no_expression_is_no_answer(reply, direction):
    assert answer_in(reply, direction, open_tag=True) is None


def test_after_thinking_only_what_is_marked_is_the_answer():
    reply = "It appends 3.\n[/THOUGHT]\n[ANSWER]\nassert f([1], 3) == [1, 3]\n[/ANSWER]"
    assert answer_in(reply, "output") == "[1, 3]"
    assert answer_in("It appends 3, so [1, 3].", "output") is None


def test_an_answer_is_parsed_and_never_run(tmp_path):
    target = tmp_path / "made"
    for direction in ("output", "input"):
        assert answer_in(f"open({str(target)!r}, 'w')", direction, open_tag=True)
    assert not target.exists()


@pytest.mark.parametrize("direction", ["output", "input"])
@pytest.mark.parametrize("reasoning", [False, True])
def test_a_question_shows_the_function_once_and_hides_what_is_asked(tmp_path, direction, reasoning):
    found = crux_problems(lines(tmp_path / "c.jsonl", ROWS), direction)
    text = question(found.problems["s0"], direction, reasoning)
    asked = text.rpartition("[PYTHON]")[2]
    assert asked.startswith(f"\n{ROWS[0]['code']}\n")
    hidden, shown = ("output", "input") if direction == "output" else ("input", "output")
    assert ROWS[0][shown] in asked.partition("assert")[2]
    assert ROWS[0][hidden] not in asked.partition("assert")[2]
    assert text.endswith("[THOUGHT]\n" if reasoning else "[ANSWER]\n")
    assert text.count("[THOUGHT]") == (3 if reasoning else 0)
    chat = question(found.problems["s0"], direction, reasoning, chat=True)
    assert chat.endswith("[/PYTHON]")


def test_the_examples_of_the_questions_are_true(tmp_path):
    from gradatim.evaluation.cruxeval import _EXAMPLES

    for code, given, returned, _, _ in _EXAMPLES:
        space: dict[str, Any] = {}
        exec(f"{code}\nholds = f({given}) == {returned}", space)  # trusted: this project's own text
        assert space["holds"]


def judged(problems: Any, direction: str, answers: dict[str, str], *, task: str = "s0") -> dict[str, str]:
    suite = cruxeval(direction=direction)  # type: ignore[arg-type]
    assert isinstance(suite, Crux)
    samples = [Sample(task, text, draw=number) for number, text in enumerate(answers)]
    found = judge(problems, samples, candidate=suite.read, limits=Limits(cpu_seconds=1.0))
    named = dict(zip(answers, answers.values(), strict=True))
    return {named[each.sample.text]: each.verdict.outcome for each in found}


@pytest.mark.usefixtures("walls")
def test_an_output_is_right_when_it_is_equal_in_value(tmp_path):
    problems = crux_problems(lines(tmp_path / "c.jsonl", ROWS), "output").problems
    found = judged(
        problems,
        "output",
        {
            "[1, 3]": "literal",
            "[1] + [3]": "expression",
            "list((1, 3))": "call of a builtin",
            "[1, 4]": "wrong",
            "(1, 3)": "a tuple",
            "f([1], 3)": "asking the function itself",
            "type('E', (), {'__eq__': lambda self, other: True})()": "equal to everything",
            "__import__('os')._exit(0)": "ending the process",
            "1)\nimport os\n(1": "an injection",
        },
    )
    passed = {name for name, outcome in found.items() if outcome == "passed"}
    assert passed == {"literal", "expression", "call of a builtin"}
    assert found["an injection"] == "invalid"


@pytest.mark.usefixtures("walls")
def test_any_input_that_gives_the_output_is_right(tmp_path):
    problems = crux_problems(lines(tmp_path / "c.jsonl", ROWS), "input").problems
    found = judged(
        problems,
        "input",
        {
            "[1], 3": "the file's own",
            "f(a=[1], b=3)": "named",
            "*[[1], 3]": "starred",
            "[1]": "another value",
            "[1], 3, 5": "too many",
            "type('L', (list,), {'append': lambda self, b: None})([1, 3])": "a list that lies",
            "globals().update(f=lambda *a: [1, 3]) or 1": "another function",
        },
    )
    assert {name for name, outcome in found.items() if outcome == "passed"} == {"the file's own", "named", "starred"}
    assert judged(problems, "input", {"f()": "no arguments"}, task="s1") == {"no arguments": "passed"}


@pytest.mark.usefixtures("walls")
def test_an_input_on_which_the_function_never_ends_is_not_right_and_the_next_is_judged(tmp_path):
    row = {"id": "s0", "code": "def f(n):\n    while n: n += 1\n    return n", "input": "0", "output": "0"}
    problems = crux_problems(lines(tmp_path / "c.jsonl", [row]), "input").problems
    assert judged(problems, "input", {"1": "endless", "0": "right"}) == {"endless": "timeout", "right": "passed"}


def test_functions_that_cannot_be_used_are_named(tmp_path):
    rows = [ROWS[0], {**ROWS[1], "output": None}, ROWS[0], "junk"]
    found = crux_problems(lines(tmp_path / "c.jsonl", rows), "output")
    assert list(found.problems) == ["s0"]
    assert [each.cause.split(";")[0] for each in found.rejected] == [
        "no field 'output'",
        "a second function with the id s0",
        "not JSON",
    ]
    with pytest.raises(DataError, match="rows with id, code, input, output"):
        crux_problems(lines(tmp_path / "d.jsonl", [{"task_id": "HumanEval/0"}]), "output")


@pytest.mark.usefixtures("walls")
def test_an_input_may_use_what_stands_beside_the_function_but_not_the_function(tmp_path):
    row = {"id": "s0", "code": "start = [1, 2]\ndef f(a):\n    return a[0]", "input": "start[:]", "output": "1"}
    problems = crux_problems(lines(tmp_path / "c.jsonl", [row]), "input").problems
    found = judged(problems, "input", {"start[:]": "beside", "[f([1])]": "itself"})
    assert found == {"beside": "passed", "itself": "failed"}


@needs_data
@pytest.mark.slow
@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("direction", ["output", "input"])
def test_the_true_answers_of_all_eight_hundred_functions_pass(direction):
    problems = crux_problems("cruxeval", direction).problems
    suite = cruxeval(direction=direction)
    assert isinstance(suite, Crux)
    samples = [Sample(task, problem.reference) for task, problem in problems.items()]
    assert len(samples) == 800
    assert [each for each in judge(problems, samples, candidate=suite.read) if not each.verdict.passed] == []


@needs_data
@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("direction", ["output", "input"])
def test_the_true_answers_of_fifty_functions_pass_and_their_neighbours_answers_do_not(direction):
    problems = dict(list(crux_problems("cruxeval", direction).problems.items())[:50])
    references = [problem.reference for problem in problems.values()]
    shifted = references[1:] + references[:1]
    suite = cruxeval(direction=direction)
    assert isinstance(suite, Crux)
    true = [Sample(task, text) for task, text in zip(problems, references, strict=True)]
    false = [Sample(task, text) for task, text in zip(problems, shifted, strict=True)]
    assert all(each.verdict.passed for each in judge(problems, true, candidate=suite.read))
    assert sum(each.verdict.passed for each in judge(problems, false, candidate=suite.read)) <= 3


@pytest.mark.parametrize(
    "reply",
    [
        "<think>[ANSWER]assert f(1) == 2[/ANSWER]?</think>[ANSWER]assert f(1) == 3[/ANSWER]",
        "[ANSWER]assert f(1) == 2[/ANSWER] no\n</think>\n[ANSWER]assert f(1) == 3[/ANSWER]",
    ],
)
def test_an_answer_in_the_thinking_of_a_chat_model_is_not_its_answer(reply):
    problem = Problem("a", "python", "", "", entry_point="answer")
    suite = cruxeval(chat=True)
    found = suite.read(problem, Sample("a", reply, "reply"))
    assert "3" in found.code
    cut = suite.read(problem, Sample("a", "<think>[ANSWER]assert f(1) == 2[/ANSWER]", "reply"))
    assert cut.outcome == "invalid"
