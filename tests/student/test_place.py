"""Where a model lies, by whatever name; and what a difficulty remembers of one that lies in two places."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import base, tokenizer
from transformers import AutoModelForCausalLM

from gradatim.cli.main import main
from gradatim.errors import DataError, RecipeError
from gradatim.experiment.assemble.components import make_difficulty
from gradatim.model.hardware import quiet
from gradatim.model.hub import base_of_adapter, check_chat, check_model, has_template, resolve_model, weight_paths
from gradatim.model.load import add_adapter, export, load_student, open_base, save_adapter
from gradatim.model.settings import LoraSettings, ModelSettings
from gradatim.table import make_table

TABLE = make_table({"prompt": ["print(12 + 7)\n", "a = 3\n"], "answer": ["# 19\n", "print(a)\n"]})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A hub's local cache that holds OWNER/small, as its client lays it out."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--OWNER--small"
    base(place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    return place / "snapshots" / ("0" * 40)


def adapter(folder: Path, on: Path, *, named: str | None = None) -> Path:
    """An adapter whose matrices change something, with its tokenizer; ``named`` is what it calls its base."""
    peft = pytest.importorskip("peft")
    model = add_adapter(open_base(str(on), dtype=torch.float32), str(on), LoraSettings(rank=2), seed=1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B." in name:
                value.add_(0.05)
    assert isinstance(model, peft.PeftModel)
    folder.mkdir()
    with quiet():
        save_adapter(model, folder)
    tokenizer().save_pretrained(folder)
    if named is not None:
        config = folder / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": named}))
    return folder


def loss(model, **options) -> np.ndarray:
    return make_difficulty("loss", {"model": str(model), **options})(TABLE)


def test_a_model_on_the_hub_is_read_from_the_local_cache_and_remembered_as_its_folder(hub):
    assert resolve_model("OWNER/small") == hub
    assert loss("OWNER/small").tobytes() == loss(hub).tobytes()
    named, folder = (make_difficulty("loss", {"model": str(model)}) for model in ("OWNER/small", hub))
    assert named.identity == folder.identity


def test_a_name_that_the_cache_has_only_a_tokenizer_of_is_not_taken_for_the_model(hub):
    (hub / "model.safetensors").unlink()
    with pytest.raises(
        DataError,
        match="OWNER/small: there is no such folder, and this model is not in the local cache and cannot be fetched",
    ):
        resolve_model("OWNER/small")


def test_a_model_of_several_parts_needs_all_that_its_index_names(hub):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (hub / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="not in the local cache"):
        resolve_model("OWNER/small")
    shutil.copy(hub / "model.safetensors", hub / "model-2.safetensors")
    assert resolve_model("OWNER/small") == hub


def test_a_gguf_file_is_asked_too_and_its_figures_hang_on_its_bytes(tmp_path):
    gguf = pytest.importorskip("gguf")
    from transformers import LlamaForCausalLM

    folder = base(tmp_path / "whole")
    file = written_gguf(gguf, LlamaForCausalLM.from_pretrained(folder), tmp_path / "model.gguf")
    found = loss(file)
    assert np.isfinite(found).all()
    assert loss(file).tobytes() == found.tobytes()
    first = make_difficulty("loss", {"model": str(file)}).identity
    file.write_bytes(file.read_bytes() + b"\0")
    assert make_difficulty("loss", {"model": str(file)}).identity != first


def written_gguf(gguf, model, file: Path) -> Path:
    """The model with a byte tokenizer as a GGUF file in fp32."""
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    made = tokenizer()
    words = sorted(made.get_vocab().items(), key=lambda each: each[1])
    tokens = [word for word, _ in words] + [f"<unused{number}>" for number in range(config.vocab_size - len(words))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and token.endswith(">") else 1 for token in tokens])
    merges = json.loads(made.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) if not isinstance(pair, str) else pair for pair in merges])
    writer.add_eos_token_id(2)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm", "model.layers": "blk",
    }  # fmt: skip
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, value.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_an_adapter_is_asked_on_its_base_and_remembered_by_the_weights_of_both(tmp_path):
    below = base(tmp_path / "below")
    other = base(tmp_path / "other", seed=5)
    folder = adapter(tmp_path / "adapter", below)
    assert weight_paths(str(folder)) == [folder, below]
    found = loss(folder)
    assert not np.allclose(found, loss(below), atol=1e-4)
    first = make_difficulty("loss", {"model": str(folder)}).identity
    shutil.copy(other / "model.safetensors", below / "model.safetensors")
    assert make_difficulty("loss", {"model": str(folder)}).identity != first
    with pytest.raises(DataError, match="the base differs from the one that this adapter was trained on"):
        loss(folder)  # asked anew, not answered from what is remembered of another base


def test_an_adapter_may_stand_on_a_model_of_the_hub(tmp_path, hub):
    folder = adapter(tmp_path / "adapter", hub, named="OWNER/small")
    assert base_of_adapter(folder) == "OWNER/small"
    assert weight_paths(str(folder)) == [folder, hub]


def test_an_adapter_that_stands_on_itself_is_told(tmp_path):
    folder = adapter(tmp_path / "adapter", base(tmp_path / "below"), named=str(tmp_path / "adapter"))
    with pytest.raises(DataError, match="bases of this adapter form a cycle"):
        weight_paths(str(folder))


def test_a_name_that_can_be_nothing_is_refused_before_anything_is_opened(tmp_path):
    (tmp_path / "smol").mkdir()
    with pytest.raises(DataError, match=r"there is no such model; allowed: .*hub.*; try: did you mean 'smol'"):
        check_model(str(tmp_path / "smoll"))
    with pytest.raises(DataError, match="there is no such model"):
        check_model("model.gguf")
    check_model("OWNER/NAME")


def test_whether_there_is_a_chat_template_is_known_from_small_files(tmp_path):
    assert has_template(str(base(tmp_path / "chat"))) is True
    assert has_template(str(base(tmp_path / "plain", template=None))) is False
    assert has_template("OWNER/small") is None
    assert load_student(tmp_path / "chat").tokenizer.chat_template


def test_a_chat_that_can_never_be_is_refused_without_opening_a_model(tmp_path):
    plain = base(tmp_path / "plain", template=None)
    (plain / "model.safetensors").unlink()
    for student in (ModelSettings(), ModelSettings(base=str(plain))):
        with pytest.raises(RecipeError, match=r"feedback\.chat_template: the student's tokenizer has no chat template"):
            check_chat(student, ["feedback.chat_template"])
        check_chat(student, [])
    check_chat(ModelSettings(base=str(base(tmp_path / "chat"))), ["feedback.chat_template"])
    check_chat(ModelSettings(base="OWNER/unknown"), ["feedback.chat_template"])


INPUT = torch.tensor([[5, 6, 7, 8]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(INPUT).logits


def test_an_adapter_folder_opens_as_pefts_own_do(tmp_path):
    folder = adapter(tmp_path / "adapter", base(tmp_path / "base"))
    assert not (folder / "config.json").exists()
    expected = logits(load_student(folder).model)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), expected, atol=1e-5)
    assert not torch.allclose(logits(load_student(tmp_path / "base").model), expected, atol=1e-2)
    shutil.copy(tmp_path / "base" / "config.json", folder)  # as an earlier version wrote it
    assert torch.equal(logits(load_student(folder).model), expected)
    export(folder, tmp_path / "exported")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "exported")), expected, atol=1e-5)


def test_an_adapter_of_a_tied_output_layer_is_merged_to_equal_logits(tmp_path):
    on = base(tmp_path / "base")
    lora = LoraSettings(rank=4, targets=("lm_head", "q_proj"))
    adapted = add_adapter(open_base(str(on), dtype=torch.float32), str(on), lora, seed=1)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    expected = logits(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    tokenizer().save_pretrained(tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "merged", merge=True)
    for model in (
        load_student(tmp_path / "adapter").model,
        open_base(str(tmp_path / "adapter"), dtype=torch.float32),
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
        load_student(tmp_path / "merged").model,
    ):
        assert torch.allclose(logits(model), expected, atol=1e-4)


def test_merged_weights_keep_the_type_of_the_base_unless_another_is_given(tmp_path):
    on = base(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(on, dtype=torch.bfloat16).save_pretrained(on)
    folder = adapter(tmp_path / "adapter", on)
    for given, expected in ((None, torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)):
        out = tmp_path / str(given)
        export(folder, out, merge=True, dtype=given)
        assert AutoModelForCausalLM.from_pretrained(out).dtype is expected


def test_evaluate_and_sample_take_what_a_recipe_takes_as_base(hub, tmp_path, monkeypatch, capsys):
    bare = adapter(tmp_path / "adapter", hub, named="OWNER/small")
    for file in bare.glob("*token*"):
        file.unlink()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "print(12 + 7)\\n# output\\n", "answer": "# 19\\n"}\n')
    monkeypatch.chdir(tmp_path)
    evaluate = ("--suite", "line", "--set", "text=all", "--data", "rows.jsonl", "--json")
    results = {}
    for model in ("OWNER/small", str(hub), str(bare)):
        assert main(["sample", model, "--prompt", "a = 3", "--limit", "4", "--json"]) == 0
        text = json.loads(capsys.readouterr().out)[0]["written"]
        assert main(["evaluate", model, *evaluate]) == 0
        results[model] = (text, json.loads(capsys.readouterr().out)["counts"])
    assert results["OWNER/small"] == results[str(hub)]
    assert main(["evaluate", "adapter/nothing", *evaluate]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.slow
def test_sample_reads_a_gguf_file(tmp_path, monkeypatch, capsys):
    file = Path(os.environ.get("GRADATIM_MODELS", "")) / "smollm2" / "model.gguf"
    if not file.is_file():
        pytest.skip("no smollm2/model.gguf in the folder that GRADATIM_MODELS names")
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(file), "--prompt", "What is the capital of France?", "--limit", "24", "--json"]) == 0
    assert "Paris" in json.loads(capsys.readouterr().out)[0]["written"]
