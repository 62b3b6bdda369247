"""A student that knows eight programs by heart, one that knows nothing, and the programs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from serving import server
from small_students import one_thread, train, untrained

from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer, texts_of

__all__ = ["one_thread", "server"]

PROGRAMS = [
    ("a = 5\nprint(a)\n# output\n", "# 5\n"),
    ("b = 2 - 9\nprint(b)\n# output\n", "# -7\n"),
    ("c = 7 / 2\nprint(c)\n# output\n", "# 3.5\n"),
    ("d = 8\nif d > 3 :\n\tprint(d - 9)\n# output\n", "# -1\n"),
    ("for i in range(2):\n\tprint(i)\n# output\n", "# 0\n# 1\n"),
    ("e = 4\nprint(e * 6)\n# output\n", "# 24\n"),
    ("f = 1\nprint(f)\nprint(0 - 5.25)\n# output\n", "# 1\n# -5.25\n"),
    ("g = 3\nprint(g + g)\n# output\n", "# 6\n"),
]

LONG = "# 1111\n# 2222\n# 3333\n# 4444\n"
ODDITIES = [
    ("print(1111 * h)\n# output\n", LONG),
    ("for h in k :\n\tprint(h)\n# output\n", LONG),
    ("m = 5\n# output\n", "# 5\n\n# 9\n"),
]


def table_of(samples: list[tuple[str, str]], **columns: pa.Array) -> pa.Table:
    prompts, answers = zip(*samples, strict=True)
    texts = {"prompt": pa.array(prompts, pa.large_string()), "answer": pa.array(answers, pa.large_string())}
    return pa.table({"id": pa.array([f"id{n}" for n in range(len(samples))]), **texts, **columns})


@pytest.fixture(scope="session")
def programs() -> pa.Table:
    return table_of(
        PROGRAMS,
        level=pa.array(["1.1", "1.1", "1.2", "2.1", "3.1", "1.1", "1.2", "1.1"]).dictionary_encode(),
        band=pa.array(["easy", "easy", "hard", "hard", "hard", "easy", None, "easy"]),
        twin=pa.array(["new", "twin"] * 4),
    )


@pytest.fixture(scope="session")
def oddities() -> pa.Table:
    """Two long outputs, without and with a for, and one with a blank line; the expert knows them too."""
    return table_of(ODDITIES)


@pytest.fixture(scope="session")
def novice(programs) -> LoadedModel:
    return untrained(character_tokenizer(texts_of(programs)))


@pytest.fixture(scope="session")
def guesser() -> LoadedModel:
    """Trained until it writes one or two numbers and ends, though nothing tells it which numbers."""
    random = np.random.default_rng(0)
    answers = ["".join(f"# {number}\n" for number in random.integers(-9, 40, size=1 + row % 2)) for row in range(48)]
    names = "abcdefgh"
    prompts = [f"{names[row % 8]} = {row % 10}\nprint({row // 8})\n# output\n" for row in range(48)]
    known = table_of(list(zip(prompts, answers, strict=True)))
    return train(untrained(character_tokenizer([*texts_of(known), "for .0123456789"])), known, 40)


@pytest.fixture(scope="session")
def expert() -> LoadedModel:
    """Trained on the programs and the oddities until it knows them."""
    known = table_of(PROGRAMS + ODDITIES)
    return train(untrained(character_tokenizer(texts_of(known))), known, 150)
