"""Sliding windows of some layers: servers that would read a student wrongly refuse it, or the export says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preset_students import samples, student

from gradatim.export import EXPORTERS
from gradatim.model import architecture
from gradatim.model.load import load_student
from gradatim.model.settings import PRESETS

WINDOWED = [name for name in PRESETS.names() if PRESETS.get(name).window]


def vllm_refuses(config: dict[str, Any]) -> bool:
    """The check of vLLM 0.33, ``model_executor/models/qwen3.py``, which ignores ``layer_types``: with a window in use,
    ``max_window_layers`` must be the number of layers."""
    in_use = config.get("sliding_window") is not None and config.get("use_sliding_window", True)
    return in_use and config["max_window_layers"] != config["num_hidden_layers"]


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("layers", [8, 28])
def test_the_configuration_of_a_student_with_windows_fails_the_check_of_vllm(name, layers, tmp_path: Path):
    preset = replace(PRESETS.get(name), layers=layers, width=64, heads=2, mlp=64)
    model = architecture._rotary(preset, 40, 32, {"pad_token_id": 0, "eos_token_id": 1})
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "sliding_attention" in config["layer_types"]
    assert vllm_refuses(config)
    assert not vllm_refuses({**config, "max_window_layers": layers}), "the check depends on this value"


def test_the_export_of_a_student_with_windows_names_the_servers_that_do_not_read_them(tmp_path: Path):
    table = samples(4)
    plain = next(name for name in PRESETS.names() if name not in WINDOWED)
    exporter = EXPORTERS.make("hf", options={})
    notes = {}
    for name in (WINDOWED[0], plain):
        folder, out = student(tmp_path / name, name, table), tmp_path / f"{name}-out"
        notes[name] = exporter.write(load_student(folder), folder, out).notes
    assert notes[plain] == ()
    assert len(notes[WINDOWED[0]]) == 1
    assert "SGLang ignores the windows" in notes[WINDOWED[0]][0]
