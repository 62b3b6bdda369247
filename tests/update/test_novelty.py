"""What is new, and what gives the evaluation away."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.distillation import Contamination, Known, problem_texts, rouge_l
from gradatim.evaluation.problems import Problem
from gradatim.programs import canonical, generate

FEW = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f1", "22"]), max_size=30)
WORDS = [f"word{number}" for number in range(400)]


def by_table(one, other):
    """The longest common subsequence, by the table that everyone knows."""
    row = [0] * (len(other) + 1)
    for left in one:
        before = row
        row = [0]
        for place, right in enumerate(other):
            row.append(before[place] + 1 if left == right else max(row[-1], before[place + 1]))
    return row[-1]


@settings(deadline=None, max_examples=50)
@given(FEW, FEW)
def test_rouge_l_is_twice_the_common_subsequence_over_both_lengths(one, other):
    expected = 2 * by_table(one, other) / (len(one) + len(other)) if one and other else 0.0
    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(expected)


@pytest.mark.slow  # for what that package imports
@settings(deadline=None)
@given(FEW, FEW)
def test_rouge_l_is_that_of_the_package_rouge_score(one, other):
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="pip install rouge-score").RougeScorer(["rougeL"])
    left, right = "Do: " + ", ".join(one).upper(), "do_" + "-".join(other)
    assert rouge_l(left, right) == pytest.approx(scorer.score(left, right)["rougeL"].fmeasure)


@settings(deadline=None, max_examples=40)
@given(st.lists(FEW, max_size=8), FEW, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_the_index_refuses_just_what_every_comparison_would(known, question, limit):
    texts, text = [" ".join(each) for each in known], " ".join(question)
    reached = any(2 * by_table(each, question) >= limit * (len(each) + len(question)) for each in known if each)
    expected = "empty" if not question else "like_known" if reached else None
    assert Known(texts, limit=limit).refuses(text) == expected


def test_a_question_is_compared_with_five_thousand_in_little_time():
    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=40)) for _ in range(5_000)]
    known = Known(texts)
    asked = [" ".join(chance.choices(WORDS, k=40)) for _ in range(20)] + texts[:20]
    started = time.process_time()
    found = [known.refuses(text) for text in asked]
    each = (time.process_time() - started) / len(asked)
    assert found == [None] * 20 + ["like_known"] * 20
    started = time.process_time()
    for text in texts[:100]:
        by_table(text.split(), asked[0].split())
    every_comparison = (time.process_time() - started) / 100 * len(texts)
    assert each < every_comparison / 20


def test_a_renamed_program_is_not_new_and_another_is():
    table = generate(30, seed=5).table
    known = Known(table["prompt"].to_pylist())
    assert all(known.refuses(canonical(prompt)) == "same_program" for prompt in table["prompt"].to_pylist())
    assert known.refuses("zq = 12345\nprint(zq)\n# output\n") is None
    known.add("a = 12345\nprint(a)\n# output\n")
    assert known.refuses("zq = 12345\nprint(zq)\n# output\n") == "same_program"


PROBLEM = Problem(
    "T/0",
    "python",
    'def total(values, least):\n    """Add up all the values in the list that are greater than the given least one,'
    ' then return their sum as a whole number."""\n',
    "assert True",
    reference="    found = 0\n    for value in values:\n        if value > least:\n            found += value\n"
    "    return found\n",
)
EVALUATED = Contamination(problem_texts([PROBLEM]))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (PROBLEM.prompt, "same_problem"),
        (PROBLEM.prompt.upper(), "same_problem"),
        (PROBLEM.prompt.replace("values", "numbers").replace("least", "low"), None),  # the words are others then
        (PROBLEM.prompt.replace("total", "summed"), "same_problem"),
        (
            "Please: add up all the values in the list that are greater than the given least one!",
            "problem_words",
        ),
        ("Write a function that returns the sum of a list.", None),
        ("", None),
        (
            "def f(xs, k):\n    s = 0\n    for x in xs:\n        if x > k:\n            s += x\n    return s\n",
            "same_problem",
        ),
        ("def f(xs, k):\n    s = 0\n    for x in xs:\n        if x < k:\n            s += x\n    return s\n", None),
    ],
)
def test_how_a_text_gives_a_problem_away(text, cause):
    assert EVALUATED.refuses(text) == cause


def test_a_short_problem_is_met_as_a_whole_and_a_tiny_one_only_alone():
    short = Contamination(["Return the largest of three numbers", "Add two"])
    assert short.refuses("Now return the largest of three numbers, and print it") == "problem_words"
    assert short.refuses("Add two numbers and return their sum") is None
    assert short.refuses("add two!") == "same_problem"


def test_a_long_problem_with_a_word_changed_here_and_there_is_nearly_the_same():
    chance = random.Random(3)
    problem = chance.choices(WORDS, k=120)
    changed = [word if place % 12 else "other" for place, word in enumerate(problem)]
    evaluated = Contamination([" ".join(problem)])
    assert evaluated.refuses(" ".join(changed)) is None
    changed = [word if place % 13 or place % 2 else "other" for place, word in enumerate(problem)]
    assert evaluated.refuses(" ".join(changed)) == "problem_words"
    few = [word if place % 11 != 5 else "other" for place, word in enumerate(problem[:24])]
    assert Contamination([" ".join(problem[:24])]).refuses(" ".join(few)) is None
    one = [*problem[:12], "other", *problem[13:25]]
    assert Contamination([" ".join(problem[:25])]).refuses(" ".join(one)) == "near_problem"


def test_without_an_evaluation_nothing_gives_it_away():
    assert Contamination().refuses("anything at all") is None
