"""A run of a pretrained student that cannot be is one clear line, and goes on when what was wrong is put right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import base, tokenizer

from gradatim.errors import Stopped
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.stage import Event

RECIPE = """
threads: 1
data: {source: file, path: rows.jsonl, split: {by: text, validation: 4, test: 4}}
difficulty: {metric: size, bands: {names: [short, long]}}
schedule: {name: sequential}
budget: {tokens: 100}
student: {base: base, context_length: 96, lora: {rank: 2}}
train:
  {batching: packed, batch_size: 2, max_length: 64, objective: answer_only, precision: fp32, evaluations_per_stage: 1}
evaluate: {suites: []}
"""
RUN = ("run", "mine.yaml", "--out", "out")


@pytest.fixture(autouse=True)
def mine(gradatim, tmp_path: Path) -> Path:
    """A folder with a base, some rows of one topic, and the recipe of a run."""
    base(tmp_path / "base")
    rows = [
        {"prompt": f"print({a} + {b})\n", "answer": f"# {a + b}\n", "category": "sums"}
        for a in range(5)
        for b in (1, 22, 333, 4, 555)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


MEASURED = ("gradatim: nats per token before training", "gradatim: warning: the first tokens of the answers")
"""Notes on the base model, which precede an error that only its training shows."""


def refused(said, words: list[str], status: int = 2) -> None:
    lines = [line for line in said.err.splitlines() if line.startswith("gradatim: ")]
    errors = [line for line in lines if not line.startswith(MEASURED)]
    assert (said.status, len(errors)) == (status, 1), said.err
    assert "Traceback" not in said.err
    line = errors[0]
    assert [word for word in words if word not in line] == [], line


def no_tokenizer(folder: Path) -> None:
    for file in (folder / "base").glob("tokenizer*"):
        file.unlink()


def no_end(folder: Path) -> None:
    tokenizer(end=None, template=None).save_pretrained(folder / "base")
    (folder / "base" / "chat_template.jinja").unlink()
    config = folder / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": None}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_tokenizer, ["student.base", "has no tokenizer", "tokenizer.save_pretrained("]),
        pytest.param(
            no_end,
            ["the tokenizer has no end token", "eos_token in tokenizer_config.json"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no tokenizer", "no end token"],
)
def test_a_base_that_lacks_something_is_refused_and_the_same_command_goes_on_when_it_is_there(
    gradatim, mine: Path, spoil: Callable[[Path], None], words: list[str]
):
    spoil(mine)
    refused(gradatim(*RUN), words)
    assert not list((mine / "out").glob("cycle-00/stage-*"))
    samples = {path: path.stat().st_mtime_ns for path in (mine / "out").glob("data/*/train*.parquet")}
    shutil.rmtree(mine / "base")
    base(mine / "base")
    assert gradatim(*RUN).status == 0
    assert {path: path.stat().st_mtime_ns for path in samples} == samples
    assert (mine / "out" / "finished.json").is_file()


@pytest.mark.slow
def test_a_base_without_padding_is_taught_all_the_same(gradatim, mine: Path):
    tokenizer(pad=None).save_pretrained(mine / "base")
    said = gradatim(*RUN)
    assert said.status == 0
    assert "the tokenizer has no padding token" in " ".join(said.err.split())


FAULTS = {
    "a target of no layer": (
        ["student.lora.targets=[q_prj]"],
        ["student.lora.targets", "given: q_prj", "did you mean 'q_proj'?"],
    ),
    "every sample too long": (["train.max_length=4"], ["no sample of the stage fits", "larger train.max_length"]),
    "a context that the base has not": (["student.context_length=4096"], ["student.context_length", "base has 128"]),
    "no such category": (
        ["schedule={name: baseline, order: blocked, category: topik}"],
        ["no sample has a 'topik'", "allowed: category"],
    ),
    "one category alone": (
        ["schedule={name: baseline, order: blocked, category: category}"],
        ["every sample has the same 'category'", "given: sums"],
    ),
}


@pytest.mark.parametrize(("changes", "words"), FAULTS.values(), ids=FAULTS)
def test_a_run_that_cannot_be_is_one_line_and_leaves_no_stage(gradatim, mine: Path, changes, words):
    refused(gradatim(*RUN, *[part for change in changes for part in ("--set", change)]), words)
    assert not list((mine / "out").rglob("result.json"))
    assert not list((mine / "out").rglob("model"))


def test_samples_without_any_difficulty_are_a_note_with_the_causes_and_one_error(gradatim, mine: Path):
    rows = [{"prompt": f"What is {number}?", "answer": f"No more than {number}."} for number in range(20)]
    (mine / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = gradatim(*RUN, "--set", "difficulty.metric=cyclomatic")
    assert result.status == 2
    note, error = (" ".join(part.split()) for part in result.err.split("gradatim: ")[1:])
    assert "20 of 20 samples have no 'cyclomatic'" in note
    assert "20 do not parse as Python" in note
    assert "no sample has a difficulty" in error
    assert not list((mine / "out").rglob("result.json"))


def test_samples_without_a_difficulty_are_counted_and_the_others_are_learnt(gradatim, mine: Path):
    with open(mine / "rows.jsonl", "a") as file:
        for number in range(15):
            file.write(json.dumps({"prompt": f"What is {number}?", "answer": "No program."}) + "\n")
    changes = ("difficulty={metric: nesting, bands: {names: [all]}}", "schedule={name: baseline}")
    said = gradatim(*RUN, *[part for change in changes for part in ("--set", change)])
    assert said.status == 0, said.err
    table = json.loads((mine / "out" / "cycle-00" / "table.json").read_text())
    held = table["test_rows"] + table["validation_rows"]
    assert table["rows"] + held == 40
    assert table["bands"]["unscored"] >= 15 - 8  # the others were held out
    assert sum(table["bands"]["counts"]) == table["rows"] - table["bands"]["unscored"]


def test_a_checkpoint_of_another_model_is_refused_and_kept_until_the_model_is_back(gradatim, mine: Path):
    def stop(event: Event) -> None:
        if event.kind == "advance" and event.task.startswith("train"):
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        run(load(mine / "mine.yaml"), mine / "out", events=stop)
    (checkpoint,) = (mine / "out").glob("cycle-00/stage-*/checkpoint")
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    weights = (mine / "base" / "model.safetensors").read_bytes()
    base(mine / "other", seed=1)
    shutil.copy(mine / "other" / "model.safetensors", mine / "base" / "model.safetensors")
    refused(gradatim(*RUN), ["this checkpoint belongs to another base", "restore the original base"], status=2)
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before
    (mine / "base" / "model.safetensors").write_bytes(weights)
    assert gradatim(*RUN).status == 0
