"""The loss of the answers before training, by part: first tokens, body, end."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from small_models import base

from gradatim.inference.answer_loss import answer_losses
from gradatim.model.load import load_model, open_own_tokenizer
from gradatim.model.tokenizer import Encoded, encode_table
from gradatim.results import answer_notes, decode_answer_losses
from gradatim.stage import AnswerLoss
from gradatim.table import make_table


@pytest.fixture
def model(tmp_path):
    return load_model(str(base(tmp_path / "base")))


@pytest.fixture
def samples(tmp_path) -> Encoded:
    table = make_table(
        {
            "prompt": ["a question ", "another one "],
            "answer": ["print(12)\n", "a = 3\nprint(a)\n"],
            "rejected": [None, "print(4)\n"],
        }
    )
    encode_table(open_own_tokenizer(str(base(tmp_path / "of-tokens")), "model"), table, tmp_path / "tokens")
    return Encoded.open(tmp_path / "tokens")


def loss_of(model, tokens: np.ndarray, start: int) -> np.ndarray:
    """Nats of each token from ``start``, one forward pass."""
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.inference_mode():
        logits = model.model(ids[:, :-1]).logits[0]
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").numpy()[start - 1 :]


def test_the_parts_of_all_answers_add_up_to_their_loss(model, samples):
    losses = answer_losses(model, samples)
    expected = [loss_of(model, samples.sample(row), int(samples.answer_starts[row])) for row in range(2)]
    answer = losses["answer"]
    assert answer.first[0] == pytest.approx(sum(nats[:3].sum() for nats in expected), rel=1e-4)
    assert answer.body[0] == pytest.approx(sum(nats[3:-1].sum() for nats in expected), rel=1e-4)
    assert answer.end[0] == pytest.approx(sum(nats[-1] for nats in expected), rel=1e-4)
    assert answer.first[1] + answer.body[1] + answer.end[1] == sum(map(len, expected))
    assert answer.samples == 2


def test_rejected_answers_follow_the_prompt_of_their_row(model, samples):
    losses = answer_losses(model, samples)
    start = int(samples.answer_starts[1])
    tokens = np.concatenate([samples.sample(1)[:start], samples.rejected.answer(1)])
    nats = loss_of(model, tokens, start)
    assert losses["rejected"].samples == 1
    assert losses["rejected"].end[0] == pytest.approx(nats[-1], rel=1e-4)
    assert "attempt" not in losses
    stored = json.loads(json.dumps({kind: asdict(loss) for kind, loss in losses.items()}))
    assert decode_answer_losses(stored) == losses


def test_a_form_that_the_model_never_writes_is_a_warning():
    def warnings(first: float, body: float, end: float) -> list[str]:
        loss = AnswerLoss(1, (2 * first, 2), (2 * body, 2), (end, 1))
        return [line for line in answer_notes({"answer": loss}) if line.startswith("warning")]

    assert warnings(1.3, 0.6, 0.01) == []
    assert warnings(1.3, 9.0, 0.01) == []  # content that is hard is no form
    (line,) = warnings(7.7, 0.6, 9.8)
    assert "first tokens of the answers: 7.7" in line
    assert "end of the answers: 9.8" in line
