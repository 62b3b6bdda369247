"""Bands, budgets, rows: what the schedules promise beyond the contract that all of them share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import DataError, RecipeError
from gradatim.schedule import (
    PAPER_THRESHOLDS,
    SCHEDULES,
    Bands,
    Matrix,
    fixed_schedule,
    make_bands,
    preview,
    select_rows,
    split_budget,
    stage_table,
)
from gradatim.stage import StageSpec

THREE = ("easy", "medium", "hard")
SCORES = np.array([1.0, 1.5, 2.0, 3.9, 4.0, 9.0, np.nan])


def stages(name: str, bands: tuple[str, ...] = THREE, tokens: int = 120_000, **options: object) -> list[StageSpec]:
    schedule = SCHEDULES.get(name)(bands, tokens, **options)
    full = Bands(bands, tuple(range(1, len(bands))), np.arange(len(bands), dtype=np.int8))
    return preview(schedule, full)


# Bands


def test_a_value_on_a_threshold_belongs_to_the_harder_band() -> None:
    bands = make_bands(SCORES, thresholds=PAPER_THRESHOLDS)
    assert bands.index.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert bands.index.dtype == np.int8


def test_rows_without_a_score_are_counted_and_in_no_band() -> None:
    bands = make_bands(SCORES, thresholds=PAPER_THRESHOLDS)
    assert (bands.unscored, bands.sizes) == (1, (2, 2, 2))


def test_a_test_set_is_placed_by_the_edges_of_the_training_set() -> None:
    bands = make_bands(SCORES, thresholds=PAPER_THRESHOLDS)
    assert bands.assign(np.array([0.0, 2.0, 4.0, np.nan])).tolist() == [0, 1, 2, -1]


def test_an_empty_band_is_named_with_the_edges_and_the_range() -> None:
    with pytest.raises(DataError, match=r"'hard'.*\[2\.0, 4\.0\].*from 1 to 3.*quantiles"):
        make_bands(np.array([1.0, 2.0, 3.0]), thresholds=(2, 4))


@pytest.mark.parametrize("thresholds", [(4, 2), (2, 2), (2, float("nan")), (2,), (1, 2, 3)])
def test_thresholds_out_of_order_or_of_the_wrong_number_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError):
        make_bands(SCORES, thresholds=thresholds)


def test_thresholds_and_quantiles_together_are_refused() -> None:
    with pytest.raises(RecipeError, match="not both"):
        make_bands(SCORES, thresholds=(2, 4), quantiles=(0.3, 0.6))


@pytest.mark.parametrize("quantiles", [(0.0, 0.5), (0.5, 1.0), (33, 66)])
def test_quantiles_outside_0_and_1_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        make_bands(SCORES, quantiles=quantiles)


def test_band_names_must_differ() -> None:
    with pytest.raises(RecipeError, match="distinct names"):
        make_bands(SCORES, thresholds=(2, 4), names=("easy", "easy", "hard"))


def test_a_table_without_any_score_is_refused() -> None:
    with pytest.raises(DataError, match="no sample has a difficulty"):
        make_bands(np.full(3, np.nan), thresholds=(2, 4))


def test_fewer_distinct_difficulties_than_bands_are_refused() -> None:
    with pytest.raises(DataError, match="2 distinct difficulties cannot fill 3 bands"):
        make_bands(np.array([1.0, 1.0, 2.0]), quantiles=(1 / 3, 2 / 3))


def test_without_ties_quantiles_give_equal_bands_whatever_the_row_order() -> None:
    scores = np.random.default_rng(3).permutation(np.arange(300.0))
    assert make_bands(scores).sizes == (100, 100, 100)


def test_a_quantile_inside_a_tie_cuts_at_its_nearest_edge() -> None:
    scores = np.array([0.0] * 10 + [1.0] * 70 + [2.0] * 15 + [3.0] * 5)
    assert make_bands(scores, quantiles=(0.5, 0.9)).sizes == (80, 15, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.integers(1, 4))
def test_quantile_bands_never_part_equal_values_and_are_never_empty(values: list[int], count: int) -> None:
    if len(set(values)) < count:
        return
    names = tuple(f"band{i}" for i in range(count))
    scores = np.array(values, dtype=float)
    bands = make_bands(scores, quantiles=[i / count for i in range(1, count)], names=names)
    assert all(bands.sizes)
    assert all(len(set(bands.index[scores == value])) == 1 for value in set(values))
    assert all(low <= high for low, high in pairwise(bands.index[np.argsort(scores)]))


# Budgets and matrices


@settings(max_examples=100, deadline=None)
@given(st.integers(1000, 10**13), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=9))
def test_a_budget_is_split_without_losing_a_token(tokens: int, shares: list[float]) -> None:
    parts = split_budget(tokens, shares)
    assert sum(parts) == tokens
    assert all(abs(part - tokens * share / sum(shares)) < 2 for part, share in zip(parts, shares, strict=True))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("baseline", [120]),
        ("sequential", [40, 40, 40]),
        ("incremental", [25, 30, 65]),
        ("hybrid", [20, 30, 70]),
    ],
)
def test_three_bands_get_the_shares_of_the_paper(name: str, steps: list[int]) -> None:
    assert [spec.tokens for spec in stages(name, tokens=120_000)] == [step * 1000 for step in steps]


def test_hybrid_takes_each_band_whole_and_replays_the_hardest_part_of_those_before() -> None:
    specs = stages("hybrid", replay=0.25)
    assert [spec.fractions for spec in specs] == [(1, 0, 0), (0.25, 1, 0), (0.25, 0.25, 1)]
    assert all(set(spec.ends) == {"hardest"} for spec in specs)
    assert [spec.name for spec in specs] == ["easy", "medium+replay", "hard+replay"]


def test_incremental_adds_one_band_at_a_time() -> None:
    specs = stages("incremental")
    assert [spec.fractions for spec in specs] == [(1, 0, 0), (1, 1, 0), (1, 1, 1)]
    assert [spec.name for spec in specs] == ["easy", "easy+medium", "all"]


def test_reverse_goes_from_the_hardest_band_to_the_easiest() -> None:
    assert [spec.name for spec in stages("reverse")] == ["hard", "medium", "easy"]
    assert stages("reverse")[0].fractions == (0, 0, 1)


def test_only_takes_the_hardest_band_unless_told() -> None:
    assert [spec.name for spec in stages("only")] == ["hard"]
    assert stages("only", band="easy")[0].fractions == (1, 0, 0)


def test_only_suggests_the_band_that_was_meant() -> None:
    with pytest.raises(RecipeError, match="did you mean 'hard'"):
        stages("only", band="hrad")


def test_warmup_spends_its_share_before_the_first_stage_with_every_band() -> None:
    specs = stages("warmup", tokens=100_000, share=0.3)
    assert sum(spec.tokens for spec in specs[:-1]) == 30_000
    assert specs[-1].fractions == (1, 1, 1)
    assert all(0 in spec.fractions for spec in specs[:-1])


def test_a_baseline_can_have_the_same_restarts_as_the_hybrid() -> None:
    control = stages("baseline", shares=[20, 30, 70])
    assert [spec.tokens for spec in control] == [spec.tokens for spec in stages("hybrid")]
    assert {spec.fractions for spec in control} == {(1.0, 1.0, 1.0)}
    assert [spec.name for spec in control] == ["all-1", "all-2", "all-3"]


@pytest.mark.parametrize("shares", [[1, 1], [1, 1, 0], [1, -1, 1], [1, 1, float("inf")], "half"])
def test_shares_that_do_not_fit_are_refused(shares: object) -> None:
    with pytest.raises(RecipeError):
        stages("sequential", shares=shares)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hybrid", {"replay": 1.5}),
        ("hybrid", {"replay": "half"}),
        ("hybrid", {"end": "middle"}),
        ("warmup", {"share": 1.0}),
        ("baseline", {"restarts": 0}),
        ("baseline", {"restarts": 2, "shares": [1, 2, 3]}),
        ("baseline", {"shares": []}),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        stages(name, **options)


def test_two_faults_in_the_options_are_both_told() -> None:
    with pytest.raises(RecipeError) as caught:
        stages("hybrid", repaly=0.5, end="middle")
    assert len(caught.value.faults) == 2
    assert "did you mean 'replay'" in str(caught.value)


def test_a_budget_smaller_than_the_number_of_stages_is_refused() -> None:
    with pytest.raises(RecipeError, match="too small"):
        stages("sequential", tokens=2)


def test_two_bands_share_in_proportion_to_the_bands_met() -> None:
    assert [spec.tokens for spec in stages("hybrid", ("low", "high"), 90)] == [30, 60]


# Rows


def tied(size: int = 1000) -> tuple[np.ndarray, Bands]:
    scores = np.random.default_rng(0).integers(0, 6, size).astype(float)
    return scores, make_bands(scores, thresholds=(2, 4))


def test_half_of_a_band_from_its_hardest_end_is_its_hardest_half() -> None:
    scores = np.arange(10.0)
    bands = make_bands(scores, thresholds=(8,), names=("easy", "hard"))
    spec = StageSpec("s", (0.5, 0.0), 10, ("hardest", "hardest"))
    assert sorted(select_rows(spec, bands, scores, seed=1).rows) == [4, 5, 6, 7]
    spec = StageSpec("s", (0.5, 0.0), 10, ("easiest", "hardest"))
    assert sorted(select_rows(spec, bands, scores, seed=1).rows) == [0, 1, 2, 3]


def test_equal_difficulties_at_the_cut_are_chosen_by_the_seed_not_by_the_row_order() -> None:
    scores = np.ones(1000)
    bands = make_bands(scores, thresholds=(), names=("one",))
    first = np.sort(select_rows(StageSpec("s", (0.5,), 10), bands, scores, seed=1).rows)
    second = np.sort(select_rows(StageSpec("s", (0.5,), 10), bands, scores, seed=2).rows)
    assert first.size == 500
    assert not np.array_equal(first, second)
    assert 200 < np.count_nonzero(first < 500) < 300


def test_same_seed_gives_the_same_rows() -> None:
    scores, bands = tied()
    spec = StageSpec("s", (0.3, 0.5, 1.0), 10)
    once, again = (select_rows(spec, bands, scores, seed=5).rows for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize("fraction", [0.07, 0.5, 1 / 3, 1.0])
def test_a_fraction_is_rounded_up_once(fraction: float) -> None:
    scores = np.zeros(100)
    bands = make_bands(scores, thresholds=(), names=("one",))
    rows = select_rows(StageSpec("s", (fraction,), 10), bands, scores, seed=1).rows
    assert rows.size == {0.07: 7, 0.5: 50, 1 / 3: 34, 1.0: 100}[fraction]


def test_a_baseline_stage_is_every_scored_row_once() -> None:
    bands = make_bands(SCORES, thresholds=(2, 4))
    stage = select_rows(stages("baseline")[0], bands, SCORES, seed=1)
    assert sorted(stage.rows) == [0, 1, 2, 3, 4, 5]


def test_what_one_band_draws_does_not_shift_another() -> None:
    scores, bands = tied()
    lone = select_rows(StageSpec("s", (0.0, 0.5, 0.0), 10), bands, scores, seed=9).rows
    both = select_rows(StageSpec("s", (0.3, 0.5, 0.0), 10), bands, scores, seed=9).rows
    assert set(lone) <= set(both)


def test_a_sorted_stage_goes_from_easy_to_hard_with_ties_shuffled() -> None:
    scores, bands = tied()
    rows = select_rows(StageSpec("s", (1.0, 1.0, 1.0), 10, order="sorted"), bands, scores, seed=3).rows
    assert np.all(np.diff(scores[rows]) >= 0)
    assert np.any(np.diff(rows[scores[rows] == 0]) < 0)


def test_a_specification_for_other_bands_is_refused() -> None:
    scores, bands = tied()
    with pytest.raises(RecipeError, match="2 fractions for 3 bands"):
        select_rows(StageSpec("s", (1.0, 1.0), 10), bands, scores, seed=3)


def test_a_stage_that_only_uses_empty_bands_is_refused() -> None:
    bands = Bands(("easy", "hard"), (1.0,), np.zeros(4, dtype=np.int8))
    with pytest.raises(DataError, match="no samples"):
        select_rows(StageSpec("s", (0.0, 1.0), 10), bands, np.zeros(4), seed=3)


def test_the_plan_tells_samples_and_characters_of_the_rows_that_will_be_learnt() -> None:
    scores = np.arange(10.0)
    bands = make_bands(scores, thresholds=(4, 8))
    specs = preview(SCHEDULES.get("hybrid")(THREE, 120), bands)
    plan = stage_table([select_rows(spec, bands, scores, seed=1) for spec in specs], bands, np.arange(10) + 1)
    assert [row["bands"] for row in plan] == [
        {"easy": 4, "medium": 0, "hard": 0},
        {"easy": 2, "medium": 4, "hard": 0},
        {"easy": 2, "medium": 2, "hard": 2},
    ]
    assert plan[2]["characters"] == 3 + 4 + 7 + 8 + 9 + 10
    assert plan[2]["ends"] == {"easy": "hardest", "medium": "hardest"}
    assert sum(row["tokens"] for row in plan) == 120


def test_a_schedule_that_never_ends_is_refused() -> None:
    class Endless:
        def next(self, history: object) -> StageSpec:
            return StageSpec("again", (1.0,), 10)

    with pytest.raises(RecipeError, match="not ended"):
        preview(Endless(), Bands(("one",), (), np.zeros(3, dtype=np.int8)))


def test_a_schedule_of_another_package_has_the_options_of_all_fixed_schedules():
    @fixed_schedule("easy_half")
    def easy_half(bands, tokens, *, share: float = 0.5):
        """The easiest band, then all of them."""
        shares = ((1.0, *(0.0,) * (len(bands) - 1)), (1.0,) * len(bands))
        budgets = split_budget(tokens, [share, 1 - share])
        return Matrix(tuple(StageSpec(*row) for row in zip(("first", "all"), shares, budgets, strict=True)))

    stages = easy_half(("a", "b", "c"), 1000, share=0.25, warmup_stage=0.2, order="sorted").rows
    assert [(row.name, row.tokens) for row in stages] == [("a", 200), ("first", 200), ("all", 600)]
    assert [row.fractions for row in stages] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 1.0)]
    assert {row.order for row in stages} == {"sorted"}
    with pytest.raises(RecipeError, match=r"^the schedule 'easy_half' has no option 'shrae'") as refused:
        easy_half(("a", "b"), 1000, shrae=0.5)
    assert "warmup_stage" in str(refused.value)
