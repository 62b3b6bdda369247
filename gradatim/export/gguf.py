"""GGUF files for llama.cpp, and through it Ollama, LM Studio and phones.

Architectures: ``gpt2``, ``llama``, ``qwen2``, ``qwen3``; a Qwen3 with sliding windows is written as ``mellum`` with one
expert. llama.cpp's ``qwen3`` ignores windows without a warning. Mellum has Qwen3's block, a window per layer and a
mixture of experts, whose router gives a single expert the weight 1, so the logits are those of the dense model.

Tokenizers: one token per character and the phrase tokenizer are written as llama.cpp's ``rwkv``, greedy longest match
without merges; byte-level BPE as ``gpt2`` with the name of its pre-tokenizer. ``proof`` compares the tokens of all
samples.

Weights: F32, F16, and the blocks of 32 weights Q8_0, Q5_0 and Q4_0. K-quants need rows of 256 and do not fit small
models. A matrix whose rows are no multiple of 32 stays F16, with a note. Norms, biases, positions and routers stay F32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tokenizers import models

from ..model.architecture import PublishedGPT, sliding_window_of
from ..options import strict
from .exporter import Exporter, ExportFiles, Runtime, check_bits, missing_package, not_exact

if TYPE_CHECKING:
    from ..model.load import LoadedModel

NAME = "gguf"
TYPES = {32: "F32", 16: "F16", 8: "Q8_0", 5: "Q5_0", 4: "Q4_0"}
"""GGUF's type by bits per weight."""
BLOCK = 32
"""Weights of a row that share a scale."""
FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")
_UNQUANTIZED = ("_norm.weight", ".bias", "position_embd.weight", "ffn_gate_inp.weight")
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", _QWEN_PATTERN), ("ByteLevel", False)): "qwen2",
}
"""llama.cpp's name of a byte-level BPE's pre-tokenizer, by its rules."""


@strict("the exporter 'gguf'")
def gguf(
    *,
    bits: Annotated[
        int | None, Field(description="Bits per weight: 32 (default), 16, 8 (Q8_0), 5 (Q5_0), 4 (Q4_0).")
    ] = None,
) -> Exporter:
    """A GGUF file for llama.cpp."""
    return Gguf(check_bits(NAME, bits, list(TYPES)))


