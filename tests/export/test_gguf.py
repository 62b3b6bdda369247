"""GGUF files: tokens of llama.cpp, blocks, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preset_students import samples, student
from small_models import base
from tokenizers import models, normalizers, pre_tokenizers

from gradatim.errors import UserError
from gradatim.export import EXPORTERS, gguf
from gradatim.export.write import export_model
from gradatim.model.load import LoadedModel, load_student
from gradatim.model.tokenizer import bpe_tokenizer

library = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def table():
    return samples(8)


def test_rows_that_are_no_multiple_of_a_block_stay_f16_and_are_told(table, tmp_path):
    export = export_model(student(tmp_path / "model", "paper", table), tmp_path / "out", "gguf", bits=4, data=table)
    assert "matrices stay F16: their rows are no multiple of 32 weights" in export.notes[0]
    reader = library.GGUFReader(tmp_path / "out" / export.files[0])
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_qkv.weight"] == "F16"  # 120 columns
    assert kinds["blk.0.ffn_down.weight"] == "Q4_0"  # 480 columns
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(("bits", "kind"), [(16, "F16"), (8, "Q8_0"), (5, "Q5_0"), (4, "Q4_0")])
def test_every_width_is_proved(bits, kind, table, tmp_path):
    export = export_model(student(tmp_path / "model", "tiny", table), tmp_path / "out", "gguf", bits=bits)
    reader = library.GGUFReader(tmp_path / "out" / export.files[0])
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F32", kind}
    assert export.mean_difference < {16: 0.01, 8: 0.02, 5: 0.1, 4: 0.2}[bits]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_pretrained_base_with_byte_level_tokens_is_exported(family, tmp_path):
    export = export_model(base(tmp_path / "base", family), tmp_path / "out", "gguf")
    assert export.texts > 60
    assert export.largest_difference < 0.05


def changed(source: Path, change: Any) -> LoadedModel:
    loaded = load_student(source)
    change(loaded)
    return loaded


REFUSED = {
    "another family": (lambda loaded: setattr(loaded.model.config, "model_type", "mamba"), "only gpt2, llama"),
    "windows of a family without them": (
        lambda loaded: setattr(loaded.model.config, "layer_types", ["sliding_attention"] * 2),
        "ignores sliding windows",
    ),
    "another activation": (lambda loaded: setattr(loaded.model.config, "hidden_act", "relu"), "activation"),
    "scaled positions": (
        lambda loaded: loaded.model.config.rope_parameters.update(rope_type="llama3"),
        "scaled rotary positions",
    ),
    "biases": (lambda loaded: setattr(loaded.model.config, "attention_bias", True), "biases"),
    "a normalizer": (
        lambda loaded: setattr(loaded.tokenizer.backend_tokenizer, "normalizer", normalizers.Lowercase()),
        "no exact form of this tokenizer",
    ),
    "an unknown pre-tokenizer": (
        lambda loaded: setattr(
            loaded.tokenizer.backend_tokenizer,
            "pre_tokenizer",
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ),
        "no known name in llama.cpp",
    ),
    "another kind of model": (
        lambda loaded: setattr(loaded.tokenizer.backend_tokenizer, "model", models.Unigram([("a", 0.0)])),
        "no exact form of this tokenizer",
    ),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_model_that_llama_cpp_would_run_wrongly_is_refused_with_the_format_that_can(change, tmp_path):
    make, reason = REFUSED[change]
    exporter = EXPORTERS.make("gguf", options={})
    source = base(tmp_path / "base")
    exporter.check(load_student(source))
    with pytest.raises(UserError, match=rf"--to: gguf: .*{reason}.*--to onnx"):
        exporter.check(changed(source, make))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package 'gguf'.*pip install 'gradatim\[gguf\]'"):
        gguf._require("gguf")


def test_our_own_byte_level_tokenizer_has_the_rules_of_gpt2(table):
    tokenizer = bpe_tokenizer(["a = 3\nprint(a)\n"], 300)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    assert gguf.PRE_TOKENIZERS[gguf._pre_rules(rules)] == "gpt-2"
