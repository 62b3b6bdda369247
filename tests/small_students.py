"""Students of one layer that learn a few samples by heart in seconds, for tests that need one that knows something."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import encode_table


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small run slower on two threads, and tests share the machine. A conftest that imports it has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def untrained(tokenizer: PreTrainedTokenizerFast, context: int = 80) -> LoadedModel:
    """One that knows nothing; the same each time."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=context, n_embd=48, n_layer=1, n_head=4,
        bos_token_id=1, eos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    return LoadedModel(GPT2LMHeadModel(config).eval(), tokenizer)


def train(student: LoadedModel, known: pa.Table, steps: int) -> LoadedModel:
    """``student`` after ``steps`` steps on all of ``known`` at once; 120 to 150 are enough to know it."""
    encoded = encode_table(student.tokenizer, known)
    ids = torch.zeros(len(encoded), int(np.diff(encoded.offsets).max()), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row in range(len(encoded)):
        sample = torch.from_numpy(encoded.sample(row).astype(np.int64))
        ids[row, : len(sample)] = labels[row, : len(sample)] = sample
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=1e-2, weight_decay=0)
    student.model.train()
    for _ in range(steps):
        loss = student.model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.model.eval()
    return student