@dataclass(frozen=True)
class Gguf(Exporter):
    """The exporter ``gguf``; see the module docstring."""

    bits: int
    name: str = NAME

    def check(self, student: LoadedModel) -> None:
        for package in ("gguf", "xllamacpp"):
            _require(package)
        _check_model(student.model.config)
        _vocabulary(student)

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        import gguf as library

        file = folder / f"model-{TYPES[self.bits]}.gguf"
        config = student.model.config
        arch = architecture_of(student.model)
        writer = library.GGUFWriter(file, arch)
        _write_settings(writer, config, arch, self.bits)
        _write_vocabulary(writer, student)
        unblocked = []
        for name, values in _tensors(student.model, arch):
            type_name = self._type_of(name, values)
            if type_name == "F16" and self.bits < 16:
                unblocked.append(name)
            kind = library.GGMLQuantizationType[type_name]
            writer.add_tensor(name, library.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return ExportFiles((file.name,), _notes(unblocked, TYPES[self.bits], arch))

    def _type_of(self, name: str, values: npt.NDArray[np.float32]) -> str:
        if values.ndim < 2 or name.endswith(_UNQUANTIZED):
            return "F32"
        return "F16" if self.bits < 16 and values.shape[-1] % BLOCK else TYPES[self.bits]

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        from .llama_cpp import serve

        return serve(next(folder.glob("*.gguf")), student)


def _require(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise missing_package(NAME, package, "gguf")


def architecture_of(model: Any) -> str:
    """llama.cpp's name of the architecture."""
    return "mellum" if sliding_window_of(model) else str(model.config.model_type)


def _check_model(config: Any) -> None:
    """Raise ``UserError`` for a model that llama.cpp has no exact form of, or that this module does not write."""
    family, to_onnx = config.model_type, "--to onnx, which exports any architecture of transformers"
    if family not in FAMILIES:
        raise not_exact(NAME, f"only {', '.join(FAMILIES)} models are written", family, to_onnx)
    rope = getattr(config, "rope_parameters", None) or {}
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    faults = {
        "llama.cpp has no exact form of this activation": config.activation_function
        if family == "gpt2" and config.activation_function not in ("gelu", "gelu_new", "gelu_pytorch_tanh")
        else None,
        "llama.cpp ignores sliding windows of this family": family if windows and family != "qwen3" else None,
        "scaled rotary positions are not written": rope.get("rope_type")
        if rope.get("rope_type", "default") != "default"
        else None,
        "biases of this family are not written": "attention_bias, mlp_bias"
        if family in ("llama", "qwen3") and (config.attention_bias or getattr(config, "mlp_bias", False))
        else None,
        "this activation is not written": config.hidden_act
        if family != "gpt2" and config.hidden_act not in ("silu", "swish")
        else None,
    }
    for reason, given in faults.items():
        if given is not None:
            raise not_exact(NAME, reason, given, to_onnx)


def _write_settings(writer: Any, config: Any, arch: str, bits: int) -> None:
    import gguf as library

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_file_type(int(library.LlamaFileType[_file_type(bits)]))
    writer.add_quantization_version(library.GGML_QUANT_VERSION)
    if arch == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch == "mellum":
        writer.add_expert_count(1)
        writer.add_expert_used_count(1)
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def _file_type(bits: int) -> str:
    return "ALL_F32" if bits == 32 else f"MOSTLY_{TYPES[bits]}"


def _tensors(model: Any, arch: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """llama.cpp's names and values, float32; tied matrices once."""
    import gguf as library

    plain = model.as_gpt2() if isinstance(model, PublishedGPT) else model
    config = plain.config
    family = library.MODEL_ARCH[config.model_type.upper()]
    names = library.get_tensor_name_map(family, config.num_hidden_layers)
    for key, value in plain.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise not_exact(NAME, "a tensor of the model has no name in llama.cpp", key, "--to onnx")
        yield from _converted(name, value.detach().float().cpu().numpy(), config, arch)


def _converted(
    name: str, values: npt.NDArray[np.float32], config: Any, arch: str
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """A tensor in llama.cpp's layout."""
    kind = name.split(".")[-2]
    if arch == "gpt2" and kind in ("attn_qkv", "attn_output", "ffn_up", "ffn_down") and values.ndim == 2:
        values = values.T  # transformers' Conv1D has its matrix transposed
    elif arch == "llama" and kind in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if kind == "attn_q" else config.num_key_value_heads
        values = _interleaved(values, heads)
    elif arch == "mellum" and kind in ("ffn_gate", "ffn_up", "ffn_down"):
        if kind == "ffn_gate":
            router = np.zeros((1, config.hidden_size), dtype=np.float32)
            yield name.replace("ffn_gate", "ffn_gate_inp"), router
        name, values = name.replace(kind, f"{kind}_exps"), values[None]
    yield name, np.ascontiguousarray(values)


def _interleaved(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of queries or keys in llama.cpp's order, where the two halves of a rotated pair are neighbours."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)


@dataclass(frozen=True)
class _Vocabulary:
    """GGUF's fields of a tokenizer; ``pre`` and ``merges`` for byte-level BPE only."""

    model: str
    tokens: list[bytes]
    types: list[int]
    pre: str | None = None
    merges: tuple[str, ...] = ()


def _write_vocabulary(writer: Any, student: LoadedModel) -> None:
    vocabulary = _vocabulary(student)
    tokenizer = student.tokenizer
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
        writer.add_token_merges(list(vocabulary.merges))
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if getattr(tokenizer, "chat_template", None):
        writer.add_chat_template(tokenizer.chat_template)


def _vocabulary(student: LoadedModel) -> _Vocabulary:
    """The fields of the tokenizer. ``UserError`` for one that llama.cpp has no exact form of."""
    tokenizer = student.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    if backend is not None and isinstance(backend.model, models.BPE) and _has_only_nfc(rules["normalizer"]):
        return _byte_level(student, rules)
    if backend is not None and not rules["normalizer"] and _is_greedy(backend.model, rules["model"]):
        return _greedy(student)
    hint = "--to onnx, which keeps tokenizer.json"
    raise not_exact(NAME, "llama.cpp has no exact form of this tokenizer", type(tokenizer).__name__, hint)


def _has_only_nfc(normalizer: Mapping[str, Any] | None) -> bool:
    """Whether the normalizer is none, or NFC, which llama.cpp leaves out: it changes no ASCII text."""
    return not normalizer or normalizer["type"] == "NFC"


def _is_greedy(model: Any, rules: Mapping[str, Any]) -> bool:
    """Whether tokens are longest matches, without a marker for the inside of a word and without an unknown token."""
    if not isinstance(model, models.WordLevel | models.WordPiece):
        return False
    return not rules.get("continuing_subword_prefix") and rules.get("unk_token") not in rules["vocab"]


def _greedy(student: LoadedModel) -> _Vocabulary:
    pieces, types = _pieces(student)
    # llama.cpp reads these tokens with the escapes of a bytes literal.
    return _Vocabulary("rwkv", [repr(piece.encode())[2:-1].encode() for piece in pieces], types)


def _byte_level(student: LoadedModel, rules: Mapping[str, Any]) -> _Vocabulary:
    pre = PRE_TOKENIZERS.get(_pre_rules(rules["pre_tokenizer"]))
    if pre is None:
        hint = "--to onnx, which keeps tokenizer.json"
        raise not_exact(NAME, "the pre-tokenizer has no known name in llama.cpp", rules["pre_tokenizer"], hint)
    pieces, types = _pieces(student)
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in rules["model"]["merges"])
    return _Vocabulary("gpt2", [piece.encode() for piece in pieces], types, pre, merges)


def _pre_rules(rules: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """The rules of a pre-tokenizer as (type, the setting that matters)."""
    if rules is None:
        return ()
    if rules["type"] == "Sequence":
        return tuple(pair for rule in rules["pretokenizers"] for pair in _pre_rules(rule))
    if rules["type"] == "ByteLevel":
        return (("ByteLevel", rules["use_regex"] if not rules["add_prefix_space"] else None),)
    if rules["type"] == "Split":
        return (("Split", rules["pattern"].get("Regex") if rules["behavior"] == "Isolated" else None),)
    return ((rules["type"], rules.get("individual_digits")),)


def _pieces(student: LoadedModel) -> tuple[list[str], list[int]]:
    """The token of each embedding and its GGUF type; embeddings beyond the vocabulary are unused."""
    tokenizer = student.tokenizer
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    pieces, types = [], []
    for number in range(student.model.config.vocab_size):
        pieces.append(by_id.get(number, f"[PAD{number}]"))
        if number not in by_id:
            types.append(_UNUSED)
        elif number in special or (number in added and added[number].special):
            types.append(_CONTROL)
        else:
            types.append(_USER_DEFINED if number in added else _NORMAL)
    return pieces, types


def _notes(unblocked: list[str], type_name: str, arch: str) -> tuple[str, ...]:
    notes = []
    if unblocked:
        notes.append(
            f"{len(unblocked)} matrices stay F16: their rows are no multiple of {BLOCK} weights, as {type_name} needs"
        )
    if arch == "mellum":
        notes.append("architecture mellum with one expert, for the sliding windows; it needs a llama.cpp of 2026")
    return tuple(notes)
