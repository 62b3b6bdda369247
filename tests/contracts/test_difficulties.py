"""The contract of every registered difficulty: one float64 per row, pure, the same on any number of processes.

Those that look at the program alone, and those that ask a model or a teacher (at the end), share the part that is about
the column; what is scored differs.
"""

from __future__ import annotations

import gc
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pytest

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.python_source import CHUNK
from gradatim.errors import RecipeError
from gradatim.experiment.assemble.components import make_difficulty
from gradatim.options import option_names
from gradatim.programs import generate
from gradatim.table import make_table

ASKING = [name for name in DIFFICULTIES.names() if {"model", "teacher"} & set(option_names(DIFFICULTIES.get(name)))]
"""Difficulties that ask a model or a teacher, which an option names."""

OF_ENVIRONMENTS = {"load", "nearest_station"}
"""Difficulties of environments of mobile networks, which no program has; `tests/mobile` has theirs."""

EVERY = pytest.mark.parametrize("name", sorted({*DIFFICULTIES.names()} - {*ASKING} - OF_ENVIRONMENTS))
EVERY_ASKING = pytest.mark.parametrize("name", ASKING)
ANY_TEXT = {"size", "compression"}  # the metrics that do not ask that it is Python
EVERY_READING = pytest.mark.parametrize(
    "name", [name for name in DIFFICULTIES.names() if name not in {*ASKING, *OF_ENVIRONMENTS, "column"}]
)
"""Those that read the program: `given` reads a number beside it."""


@pytest.fixture(scope="module")
def tinypy() -> pa.Table:
    return generate(140, seed=3).table


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


@EVERY_READING
def test_what_is_not_python_has_no_score_and_stops_nothing(name: str) -> None:
    deep = "(" * 5000 + ")" * 5000
    samples = make_table({"answer": ["a = 1\nprint(a)\n", "if if\n", "a\0b", deep, "\udc80"[:0] + "x = = 2"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = DIFFICULTIES.get(name)()(samples)
    assert np.isfinite(scores[0])
    assert np.isfinite(scores[1:]).all() == (name in ANY_TEXT)
    assert np.isnan(scores[1:]).all() == (name not in ANY_TEXT)


@EVERY_READING
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


@pytest.fixture(scope="module")
def few() -> pa.Table:
    return generate(40, seed=4).table


@pytest.fixture(scope="module")
def model(few: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that has learnt nothing, with a tokenizer for ``few``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gradatim.model.tokenizer import character_tokenizer, texts_of

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("asked")
    tokenizer = character_tokenizer(texts_of(few))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def asking(model: str, tmp_path, monkeypatch):
    """Make a difficulty that asks, with nothing remembered at first."""
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    reply = "<analysis>It depends.</analysis><difficulty>{}</difficulty>"
    replies = {"while": reply.format(9), "for": reply.format(6), "if": reply.format(4), "=": reply.format(2)}
    # The words of the packaged prompt must not decide: this one shows the program alone.
    (tmp_path / "prompt.md").write_text("{question}")
    options = {"replies": replies}

    def make(name: str):
        taught = "teacher" in option_names(DIFFICULTIES.get(name))
        given = {"teacher": "scripted", "options": options, "prompt": str(tmp_path / "prompt.md")}
        return make_difficulty(name, given if taught else {"model": model})

    return make


@EVERY_ASKING
def test_one_that_asks_scores_every_row_and_tells_them_apart(name: str, asking, few: pa.Table) -> None:
    scores = asking(name)(few)
    assert (scores.dtype, scores.shape) == (np.float64, (few.num_rows,))
    assert np.isfinite(scores).all()
    assert np.unique(scores).size > 1


@EVERY_ASKING
def test_one_that_asks_gives_the_same_in_any_order_and_process(name: str, asking, few: pa.Table) -> None:
    scores = asking(name)(few)
    turned = np.arange(few.num_rows)[::-1]
    assert same(asking(name)(few.take(turned)), scores[turned])
    assert same(pickle.loads(pickle.dumps(asking(name)))(few), scores)
    assert same(asking(name)(few, workers=2), scores)


@EVERY_ASKING
def test_one_that_asks_gives_the_same_when_nothing_is_remembered(
    name: str, asking, few: pa.Table, tmp_path, monkeypatch
) -> None:
    scores = asking(name)(few)
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "another"))
    turned = np.arange(few.num_rows)[::-1]
    assert np.allclose(asking(name)(few.take(turned)), scores[turned], rtol=1e-4)


@EVERY_ASKING
def test_one_that_asks_gives_an_empty_table_no_scores(name: str, asking, few: pa.Table) -> None:
    assert asking(name)(few.slice(0, 0)).shape == (0,)


@EVERY_ASKING
def test_one_that_asks_refuses_unknown_options_and_says_what_it_lacks(name: str) -> None:
    with pytest.raises(RecipeError, match="has no option 'nonsense'"):
        make_difficulty(name, {"nonsense": 1})
    with pytest.raises(RecipeError, match="it needs a"):
        make_difficulty(name)


@EVERY_ASKING
def test_the_identity_of_one_that_asks_is_not_the_path_of_its_model(name: str, asking, model: str) -> None:
    told = asking(name).identity
    assert told == asking(name).identity
    assert model not in told


@EVERY_ASKING
def test_the_summary_of_one_that_asks_is_one_line_and_says_what_it_needs(name: str) -> None:
    summary = next(entry.summary for entry in DIFFICULTIES if entry.name == name)
    assert 10 < len(summary) < 110
    assert "needs a" in summary
