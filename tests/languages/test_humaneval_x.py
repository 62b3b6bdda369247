"""HumanEval-X: reference solutions pass, and fail as soon as one expected value is another."""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradatim.languages import Program

FILES = {"cpp": "cpp", "go": "go", "java": "java", "javascript": "js", "python": "python"}
EVERY = pytest.mark.parametrize("name", FILES)
SAMPLE = (0, 81)

WRONG_REFERENCES = {"JavaScript/112", "JavaScript/155"}
"""Reference solutions that fail their own tests: ``console.assert`` only printed it where they were made."""

BY_CHANCE = {"Go/95"}
"""A reference that leaves a walk over a map early: which keys it has seen by then is chance, and so is its verdict."""

Problem = dict[str, Any]


def problems(name: str) -> list[Problem]:
    folder = os.environ.get("GRADATIM_DATA")
    path = Path(folder or ".") / "humaneval-x" / f"humaneval_{FILES[name]}.jsonl.gz"
    if folder is None or not path.is_file():
        pytest.skip("needs HumanEval-X: set GRADATIM_DATA to the folder that holds humaneval-x/")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def program(language: Any, problem: Problem, change: Callable[[str], str] = lambda tests: tests) -> Program:
    setup = problem.get("test_setup", "")
    return language.assemble(problem["prompt"], problem["canonical_solution"], change(problem["test"]), setup=setup)


def first_replaced(old: str, new: str) -> Callable[[str], str]:
    def change(tests: str) -> str:
        changed = re.sub(old, new, tests, count=1)
        assert changed != tests
        return changed

    return change


def negated_from(tests: str, start: int) -> str:
    """The claim that begins at ``start``, after its opening bracket, turned round."""
    depth, end = 1, start
    while depth:
        depth += {"(": 1, ")": -1}.get(tests[end], 0)
        end += 1
    return f"{tests[:start]}!({tests[start : end - 1]}){tests[end - 1 :]}"


def negated_in_cpp(tests: str) -> str:
    """The first ``assert (claim)``."""
    return negated_from(tests, re.search(r"\bassert\s*\(", tests).end())


def negated_in_java(tests: str) -> str:
    """The claim of the ``if`` that leads to the first ``throw new AssertionError``."""
    before = tests[: tests.index("throw new AssertionError")]
    return negated_from(tests, [found.end() for found in re.finditer(r"\bif\s*\(", before)][-1])


def negated_in_python(tests: str) -> str:
    tree = ast.parse(tests)
    claims = [
        node for node in ast.walk(tree) if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)
    ]
    claims[0].test = ast.UnaryOp(ast.Not(), claims[0].test)
    return ast.unparse(ast.fix_missing_locations(tree))


def negated_in_javascript(tests: str) -> str:
    """The first claim can no longer be true."""
    return tests.replace("console.assert(", "console.assert(false && ", 1)


CHANGES = {
    "cpp": negated_in_cpp,
    "go": first_replaced(r"assert\.Equal\(", "assert.NotEqual("),
    "java": negated_in_java,
    "javascript": negated_in_javascript,
    "python": negated_in_python,
}


def usable(name: str, language: Any, chosen: list[Problem]) -> list[Problem]:
    """Problems whose headers are on this machine; the others are told, so that nobody takes them for passed."""
    if name != "cpp":
        return chosen
    lacking = [
        each for each in chosen if "boost/" in each["prompt"] and not Path("/usr/include/boost/any.hpp").exists()
    ]
    print([f"{each['task_id']} needs libboost-dev" for each in lacking])
    return [each for each in chosen if each not in lacking]


def check_all(name: str, language: Any, sandbox: Any, chosen: list[Problem]) -> None:
    chosen = usable(name, language, chosen)
    right = {each["task_id"]: program(language, each) for each in chosen}
    wrong = {each["task_id"]: program(language, each, CHANGES[name]) for each in chosen}
    language.prepare(sandbox, [*right.values(), *wrong.values()])
    verdicts = {task: language.check(sandbox, each) for task, each in right.items()}
    failed = {task for task, verdict in verdicts.items() if not verdict.passed}
    assert failed - BY_CHANCE == WRONG_REFERENCES & set(right)
    verdicts = {task: language.check(sandbox, each) for task, each in wrong.items()}
    assert {task: each for task, each in verdicts.items() if each.outcome != "failed" or "compile" in each.reason} == {}


@EVERY
def test_some_reference_solutions_pass_and_fail_other_tests(name, with_toolchain, sandbox):
    every = problems(name)
    check_all(name, with_toolchain(name), sandbox, [every[index] for index in SAMPLE])


@pytest.mark.slow
@EVERY
def test_every_reference_solution_passes_and_fails_other_tests(name, with_toolchain, sandbox):
    check_all(name, with_toolchain(name), sandbox, problems(name))
