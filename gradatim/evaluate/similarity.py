"""How alike are two lines?

Edit similarity is 1 − d / max(length), with Levenshtein's distance d: the fewest characters to insert, delete or
replace. It is 1 for equal lines and 0 when nothing can be kept.

The fuzzy ratio is that of the package fuzzywuzzy, which the authors of 2407.10194 use: twice the characters in matching
blocks over all characters, rounded to whole per cent. The blocks are those of the standard library's ``difflib``, which
fuzzywuzzy takes by itself; where python-Levenshtein is installed too it takes that one's instead, and a few pairs
differ. Compare like with like.
"""

from __future__ import annotations

from difflib import SequenceMatcher

__all__ = ["edit_distance", "edit_similarity", "fuzzy_ratio"]


def edit_similarity(one: str, other: str) -> float:
    """1 − distance / length of the longer, in [0, 1]; 1 for two empty strings."""
    longer = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longer if longer else 1.0


def fuzzy_ratio(attempt: str, truth: str) -> float:
    """fuzzywuzzy's ``ratio(attempt, truth)`` as a share, in whole per cent; the order matters, as it does there."""
    if attempt == truth:
        return 1.0
    if not attempt or not truth:
        return 0.0
    return round(100 * SequenceMatcher(None, attempt, truth).ratio()) / 100


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance by Myers' bit-parallel algorithm (JACM 1999, in Hyyrö's form of 2003).

    A column of the distance table is kept as two whole numbers, whose bit i says whether the distance rises or
    falls from row i to i + 1; one step over ``other`` is then a dozen operations on whole numbers instead of a loop
    over ``one``.
    """
    if not one or not other:
        return len(one) + len(other)
    places: dict[str, int] = {}
    for number, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << number
    everything = (1 << len(one)) - 1
    last = 1 << len(one) - 1
    rises, falls, distance = everything, 0, len(one)
    for character in other:
        here = places.get(character, 0)
        level = (((here & rises) + rises) ^ rises) | here | falls
        row_rises = falls | ~(level | rises)
        row_falls = rises & level
        distance += bool(row_rises & last) - bool(row_falls & last)
        row_rises = row_rises << 1 | 1
        rises = (row_falls << 1 | ~(level | row_rises)) & everything
        falls = row_rises & level & everything
    return distance
