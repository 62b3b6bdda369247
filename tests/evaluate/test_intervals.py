"""Facts about intervals and the shape that other programs read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gradatim.evaluation import summary, wilson
from gradatim.stage import Counts, SuiteResult


@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(passed, total, confidence):
    passed = min(passed, total)
    expected = binomtest(passed, total).proportion_ci(confidence, method="wilson")
    assert wilson(passed, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_wilson_holds_the_share_and_stays_within_bounds(share, total):
    low, high = wilson(share * total, total)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_nothing_measured_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, 5, 1.0), (1, 5, 0.0)])
def test_what_is_not_a_share_is_refused(arguments):
    with pytest.raises(ValueError, match=r"share|confidence"):
        wilson(*arguments)


def test_a_summary_has_the_stable_shape_and_its_counts_add_up():
    outcome = {"passed": Counts(6, 6), "failed": Counts(0, 1), "too_long": Counts(0, 2), "invalid": Counts(0, 1)}
    counts = {"all": {"all": Counts(6, 10)}, "outcome": outcome}
    found = json.loads(json.dumps(summary(SuiteResult("line", "greedy", counts, {"edit_similarity": (7.5, 10)}))))
    assert found["counts"] == {"passed": 6, "failed": 3, "timeout": 0, "invalid": 1, "total": 10}
    assert list(found["scores"]) == ["accuracy", "edit_similarity"]
    assert found["scores"]["accuracy"]["value"] == 0.6
    assert found["scores"]["edit_similarity"]["value"] == 0.75
    for score in found["scores"].values():
        assert 0 <= score["low"] < score["value"] < score["high"] <= 1


def test_naming_the_suites_imports_nothing_heavy():
    script = (
        "import sys; from gradatim.evaluation import SUITES; SUITES.names()\n"
        "own = {'choice': {'problems': 'questions.jsonl'}, 'episodes': {}}\n"
        "[SUITES.get(name)(**own.get(name, {'protocol': 'greedy'})) for name in SUITES.names()]\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
