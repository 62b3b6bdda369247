"""Facts about the edit distance."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.evaluation.completion import edit_distance, edit_similarity, fuzzy_ratio

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


@pytest.mark.parametrize(
    ("attempt", "truth", "per_cent"),
    [
        ("", "", 100),
        ("", "a", 0),
        ("a", "", 0),
        ("print(a)", "print(a)", 100),
        ("a = 1", "a = 2", 80),  # 2 x 4 of 10 characters; 1 - distance / length is 80 as well
        ("ab", "ba", 50),  # one block of one character; 0 by distance
        ("this is a test", "this is a test!", 97),  # the example of fuzzywuzzy's own page
        ("abcd", "dcba", 25),
        ("tide", "diet", 25),  # difflib's own example: the order of the two matters
        ("diet", "tide", 50),
    ],
)
def test_the_fuzzy_ratio_is_fuzzywuzzys(attempt: str, truth: str, per_cent: int) -> None:
    assert fuzzy_ratio(attempt, truth) == per_cent / 100


@given(st.text("ab(= \t1", max_size=30), st.text("ab(= \t1", max_size=30))
def test_the_fuzzy_ratio_counts_matching_blocks_in_whole_per_cent(one: str, other: str) -> None:
    matched = sum(block.size for block in SequenceMatcher(None, one, other).get_matching_blocks())
    share = 2 * matched / (len(one) + len(other)) if one or other else 1.0
    assert fuzzy_ratio(one, other) == pytest.approx(share, abs=0.0051)
