"""What schedules that look at the student decide, from histories written down by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from gradatim.errors import RecipeError
from gradatim.schedule import SCHEDULES, needs_of, needs_whole_samples, preview
from gradatim.stage import BandProgress, Fitted, Needs, Schedule, StageResult, StageSpec

THREE = ("easy", "medium", "hard")
Student = Callable[[Mapping[str, int]], Mapping[str, tuple[float, float]]]


def lived(schedule: Schedule, student: Student, probed: int = 0) -> list[StageResult]:
    """The run of a student whose (loss, right) on each band is a function of the parts it has spent on each."""
    history: list[StageResult] = []
    spent = dict.fromkeys(THREE, 0)
    while spec := schedule.next(history):
        for band, name in enumerate(THREE):
            spent[name] += bool(spec.fractions[band]) and (spec.mixture is None or spec.mixture[0][band] > 0.5)
        known = {name: BandProgress(*each, samples=9) for name, each in student(spent).items()}
        fitted = Fitted(3, spec.tokens, 9, 0, 1.5, 0.1, "00")
        history.append(StageResult(0, len(history), spec, 10, {}, fitted, progress=known, probed=probed))
    return history


def about(history: list[StageResult]) -> list[str]:
    return [result.spec.name.partition("-")[2] for result in history]


def quick(spent: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
    """Masters each band in two parts."""
    return {name: (1.0 / (1 + parts), 0.5 * parts) for name, parts in spent.items()}


def slow(spent: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
    """Always a little better, never good."""
    return {name: (1.0 * 0.8**parts, 0.01 * parts) for name, parts in spent.items()}


def stuck(spent: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
    """Learns nothing after the first part."""
    return dict.fromkeys(spent, (1.0, 0.1))


# Mastery


def test_a_mastered_band_ends_and_what_is_left_goes_to_all() -> None:
    history = lived(SCHEDULES.get("mastery")(THREE, 120_000, parts=10), quick)
    assert about(history) == ["easy"] * 2 + ["medium"] * 2 + ["hard"] * 2 + ["all"] * 4


def test_a_band_at_a_standstill_ends_after_its_patience() -> None:
    history = lived(SCHEDULES.get("mastery")(THREE, 120_000, parts=12, patience=2), stuck)
    assert about(history)[:6] == ["easy"] * 3 + ["medium"] * 3


def test_a_band_that_keeps_getting_better_is_kept_but_every_band_has_its_turn() -> None:
    history = lived(SCHEDULES.get("mastery")(THREE, 120_000, parts=12), slow)
    assert about(history) == ["easy"] * 10 + ["medium", "hard"]


def test_mastery_without_knowledge_is_sequential() -> None:
    names = [spec.name.partition("-")[2] for spec in preview(SCHEDULES.get("mastery")(THREE, 120_000, parts=9), THREE)]
    assert names == ["easy"] * 3 + ["medium"] * 3 + ["hard"] * 3


def test_replay_in_mastery_goes_to_the_bands_before() -> None:
    history = lived(SCHEDULES.get("mastery")(THREE, 120_000, parts=10, replay=0.2), quick)
    easy, medium, hard = (history[part].spec for part in (0, 2, 4))
    assert (easy.mixture, easy.fractions) == (None, (1, 0, 0))
    assert medium.mixture == ((0.2, 0.8, 0.0),) * 2
    assert hard.mixture[0] == pytest.approx((0.1, 0.1, 0.8))


def test_fewer_parts_than_bands_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"schedule\.parts.*3 or more"):
        SCHEDULES.get("mastery")(THREE, 120_000, parts=2)


# Bandit


def test_the_bandit_goes_to_the_band_where_the_loss_moves() -> None:
    def only_hard(spent: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
        return {"easy": (0.1, 1.0), "medium": (0.5, 0.5), "hard": (9.0 - 0.3 * spent["hard"], 0.0)}

    turns = about(lived(SCHEDULES.get("bandit")(THREE, 120_000, parts=20, explore=0.3), only_hard))
    assert turns[:3] == list(THREE)
    assert turns.count("hard") > 12


def test_the_bandit_also_practises_what_is_being_forgotten() -> None:
    def forgets(spent: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
        return {"easy": (0.1, 1.0), "medium": (0.5 + 0.2 * spent["medium"], 0.5), "hard": (3.0, 0.0)}

    turns = about(lived(SCHEDULES.get("bandit")(THREE, 120_000, parts=20, explore=0.3), forgets))
    assert turns.count("medium") > 12


def test_the_bandit_without_knowledge_lets_the_bands_take_turns() -> None:
    names = [spec.name.partition("-")[2] for spec in preview(SCHEDULES.get("bandit")(THREE, 120_000, parts=6), THREE)]
    assert names == [*THREE, *THREE]


def test_the_bandit_knows_its_turns_when_replay_is_the_greater_part() -> None:
    plain, back = (
        about(lived(SCHEDULES.get("bandit")(THREE, 120_000, replay=replay), lambda _: dict.fromkeys(THREE, (1.0, 0.0))))
        for replay in (0.0, 0.9)
    )
    assert plain == back


# Self-paced and frontier


def test_a_self_paced_run_goes_by_the_table_until_the_student_was_asked() -> None:
    schedule = SCHEDULES.get("self_paced")(THREE, 120_000, parts=5, by="pass_rate")
    assert [result.spec.by for result in lived(schedule, stuck, probed=50)] == ["difficulty"] + ["pass_rate"] * 4
    assert {spec.by for spec in preview(schedule, THREE)} == {"difficulty"}


def test_a_self_paced_run_opens_more_and_more() -> None:
    history = lived(SCHEDULES.get("self_paced")(THREE, 120_000, parts=5, start=0.2, until=0.8), stuck, probed=50)
    highs = [result.spec.high for result in history]
    assert highs == sorted(highs)
    assert (highs[0], highs[-1]) == (pytest.approx(0.2), 1)


def test_the_frontier_is_known_after_the_first_part() -> None:
    schedule = SCHEDULES.get("frontier")(THREE, 120_000, parts=4, replay=0.1)
    specs: list[StageSpec] = [result.spec for result in lived(schedule, stuck, probed=50)]
    assert [(spec.frontier, spec.replay) for spec in specs] == [(False, 0.0)] + [(True, 0.1)] * 3
    assert not any(spec.frontier for spec in preview(schedule, THREE))


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("hybrid", Needs()),
        ("fade", Needs()),
        ("pacing", Needs()),
        ("mastery", Needs(band_loss=True)),
        ("bandit", Needs(band_loss=True)),
        ("self_paced", Needs(sample_loss=True, probe=77)),
        ("frontier", Needs(sample_loss=True, probe=77)),
    ],
)
def test_a_schedule_asks_for_what_it_looks_at(name: str, needs: Needs) -> None:
    options = {"probe": needs.probe} if needs.sample_loss else {}
    assert needs_of(SCHEDULES.get(name)(THREE, 120_000, **options)) == needs


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("hybrid", {}, None),
        ("hybrid", {"order": "folded"}, "the order 'folded'"),
        ("fade", {}, "with weights"),
        ("pacing", {}, None),
        ("pacing", {"replay": 0.1}, "with weights"),
        ("mastery", {}, None),
        ("mastery", {"replay": 0.1}, "with weights"),
        ("bandit", {"replay": 0.1}, "with weights"),
        ("self_paced", {}, None),
        ("frontier", {}, "with weights"),
    ],
)
def test_crops_of_the_text_do_for_what_neither_orders_nor_weighs_samples(
    name: str, options: dict[str, object], why: str | None
) -> None:
    found = needs_whole_samples(SCHEDULES.get(name)(THREE, 120_000, **options), THREE)
    assert (found is None) == (why is None)
    assert why is None or why in found
