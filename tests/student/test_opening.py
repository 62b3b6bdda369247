"""Nothing that lies in a model folder is ever run, whatever standard input says, and no model without end is built."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import base

import gradatim
from gradatim.errors import DataError
from gradatim.model.hub import model_size
from gradatim.model.load import (
    add_adapter,
    load_model,
    load_student,
    open_base,
    open_for_training,
    open_own_tokenizer,
    open_tokenizer,
    save_adapter,
)
from gradatim.model.settings import LoraSettings, ModelSettings

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
print("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "own"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
"""
CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}


def changed(path: Path, **values: Any) -> None:
    """Set some keys of a JSON file; None removes one."""
    settings = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good model with a Python file beside it; what transformers copies of such files goes into an own cache."""
    made = base(tmp_path / "model")
    (made / "evil.py").write_text(EVIL)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    return made


def with_own_model(folder: Path) -> None:
    changed(folder / "config.json", model_type="own", architectures=["Model"], auto_map=CODE)


def with_own_tokenizer(folder: Path) -> None:
    mapped = {"AutoTokenizer": ["evil.Tokens", "evil.Tokens"]}
    changed(folder / "tokenizer_config.json", tokenizer_class="Tokens", auto_map=mapped)


def with_code_on_the_hub(folder: Path) -> None:
    mapped = {name: f"someone/else--{where}" for name, where in CODE.items()}
    changed(folder / "config.json", model_type="own", auto_map=mapped)


def assert_nothing_ran(folder: Path) -> None:
    root = folder.parent
    assert not list(root.rglob("ran"))
    assert "evil" not in sys.modules


OPENINGS = {
    "an evaluation's student": load_student,
    "a model that is asked": lambda folder: load_model(str(folder)),
    "a base": lambda folder: (
        open_own_tokenizer(str(folder)),
        open_base(str(folder), dtype=torch.float32),
    ),
    "a base's tokenizer": lambda folder: open_tokenizer(ModelSettings(base=str(folder), context_length=64)),
    "the stage before": lambda folder: (
        open_for_training(folder, ModelSettings()),
        open_own_tokenizer(str(folder)),
    ),
}


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
@pytest.mark.parametrize("spoil", [with_own_model, with_own_tokenizer, with_code_on_the_hub])
def test_a_folders_own_code_does_not_run_when_the_answer_is_yes(folder, opening, spoil):
    spoil(folder)
    if spoil is with_own_tokenizer:
        opening(folder)  # its files are enough without the class
    else:
        with pytest.raises(DataError, match="Python code from its folder, which is never run"):
            opening(folder)
    assert_nothing_ran(folder)


def test_code_beside_a_known_architecture_is_left_alone(folder):
    changed(folder / "config.json", auto_map=CODE)
    assert type(load_student(folder).model).__module__.startswith("transformers.")
    assert_nothing_ran(folder)


def test_the_base_below_an_adapter_does_not_run_its_code(folder, tmp_path):
    adapted = add_adapter(open_base(str(folder), dtype=torch.float32), str(folder), LoraSettings(rank=2), seed=0)
    save_adapter(adapted, tmp_path / "adapter")
    for file in folder.glob("tokenizer*"):
        (tmp_path / "adapter" / file.name).write_bytes(file.read_bytes())
    with_own_model(folder)
    with pytest.raises(DataError, match="never run"):
        load_student(tmp_path / "adapter")
    assert_nothing_ran(folder)


def test_yes_on_standard_input_runs_nothing_and_is_one_line(folder):
    with_own_model(folder)
    done = subprocess.run(
        [sys.executable, "-m", "gradatim", "sample", str(folder), "--prompt", "a = 1"],
        input="y\n" * 9, capture_output=True, text=True, timeout=120,
        env={**os.environ, "HF_MODULES_CACHE": str(folder.parent / "modules")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "which is never run" in done.stderr
    assert "ran" not in done.stdout.split()
    assert_nothing_ran(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_settings_that_name_a_kernel_on_the_hub_are_refused(folder, key):
    changed(folder / "config.json", **{key: "someone/kernel"})
    with pytest.raises(DataError, match="code to fetch and run"):
        load_student(folder)


def test_weights_that_are_pickled_code_are_not_run(folder, tmp_path):
    class Touch:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Touch()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be opened"):
        load_student(folder)
    assert_nothing_ran(folder)


def test_every_opening_says_that_no_code_is_trusted():
    """``from_pretrained`` prompts on the terminal by default, so one module calls it, always with the option."""
    package = Path(gradatim.__file__).parent
    calls = [
        (path.name, node)
        for path in package.rglob("*.py")
        if "from_pretrained" in (text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
        if ast.unparse(node.func) != "super().from_pretrained"  # an override passes the options of its caller on
    ]
    assert {name for name, _ in calls} == {"load.py"}
    for _, call in calls:
        if ast.unparse(call.func) != "peft.PeftModel.from_pretrained":  # takes weights alone, its model is opened
            named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert named["trust_remote_code"] == "False"


@pytest.mark.parametrize("where", ["config", "inside", "experts"])
def test_a_model_of_a_thousand_million_layers_is_refused_at_once(folder, where):
    values: dict[str, dict[str, Any]] = {
        "config": {"num_hidden_layers": 10**9},
        "inside": {"text_config": {"num_hidden_layers": 10**9}},
        "experts": {"num_local_experts": 10**9},
    }
    changed(folder / "config.json", **values[where])
    began = time.monotonic()
    for opening in (OPENINGS["an evaluation's student"], OPENINGS["a base's tokenizer"], OPENINGS["a base"]):
        with pytest.raises(DataError, match=r"too large to build.*1,000,000,000"):
            opening(folder)
    assert time.monotonic() - began < 5


DAMAGED = {
    "nested": b"[" * 100_000,
    "a list": b"[1]",
    "no UTF-8": b'{"a": "\xff"}',
    "a number of 5,000 digits": b'{"num_hidden_layers": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_settings_of_another_shape_are_one_line(folder, name, content):
    (folder / name).write_bytes(content)
    model_size(str(folder), None)
    with pytest.raises(DataError) as caught:
        load_model(str(folder))
    assert len(str(caught.value)) < 500


def test_adapters_that_stand_on_each_other_are_told(tmp_path):
    for name, below in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        settings = {"base_model_name_or_path": str(tmp_path / below), "peft_type": "LORA"}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
    assert model_size(str(tmp_path / "one"), None) is None
    with pytest.raises(DataError, match="bases of this adapter form a cycle"):
        load_student(tmp_path / "one")


def test_weights_whose_header_has_no_end_have_no_size(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    assert model_size(str(tmp_path), None) is None
