"""The examples are short and run as a user runs them."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from forked_commands import run_command

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, folder: Path) -> str:
    """The output of an example, run without a network."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    done = run_command([str(folder / "trained")], folder, environment, EXAMPLES / name)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def statements(path: Path) -> int:
    """Lines of code: neither blank, comment nor docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and at not in texts for at, line in lines)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_has_about_thirty_lines_of_code(path):
    assert statements(path) <= 32


def test_a_training_loop_resumes_at_the_exact_sample(tmp_path):
    output = run("dataloader.py", tmp_path)
    samples = int(re.search(r"of (\d+) samples", output)[1])
    assert output.startswith("CurriculumSampler(easy ")
    assert f"the last {samples - 160} of {samples} samples" in output
    assert f"{samples // 16} steps, loss" in output


def test_the_library_gives_functions_that_parse_and_can_be_planned_with(tmp_path):
    from gradatim.experiment.plan import plan_run
    from gradatim.experiment.recipe import load

    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "library_functions.py"), "functions.jsonl", "300"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "functions.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == len({row["prompt"] for row in rows}) == 300
    for row in rows:
        assert isinstance(ast.parse(row["prompt"] + row["answer"]).body[0], ast.FunctionDef)
        assert row["prompt"].endswith("\n")
    settings = [f"data.path={tmp_path / 'functions.jsonl'}", f"student.base={tmp_path}"]
    plan = plan_run(load("pretrained/hybrid", settings), data=True)
    assert plan.data is not None
    assert plan.data["train"] == 100


@pytest.mark.slow
def test_the_trainer_goes_on_from_its_last_checkpoint_when_it_is_run_again(tmp_path):
    pytest.importorskip("accelerate")
    output = run("trainer.py", tmp_path)
    samples, steps = map(int, re.search(r"learnt (\d+) samples in (\d+) steps", output).groups())
    assert samples == 16 * steps
    for checkpoint in (tmp_path / "trained").glob("checkpoint-*"):
        if checkpoint.name not in ("checkpoint-5", "checkpoint-10"):
            checkpoint.rename(tmp_path / checkpoint.name)
    again = run("trainer.py", tmp_path)
    assert output.splitlines()[0] == again.splitlines()[0]
    assert (output.count("'loss'"), again.count("'loss'")) == (steps // 5, steps // 5 - 2)
    weights = [next(folder.glob(f"checkpoint-{steps}/model*")) for folder in (tmp_path, tmp_path / "trained")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_the_fine_tuning_of_trl_follows_the_curriculum(tmp_path):
    pytest.importorskip("trl")
    output = run("sft.py", tmp_path)
    samples, steps = map(int, re.search(r"learnt (\d+) samples in (\d+) steps", output).groups())
    assert samples == 16 * steps
    assert "medium+replay" in output


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=600).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    pytest.importorskip("nbclient")
    command = [sys.executable, "-c", EXECUTE, str(EXAMPLES / "first_steps.ipynb"), "executed.ipynb"]
    subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, check=True)
    cells = json.loads((tmp_path / "executed.ipynb").read_text("utf-8"))["cells"]
    table = "".join(cells[-2]["outputs"][-1]["data"]["text/markdown"])
    assert "Baseline, in seconds" in table
    assert "Hybrid, in seconds" in table
    assert (tmp_path / "runs" / "first-steps" / "study.json").exists()
