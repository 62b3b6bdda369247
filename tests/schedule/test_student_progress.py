"""What is measured for schedules: losses as in training, right answers as in greedy decoding, kept whole on disk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gradatim.errors import RunFolderError, Stopped
from gradatim.inference.loglikelihood import load_probe, measure, read_answers, save_probe
from gradatim.model.architecture import create
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import Encoded, character_tokenizer, encode_table, texts_of
from gradatim.schedule import Bands
from gradatim.stage import Event, Needs, Probe
from gradatim.table import make_table

SAMPLES = make_table(
    {
        "prompt": [f"a = {a}\nb = {b}\n# output\n" + "#" * (a % 3) for a in range(6) for b in range(4)],
        "answer": [f"# {a}\n" * (1 + b % 2) for a in range(6) for b in range(4)],
    }
)


@pytest.fixture(scope="module")
def asked() -> tuple[LoadedModel, Encoded]:
    """A student that has learnt a little, so that some of its answers are right and some are not."""
    tokenizer = character_tokenizer(texts_of(SAMPLES))
    special = {"pad_token_id": int(tokenizer.pad_token_id), "eos_token_id": int(tokenizer.eos_token_id)}
    model = create("tiny", vocabulary=len(tokenizer), context=64, special=special, seed=3)
    encoded = encode_table(tokenizer, SAMPLES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(40):
        tokens = torch.from_numpy(encoded.sample(step % 5).astype(np.int64))[None]
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return LoadedModel(model.eval(), tokenizer), encoded


@torch.no_grad()
def alone(student: LoadedModel, encoded: Encoded, row: int) -> tuple[float, bool]:
    """One sample by itself: the loss of its answer, and whether decoding step by step writes it."""
    tokens = torch.from_numpy(encoded.sample(row).astype(np.int64))
    start = int(encoded.answer_starts[row])
    chances = student.model(input_ids=tokens[None]).logits[0].log_softmax(-1)
    loss = -sum(float(chances[at - 1, tokens[at]]) for at in range(start, len(tokens)))
    written = tokens[:start].tolist()
    while len(written) < len(tokens):
        written.append(int(student.model(input_ids=torch.tensor([written])).logits[0, -1].argmax()))
    return loss, written == tokens.tolist()


def test_losses_and_right_answers_are_those_of_each_sample_by_itself(asked: tuple[LoadedModel, Encoded]) -> None:
    student, encoded = asked
    rows = np.arange(len(encoded))[::-1].copy()
    read = read_answers(student, encoded, rows)
    expected = [alone(student, encoded, row) for row in rows]
    assert np.array_equal(read.rows, rows)
    assert read.loss == pytest.approx([loss for loss, _ in expected], abs=1e-3)
    assert read.correct.tolist() == [right for _, right in expected]
    assert {True, False} == set(read.correct.tolist())
    assert read.tokens.tolist() == [len(encoded.sample(row)) - encoded.answer_starts[row] for row in rows]


def test_transformers_is_given_no_reason_to_warn_of_padding(asked: tuple[LoadedModel, Encoded]) -> None:
    student, encoded = asked
    widths: set[int] = set()

    def watched(model: torch.nn.Module, args: tuple[()], given: dict[str, torch.Tensor]) -> None:
        widths.add(given["input_ids"].shape[1])
        assert student.tokenizer.pad_token_id not in given["input_ids"][:, [0, -1]]  # what transformers looks at

    handle = student.model.register_forward_pre_hook(watched, with_kwargs=True)
    try:
        read_answers(student, encoded, np.arange(len(encoded)))
    finally:
        handle.remove()
    assert widths == {max(len(encoded.sample(row)) for row in range(len(encoded))) - 1}  # lengths differ in one batch


def test_a_sample_longer_than_the_context_is_left_out(asked: tuple[LoadedModel, Encoded]) -> None:
    student, _ = asked
    long = make_table({"prompt": ["a = 1\n" * 20, "a = 1\n"], "answer": ["# 1\n", "# 1\n"]})
    assert read_answers(student, encode_table(student.tokenizer, long), np.arange(2)).rows.tolist() == [1]


def test_an_answer_without_a_prompt_is_read_from_its_second_token(asked: tuple[LoadedModel, Encoded]) -> None:
    student, _ = asked
    bare = encode_table(student.tokenizer, make_table({"answer": ["a = 1\n"]}))
    read = read_answers(student, bare, np.arange(1))
    assert read.tokens.tolist() == [6]
    assert 0 < read.loss[0] < 60


def test_measuring_stops_when_it_is_told_to(asked: tuple[LoadedModel, Encoded]) -> None:
    def stop(event: Event) -> None:
        raise Stopped("by the user")

    with pytest.raises(Stopped):
        read_answers(*asked, np.arange(3), events=stop)


def test_what_is_measured_is_what_was_asked_for(asked: tuple[LoadedModel, Encoded], tmp_path: Path) -> None:
    student, encoded = asked
    bands = Bands(("easy", "hard"), (1.0,), np.repeat([0, 1, -1], 8).astype(np.int8))
    places = np.array([0] * 8 + [-1] * 16, dtype=np.int8)
    path = tmp_path / "probe.npz"

    def found(needs: Needs) -> dict:
        return measure(needs, student, encoded, encoded, bands, places, seed=4, path=path)

    assert found(Needs()) == {"progress": {}, "probed": 0}
    progress = found(Needs(band_loss=True))["progress"]
    assert list(progress) == ["easy"]  # no validation sample is hard
    read = read_answers(student, encoded, np.arange(8))
    assert progress["easy"]["loss"] == pytest.approx(read.loss.sum() / read.tokens.sum())
    assert progress["easy"]["right"] == pytest.approx(read.correct.mean())
    assert progress["easy"]["samples"] == 8
    assert not path.exists()
    assert found(Needs(sample_loss=True, probe=5)) == {"progress": {}, "probed": 5}
    probe = load_probe(path)
    assert set(probe.rows) <= set(range(16))
    assert probe.loss == pytest.approx([alone(student, encoded, row)[0] for row in probe.rows], abs=1e-3)
    assert found(Needs(sample_loss=True))["probed"] == 16


def test_a_probe_comes_back_bit_for_bit_and_a_broken_one_is_told(tmp_path: Path) -> None:
    probe = Probe(np.array([1, 5]), np.array([math.pi, 1e-300]), np.array([3, 4]))
    save_probe(probe, tmp_path / "probe.npz")
    back = load_probe(tmp_path / "probe.npz")
    assert all(np.array_equal(getattr(back, name), getattr(probe, name)) for name in ("rows", "loss", "tokens"))
    whole = (tmp_path / "probe.npz").read_bytes()
    (tmp_path / "probe.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("probe.npz", "missing.npz"):
        with pytest.raises(RunFolderError, match="probe of a stage cannot be read"):
            load_probe(tmp_path / name)
