"""The page computes what torch computes: every family, both tokenizers, float32 and int8."""

from __future__ import annotations

import base64
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from scripts import evaluate, needs_node
from small_students import one_thread, train
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from gradatim.errors import DataError
from gradatim.evaluation.output import output
from gradatim.inference.decode import complete
from gradatim.model.architecture import create, freeze
from gradatim.model.load import LoadedModel, load_student
from gradatim.model.tokenizer import bpe_tokenizer, character_tokenizer, separate_texts, word_level_tokenizer
from gradatim.programs import LEVELS, generate
from gradatim.show.weights import ProbeLayers, pack, unsupported
from gradatim.training.trace_heads import Parts, TraceHeads

__all__ = ["one_thread"]
pytestmark = needs_node

SAMPLES = generate(60, levels=[*LEVELS], seed=11).table
TOKENIZERS = {
    "character": lambda: character_tokenizer(separate_texts(SAMPLES)),
    "word_level": lambda: word_level_tokenizer(separate_texts(SAMPLES), 200),
}
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def models(vocabulary: int) -> dict[str, Any]:
    """Models of every family, and the variants that folders of other authors have."""
    special = {"pad_token_id": 0, "eos_token_id": 1}
    presets = ("paper", "gpt2-tied", "modern-small", "llama", "tiny")
    made: dict[str, Any] = {
        name: create(name, vocabulary=vocabulary, context=128, special=special, seed=0) for name in presets
    }
    common = {"vocab_size": vocabulary, "max_position_embeddings": 128, "bos_token_id": 1, **special}
    small = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": vocabulary, **special}
    window = {"use_sliding_window": True, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    made["gelu_new"] = GPT2LMHeadModel(GPT2Config(**small, bos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    made["grouped"] = LlamaForCausalLM(LlamaConfig(**SHAPE, **common, **grouped, attention_bias=True, mlp_bias=True))
    made["windows"] = Qwen3ForCausalLM(Qwen3Config(**SHAPE, **common, **grouped, **window, tie_word_embeddings=True))
    return made


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoded(file: bytes) -> str:
    return base64.b64encode(file).decode()


OPEN = "student.open(Uint8Array.from(Buffer.from(file, 'base64')).buffer)"


@pytest.mark.parametrize("name", ["paper", "gpt2-tied", "modern-small", "llama", "gelu_new", "grouped", "windows"])
def test_the_logits_of_every_family_are_those_of_torch(name, tmp_path):
    tokenizer = TOKENIZERS["character"]()
    model = models(len(tokenizer))[name].eval()
    if name == "paper":
        freeze(model)
    torch.manual_seed(3)
    with torch.no_grad():
        # Presets begin with zeros, which would hide half of the block.
        for parameter in [value for value in model.parameters() if value.requires_grad]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = saved(model, tokenizer, tmp_path / name)
    ids = torch.randint(2, len(tokenizer), (1, 40))
    with torch.no_grad():
        expected = load_student(folder).model(ids).logits[0]
    code = (
        f"((file) => {{ const model = {OPEN}; const cache = student.begin(model); "
        "return input.ids.map((id) => [...student.read(model, cache, id).logits]); })(input.file)"
    )
    found = evaluate(code, {"file": encoded(pack(folder, 32)), "ids": ids[0].tolist()}, "student.js")
    difference = (torch.tensor(found) - expected).abs().max()
    assert float(difference) < 1e-4
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize(
    ("name", "kind"), [("gelu_new", "word_level"), ("tiny", "character"), ("windows", "word_level")]
)
def test_an_int8_student_of_every_family_says_what_torch_says(name, kind, tmp_path):
    torch.manual_seed(1)
    tokenizer = TOKENIZERS[kind]()
    known = SAMPLES.slice(0, 6)
    trained = train(LoadedModel(models(len(tokenizer))[name], tokenizer), known, 100)
    folder = saved(trained.model, tokenizer, tmp_path / name)
    result = output()(load_student(folder), known, seed=0)
    assert result.counts["all"]["all"].passed >= 5
    code = (
        f"((file) => {{ const model = {OPEN}; return input.prompts.map((prompt) => "
        "[...student.complete(model, prompt)].map((token) => token.text).join('')); })(input.file)"
    )
    prompts = known["prompt"].to_pylist()
    said = evaluate(code, {"file": encoded(pack(folder)), "prompts": prompts}, "student.js")
    right = [text == answer for text, answer in zip(said, known["answer"].to_pylist(), strict=True)]
    assert sum(right) == result.counts["all"]["all"].passed
    completions = complete(trained.model, tokenizer, prompts, limits=[64] * len(prompts), greedy=True, seed=0)
    assert said == [completion.text for completion in completions]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_page_cuts_texts_into_the_tokens_of_the_tokenizer(kind, tmp_path):
    tokenizer = TOKENIZERS[kind]()
    folder = saved(models(len(tokenizer))["tiny"], tokenizer, tmp_path / "model")
    texts = [*SAMPLES["prompt"].to_pylist(), *SAMPLES["answer"].to_pylist(), "print(ab1 + a_b)\n", "  a12b  "]
    texts = [text for text in texts if set(text) <= set("".join(tokenizer.get_vocab()))]
    if kind == "character":
        texts = [text for text in texts if all(character in tokenizer.get_vocab() for character in text)]
    code = f"((file) => {{ const model = {OPEN}; return input.texts.map(model.codec.encode); }})(input.file)"
    found = evaluate(code, {"file": encoded(pack(folder)), "texts": texts}, "student.js")
    assert found == [tokenizer(text)["input_ids"] for text in texts]
    assert len(texts) >= 120


def value_of(texts):
    kind, *parts = texts
    if not parts or not kind.endswith(("int", "float")):
        return kind
    ones, tens, hundreds, fraction = parts
    sign = "-" if kind.startswith("-") else ""
    return f"{sign}{int(hundreds + tens + ones)}{fraction[1:] if kind.endswith('float') else ''}"


@pytest.mark.parametrize("labels", ["values", "digits"])
def test_the_heads_of_trace_supervision_read_the_values_that_torch_reads(labels, tmp_path):
    tokenizer = TOKENIZERS["word_level"]()
    model = models(len(tokenizer))["windows"].eval()
    folder = saved(model, tokenizer, tmp_path / "model")
    torch.manual_seed(5)
    heads = TraceHeads(32, Parts.of(labels, [7, True, -1.5, 2.25], 3), turns=2)
    with torch.no_grad():
        for matrix in (heads.operands, heads.results):
            matrix.copy_(torch.randn_like(matrix))
    save_file(heads.state_dict(), tmp_path / "auxiliary.safetensors")
    text = "a = 4\nb = a + 3\nprint(b)\n"
    with torch.no_grad():
        states = model(tokenizer(text, return_tensors="pt")["input_ids"], output_hidden_states=True).hidden_states
    code = f"((file) => student.beliefs({OPEN}, input.text))(input.file)"
    found = evaluate(code, {"file": encoded(pack(folder, 32, ProbeLayers(1, 2))), "text": text}, "student.js")
    for kind, matrix, layer in (("operands", heads.operands, 1), ("results", heads.results, 2)):
        state = states[layer][0]
        normalised = state * torch.rsqrt(state.pow(2).mean(-1, keepdim=True) + 1e-6)
        scores = (normalised @ matrix.detach().chunk(2)[0].T).split(heads.parts.sizes, dim=-1)
        likeliest = [part.softmax(-1).max(-1) for part in scores]
        for index, token in enumerate(found):
            texts = [
                names[int(part.indices[index])] for names, part in zip(heads.parts.classes, likeliest, strict=True)
            ]
            read = range(len(texts)) if "float" in texts[0] else range(4) if "int" in texts[0] else range(1)
            share = prod(float(part.values[index]) for number, part in enumerate(likeliest) if number in read)
            assert token[kind] == [value_of(texts), pytest.approx(share, abs=1e-4)]
    assert found[-1]["end"] == len(text)


def test_an_unknown_character_is_named_and_special_tokens_are_text(tmp_path):
    tokenizer = TOKENIZERS["character"]()
    folder = saved(models(len(tokenizer))["tiny"], tokenizer, tmp_path / "model")
    code = (
        f"((file) => {{ const model = {OPEN}; return input.texts.map((text) => "
        "{ try { return model.codec.encode(text).length; } catch (error) { return error.message; } }); })(input.file)"
    )
    texts = ["<eos>", "a = 'é'"]
    found = evaluate(code, {"file": encoded(pack(folder)), "texts": texts}, "student.js")
    assert found == [5, 'the student has no token for "\'"']


def test_a_student_that_the_page_cannot_carry_is_refused_with_the_reason(tmp_path):
    characters = TOKENIZERS["character"]()
    folder = saved(models(len(characters))["tiny"], characters, tmp_path / "bpe")
    bpe_tokenizer(separate_texts(SAMPLES), 300).save_pretrained(folder)
    assert unsupported(folder) == "the page has the tokenizers character and word_level, not BPE"
    with pytest.raises(DataError, match="cannot carry"):
        pack(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "LoRA" in str(unsupported(folder))
    with pytest.raises(DataError, match="no model folder"):
        unsupported(tmp_path)


def test_presets_stay_below_two_megabytes_a_stage(tmp_path):
    tokenizer = TOKENIZERS["word_level"]()
    characters = TOKENIZERS["character"]()
    for name in ("paper", "modern"):
        used = characters if name == "paper" else tokenizer
        special = {"pad_token_id": 0, "eos_token_id": 1}
        model = create(name, vocabulary=len(used), context=128, special=special, seed=0)
        assert len(encoded(pack(saved(model, used, tmp_path / name)))) < 2_000_000
