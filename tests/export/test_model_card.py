"""The card of an exported run tells what is known, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from preset_students import samples, student
from small_models import base

from gradatim.cli.main import main
from gradatim.export import model_card
from gradatim.export.exporter import Export
from gradatim.export.write import export_model

SMALL = [
    *("--set", "data.count=300", "--set", "data.split.test=20", "--set", "data.split.validation=20"),
    *("--set", "budget.tokens=6000"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "smoke"
    assert main(["run", "smoke/baseline", *SMALL, "--out", str(folder)]) == 0
    return folder


def model_of(run: Path) -> Path:
    return next(run.glob("cycle-00/stage-*/model"))


def test_the_card_of_a_run_has_recipe_data_commit_and_results_with_intervals(run, tmp_path):
    export = export_model(model_of(run), tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    (evaluation,) = model_of(run).parent.glob("evaluation-*.json")
    counts = json.loads(evaluation.read_text())["counts"]["all"]["all"]
    assert f"{counts['passed'] / counts['total']:.1%} | " in card.content
    assert card.data.eval_results[0].metric_value == round(counts["passed"] / counts["total"], 4)
    (train,) = run.glob("data/*/train.parquet")
    for known in (
        hashlib.sha256(train.read_bytes()).hexdigest(),
        hashlib.sha256((run / "recipe.yaml").read_bytes()).hexdigest(),
        json.loads((run / "environment.json").read_text())["commit"],
        (run / "recipe.yaml").read_text().strip(),
        f"{export.texts} texts have the same tokens",
        "its author chooses the licence",
    ):
        assert known in card.content
    assert card.data.license is None


def test_the_card_of_a_model_outside_of_a_run_says_that_its_origin_is_not_recorded(tmp_path):
    export_model(student(tmp_path / "model", "tiny", samples(4)), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "origin not recorded" in text
    assert "## Training" not in text


@pytest.mark.parametrize(
    ("stated", "told"), [("license: apache-2.0\n", "apache-2.0"), ("", "unknown"), ("[", "unknown")]
)
def test_the_licence_is_that_of_the_base(stated, told, tmp_path):
    folder = base(tmp_path / "base")
    (folder / "README.md").write_text(f"---\n{stated}---\n# Base\n")
    assert model_card.licence_of(str(folder)) == told


def test_a_card_of_the_folder_is_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    export = Export("", "hf", 32, (), 1, 1, 1, 0.0, 0.0, 1.0, ())
    model_card.write_card(tmp_path, tmp_path / "model", export)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_damaged_run_folder_still_gives_a_card(tmp_path):
    (tmp_path / "recipe.yaml").write_text("[")
    (tmp_path / "environment.json").write_text("{")
    export = Export("", "gguf", 8, ("model.gguf",), 1, 1, 1, 0.0, 0.0, 1.0, ("a note",))
    text = model_card.card(tmp_path / "cycle-00" / "stage-00-all" / "model", export)
    assert "8 bits per weight" in text
    assert "- a note." in text
