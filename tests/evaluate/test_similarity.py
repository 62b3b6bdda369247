"""Facts about the edit distance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.evaluate.similarity import edit_distance, edit_similarity

WORDS = st.text(alphabet="abc=", max_size=90)


def by_table(one: str, other: str) -> int:
    """The textbook recurrence."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


@given(WORDS, WORDS)
def test_the_distance_is_the_textbooks(one, other):
    assert edit_distance(one, other) == by_table(one, other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 1.0), ("abc", "abc", 1.0), ("abc", "", 0.0), ("abc", "xyz", 0.0), ("kitten", "sitting", 4 / 7)],
)
def test_similarity_of_known_pairs(one, other, expected):
    assert edit_similarity(one, other) == pytest.approx(expected)
    assert edit_similarity(other, one) == pytest.approx(expected)
