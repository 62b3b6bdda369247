"""Values of each metric, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.complexity import lexemes
from gradatim.difficulty.python_source import parse, scored_text
from gradatim.difficulty.score import standardised
from gradatim.errors import RecipeError, UnknownPart
from gradatim.programs import generate
from gradatim.table import make_table


def scores(name: str, *sources: str, **options: object) -> list[float]:
    return DIFFICULTIES.get(name)(**options)(make_table({"answer": list(sources)})).tolist()


# Which text is scored


def test_the_program_of_a_tinypy_sample_ends_before_its_output_line() -> None:
    assert scored_text("a = 1\nprint(a)\n# output\n", "# 1\n") == "a = 1\nprint(a)\n"


def test_a_comment_that_only_ends_like_the_output_line_is_part_of_the_program() -> None:
    assert scored_text("a = 1 # output\n", "b = 2\n") == "a = 1 # output\nb = 2\n"


def test_an_instruction_in_words_is_not_scored() -> None:
    assert scored_text("Write a program that prints 1.", "print(1)\n") == "print(1)\n"


def test_the_beginning_of_a_program_is_scored_with_its_continuation() -> None:
    assert scored_text("def f(x):\n", "    return x\n") == "def f(x):\n    return x\n"


def test_without_a_prompt_the_answer_is_scored() -> None:
    assert scored_text("", "print(1)\n") == scored_text("\n", "print(1)\n") == "print(1)\n"


# Token-level Halstead


def test_halstead_counts_assignments_calls_and_keywords() -> None:
    # a = 3 / print(a): operators = and ( ; operands a, 3, print, a: (2 / 2) * (4 / 3)
    assert scores("halstead", "a = 3\nprint(a)\n") == [4 / 3]


def test_a_loop_is_harder_for_halstead_than_for_om() -> None:
    loop = "for i in range(2, 8, 2) :\n\tprint(i)\n"
    # operators for in ( , :  operands i range 2 8 2 print i, five of them distinct: (5 / 2) * (7 / 5)
    assert scores("halstead", loop) == [3.5]


def test_comments_and_layout_do_not_change_halstead() -> None:
    assert scores("halstead", "a=3 # x\n\n\nprint( a )\n") == scores("halstead", "a = 3\nprint(a)\n")


NUMBERS = st.sampled_from(["0", "12", "0x1F", "0b1", "0o7", "1_000", "1.5", ".5", "1.", "1e5", "2j", "3.e-2j", "..."])
NAMES = st.sampled_from(
    ["x", "_y1", "True", "match", "(a, b)", "[.5]", "x[1:.5]", "f(a:=1)", "(lambda: 0xfF)", "{1: 2}"]
)
OPERANDS = NUMBERS | NAMES | st.sampled_from(["a.b", "f(*a, **b)", "~x", "{x for x in y}"])
ARITHMETIC = st.sampled_from([" + ", "+", "-", "- -", "**", "* ", "//", "/", "<<", ">>", "@", "&", "|", "^", "%", ", "])
WORDS = st.sampled_from(["!=", "<=", "==", ">", " if x else ", " and not ", " in ", " is not "])
SIGNS = ARITHMETIC | WORDS | st.sampled_from([" # + -\n", "\n", "; ", "\nx = ", "\nx **= ", "\nx: y = "])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(OPERANDS, SIGNS), max_size=8), OPERANDS)
def test_a_plain_text_is_read_as_the_standard_reader_reads_it(parts: list[tuple[str, str]], last: str) -> None:
    text = "".join(operand + sign for operand, sign in parts) + last + "\n"
    assume(parse(text) is not None)
    # A quote anywhere sends the whole text to the standard reader, and a comment has no lexemes.
    assert list(lexemes(text)) == list(lexemes(f"{text}# it's\n"))


def test_programs_of_every_level_are_read_as_the_standard_reader_reads_them() -> None:
    for text in generate(400, seed=5).table["prompt"].to_pylist():
        assert list(lexemes(text)) == list(lexemes(f"{text}# it's\n"))


# Size, nesting, compression


def test_size_counts_what_it_is_told_to_count() -> None:
    source = "a = 3\n\nprint(a)\n"
    assert scores("size", source) == [len(source)]
    assert scores("size", source, unit="tokens") == [6]
    assert scores("size", source, unit="lines") == [2]
    with pytest.raises(RecipeError, match="unit"):
        scores("size", source, unit="words")


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("a = 1\n", 0),
        ("if a:\n    b\n", 1),
        ("if a:\n    b\nelif c:\n    d\nelif e:\n    f\nelse:\n    g\n", 1),
        ("if a:\n    b\nelse:\n    if c:\n        d\n", 2),
        ("for a in b:\n    while c:\n        d\n", 2),
        ("def f():\n    try:\n        a\n    except B:\n        with c:\n            d\n", 3),
        ("match a:\n    case 1:\n        b\n", 1),
        ("x = lambda: a if b else c\n", 0),
    ],
)
def test_nesting_is_the_depth_of_the_deepest_statement(source: str, depth: int) -> None:
    assert scores("nesting", source) == [depth]


def test_what_repeats_itself_compresses_better() -> None:
    again, fresh = "print(1)\n" * 20, "".join(f"{chr(97 + i)}{i} = {i * i * 37}\n" for i in range(20))
    for unit in ("ratio", "bytes"):
        low, high = scores("compression", again, fresh, unit=unit)
        assert low < high


# Rarity


def test_rarity_is_the_mean_surprisal_of_the_constructs_of_the_table() -> None:
    # "a" is Module>Expr, Expr>Name (2 edges); "a = 1" is Module>Assign, Assign>Name, Assign>Constant.
    # Of 3 * 2 + 3 = 9 edges, Module>Expr and Expr>Name have 3 each, the others 1 each.
    common, _, _, rare = scores("rarity", "a", "b", "c", "a = 1")
    assert common == pytest.approx(math.log2(3))
    assert rare == pytest.approx(math.log2(9))


def test_rarity_is_about_the_table_it_is_scored_in() -> None:
    among_calls = scores("rarity", "f(1)", "f(2)", "f(3)", "a + b")
    among_sums = scores("rarity", "f(1)", "c + d", "e + g", "a + b")
    assert among_calls[3] > among_calls[0]
    assert among_sums[3] < among_sums[0]


def test_names_and_numbers_are_no_constructs_but_called_functions_are() -> None:
    plain = scores("rarity", "a = 1 + x", "b = 2 + y")
    assert plain[0] == plain[1]
    called = scores("rarity", "f(1)", "f(1)", "g(1)")
    assert called[2] > called[0]


# Trace


@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("a = 1\nb = 2\nprint(a + b)\n", 3),
        ("a = 1\nif a > 2 :\n\tprint(1)\nelse :\n\tprint(2)\n", 3),
        ("for i in range(3) :\n\tprint(i)\n", 1 + 3 * 2),
        ("a = 0\nwhile a < 4 :\n\ta = a + 1\nprint(a)\n", 2 + 4 * 2 + 1),
        ("for i in range(0) :\n\tprint(i)\n", 1),
    ],
)
def test_trace_counts_statements_and_turns(source: str, steps: int) -> None:
    assert scores("trace", source) == [steps]


@pytest.mark.parametrize(
    "source", ["print(1 / 0)\n", "print(x)\n", "import os\n", "while 1 > 0 :\n\ta = 1\n", "__import__('os')\n"]
)
def test_what_fails_or_never_ends_or_is_not_tinypy_has_no_trace(source: str) -> None:
    assert np.isnan(scores("trace", source)).all()


def test_the_limit_of_a_trace_is_exact() -> None:
    source = "for i in range(3) :\n\tprint(i)\n"
    assert scores("trace", source, limit=7) == [7]
    assert np.isnan(scores("trace", source, limit=6)).all()


def test_loops_take_more_steps_than_straight_programs() -> None:
    loops = generate(200, levels=("3.1", "4.1"), seed=1).table
    straight = generate(200, levels=("1.1",), seed=1).table
    trace = DIFFICULTIES.get("trace")()
    assert np.median(trace(loops)) > np.median(trace(straight))


# Composite


def test_composite_is_the_weighted_mean_of_its_parts_on_one_scale() -> None:
    table = generate(100, seed=2).table
    parts = {name: standardised(DIFFICULTIES.get(name)()(table), "z") for name in ("size", "nesting")}
    mixed = DIFFICULTIES.get("composite")(weights={"size": 3, "nesting": 1})(table)
    assert np.allclose(mixed, 0.75 * parts["size"] + 0.25 * parts["nesting"])
    assert abs(mixed.mean()) < 1e-9


def test_ranks_share_the_place_of_equal_values() -> None:
    ranks = standardised(np.array([5.0, np.nan, 1.0, 5.0, 9.0]), "rank")
    assert np.array_equal(ranks, [0.5, np.nan, 0.125, 0.5, 0.875], equal_nan=True)


def test_a_part_that_is_the_same_everywhere_does_not_spoil_the_composite() -> None:
    assert scores("composite", "a = 1\n", "b = 2\n") == [0, 0]


@pytest.mark.parametrize("weights", [{}, {"size": 0}, {"size": -1}, {"composite": 1}, {"size": "much"}])
def test_weights_that_make_no_composite_are_refused(weights: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        DIFFICULTIES.get("composite")(weights=weights)


def test_a_part_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownPart, match="did you mean 'nesting'"):
        DIFFICULTIES.get("composite")(weights={"nestign": 1})


def test_given_is_the_number_in_the_column_and_nothing_where_there_is_none() -> None:
    samples = make_table({"answer": ["a", "b", "c", "d", "e"], "level": ["1.1", "0.2", "", "hard", "inf"]})
    assert np.array_equal(DIFFICULTIES.get("column")()(samples), [1.1, 0.2, np.nan, np.nan, np.nan], equal_nan=True)
    rated = samples.append_column("stars", pa.array([3, None, 1, 2, 5]))
    stars = DIFFICULTIES.get("column")(column="stars")(rated)
    assert np.array_equal(stars, [3, np.nan, 1, 2, 5], equal_nan=True)


def test_given_names_the_columns_there_are() -> None:
    samples = make_table({"answer": ["a"]})
    with pytest.raises(RecipeError, match=r"difficulty\.column.*no such column.*'stars'.*prompt, answer"):
        DIFFICULTIES.get("column")(column="stars")(samples)
