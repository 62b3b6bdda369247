"""What every teacher owes the loop, whoever it is: rows in their order, the same for the same call, counts, no wonders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradatim.errors import RecipeError, UserError
from gradatim.programs import generate
from gradatim.teacher import TEACHERS, Grade, Question

PROGRAM = "b = 3\nprint(b + 1)\n"
SCRIPT = {
    "begins with": f"```python\n{PROGRAM}```",
    "learner say": "```\n-7\n```",
    "print?": "```\n4\n```",
    "attempt": "It is fine.\n<scores>\nbasic functionality: 2\nboundary checks: 1\nrequirement coverage: 1\n"
    "readability and documentation: 0.5\ncoding practices: 1\n</scores>",
}
EVERY = pytest.mark.parametrize("name", TEACHERS.names())


@pytest.fixture
def options(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """For each teacher, options with which it stands; nobody is asked yet. A new teacher adds its own."""
    return {
        "api": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "key": None, "retries": 0, "cache": tmp_path / "c"},
        "local": {"cache": tmp_path / "c", "max_tokens": 12},
        "oracle": {"seed": 2},
        "scripted": {"replies": SCRIPT},
    }


@pytest.fixture
def make(options: dict[str, dict[str, Any]], request: pytest.FixtureRequest):
    """Teachers that answer: the endpoint is a real server that follows the script, the local model a tiny student."""

    def made(name: str) -> Any:
        given = dict(options[name])
        if name == "api":
            given["base_url"] = request.getfixturevalue("endpoint")
        if name == "local":
            given["model"] = request.getfixturevalue("tiny")
        return TEACHERS.get(name)(**given)

    return made


@pytest.fixture
def endpoint():
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    from threading import Thread

    from teachers_server import Scripted

    with Scripted(SCRIPT) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def samples():
    return generate(6, levels=["1.1", "3.1"], seed=1).table
