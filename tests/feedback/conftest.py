"""A student that knows half of its programs by heart, and the programs."""

from __future__ import annotations

import pyarrow as pa
import pytest
from graders import CONTEXT
from small_students import one_thread, train, untrained

from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer, texts_of
from gradatim.sandbox.command import sandbox_support
from gradatim.table import make_table

__all__ = ["one_thread"]


@pytest.fixture
def walls() -> None:
    """The test needs walls, and is skipped with the reason where there are none."""
    found = sandbox_support()
    if not found.available:
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


@pytest.fixture(scope="session")
def student(samples: pa.Table) -> LoadedModel:
    """Trained on the even rows until it knows most of them."""
    student = untrained(character_tokenizer(texts_of(samples)), CONTEXT)
    return train(student, samples.take(list(range(0, samples.num_rows, 2))), 120)
