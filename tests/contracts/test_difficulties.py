"""The contract of every registered difficulty: one float64 per row, pure, the same on any number of processes."""

from __future__ import annotations

import gc
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pytest

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.program import CHUNK
from gradatim.errors import RecipeError
from gradatim.programs import generate
from gradatim.table import make_table

EVERY = pytest.mark.parametrize("name", DIFFICULTIES.names())
ANY_TEXT = {"size", "compression"}  # the metrics that do not ask that it is Python


@pytest.fixture(scope="module")
def tinypy() -> pa.Table:
    return generate(300, seed=3).table


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left, right, equal_nan=True)


@EVERY
def test_every_tinypy_program_gets_a_finite_score(name: str, tinypy: pa.Table) -> None:
    scores = DIFFICULTIES.get(name)()(tinypy)
    assert scores.dtype == np.float64
    assert scores.shape == (tinypy.num_rows,)
    assert np.isfinite(scores).all()


@EVERY
def test_it_tells_programs_apart(name: str, tinypy: pa.Table) -> None:
    assert np.unique(DIFFICULTIES.get(name)()(tinypy)).size > 1


@EVERY
def test_scoring_twice_gives_the_same(name: str, tinypy: pa.Table) -> None:
    part = DIFFICULTIES.get(name)()
    assert same(part(tinypy), part(tinypy))


@EVERY
def test_the_order_of_the_rows_does_not_matter(name: str, tinypy: pa.Table) -> None:
    turned = np.arange(tinypy.num_rows)[::-1]
    scores = DIFFICULTIES.get(name)()(tinypy)
    assert np.allclose(DIFFICULTIES.get(name)()(tinypy.take(turned)), scores[turned], rtol=1e-12)


@EVERY
def test_what_the_program_prints_is_not_scored(name: str, tinypy: pa.Table) -> None:
    other = tinypy.set_column(2, "answer", pa.array(["# 1\n# 22\n"] * tinypy.num_rows, pa.large_string()))
    assert same(DIFFICULTIES.get(name)()(other), DIFFICULTIES.get(name)()(tinypy))


@EVERY
def test_what_is_not_python_has_no_score_and_stops_nothing(name: str) -> None:
    deep = "(" * 5000 + ")" * 5000
    samples = make_table({"answer": ["a = 1\nprint(a)\n", "if if\n", "a\0b", deep, "\udc80"[:0] + "x = = 2"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = DIFFICULTIES.get(name)()(samples)
    assert np.isfinite(scores[0])
    assert np.isfinite(scores[1:]).all() == (name in ANY_TEXT)
    assert np.isnan(scores[1:]).all() == (name not in ANY_TEXT)


@EVERY
def test_samples_in_another_language_are_not_read_as_python(name: str) -> None:
    samples = make_table({"answer": ["a = 1\n", "a = 1\n"], "language": ["ruby", "python"]})
    assert np.isnan(DIFFICULTIES.get(name)()(samples)).tolist() == [name not in ANY_TEXT, False]


@EVERY
def test_an_empty_table_gives_no_scores(name: str, tinypy: pa.Table) -> None:
    assert DIFFICULTIES.get(name)()(tinypy.slice(0, 0)).shape == (0,)


@EVERY
def test_an_unknown_option_is_a_mistake_in_the_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        DIFFICULTIES.get(name)(nonsense=1)


@EVERY
def test_it_can_be_sent_to_another_process(name: str, tinypy: pa.Table) -> None:
    part = DIFFICULTIES.get(name)()
    assert same(pickle.loads(pickle.dumps(part))(tinypy), part(tinypy))


@EVERY
def test_its_summary_is_one_line(name: str) -> None:
    summary = next(entry.summary for entry in DIFFICULTIES if entry.name == name)
    assert 10 < len(summary) < 110


def test_the_collector_is_left_as_it_was(tinypy: pa.Table) -> None:
    for turn in (gc.disable, gc.enable):
        turn()
        before = gc.isenabled()
        DIFFICULTIES.get("om")()(tinypy)
        assert gc.isenabled() is before


@pytest.mark.parametrize("name", ["om", "rarity", "size"])  # one of each road to the processes
def test_any_number_of_workers_gives_the_same_scores(name: str) -> None:
    few = generate(50, seed=9).table
    many = few.take(np.arange(2 * CHUNK + 10) % few.num_rows)
    part = DIFFICULTIES.get(name)()
    assert same(part(many, workers=2), part(many, workers=1))
