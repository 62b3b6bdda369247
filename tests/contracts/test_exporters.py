"""The contract of every exporter, plug-ins included: each preset is exported and proved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from preset_students import samples, student

from gradatim.errors import RecipeError, UnknownPart, UserError
from gradatim.export import EXPORTERS
from gradatim.export.write import PROOF, export_model
from gradatim.model.settings import PRESETS

PACKAGES = {"hf": (), "gguf": ("gguf", "xllamacpp"), "onnx": ("onnx", "onnxscript", "onnxruntime")}
PACKAGES["executorch"] = ("executorch",)
PROGRAMS = {"page": "node"}
ROWS = {"page": 2, "hf": 3, "onnx": 3, "executorch": 2}
"""Samples, where the program takes milliseconds a token, or reads the whole text for each."""
SLOW = ("onnx", "executorch")
"""Formats whose graph is traced: half a minute and more for each model."""

EVERY = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPORTERS.names()]
)


def require(name: str) -> None:
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package)
    if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
        pytest.skip(f"{PROGRAMS[name]} is not installed")


@pytest.fixture(scope="module")
def table():
    return samples(8)


BY_WIDTH = sorted(PRESETS.names(), key=lambda name: PRESETS.get(name).width, reverse=True)
SMALLEST = {PRESETS.get(name).family: name for name in BY_WIDTH}.values()
"""The narrowest preset of each family; the others are slow."""

EVERY_PRESET = pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=[] if name in SMALLEST else [pytest.mark.slow]) for name in PRESETS.names()]
)


@EVERY
@EVERY_PRESET
def test_every_preset_is_exported_and_proved(name, preset, table, tmp_path):
    require(name)
    source = student(tmp_path / "model", preset, table)
    table = table.slice(0, ROWS.get(name, table.num_rows))
    export = export_model(source, tmp_path / "out", name, bits=32, data=table)
    assert export.texts >= table.num_rows
    assert export.positions > table.num_rows
    assert export.largest_difference < 0.05
    assert export.total == table.num_rows
    assert (export.after or 0) - (export.before or 0) == (export.won or 0) - (export.lost or 0)
    assert all((tmp_path / "out" / file).exists() for file in export.files)
    assert json.loads((tmp_path / "out" / PROOF).read_text())["texts"] == export.texts
    assert "gradatim" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", EXPORTERS.names())
def test_a_width_that_a_format_has_not_is_named_with_those_that_it_has(name):
    with pytest.raises(UserError, match=rf"--bits: the format {name} has no weights of this width; given: 3; allowed:"):
        EXPORTERS.make(name, options={"bits": 3})


@pytest.mark.parametrize("name", EXPORTERS.names())
def test_an_unknown_option_is_an_error(name):
    with pytest.raises(RecipeError, match="did you mean 'bits'"):
        EXPORTERS.make(name, options={"bit": 8})


def test_an_unknown_format_is_told_with_the_nearest(tmp_path):
    with pytest.raises(UnknownPart, match="did you mean 'gguf'"):
        export_model(Path("nowhere"), tmp_path / "out", "ggf")
