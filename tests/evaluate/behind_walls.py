"""Where programs can be run: a mark for the tests that need it, and problems to try."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gradatim.sandbox.command import sandbox_support

DATA = os.environ.get("GRADATIM_DATA", "")

needs_data = pytest.mark.skipif(not DATA, reason="GRADATIM_DATA does not name the folder of benchmark files")

ADD: dict[str, Any] = {
    "task_id": "add",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}
TWICE: dict[str, Any] = {
    "task_id": 7,
    "text": "Write a function that doubles a number.",
    "code": "def twice(n):\n    return 2 * n\n",
    "test_list": ["assert twice(2) == 4", "assert twice(-3) == -6"],
}


@pytest.fixture
def walls() -> None:
    """The test needs walls, and is skipped with the reason where there are none."""
    found = sandbox_support()
    if not found.available:
        pytest.skip(f"no walls: {found.reason}; {found.advice}")


def lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write rows, as JSON unless they are text already, one a line."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path
