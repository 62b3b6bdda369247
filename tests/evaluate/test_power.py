"""Power of a study and McNemar's test, against textbooks, simulation and exact enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from gradatim.evaluation.statistics import detectable_difference, mcnemar, power, seeds_needed


def test_ten_pairs_detect_a_difference_of_one_standard_deviation_with_80_percent():
    assert power(1.0, 1.0, 10) == pytest.approx(0.803, abs=0.001)  # tables of Cohen (1988)
    assert seeds_needed(1.0, 1.0) == 10


@pytest.mark.parametrize(("difference", "seeds", "comparisons"), [(2.0, 5, 1), (1.5, 5, 4), (0.8, 12, 2), (0.0, 6, 1)])
def test_power_is_the_share_of_simulated_studies_that_are_significant(difference, seeds, comparisons):
    draws = np.random.default_rng(3).normal(difference, 1.0, (40_000, seeds))
    significant = ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05 / comparisons
    assert power(difference, 1.0, seeds, comparisons) == pytest.approx(significant.mean(), abs=0.008)


@pytest.mark.parametrize(("spread", "seeds", "comparisons"), [(0.006, 3, 1), (0.006, 5, 8), (0.02, 20, 2)])
def test_the_detectable_difference_has_80_percent_power(spread, seeds, comparisons):
    difference = detectable_difference(spread, seeds, comparisons)
    assert power(difference, spread, seeds, comparisons) == pytest.approx(0.8, abs=0.001)
    assert seeds_needed(difference * 1.001, spread, comparisons) == seeds


@pytest.mark.parametrize(
    ("seeds", "comparisons", "expected"), [(2, 1, 11.55), (2, 5, 57.7), (3, 20, 14.6), (4, 10, 4.71), (5, 20, 3.78)]
)
def test_few_seeds_and_many_comparisons_have_the_values_of_numerical_integration(seeds, comparisons, expected):
    assert detectable_difference(1.0, seeds, comparisons) == pytest.approx(expected, rel=0.005)


def test_one_seed_detects_nothing():
    assert power(9.0, 1.0, 1) == 0.0
    assert detectable_difference(1.0, 1) == math.inf
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-4, 1.0) is None


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (3, 9), (9, 3), (12, 12), (40, 20)])
def test_mcnemar_is_the_sum_over_all_equally_or_less_likely_outcomes(won, lost):
    total = won + lost
    weights = [math.comb(total, k) for k in range(total + 1)]
    expected = sum(weight for weight in weights if weight <= weights[won]) / 2**total
    assert mcnemar(won, lost) == pytest.approx(expected)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="must not be negative"):
        mcnemar(-1, 3)
