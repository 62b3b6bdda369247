"""User data end to end: pairs and code from files, with a column mapping, to a result."""

import json
from pathlib import Path
from typing import Any

import pytest

from gradatim.errors import DataError
from gradatim.experiment.recipe import parse
from gradatim.experiment.run import run

PAIRS = [(f"How much is {a} plus {b}?\n", f"{a + b}\n") for a in range(20) for b in range(12)]
CODE = [f"def f{a}(x):\n    return x * {a} + {b}\n" for a in range(12) for b in range(12)]


def recipe(data: dict[str, Any], suites: list[dict[str, Any]]) -> Any:
    return parse(
        {
            "threads": 1,
            "data": {"source": "file", "split": {"by": "text", "validation": 20, "test": 20}, **data},
            "difficulty": {"metric": "size", "bands": {"names": ["short", "long"]}},
            "schedule": {"name": "sequential"},
            "budget": {"tokens": 3000},
            "student": {"preset": "tiny", "context_length": 64},
            "train": {"batching": "packed", "batch_size": 8, "max_length": 64, "evaluations_per_stage": 1},
            "evaluate": {"suites": suites},
        }
    )


def test_prompt_and_answer_pairs_with_a_column_mapping(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [json.dumps({"instruction": prompt, "output": answer, "id": 7}) for prompt, answer in PAIRS]
    path.write_text("\n".join([*rows, json.dumps({"instruction": "no answer"}), "{broken"]) + "\n")
    data = {"path": str(path), "columns": {"prompt": "instruction", "answer": "output"}}
    stages = run(recipe(data, [{"suite": "output", "protocol": "greedy"}]), tmp_path / "run")
    assert [stage.spec.name for stage in stages] == ["short", "long"]
    assert stages[-1].evaluations[0].counts["all"]["all"].total == 20
    facts = json.loads((tmp_path / "run" / "cycle-00" / "table.json").read_text())["facts"]["source"]
    assert facts["kept"] == len(PAIRS)
    rejected = next((tmp_path / "run" / "data").glob("*/*.rejected.jsonl")).read_text().splitlines()
    assert len(rejected) == 2


def test_plain_code_for_completion(tmp_path: Path) -> None:
    path = tmp_path / "code.jsonl"
    path.write_text("".join(json.dumps({"content": code}) + "\n" for code in CODE))
    data = {"path": str(path), "columns": {"answer": "content"}, "language": "python"}
    suites = [{"suite": "token", "protocol": "greedy"}, {"suite": "line", "protocol": "greedy", "limit": 10}]
    stages = run(recipe(data, suites), tmp_path / "run")
    assert [each.suite for each in stages[-1].evaluations] == ["token", "line"]
    assert stages[-1].evaluations[1].counts["all"]["all"].total == 10


def test_a_dataset_saved_by_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_dict({"q": [prompt for prompt, _ in PAIRS], "a": [answer for _, answer in PAIRS]})
    saved.save_to_disk(str(tmp_path / "saved"))
    data = {"path": str(tmp_path / "saved"), "columns": {"prompt": "q", "answer": "a"}}
    assert len(run(recipe(data, [{"suite": "output", "protocol": "greedy"}]), tmp_path / "run")) == 2


def test_a_mapping_to_a_missing_column_names_the_columns_there_are(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    data = {"path": str(path), "columns": {"prompt": "instructions", "answer": "output"}}
    with pytest.raises(DataError, match="instruction"):
        run(recipe(data, [{"suite": "output", "protocol": "greedy"}]), tmp_path / "run")
