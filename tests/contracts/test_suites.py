"""What every suite in the registry owes: the same battery for each, plug-ins included."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.evaluate import SUITES, summary
from gradatim.results import decode_suite, encode
from gradatim.student.load import LoadedStudent
from gradatim.student.tokenizer import character_tokenizer, texts_of

EVERY = pytest.mark.parametrize("suite", SUITES.names())
PROTOCOLS = pytest.mark.parametrize("protocol", ["greedy", "paper"])


@pytest.fixture(scope="module")
def samples():
    return pa.table(
        {
            "id": [f"id{n}" for n in range(12)],
            "prompt": [f"a = {n}\nprint(a + {n})\n# output\n" for n in range(12)],
            "answer": [f"# {2 * n}\n" for n in range(12)],
            "level": ["1.1", "1.2"] * 6,
        }
    )


@pytest.fixture(scope="module")
def student(samples):
    torch.manual_seed(1)
    tokenizer = character_tokenizer(texts_of(samples))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    return LoadedStudent(GPT2LMHeadModel(config).eval(), tokenizer)


@EVERY
@PROTOCOLS
def test_the_same_seed_gives_the_same_result(suite, protocol, student, samples):
    one, two = (SUITES.get(suite)(protocol=protocol)(student, samples, seed=5) for _ in range(2))
    assert (one.counts, one.scores, one.examples) == (two.counts, two.scores, two.examples)
    assert (one.suite, one.protocol) == (suite, protocol)


@EVERY
def test_groups_and_outcomes_add_up_to_the_whole(suite, student, samples):
    counts = SUITES.get(suite)()(student, samples, seed=0).counts
    whole = counts["all"]["all"]
    assert set(counts) == {"all", "level", "outcome"}
    for group in counts.values():
        assert sum(part.passed for part in group.values()) == whole.passed
        assert sum(part.total for part in group.values()) == whole.total > 0


@EVERY
def test_a_result_survives_being_written_and_has_the_stable_shape(suite, student, samples):
    result = SUITES.get(suite)()(student, samples, seed=0)
    again = decode_suite(json.loads(json.dumps(encode(result))))
    assert (again.counts, dict(again.scores)) == (result.counts, result.scores)
    assert list(again.examples) == list(result.examples)
    told = json.loads(json.dumps(summary(result)))
    assert set(told["counts"]) == {"passed", "failed", "timeout", "invalid", "total"}
    assert {"value", "low", "high"} == set(told["scores"]["accuracy"])


@EVERY
def test_the_students_random_state_and_mode_are_left_alone(suite, student, samples):
    student.model.train()
    before = torch.get_rng_state()
    SUITES.get(suite)(protocol="paper")(student, samples, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert student.model.training
    student.model.eval()


@EVERY
def test_progress_is_told(suite, student, samples):
    heard = []
    SUITES.get(suite)(batch=5)(student, samples, seed=0, events=heard.append)
    assert heard[0].kind == "start"
    assert heard[-1].kind == "finish"
    assert heard[-1].done == heard[-1].total
    assert len({event.task for event in heard}) == 1


@EVERY
def test_an_empty_table_is_an_error(suite, student, samples):
    with pytest.raises(DataError, match="no samples"):
        SUITES.get(suite)()(student, samples.slice(0, 0), seed=0)


@EVERY
def test_unknown_options_and_values_are_all_told(suite):
    with pytest.raises(RecipeError) as caught:
        SUITES.get(suite)(protocol="beam", limitt=3)
    assert len(caught.value.faults) == 2
    assert "did you mean 'limit'" in str(caught.value)
    with pytest.raises(RecipeError, match="1 or more") as caught:
        SUITES.get(suite)(limit=0, batch=-1)
    assert len(caught.value.faults) == 2


def test_an_unknown_suite_is_told_with_the_nearest():
    with pytest.raises(UnknownPart, match="did you mean 'output'"):
        SUITES.get("outputs")
