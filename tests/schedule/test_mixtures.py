"""The shares of mixtures that follow the model, from histories written down by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gradatim.errors import RecipeError
from gradatim.schedule import SCHEDULES, preview
from gradatim.schedule.mixtures import BandMixture, with_floor
from gradatim.stage import BandProgress, Fitted, StageResult, StageSpec

BANDS = ("easy", "medium", "hard")
SAMPLES = {"easy": 50, "medium": 30, "hard": 20}


def schedule(name: str, **options: float) -> BandMixture:
    made = SCHEDULES.get(name)(BANDS, 1_200_000, parts=12, **options)
    assert isinstance(made, BandMixture)
    return made


def finished(spec: StageSpec, progress: Mapping[str, tuple[float, float]], index: int = 0) -> StageResult:
    """The result of a stage; ``progress``: (loss, pass rate) by band."""
    fitted = Fitted(3, spec.tokens, 9, 0, 1.5, 0.1, "00")
    measured = {band: BandProgress(*values, samples=9) for band, values in progress.items()}
    return StageResult(0, index, spec, 100, SAMPLES, fitted, progress=measured)


def after(made: BandMixture, *measurements: Mapping[str, tuple[float, float]]) -> StageSpec:
    """The stage that follows one finished stage per measurement."""
    history: list[StageResult] = []
    for index, progress in enumerate(measurements):
        spec = made.next(history)
        assert spec is not None
        history.append(finished(spec, progress, index))
    following = made.next(history)
    assert following is not None
    return following


def rates(easy: float, medium: float, hard: float) -> dict[str, tuple[float, float]]:
    return {"easy": (1.0, easy), "medium": (1.0, medium), "hard": (1.0, hard)}


def losses(easy: float, medium: float, hard: float) -> dict[str, tuple[float, float]]:
    return {"easy": (easy, 0.5), "medium": (medium, 0.5), "hard": (hard, 0.5)}


@pytest.mark.parametrize("name", ["mixture", "progress", "target"])
def test_the_first_part_and_parts_without_measurements_are_in_random_order(name: str) -> None:
    assert {spec.mixture for spec in preview(schedule(name), BANDS)} == {None}
    assert {spec.fractions for spec in preview(schedule(name), BANDS)} == {(1.0, 1.0, 1.0)}


def test_shares_follow_the_error_rate_of_each_band() -> None:
    spec = after(schedule("mixture", floor=0.0), rates(0.9, 0.5, 0.0))
    # (0.5 x 0.1, 0.3 x 0.5, 0.2 x 1.0) / 0.4
    assert spec.mixture is not None
    assert spec.mixture[0] == pytest.approx((0.125, 0.375, 0.5))
    assert spec.mixture[0] == spec.mixture[1]


def test_power_0_is_the_share_of_the_samples_and_a_higher_power_concentrates() -> None:
    even = after(schedule("mixture", floor=0.0, power=0.0), rates(0.9, 0.5, 0.0)).mixture
    sharp = after(schedule("mixture", floor=0.0, power=3.0), rates(0.9, 0.5, 0.0)).mixture
    assert even is not None
    assert even[0] == pytest.approx((0.5, 0.3, 0.2))
    assert sharp is not None
    assert sharp[0][2] > 0.8


def test_only_the_last_measurement_counts_for_the_error_rate() -> None:
    made = schedule("mixture", floor=0.0)
    assert after(made, rates(0.0, 0.0, 0.9), rates(0.9, 0.5, 0.0)) == after(
        made, rates(0.5, 0.5, 0.5), rates(0.9, 0.5, 0.0)
    )


@pytest.mark.parametrize("name", ["mixture", "progress", "target"])
def test_a_mastered_band_keeps_its_floor(name: str) -> None:
    first = {"easy": (0.5, 0.5), "medium": (0.9, 0.5), "hard": (0.9, 0.4)}
    second = {"easy": (0.5, 1.0), "medium": (0.5, 0.5), "hard": (0.5, 0.4)}
    options = {"width": 0.1} if name == "target" else {}
    mixture = after(schedule(name, floor=0.4, **options), first, second).mixture
    assert mixture is not None
    assert mixture[0][0] == pytest.approx(0.4 * 0.5)
    assert sum(mixture[0]) == pytest.approx(1)


def test_when_everything_is_mastered_the_order_is_random() -> None:
    assert after(schedule("mixture"), rates(1.0, 1.0, 1.0)).mixture is None


def test_a_band_without_measurements_keeps_about_its_share() -> None:
    partial = {"easy": (1.0, 0.5), "medium": (1.0, 0.5)}
    mixture = after(schedule("mixture", floor=0.0), partial).mixture
    assert mixture is not None
    assert mixture[0] == pytest.approx((0.5, 0.3, 0.2))


def test_progress_is_the_decrease_of_the_loss_per_token_of_the_band() -> None:
    made = schedule("progress", floor=0.0, window=1)
    # All three fall by 0.1, with 50, 30 and 20 % of the tokens: progress per token is 1/5 : 1/3 : 1/2.
    mixture = after(made, losses(0.5, 0.5, 0.5), losses(0.4, 0.4, 0.4)).mixture
    assert mixture is not None
    assert mixture[0] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    only = after(made, losses(0.5, 0.5, 0.5), losses(0.6, 0.5, 0.4)).mixture
    assert only is not None
    assert only[0] == pytest.approx((0.0, 0.0, 1.0))


def test_progress_counts_over_a_window_of_parts() -> None:
    first, middle, last = losses(0.9, 0.9, 0.9), losses(0.1, 0.9, 0.9), losses(0.1, 0.9, 0.5)
    short = after(schedule("progress", floor=0.0, window=1), first, middle, last).mixture
    long = after(schedule("progress", floor=0.0, window=2), first, middle, last).mixture
    assert short is not None
    assert short[0][0] == 0
    assert long is not None
    assert long[0][0] > 0


def test_the_target_moves_from_bands_mostly_answered_to_bands_mostly_failed() -> None:
    made = schedule("target", floor=0.0, start=0.8, end=0.2, width=0.1)
    same = rates(0.8, 0.5, 0.2)
    early, late = after(made, same).mixture, after(made, *[same] * 11).mixture
    assert early is not None
    assert early[0][0] > 0.9
    assert late is not None
    assert late[0][2] > 0.9


@pytest.mark.parametrize(
    ("shares", "floors", "expected"),
    [
        ((0.5, 0.3, 0.2), (0.0, 0.0, 0.0), (0.5, 0.3, 0.2)),
        ((1.0, 0.0, 0.0), (0.1, 0.1, 0.2), (0.7, 0.1, 0.2)),
        # Raising the third scales the second below its floor too.
        ((0.85, 0.15, 0.0), (0.1, 0.14, 0.2), (0.66, 0.14, 0.2)),
        ((0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.5, 0.3, 0.2)),
    ],
)
def test_floors_hold_after_scaling(
    shares: tuple[float, ...], floors: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    assert with_floor(shares, floors) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("mixture", "floor", 1.5), ("mixture", "power", -1), ("progress", "window", 0), ("target", "width", 0)],
)
def test_options_out_of_range_are_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"schedule.{option}"):
        schedule(name, **{option: value})
