"""The contract of every registered schedule: a pure function of history that spends the budget exactly."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from gradatim.errors import RecipeError
from gradatim.results import decode_spec
from gradatim.schedule import ORDERS, SCHEDULES, Bands, Designed, OrderContext, preview, select_rows, split_budget
from gradatim.stage import BandProgress, Fitted, Needs, Probe, Schedule, StageResult, StageSpec

BANDS = {1: ("one",), 2: ("low", "high"), 3: ("easy", "medium", "hard"), 5: tuple("abcde")}
EVERY = pytest.mark.parametrize("name", SCHEDULES.names())
COUNTS = pytest.mark.parametrize("count", BANDS)
ADAPTIVE_NAMES = ("bandit", "fade", "frontier", "mastery", "pacing", "self_paced")
MIXTURE_NAMES = ("mixture", "progress", "target")
ADAPTIVE = pytest.mark.parametrize("name", [*ADAPTIVE_NAMES, *MIXTURE_NAMES])
OTHERS = (*ADAPTIVE_NAMES, *MIXTURE_NAMES, "designed")
MATRICES = pytest.mark.parametrize("name", [name for name in SCHEDULES.names() if name not in OTHERS])
TOKENS = 1_000_003  # prime, so that no share divides it


def made(name: str, bands: tuple[str, ...], tokens: int) -> Schedule:
    """The schedule, ready to be walked: one that is designed has two stages then, as a teacher may write them."""
    schedule = SCHEDULES.get(name)(bands, tokens)
    if not isinstance(schedule, Designed):
        return schedule
    halves = split_budget(tokens, [1, 2])
    first = StageSpec("first", (0.5,) * len(bands), halves[0], ("easiest",) * len(bands), "sorted", "answer_only")
    return schedule.with_stages([first, StageSpec("all", (1.0,) * len(bands), halves[1])])


def bands_of(count: int, each: int = 7) -> Bands:
    return Bands(BANDS[count], tuple(map(float, range(1, count))), np.repeat(np.arange(count), each).astype(np.int8))


def lived(schedule: Schedule, count: int, seed: int) -> list[StageResult]:
    """A history of a student that gets better by chance, with all that schedules may need."""
    rng = np.random.default_rng(seed)
    history: list[StageResult] = []
    while spec := schedule.next(history):
        known = {name: BandProgress(float(rng.exponential()), float(rng.random()), 9) for name in BANDS[count]}
        fitted = Fitted(3, spec.tokens, 9, 0, 1.5, 0.1, "00")
        history.append(StageResult(0, len(history), spec, 10, {}, fitted, progress=known, probed=60))
        assert schedule.next(history) == schedule.next(list(history))
    return history


def second_options(name: str) -> dict[str, float]:
    """Options beside the defaults: replay of earlier samples, or a mixture without a minimum share."""
    return {"floor": 0.0} if name in MIXTURE_NAMES else {"replay": 0.3}


@EVERY
@COUNTS
def test_the_stages_spend_the_budget_to_the_token(name: str, count: int) -> None:
    specs = preview(made(name, BANDS[count], TOKENS), bands_of(count))
    assert sum(spec.tokens for spec in specs) == TOKENS
    assert all(spec.tokens > 0 for spec in specs)


@EVERY
@COUNTS
def test_every_stage_has_one_fraction_per_band_and_uses_some(name: str, count: int) -> None:
    for spec in preview(made(name, BANDS[count], TOKENS), bands_of(count)):
        assert len(spec.fractions) == len(spec.ends) == count
        assert all(0 <= fraction <= 1 for fraction in spec.fractions)
        assert any(spec.fractions)


@EVERY
@COUNTS
def test_every_stage_can_be_realised_and_holds_each_row_once(name: str, count: int) -> None:
    bands = bands_of(count)
    scores = bands.index.astype(float)
    for spec in preview(made(name, BANDS[count], TOKENS), bands):
        rows = select_rows(spec, bands, scores, seed=4).rows
        assert rows.dtype == np.int64
        assert rows.size == np.unique(rows).size > 0


@EVERY
def test_the_same_history_gives_the_same_stage(name: str) -> None:
    schedule, twin = (made(name, BANDS[3], TOKENS) for _ in range(2))
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
    names = [spec.name for spec in preview(made(name, BANDS[3], TOKENS), bands_of(3))]
    assert len(set(names)) == len(names)
    assert all(part and "/" not in part and not part.startswith(".") for part in names)


@EVERY
def test_a_stage_survives_json(name: str) -> None:
    for spec in preview(made(name, BANDS[3], TOKENS), bands_of(3)):
        assert decode_spec(json.loads(json.dumps(asdict(spec)))) == spec


@ADAPTIVE
@COUNTS
def test_what_the_student_does_never_changes_the_budget(name: str, count: int) -> None:
    for seed, options in ((1, {}), (2, second_options(name))):
        history = lived(SCHEDULES.get(name)(BANDS[count], TOKENS, **options), count, seed)
        assert sum(result.spec.tokens for result in history) == TOKENS
        names = [result.spec.name for result in history]
        assert len(set(names)) == len(names)


@ADAPTIVE
def test_every_stage_of_a_lived_history_can_be_realised(name: str) -> None:
    bands = bands_of(3, each=40)
    scores = np.random.default_rng(5).permutation(bands.index.size) + 100.0 * bands.index
    rng = np.random.default_rng(6)
    rows = np.sort(rng.permutation(bands.index.size)[:60])
    probe = Probe(rows, rng.exponential(1.0, 60), rng.integers(1, 9, 60))
    for options in ({}, second_options(name)):
        for result in lived(SCHEDULES.get(name)(BANDS[3], TOKENS, **options), 3, 4):
            stage = select_rows(result.spec, bands, scores, seed=8, probe=probe)
            assert stage.rows.size == np.unique(stage.rows).size > 0
            assert (stage.mixture is not None) == result.spec.draws
            if stage.mixture is not None:
                assert stage.mixture.groups.shape == stage.mixture.weights.shape == stage.rows.shape
                assert sum(stage.mixture.start) == pytest.approx(1)
                assert (stage.mixture.weights > 0).all()


@ADAPTIVE
def test_a_schedule_that_looks_at_the_student_says_what_it_needs(name: str) -> None:
    schedule = SCHEDULES.get(name)(BANDS[3], TOKENS)
    blind = schedule.needs == Needs()
    known, unknown = lived(schedule, 3, 4), preview(schedule, bands_of(3))
    if blind:
        assert [result.spec for result in known] == unknown
    else:
        assert any(now.spec != then for now, then in zip(known, unknown, strict=False)) or len(known) != len(unknown)


def test_a_schedule_that_nobody_has_designed_says_so() -> None:
    waiting = SCHEDULES.get("designed")(BANDS[3], TOKENS)
    with pytest.raises(RecipeError, match="there is no design yet"):
        waiting.next([])
    assert isinstance(waiting, Designed)
    assert waiting.with_stages([StageSpec("all", (1.0,) * 3, 5)]).needs == Needs(band_loss=True)


@EVERY
def test_an_unknown_option_is_a_mistake_in_the_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        SCHEDULES.get(name)(BANDS[3], TOKENS, nonsense=1)


@MATRICES
def test_every_order_can_be_asked_for_and_an_unknown_one_is_refused(name: str) -> None:
    for order in ORDERS.names():
        specs = preview(SCHEDULES.get(name)(BANDS[3], TOKENS, order=order), bands_of(3))
        assert {spec.order for spec in specs} == {order}
    with pytest.raises(RecipeError, match="did you mean 'sorted'"):
        SCHEDULES.get(name)(BANDS[3], TOKENS, order="sortd")


@MATRICES
def test_an_order_takes_its_own_options_and_no_others(name: str) -> None:
    factory = SCHEDULES.get(name)
    (first, *_) = preview(factory(BANDS[3], TOKENS, order={"name": "sorted", "first": "hard"}), bands_of(3))
    assert (first.order, first.order_options) == ("sorted", {"first": "hard"})
    (first, *_) = preview(factory(BANDS[3], TOKENS, order="blocked", category="source"), bands_of(3))
    assert first.order_options == {"category": "source"}
    with pytest.raises(RecipeError, match="the order 'sorted' has no option 'category'"):
        factory(BANDS[3], TOKENS, order="sorted", category="level")
    with pytest.raises(RecipeError, match="the order 'folded' has no option 'first'"):
        factory(BANDS[3], TOKENS, order={"name": "folded", "first": "easy"})


@MATRICES
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_warmup_stage_comes_before_the_schedule_of_the_other_bands(name: str, count: int) -> None:
    first, *later = preview(
        SCHEDULES.get(name)(BANDS[count], TOKENS, warmup_stage=0.1, order="sorted"), bands_of(count)
    )
    assert first.name == BANDS[count][0]
    assert first.fractions == (1.0, *(0.0,) * (count - 1))
    assert first.tokens == round(0.1 * TOKENS)
    alone = SCHEDULES.get(name)(BANDS[count][1:], TOKENS - first.tokens, order="sorted")
    assert [replace(spec, fractions=spec.fractions[1:], ends=spec.ends[1:]) for spec in later] == list(alone.rows)
    assert {spec.fractions[0] for spec in later} == {0.0}
    assert len({spec.name for spec in (first, *later)}) == len(later) + 1
    rows = select_rows(later[-1], bands_of(count), bands_of(count).index.astype(float), seed=4).rows
    assert rows.size
    assert bands_of(count).index[rows].min() > 0


@MATRICES
@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (1.0, 3), (-0.1, 3)])
def test_a_warmup_stage_that_leaves_nothing_is_refused(name: str, share: float, count: int) -> None:
    with pytest.raises(RecipeError, match="leaves bands and budget") as refused:
        SCHEDULES.get(name)(BANDS[count], TOKENS, warmup_stage=share)
    assert refused.value.where == "schedule.warmup_stage"


@pytest.mark.parametrize("name", ADAPTIVE_NAMES)
def test_a_schedule_that_draws_its_rows_takes_no_order(name: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'order'"):
        SCHEDULES.get(name)(BANDS[3], TOKENS, order="sorted")


@EVERY
def test_its_summary_is_one_line(name: str) -> None:
    summary = next(entry.summary for entry in SCHEDULES if entry.name == name)
    assert 10 < len(summary) < 100


@pytest.mark.parametrize("order", ORDERS.names())
def test_an_order_keeps_every_row_and_depends_on_its_generator_alone(order: str) -> None:
    rows, scores = np.arange(50, 90), np.random.default_rng(1).integers(0, 4, 100).astype(float)
    codes = np.random.default_rng(2).integers(0, 5, 100)
    arrange = ORDERS.get(order)()
    first, again, other = (
        arrange(rows, OrderContext(scores, np.random.default_rng(k), lambda _: codes)) for k in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.sort(first), rows)
    assert first.dtype == rows.dtype


@pytest.mark.parametrize("order", ORDERS.names())
def test_an_unknown_option_of_an_order_is_a_mistake_in_the_recipe(order: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        ORDERS.get(order)(nonsense=1)


@pytest.mark.parametrize("order", ORDERS.names())
def test_the_summary_of_an_order_is_one_line(order: str) -> None:
    summary = next(entry.summary for entry in ORDERS if entry.name == order)
    assert 10 < len(summary) < 120
