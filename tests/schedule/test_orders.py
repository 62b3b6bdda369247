"""Each order has the property that gives it its name, whatever the rows, difficulties and categories."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import DataError, RecipeError
from gradatim.schedule import ORDERS, Bands, OrderContext, category_codes, make_bands, select_rows
from gradatim.stage import StageSpec
from gradatim.table import make_table


@st.composite
def stages(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Some rows of a table with ties in difficulty, and a category for each row of the table."""
    size = draw(st.integers(2, 60))
    scores = np.array(draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)), dtype=float)
    codes = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), dtype=np.int64)
    rows = np.array(sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))), dtype=np.int64)
    return rows, scores, codes, draw(st.integers(0, 2**32))


def arrange(name: str, stage: tuple[np.ndarray, np.ndarray, np.ndarray, int], **options: object) -> np.ndarray:
    rows, scores, codes, seed = stage
    arranged = ORDERS.get(name)(**options)(
        rows, OrderContext(scores, np.random.default_rng(seed), lambda column: codes)
    )
    assert np.array_equal(np.sort(arranged), rows)
    return arranged


def runs(values: np.ndarray) -> list[int]:
    """The values without immediate repetitions."""
    return [int(value) for at, value in enumerate(values) if not at or value != values[at - 1]]


@settings(max_examples=25, deadline=None)
@given(stages())
def test_sorted_rises_or_falls(stage: tuple) -> None:
    assert (np.diff(stage[1][arrange("sorted", stage)]) >= 0).all()
    assert (np.diff(stage[1][arrange("sorted", stage, first="hard")]) <= 0).all()


@settings(max_examples=25, deadline=None)
@given(stages(), st.integers(1, 5))
def test_folded_rises_once_in_each_fold_and_every_fold_spans_the_difficulties(stage: tuple, folds: int) -> None:
    found = stage[1][arrange("folded", stage, folds=folds)]
    rising, at = np.sort(stage[1][stage[0]]), 0
    for fold in range(folds):
        part = found[at : at + len(rising[fold::folds])]
        assert np.array_equal(part, rising[fold::folds])
        at += len(part)
    assert at == len(found)


@settings(max_examples=25, deadline=None)
@given(stages(), st.integers(1, 5))
def test_zigzag_rises_and_falls_in_turn(stage: tuple, folds: int) -> None:
    found = stage[1][arrange("zigzag", stage, folds=folds)]
    rising, at = np.sort(stage[1][stage[0]]), 0
    for fold in range(folds):
        part = found[at : at + len(rising[fold::folds])]
        assert np.array_equal(part if fold % 2 == 0 else part[::-1], rising[fold::folds])
        at += len(part)


@settings(max_examples=25, deadline=None)
@given(stages())
def test_blocked_has_each_category_in_one_piece(stage: tuple) -> None:
    codes = stage[2]
    for name in ("blocked", "blocked_curriculum"):
        pieces = runs(codes[arrange(name, stage)])
        assert len(pieces) == len(set(pieces))


@settings(max_examples=25, deadline=None)
@given(stages())
def test_a_blocked_curriculum_rises_within_each_category(stage: tuple) -> None:
    _, scores, codes, _ = stage
    found = arrange("blocked_curriculum", stage)
    assert all((np.diff(scores[found[codes[found] == code]]) >= 0).all() for code in range(4))


@settings(max_examples=25, deadline=None)
@given(stages(), st.integers(1, 4))
def test_interleaved_cycles_through_the_categories_in_equal_parts(stage: tuple, parts: int) -> None:
    rows, scores, codes, _ = stage
    for name in ("interleaved", "interleaved_curriculum"):
        found = arrange(name, stage, parts=parts)
        order = list(dict.fromkeys(codes[found].tolist()))
        own = [found[codes[found] == code] for code in order]
        expected = [np.array_split(block, parts)[part] for part in range(parts) for block in own]
        assert np.array_equal(found, np.concatenate(expected))
        assert set(order) == set(codes[rows].tolist())
        if name == "interleaved_curriculum":
            assert all((np.diff(scores[block]) >= 0).all() for block in own)


