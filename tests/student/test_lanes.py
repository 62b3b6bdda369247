"""Lanes: a batch parted among threads gives the gradient of the whole, the same bits every time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradatim.programs import generate
from gradatim.record import Metrics
from gradatim.stage import Stage, StageSpec
from gradatim.student.batches import Batch
from gradatim.student.lanes import Lanes, parted
from gradatim.student.learner import Learner
from gradatim.student.settings import ModelSettings, OptimizerSettings, TrainSettings
from gradatim.student.tokenizer import character_tokenizer, encode_table, texts_of

TRAIN = TrainSettings(
    batching="packed",
    size=8,
    length=96,
    isolate=True,
    precision="fp32",
    validate=0,
    optimizer=OptimizerSettings("adamw"),
)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def learn(folder: Path, train: TrainSettings = TRAIN) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    table = generate(300, levels=["1.1", "2.1"], seed=3).table
    tokenizer = character_tokenizer(texts_of(table))
    samples = encode_table(tokenizer, table)
    student = Learner(
        tokenizer, samples, samples, Metrics(folder / "m.jsonl"), 1, ModelSettings("tiny", context=96), train
    )
    student.fit(Stage(StageSpec("all", (1.0,), 20_000), 0, np.arange(len(samples)), 5, 0, 20_000), folder, None)
    return load_file(folder / "model" / "model.safetensors")


def test_lanes_learn_what_one_lane_learns(two_threads, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    two = learn(tmp_path / "two")
    torch.set_num_threads(1)
    one = learn(tmp_path / "one")
    for name, weights in one.items():
        assert torch.allclose(weights, two[name], atol=2e-3), name


def test_lanes_give_the_same_bits_every_time(two_threads, tmp_path):
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        torch.set_num_threads(2)
        runs.append(learn(tmp_path / name))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def batch(lines: int) -> Batch:
    numbers = np.arange(lines * 4).reshape(lines, 4)
    pairs = np.where(numbers % 4 == 1, numbers // 4, -1)
    return Batch(numbers, numbers, numbers > 5, None, numbers > 7, pairs, np.arange(lines) + 100)


@pytest.mark.parametrize(("lines", "count", "sizes"), [(8, 2, [4, 4]), (5, 2, [2, 3]), (1, 2, [1]), (7, 3, [2, 3, 2])])
def test_parts_are_the_batch_and_none_is_empty(lines, count, sizes):
    parts = parted(batch(lines), count)
    assert [len(part.inputs) for part in parts] == sizes
    for name in ("inputs", "labels", "answer", "second"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(batch(lines), name))


def test_a_part_knows_its_own_pairs_only():
    for part in parted(batch(5), 2):
        places = part.pairs[part.pairs >= 0]
        assert sorted(places) == list(range(len(part.rows)))
        assert [part.rows[place] - 100 for place in places] == [line[0] // 4 for line in part.inputs]


@pytest.mark.parametrize("train", [replace(TRAIN, size=3), replace(TRAIN, compile=True)])
def test_small_batches_and_compiled_steps_have_one_lane(two_threads, train):
    assert Lanes.of(torch.nn.Linear(2, 2), train).count == 1
    assert Lanes.of(torch.nn.Linear(2, 2), TRAIN).count == 2


def test_dropout_has_one_lane(two_threads):
    assert Lanes.of(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1)), TRAIN).count == 1


def test_dropout_that_only_the_configuration_tells_of_has_one_lane(two_threads):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    assert Lanes.of(LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.2)), TRAIN).count == 1
    assert Lanes.of(LlamaForCausalLM(LlamaConfig(**sizes)), TRAIN).count == 2
