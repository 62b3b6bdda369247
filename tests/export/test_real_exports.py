"""Exports that take minutes: a pretrained student, and lm-evaluation-harness on an exported folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gradatim import programs
from gradatim.cli.main import main
from gradatim.export.write import export_model
from gradatim.model import load
from gradatim.model.settings import LoraSettings, ModelSettings

pytestmark = pytest.mark.slow
MODELS = os.environ.get("GRADATIM_MODELS")
REAL = pytest.mark.skipif(MODELS is None, reason="GRADATIM_MODELS names no folder with real weights")


@REAL
@pytest.mark.parametrize(("bits", "limit"), [(16, 0.01), (8, 0.15)])
def test_the_gguf_of_a_pretrained_student_answers_as_the_folder_does(bits, limit, tmp_path):
    """Measured: 0.003 and 0.10 nats; llama.cpp rounds activations to 8 bits too, differently on each processor."""
    pytest.importorskip("xllamacpp")
    table = programs.generate(24, levels=["1.1"], seed=1).table
    export = export_model(Path(str(MODELS)) / "smollm2-hf", tmp_path / "out", "gguf", bits=bits, data=table)
    assert export.texts >= 24
    assert export.mean_difference < limit
    assert (export.lost, export.won) == (0, 0)


@REAL
def test_a_lora_student_is_exported_merged(tmp_path):
    import torch

    pytest.importorskip("peft")
    pytest.importorskip("xllamacpp")
    base = Path(str(MODELS)) / "smollm2-hf"
    settings = ModelSettings(base=str(base), lora=LoraSettings(rank=4, targets=("q_proj", "v_proj")))
    tokenizer = load.open_tokenizer(settings)
    model = load.start_from_base(settings, tokenizer, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    load.save_adapter(model, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    export = export_model(tmp_path / "adapter", tmp_path / "out", "gguf", bits=16)
    assert export.merged == str(base)
    assert export.mean_difference < 0.02


LOOK_UPS = (
    "data.count=6000",
    'data.levels=["0.1", "1.1"]',
    'data.split={by: canonical, validation: 20, test: 60, levels: ["0.1"]}',
    "difficulty.bands={names: [look-ups, assignments], thresholds: [0.5]}",
    "schedule={name: only, band: look-ups}",
    "student.preset=tiny",
    "budget.tokens=150000",
)
"""Answers of one digit: a student of seconds has some of them right, on any processor."""


def test_lm_evaluation_harness_gives_the_figure_of_the_suite(tmp_path):
    pytest.importorskip("lm_eval")
    arguments = [word for change in LOOK_UPS for word in ("--set", change)]
    assert main(["run", "demo/baseline", *arguments, "--out", str(tmp_path / "run")]) == 0
    (test,) = (tmp_path / "run").glob("data/*/test.parquet")
    export = export_model(
        tmp_path / "run" / "cycle-00" / "stage-00-look-ups" / "model", tmp_path / "out", data=read(test), task=True
    )
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={tmp_path / 'out'},dtype=float32",
    ]
    command += ["--tasks", "tinypy_output", "--include_path", str(tmp_path / "out" / "lm_eval"), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    subprocess.run(
        [*command, "--batch_size", "16", "--output_path", str(tmp_path / "results")], check=True, env=environment
    )
    (file,) = (tmp_path / "results").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]["tinypy_output"]
    assert results["exact_match,none"] == pytest.approx((export.after or 0) / (export.total or 1))
    assert export.after


def read(path: Path):
    return pq.read_table(path)
