"""Several views become one score, one verdict, one grade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.distillation import View
from gradatim.distillation.judge import Thresholds, check_weights, combine, grades, mean_of, unjudged, verdict_of
from gradatim.errors import RecipeError

PASSED, FAILED, NONE = View(1.0, "passed"), View(0.0, "failed"), unjudged("cannot say")
ANY = st.one_of(st.just(NONE), st.floats(0, 1).map(lambda score: View(score, "passed" if score > 0.5 else "failed")))


def test_the_score_is_the_mean_of_those_that_could_say():
    views = {"one": PASSED, "two": FAILED, "three": NONE}
    assert combine(views, {"one": 3, "two": 1, "three": 96}) == pytest.approx(0.75)
    assert combine({"one": NONE, "two": NONE}, {"one": 1, "two": 1}) is None


def test_a_judge_of_no_weight_is_seen_and_does_not_count():
    assert combine({"one": PASSED, "two": FAILED}, {"one": 1, "two": 0}) == 1
    assert combine({"one": NONE, "two": FAILED}, {"one": 1, "two": 0}) is None


def test_the_least_weight_there_is_counts_where_no_other_does():
    assert combine({"one": View(0.5, "failed", "")}, {"one": 5e-324}) == 0.5


@given(st.lists(st.tuples(ANY, st.floats(0, 1e6)), min_size=1, max_size=5))
def test_a_score_stays_between_the_least_and_the_greatest(pairs):
    views = {str(number): view for number, (view, _) in enumerate(pairs)}
    weights = {str(number): weight for number, (_, weight) in enumerate(pairs)}
    said = [view.score for view, weight in pairs if view.score is not None and weight]
    score = combine(views, weights)
    assert (score is None) == (not said)
    assert score is None or min(said) - 1e-9 <= score <= max(said) + 1e-9 <= 1 + 1e-9
    assert score is None or 0 <= score <= 1


def test_facts_go_before_opinions_and_the_heaviest_opinion_first():
    weights, proves = {"output": 1, "tests": 1, "static": 5, "rubric": 9}, {"output": True, "tests": True}
    proves |= {"static": False, "rubric": False}
    opinions = {"static": PASSED, "rubric": PASSED}
    assert verdict_of({"output": NONE, "tests": FAILED, **opinions}, weights, proves) == FAILED
    assert verdict_of({"output": PASSED, "tests": FAILED, **opinions}, weights, proves) == FAILED
    assert verdict_of({"output": NONE, "tests": NONE, "static": FAILED, "rubric": PASSED}, weights, proves) == PASSED
    assert verdict_of({"output": NONE, "tests": NONE, "static": FAILED, "rubric": NONE}, weights, proves) == FAILED
    nobody = verdict_of({"output": NONE, "rubric": NONE}, weights, proves)
    assert nobody.verdict == "unjudged"
    assert "output: cannot say; rubric: cannot say" in nobody.reason


def test_thresholds_part_easy_middle_and_hard_and_leave_the_unjudged_out():
    scores = [1.0, 0.75, 0.7, 0.5, 0.49, 0.0, None]
    found = grades(scores, easy=0.75, hard=0.5)
    assert found == ["easy", "easy", "middle", "middle", "hard", "hard", "unjudged"]
    assert grades([0.5, 0.49], easy=0.5, hard=0.5) == ["easy", "hard"]


@pytest.mark.parametrize(("easy", "hard"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.5)])
def test_thresholds_that_cross_are_refused(easy, hard):
    with pytest.raises(RecipeError, match="no order"):
        Thresholds(easy, hard)


@pytest.mark.parametrize("weights", [{}, {"output": 0.0}, {"output": -1.0, "tests": 1.0}, {"output": float("nan")}])
def test_weights_under_which_nobody_counts_are_refused(weights):
    with pytest.raises(RecipeError, match="weight"):
        check_weights(weights)


def test_a_questions_score_is_the_mean_of_its_judged_attempts():
    assert mean_of([1.0, None, 0.0, 0.5]) == 0.5
    assert mean_of([None, None]) is None
