"""Are the numbers that decide a study right? Checked against sums done by hand and against chance itself."""

from __future__ import annotations

import math
import random

import pytest

from gradatim.evaluation.statistics import compare, holm, paired_difference, t_interval, wilson_interval

PAIRED = {"arm": {1: 0.71, 2: 0.73, 3: 0.72, 9: 0.99}, "base": {1: 0.70, 2: 0.71, 3: 0.69, 8: 0.10}}


def test_wilson_agrees_with_the_interval_worked_out_by_hand():
    interval = wilson_interval(8, 10)
    assert interval.low == pytest.approx(0.490163, abs=1e-6)
    assert interval.high == pytest.approx(0.943317, abs=1e-6)


def test_wilson_of_no_success_starts_at_zero_and_ends_at_z_squared_over_n_plus_z_squared():
    interval = wilson_interval(0, 10)
    assert interval.low == 0
    assert interval.high == pytest.approx(3.841459 / 13.841459, abs=1e-6)


def test_wilson_without_items_is_undefined():
    assert wilson_interval(0, 0) is None


def test_wilson_refuses_more_passed_than_asked():
    with pytest.raises(ValueError, match="11 of 10"):
        wilson_interval(11, 10)


def test_paired_difference_agrees_with_the_t_test_worked_out_by_hand():
    found = paired_difference("arm", "base", PAIRED)  # differences 0.01, 0.02, 0.03: sd 0.01, t = 2·√3, 2 degrees
    assert found.seeds == (1, 2, 3)
    assert found.mean == pytest.approx(0.02)
    assert found.interval.low == pytest.approx(0.02 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-7)
    assert found.interval.high == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3), abs=1e-7)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)


def test_only_seeds_that_both_arms_have_are_paired():
    assert 9 not in paired_difference("arm", "base", PAIRED).seeds


def test_one_seed_has_a_difference_but_no_interval_and_says_why():
    found = paired_difference("a", "b", {"a": {1: 0.8}, "b": {1: 0.7}})
    assert found.mean == pytest.approx(0.1)
    assert found.interval is None
    assert found.p is None
    assert "one seed" in found.undefined


def test_no_common_seed_has_no_difference_and_says_why():
    found = paired_difference("a", "b", {"a": {1: 0.8}, "b": {2: 0.7}})
    assert found.mean is None
    assert "no seed" in found.undefined


def test_equal_differences_are_not_taken_for_certainty():
    same = {"a": {1: 0.8, 2: 0.6, 3: 0.5}, "b": {1: 0.7, 2: 0.5, 3: 0.4}}
    found = paired_difference("a", "b", same)
    assert found.p is None
    assert found.interval is None
    assert "same in every seed" in found.undefined


def test_holm_agrees_with_the_correction_worked_out_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_never_exceeds_one():
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_an_undefined_comparison_still_counts_as_a_question_asked():
    assert holm({"a": 0.01, "b": None}) == {"a": 0.02, "b": None}


def test_compare_leaves_out_the_arm_itself_and_corrects_over_the_others():
    scores = {**PAIRED, "other": {1: 0.7, 2: 0.6, 3: 0.8}}
    found = compare(scores, ["base", "arm", "other"], "base")
    assert [difference.arm for difference in found] == ["arm", "other"]
    assert found[0].p_holm == pytest.approx(2 * found[0].p)


def test_under_five_seeds_nothing_is_significant_whatever_p_says():
    base = {seed: 0.5 for seed in range(9)}
    arm = {seed: 0.9 + 0.001 * seed for seed in range(9)}
    four = compare({"a": {s: arm[s] for s in range(4)}, "b": base}, ["a"], "b")[0]
    five = compare({"a": {s: arm[s] for s in range(5)}, "b": base}, ["a"], "b")[0]
    assert four.too_few
    assert four.p_holm < 0.001
    assert not four.significant()
    assert five.significant()


@pytest.mark.parametrize("seeds", [3, 6])
def test_nineteen_of_twenty_intervals_hold_the_true_difference(seeds):
    chance, truth, studies = random.Random(7), 0.02, 1500
    hits = 0
    for _ in range(studies):
        shared = [chance.gauss(0.7, 0.05) for _ in range(seeds)]  # a good seed is good for both arms
        base = {seed: level + chance.gauss(0, 0.01) for seed, level in enumerate(shared)}
        arm = {seed: level + truth + chance.gauss(0, 0.01) for seed, level in enumerate(shared)}
        hits += truth in paired_difference("arm", "base", {"arm": arm, "base": base}).interval
    assert hits / studies == pytest.approx(0.95, abs=3.3 * math.sqrt(0.95 * 0.05 / studies))


def test_without_a_true_difference_few_studies_of_four_arms_find_one():
    chance, studies = random.Random(11), 400
    false = 0
    for _ in range(studies):
        scores = {arm: {seed: chance.gauss(0.7, 0.02) for seed in range(5)} for arm in "abcde"}
        false += any(difference.significant() for difference in compare(scores, "abcde", "a"))
    assert false / studies < 0.05 + 3 * math.sqrt(0.95 * 0.05 / studies)


def test_wilson_holds_the_true_share_about_nineteen_times_of_twenty():
    chance, runs = random.Random(3), 1500
    hits = sum(0.9 in wilson_interval(sum(chance.random() < 0.9 for _ in range(60)), 60) for _ in range(runs))
    assert hits / runs == pytest.approx(0.95, abs=0.025)


def test_one_value_has_no_t_interval():
    assert t_interval([0.7]) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_a_number_leaves_the_difference_undefined(value):
    difference = paired_difference("arm", "base", {"arm": {1: value, 2: 0.5}, "base": {1: 0.4, 2: 0.4}})
    assert (difference.mean, difference.p, difference.interval) == (None, None, None)
    assert difference.undefined == "a score is not a number"
    assert t_interval([value, 0.5]) is None
    assert [row.p_holm for row in compare({"arm": {1: value, 2: 0.5}, "base": {1: 0.4, 2: 0.4}}, ["arm"], "base")] == [
        None
    ]