def test_categories_come_in_another_order_under_another_seed() -> None:
    codes = np.repeat(np.arange(6), 5)
    stage = (np.arange(30), np.zeros(30), codes)
    firsts = {int(codes[arrange("blocked", (*stage, seed))[0]]) for seed in range(20)}
    assert len(firsts) > 2


@pytest.mark.parametrize(("name", "option"), [("folded", "folds"), ("zigzag", "folds"), ("interleaved", "parts")])
def test_an_order_without_parts_is_refused(name: str, option: str) -> None:
    with pytest.raises(RecipeError, match=rf"schedule\.order\.{option}.*given: 0"):
        ORDERS.get(name)(**{option: 0})


# Categories of a table


def samples(**columns: list[object]) -> pa.Table:
    return make_table({"answer": ["# 1\n", "# 2\n", "# 3\n"], **columns})


def test_categories_are_the_labels_of_a_column_and_none_is_one_of_them() -> None:
    codes = category_codes(samples(level=["2.1", "1.1", "2.1"]), "level")
    assert codes.tolist() == [1, 0, 1]
    assert len(set(category_codes(samples(level=["2.1", None, "1.1"]), "level"))) == 3


def test_a_missing_category_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"no sample has a 'category'.*allowed: level"):
        category_codes(samples(level=["1", "2", "3"]), "category")
    with pytest.raises(DataError, match=r"did you mean 'level'"):
        category_codes(samples(level=["1", "2", "3"]), "levle")
    with pytest.raises(DataError, match=r"no label column has values"):
        category_codes(samples(), "level")


def test_a_difficulty_is_no_category() -> None:
    with pytest.raises(DataError, match=r"no sample has a 'om'"):
        category_codes(samples(level=["1", "2", "3"], om=[1.0, 2.0, 3.0]), "om")


def test_a_constant_category_column_is_an_error_that_names_its_value() -> None:
    with pytest.raises(DataError, match=r"same 'level'.*given: 1\.1.*try: category: source"):
        category_codes(samples(level=["1.1"] * 3, source=["a", "b", "a"]), "level")


# In a stage


def test_an_order_by_categories_needs_them() -> None:
    scores = np.arange(6.0)
    bands = make_bands(scores, thresholds=(3,), names=("easy", "hard"))
    with pytest.raises(RecipeError, match="needs categories"):
        select_rows(StageSpec("s", (1.0, 1.0), 10, order="blocked"), bands, scores, seed=1)


@settings(max_examples=25, deadline=None)
@given(stages(), st.sampled_from(sorted(ORDERS.names())))
def test_rows_without_a_difficulty_are_in_no_stage_whatever_the_order(stage: tuple, order: str) -> None:
    _, scores, codes, seed = stage
    scores = np.where(scores == 5, np.nan, scores)
    if np.isnan(scores).all():
        return
    bands = Bands(("one",), (), np.where(np.isnan(scores), -1, 0).astype(np.int8))
    spec = StageSpec("s", (1.0,), 10, order=order)
    rows = select_rows(spec, bands, scores, seed=seed, categories=lambda column: codes).rows
    assert np.array_equal(np.sort(rows), np.flatnonzero(~np.isnan(scores)))


def test_sorted_once_is_shuffled_from_the_second_pass_on() -> None:
    scores = np.arange(6.0)
    bands = make_bands(scores, thresholds=(), names=("one",))
    once, same, free = (
        select_rows(StageSpec("s", (1.0,), 10, order=order, order_options=options), bands, scores, seed=1)
        for order, options in (("sorted", {"passes": "once"}), ("sorted", {}), ("shuffled", {}))
    )
    assert [once.shuffled_in(epoch) for epoch in range(3)] == [False, True, True]
    assert [same.shuffled_in(epoch) for epoch in range(3)] == [False] * 3
    assert [free.shuffled_in(epoch) for epoch in range(3)] == [True] * 3
