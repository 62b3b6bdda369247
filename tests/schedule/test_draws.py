"""How often rows of a mixture come up: in the shares asked for, evenly, and as a pure function of the slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import DataError, RecipeError
from gradatim.stage import Mixture, Stage, StageSpec
from gradatim.training.batches import WeightedSampler, make_sampler, refuse_windows

Shares = tuple[float, ...]


def stage(sizes: tuple[int, ...], start: Shares, end: Shares, tokens: int, weights: np.ndarray | None = None) -> Stage:
    """A stage whose group g has ``sizes[g]`` rows."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    mixture = Mixture(groups, np.ones(groups.size) if weights is None else weights, start, end)
    spec = StageSpec("s", (1.0,) * len(sizes), tokens)
    return Stage(spec, 0, np.arange(groups.size) * 7, 3, 0, tokens, mixture=mixture)


def draws(of: Stage, sizes: np.ndarray | None = None, batch: int = 10) -> WeightedSampler:
    found = make_sampler(of, of.rows, np.full(of.rows.size, 10) if sizes is None else sizes, batch)
    assert found is not None
    return found


def slices(of: WeightedSampler) -> list[np.ndarray]:
    return [of.slice(number) for number in range(of.slices)]


def test_a_stage_without_a_mixture_draws_nothing() -> None:
    plain = Stage(StageSpec("s", (1.0,), 10), 0, np.arange(3), 1, 0, 10)
    assert make_sampler(plain, plain.rows, np.full(3, 4), 8) is None


def test_shares_are_of_tokens_not_of_samples() -> None:
    of = stage((100, 300), (0.25, 0.75), (0.25, 0.75), 80_000)
    sizes = np.repeat([40, 5], [100, 300])
    rows = np.concatenate(slices(draws(of, sizes))) // 7
    tokens = np.bincount(rows >= 100, weights=sizes[rows])
    assert tokens / tokens.sum() == pytest.approx([0.25, 0.75], abs=0.01)
    assert tokens.sum() == pytest.approx(80_000, rel=0.01)


def test_a_mixture_moves_in_a_straight_line() -> None:
    of = draws(stage((200, 200), (1.0, 0.0), (0.0, 1.0), 200_000))
    second = np.array([np.mean(rows // 7 >= 200) for rows in slices(of)])
    middles = (np.arange(of.slices) + 0.5) / of.slices
    assert of.slices >= 32
    assert np.abs(second - middles).max() < 0.05


def test_after_its_end_a_mixture_stays_as_it_ended() -> None:
    of = draws(stage((200, 200), (1.0, 0.0), (0.0, 1.0), 20_000))
    late = np.concatenate([of.slice(of.slices + more) for more in range(5)])
    assert late.size > 0
    assert (late // 7 >= 200).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**40), st.integers(1, 5))
def test_rows_of_equal_weight_come_once_in_each_pass(rows: int, seed: int, passes: int) -> None:
    of = replace(stage((rows,), (1.0,), (1.0,), 10 * rows * passes), seed=seed)
    drawn = slices(replace(draws(of), slices=passes))
    assert all(np.array_equal(np.sort(each), of.rows) for each in drawn)


def test_passes_have_other_orders_and_other_seeds_other_draws() -> None:
    of = stage((50,), (1.0,), (1.0,), 1000)
    one, two = slices(replace(draws(of), slices=2))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, replace(draws(replace(of, seed=4)), slices=2).slice(0))
    assert np.array_equal(two, replace(draws(of), slices=2).slice(1))


def test_a_row_of_twice_the_weight_comes_twice_as_often() -> None:
    weights = np.ones(40)
    weights[5] = 2.0
    rows = np.concatenate(slices(draws(stage((40,), (1.0,), (1.0,), 41_000, weights))))
    counts = np.bincount(rows // 7)
    assert counts[5] == pytest.approx(200, abs=1)
    assert set(np.delete(counts, 5)) <= {99, 100, 101}


def test_rows_that_do_not_fit_leave_their_share_to_their_group_then_to_others() -> None:
    of = stage((10, 10), (0.5, 0.5), (0.5, 0.5), 2_000)
    kept = make_sampler(of, of.rows[8:], np.full(12, 10), 10)
    counts = np.bincount(np.concatenate(slices(kept)) // 7, minlength=20)
    assert counts[:8].sum() == 0
    assert counts[8:10].sum() == pytest.approx(counts[10:].sum(), abs=2)
    alone = make_sampler(of, of.rows[10:], np.full(10, 10), 10)
    assert np.concatenate(slices(alone)).size == pytest.approx(200, abs=2)
    only = stage((10, 10), (1.0, 0.0), (1.0, 0.0), 2_000)
    with pytest.raises(DataError, match="no sample of the mixture fits"):
        make_sampler(only, only.rows[10:], np.full(10, 10), 10)


def test_random_crops_and_weights_do_not_go_together() -> None:
    of = stage((10,), (1.0,), (1.0,), 100)
    refuse_windows(replace(of, mixture=None))
    with pytest.raises(RecipeError, match=r"train\.batching.*packed"):
        refuse_windows(of)
