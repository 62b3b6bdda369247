"""The contract of every registered schedule: a pure function of history that spends the budget exactly."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from gradatim.errors import RecipeError
from gradatim.schedule import ORDERS, SCHEDULES, Bands, preview, realise
from gradatim.stage import Fitted, StageResult

BANDS = {1: ("one",), 2: ("low", "high"), 3: ("easy", "medium", "hard"), 5: tuple("abcde")}
EVERY = pytest.mark.parametrize("name", SCHEDULES.names())
COUNTS = pytest.mark.parametrize("count", BANDS)
TOKENS = 1_000_003  # prime, so that no share divides it


def bands_of(count: int, each: int = 7) -> Bands:
    return Bands(BANDS[count], tuple(map(float, range(1, count))), np.repeat(np.arange(count), each).astype(np.int8))


@EVERY
@COUNTS
def test_the_stages_spend_the_budget_to_the_token(name: str, count: int) -> None:
    specs = preview(SCHEDULES.get(name)(BANDS[count], TOKENS), bands_of(count))
    assert sum(spec.tokens for spec in specs) == TOKENS
    assert all(spec.tokens > 0 for spec in specs)


@EVERY
@COUNTS
def test_every_stage_has_one_fraction_per_band_and_uses_some(name: str, count: int) -> None:
    for spec in preview(SCHEDULES.get(name)(BANDS[count], TOKENS), bands_of(count)):
        assert len(spec.fractions) == len(spec.ends) == count
        assert all(0 <= fraction <= 1 for fraction in spec.fractions)
        assert any(spec.fractions)


@EVERY
@COUNTS
def test_every_stage_can_be_realised_and_holds_each_row_once(name: str, count: int) -> None:
    bands = bands_of(count)
    scores = bands.index.astype(float)
    for spec in preview(SCHEDULES.get(name)(BANDS[count], TOKENS), bands):
        rows = realise(spec, bands, scores, seed=4).rows
        assert rows.dtype == np.int64
        assert rows.size == np.unique(rows).size > 0


@EVERY
def test_the_same_history_gives_the_same_stage(name: str) -> None:
    schedule, twin = (SCHEDULES.get(name)(BANDS[3], TOKENS) for _ in range(2))
    specs = preview(schedule, bands_of(3))
    history = [
        StageResult(0, i, spec, 10, {"easy": 10}, Fitted(3, spec.tokens, 9, 0, 1.5, 0.1, "00"))
        for i, spec in enumerate(specs)
    ]
    backwards = [schedule.next(history[:done]) for done in reversed(range(len(specs) + 1))]
    assert backwards[0] is None
    assert list(reversed(backwards[1:])) == specs == preview(twin, bands_of(3))


@EVERY
def test_stage_names_are_unique_and_fit_in_a_folder_name(name: str) -> None:
    names = [spec.name for spec in preview(SCHEDULES.get(name)(BANDS[3], TOKENS), bands_of(3))]
    assert len(set(names)) == len(names)
    assert all(part and "/" not in part and not part.startswith(".") for part in names)


@EVERY
def test_a_stage_survives_json(name: str) -> None:
    for spec in preview(SCHEDULES.get(name)(BANDS[3], TOKENS), bands_of(3)):
        back = json.loads(json.dumps(asdict(spec)))
        assert type(spec)(**{**back, "fractions": tuple(back["fractions"]), "ends": tuple(back["ends"])}) == spec


@EVERY
def test_an_unknown_option_is_a_mistake_in_the_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        SCHEDULES.get(name)(BANDS[3], TOKENS, nonsense=1)


@EVERY
def test_every_order_can_be_asked_for_and_an_unknown_one_is_refused(name: str) -> None:
    for order in ORDERS.names():
        specs = preview(SCHEDULES.get(name)(BANDS[3], TOKENS, order=order), bands_of(3))
        assert {spec.order for spec in specs} == {order}
    with pytest.raises(RecipeError, match="did you mean 'sorted'"):
        SCHEDULES.get(name)(BANDS[3], TOKENS, order="sortd")


@EVERY
def test_its_summary_is_one_line(name: str) -> None:
    summary = next(entry.summary for entry in SCHEDULES if entry.name == name)
    assert 10 < len(summary) < 100


@pytest.mark.parametrize("order", ORDERS.names())
def test_an_order_keeps_every_row_and_depends_on_its_generator_alone(order: str) -> None:
    rows, scores = np.arange(50, 90), np.random.default_rng(1).integers(0, 4, 100).astype(float)
    arrange = ORDERS.get(order)
    first, again = (arrange(rows, scores, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(np.sort(first), rows)
