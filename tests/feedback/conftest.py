"""A student that knows half of its programs by heart, and the programs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from graders import CONTEXT
from transformers import GPT2Config, GPT2LMHeadModel

from gradatim.sandbox.walls import find_walls
from gradatim.student.load import LoadedStudent
from gradatim.student.tokenizer import character_tokenizer, encode_table, texts_of
from gradatim.table import make_table


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small run slower on two threads, and tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def walls() -> None:
    """The test needs walls, and is skipped with the reason where there are none."""
    found = find_walls()
    if not found.stand:
        pytest.skip(f"no walls: {found.reason}; {found.advice}")


def programs(count: int = 40) -> pa.Table:
    """Sums whose every second one the student will have learnt."""
    pairs = [(number % 10, number // 10 * 7 + 2) for number in range(count)]
    return make_table(
        {
            "prompt": [f"a = {one}\nprint(a + {other})\n# output\n" for one, other in pairs],
            "answer": [f"# {one + other}\n" for one, other in pairs],
            "level": ["1.1" if row % 4 < 2 else "1.2" for row in range(count)],
            "language": ["python"] * count,
        }
    )


@pytest.fixture(scope="session")
def samples() -> pa.Table:
    return programs()


def train(student: LoadedStudent, known: pa.Table, steps: int) -> None:
    encoded = encode_table(student.tokenizer, known)
    ids = torch.zeros(len(encoded), int(np.diff(encoded.offsets).max()), dtype=torch.long)
    for row in range(len(encoded)):
        sample = torch.from_numpy(encoded.sample(row).astype(np.int64))
        ids[row, : len(sample)] = sample
    labels = torch.where(ids == 0, -100, ids)
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=1e-2, weight_decay=0)
    student.model.train()
    for _ in range(steps):
        loss = student.model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.model.eval()


@pytest.fixture(scope="session")
def student(samples: pa.Table) -> LoadedStudent:
    """Trained on the even rows until it knows most of them."""
    torch.manual_seed(0)
    tokenizer = character_tokenizer(texts_of(samples))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=48, n_layer=1, n_head=4,
        bos_token_id=1, eos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    student = LoadedStudent(GPT2LMHeadModel(config).eval(), tokenizer)
    train(student, samples.take(list(range(0, samples.num_rows, 2))), 120)
    return student
