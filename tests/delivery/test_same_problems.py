"""Contamination by execution: a question and a problem of which one's program solves the other's tests are the same."""

import json
from pathlib import Path

import pytest

from gradatim.distillation.contamination import SameProblem, same_problems
from gradatim.evaluation.problems import Problem, read_problems
from gradatim.experiment.recipe_files import RECIPES

pytestmark = pytest.mark.usefixtures("sandbox")

SEEDS = [json.loads(line) for line in Path(RECIPES / "distill" / "seeds.jsonl").read_text().splitlines()]


def problem(name: str, prompt: str, reference: str, *checks: str) -> Problem:
    tests = "def check(candidate):\n" + "".join(f"    assert {check}\n" for check in checks)
    return Problem(name, "python", prompt, tests, entry_point=name, reference=reference)


PROBLEMS = {
    entry.id: entry
    for entry in (
        problem(
            "central", 'def central(l: list):\n    """The one between the halves."""\n',
            "    l = sorted(l)\n    n = len(l) // 2\n    return l[n] if len(l) % 2 else (l[n - 1] + l[n]) / 2\n",
            "candidate([3, 1, 2, 4, 5]) == 3", "candidate([-10, 4, 6, 1000, 10, 20]) == 8.0",
        ),
        problem(
            "parts", 'def parts(size: int, items: list):\n    """Slices."""\n',
            "    return [items[n : n + size] for n in range(0, len(items), size)]\n",
            "candidate(2, [1, 2, 3]) == [[1, 2], [3]]", "candidate(3, [1, 2, 3]) == [[1, 2, 3]]",
        ),
        problem(
            "total", 'def total(l: list):\n    """The sum."""\n', "    return sum(l)\n", "candidate([1, 2]) == 3",
            "candidate([]) == 0",
        ),
    )
}  # fmt: skip
MIDDLE = {
    "answer": "def middle(values):\n    ordered = sorted(values)\n    half = len(ordered) // 2\n"
    "    if len(ordered) % 2:\n        return ordered[half]\n    return (ordered[half - 1] + ordered[half]) / 2\n",
    "tests": "assert middle([3, 1, 2]) == 2\nassert middle([4, 1, 3, 2]) == 2.5\n",
}


def test_the_same_problem_in_other_words_is_found_with_arguments_in_any_order() -> None:
    chunks = next(seed for seed in SEEDS if "`chunks(" in seed["prompt"])
    unrelated = {"answer": "def first(items):\n    return items[0]\n", "tests": "assert first([4, 5]) == 4\n"}
    broken = {"answer": "def first(items:\n", "tests": None}
    found = same_problems([unrelated, MIDDLE, broken, chunks], PROBLEMS)
    assert found[:1] == (SameProblem(1, "central", True, True),)
    # A question of ours that raises for a size below 1 is not answered by a reference that does not.
    assert [(pair.row, pair.problem, pair.solves_problem) for pair in found[1:]] == [(3, "parts", True)]


def test_a_function_of_another_arity_and_other_languages_are_not_run() -> None:
    other = Problem("go", "go", "func central(l []int) int {", "", entry_point="central")
    assert same_problems([MIDDLE], {"go": other, "parts": PROBLEMS["parts"]}) == ()


@pytest.mark.slow
def test_no_shipped_seed_solves_a_problem_of_humaneval() -> None:
    """Five of the first twenty-four did: HumanEval/13, 47, 48, 61 and 96."""
    pairs = same_problems(SEEDS, read_problems("humaneval").problems, workers=2)
    assert [pair for pair in pairs if pair.solves_problem] == []


@pytest.mark.slow
def test_an_earlier_seed_is_found_among_the_problems_of_humaneval() -> None:
    problems = read_problems("humaneval").problems
    (pair,) = same_problems([MIDDLE], problems, workers=2)
    assert (pair.problem, pair.solves_problem) == ("HumanEval/47", True)
