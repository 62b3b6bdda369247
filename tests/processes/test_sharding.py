"""Sharded training (FSDP2) on CPUs: the training of one process, files that need no sharding, the same bits again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks import SMALL, StopAt, start
from safetensors.torch import load_file
from test_processes import metrics, weights

from gradatim.errors import RecipeError
from gradatim.experiment.assemble import check
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run

ADAMW = "train.optimizer.name=adamw"
AVERAGED = ("train.swa_start=0.7", "budget.tokens=16000", "train.evaluations_per_stage=4")
"""Several steps and validations of the last stage are averaged."""
SHARDED = (ADAMW, *AVERAGED, "student.shard=true", "train.checkpoint_seconds=60")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "run"
    assert start(folder, *SHARDED) == 0
    return folder


def test_sharded_training_is_that_of_one_process(sharded: Path, tmp_path: Path) -> None:
    plain = tmp_path / "run"
    run(load("smoke/baseline", [*SMALL, ADAMW, *AVERAGED]), plain)
    for single, shared in zip(metrics(plain), metrics(sharded), strict=True):
        assert (shared["step"], shared["tokens"]) == (single["step"], single["tokens"])
        for key in ("loss", "validation_loss", "validation_answer_loss"):
            assert shared.get(key) == pytest.approx(single.get(key), rel=1e-5)
    for kind in ("model/model", "optimizer/optimizer"):
        names = [f"cycle-00/stage-00-easy/{kind}.safetensors" for _ in range(2)]
        whole, gathered = (load_file(folder / name) for folder, name in zip((plain, sharded), names, strict=True))
        assert {name: (t.shape, t.dtype) for name, t in whole.items()} == {
            name: (t.shape, t.dtype) for name, t in gathered.items()
        }
    last = sorted(plain.glob("cycle-00/stage-*"))[-1].relative_to(plain) / "model" / "model.safetensors"
    averages = load_file(sharded / last)
    for name, value in load_file(plain / last).items():
        assert averages[name].numpy() == pytest.approx(value.numpy(), abs=1e-5)


@pytest.mark.slow
def test_a_sharded_stage_that_was_stopped_ends_with_the_same_bits_or_goes_on_in_one_process(
    sharded: Path, tmp_path: Path
) -> None:
    for name, size in (("two", 2), ("one", 1)):
        folder = tmp_path / name / "run"
        assert start(folder, *SHARDED, listener=StopAt(0, step=21)) == 130
        assert list(folder.glob("cycle-00/stage-02-*/checkpoint/average.safetensors"))
        assert start(folder, *SHARDED, size=size) == 0
        fitted = [json.loads(path.read_text()) for path in sorted(folder.glob("cycle-00/*/fitted.json"))]
        assert max(stage["resumed_at"] for stage in fitted) > 0
        assert (weights(folder) == weights(sharded)) == (size == 2)
        assert [row["tokens"] for row in metrics(folder)] == [row["tokens"] for row in metrics(sharded)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "given: train.optimizer.name: muon; allowed: adamw"),
        ([ADAMW, "train.objective=trace_supervision", "train.block_diagonal_attention=true"], "given: train.objective"),
        ([ADAMW, "train.compile=true"], "given: train.compile: true; allowed: false"),
    ],
)
def test_settings_that_exclude_sharding_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=f"student.shard: sharded training excludes this; {message}"):
        check(load("smoke/baseline", ["student.shard=true", *changes]))
