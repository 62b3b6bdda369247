"""Weights of a student in the form that the page's script reads: one file of int8, float16 or float32 tensors.

The forward pass of the page knows one block with variants: RMS or layer norm, learned or rotary positions, gated MLP or
not, normalised queries and keys, a window per layer. It covers GPT-2, Llama and Qwen3 as Gradatim makes them. The
tokenizers are ``character`` and ``word_level``. ``unsupported`` names the reason why another student cannot be carried;
the server of ``gradatim show`` then computes its answers.

Format of a file: length of the header (uint32, little endian), the header (JSON: ``config``, ``tokens``, ``tensors``
with the offset of each from the end of the header), the tensors. An int8 matrix is a float32 scale per row, max |w| /
127, then the rows; a matrix of 16 bits is float16; vectors are float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError
from ..files import read_input
from ..lazy import np

if TYPE_CHECKING:
    import numpy.typing as npt

    Tensors = Mapping[str, npt.NDArray[np.float32]]

FAMILIES = ("gpt2", "llama", "qwen3")
MOST_PARAMETERS = 4_000_000
"""Parameters of the largest student that the page computes: 6 ms a token in a browser of 2026."""

Bits = Literal[8, 16, 32]
DEFAULT_BITS: Bits = 8


def unsupported(model: Path) -> str | None:
    """The reason why the page cannot compute with the model folder; None when it can.

    Raises ``DataError`` when the folder is no model or damaged.
    """
    if (model / "adapter_config.json").is_file():
        return "its weights are LoRA adapters beside a base"
    if not (model / "config.json").is_file():
        raise DataError("this is no model folder", where=model, given="no config.json")
    config = _json(model / "config.json")
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"the page computes {', '.join(FAMILIES)}, not {family}"
    weights = model / "model.safetensors"
    if not weights.is_file():
        return "its weights are in several files"
    if weights.stat().st_size > 4 * MOST_PARAMETERS:
        return f"it has more than {MOST_PARAMETERS / 1e6:.0f}M parameters"
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default" or config.get("partial_rotary_factor", 1) != 1:
        return f"the page has no rotary positions of type {rope.get('rope_type')}"
    activation = config.get("activation_function" if family == "gpt2" else "hidden_act")
    if activation not in (("gelu", "gelu_new") if family == "gpt2" else ("silu",)):
        return f"the page has no activation {activation}"
    if family == "gpt2" and (
        config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True)
    ):
        return "the page has no attention scaled by layer"
    return _tokenizer(model) if _tokens(model) is None else None


def _tokenizer(model: Path) -> str:
    kind = (_json(model / "tokenizer.json").get("model") or {}).get("type")
    return f"the page has the tokenizers character and word_level, not {kind}"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_input(path))  # tokenizers store a length of 1e30, which parse_json refuses
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("the model cannot be read", where=path, given=error) from error
    if not isinstance(content, dict):
        raise DataError("the model cannot be read", where=path, given="not a JSON object")
    return content


@dataclass(frozen=True)
class _Tokens:
    """``pieces[i]`` is the text of token i; ``special`` are the ids of control tokens."""

    kind: Literal["character", "word_level"]
    pieces: list[str]
    special: list[int]


def _tokens(model: Path) -> _Tokens | None:
    """The tokens of a tokenizer that Gradatim made; None for another kind, and for a chat template."""
    rules = _json(model / "tokenizer.json")
    backend, splitter = rules.get("model") or {}, rules.get("pre_tokenizer") or {}
    settings = _json(model / "tokenizer_config.json") if (model / "tokenizer_config.json").is_file() else {}
    if rules.get("normalizer") or settings.get("chat_template") or (model / "chat_template.jinja").is_file():
        return None
    special = [int(token["id"]) for token in rules.get("added_tokens", ())]
    pieces = sorted((backend.get("vocab") or {}).items(), key=lambda item: int(item[1]))
    if [number for _, number in pieces] != list(range(len(pieces))):
        return None
    names = [name for name, _ in pieces]
    single = all(len(name) == 1 for name, number in pieces if number not in special)
    pattern = (splitter.get("pattern") or {}).get("Regex")
    if backend.get("type") == "WordLevel" and single and pattern == r"[\s\S]":
        return _Tokens("character", names, special)
    if backend.get("type") == "WordPiece" and not backend.get("continuing_subword_prefix") and pattern == _ATOM:
        return _Tokens("word_level", names, special)
    return None


_ATOM = r"\d|\b[^\W\d]\b"  # of model.tokenizer, whose import needs torch


@dataclass(frozen=True)
class ProbeLayers:
    """The layers whose outputs the heads of trace supervision read: values of variables, results of operations."""

    variables: int
    results: int


PROBES = "auxiliary.safetensors"


def pack(model: Path, bits: Bits = DEFAULT_BITS, probes: ProbeLayers | None = None) -> bytes:
    """The file for the page. ``bits`` = 32 keeps the weights exactly.

    ``probes``: add the heads of trace supervision beside the model folder, if there are any (first turn of loops).

    Raises ``DataError`` for a folder that is damaged or ``unsupported``.
    """
    if reason := unsupported(model):
        raise DataError("the page cannot carry this student", where=model, given=reason)
    tokens = _tokens(model)
    assert tokens is not None
    config = _json(model / "config.json")
    try:
        read = _read_tensors(model / "model.safetensors")
        tensors = _gpt2(read, config, model / HEAD) if config["model_type"] == "gpt2" else _rotary(read, config)
        header = _config(config, tensors)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError("the model is damaged", where=model, given=error) from error
    if probes is not None and (model.parent / PROBES).is_file():
        heads = _read_tensors(model.parent / PROBES)
        content = json.loads(bytes(heads["text"].astype(np.uint8)))
        parts = [content] if isinstance(content, list) else content["classes"]  # a list in files of earlier versions
        rows = sum(map(len, parts))
        tensors |= {f"probe.{name}": heads[name][:rows] for name in ("operands", "results")}
        header["probe"] = {"parts": parts, "operands": probes.variables, "results": probes.results}
    header |= {"tokenizer": tokens.kind, "eos": config["eos_token_id"], "special": tokens.special}
    return _file(header, tokens.pieces, tensors, bits)


def _read_tensors(path: Path) -> Tensors:
    from safetensors import deserialize

    types = {"F32": "<f4", "F16": "<f2", "U8": "u1"}
    tensors = {}
    for name, view in deserialize(read_input(path)):  # type: ignore[no-untyped-call]
        data = bytes(view["data"])
        if view["dtype"] == "BF16":
            values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(data, types[view["dtype"]]).astype("<f4")
        tensors[name] = values.reshape(view["shape"])
    return tensors


HEAD = "head.safetensors"  # of model.architecture, whose import needs torch


def _gpt2(read: Tensors, config: Mapping[str, Any], head: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors by the names of the page. GPT-2 stores matrices transposed, queries, keys and values in one.

    ``head``: a file with the bias of the head, which the preset ``paper`` has; the bias of the last norm then stands
    for it and is left out.
    """
    tensors = {
        "embedding": read["transformer.wte.weight"],
        "position": read["transformer.wpe.weight"],
        "norm": read["transformer.ln_f.weight"],
        "norm.bias": read["transformer.ln_f.bias"],
    }
    if "lm_head.weight" in read and not config.get("tie_word_embeddings", True):
        tensors["head"] = read["lm_head.weight"]
        if head.is_file():
            tensors["head.bias"] = _read_tensors(head)["lm_head.bias"]
            tensors["norm.bias"] = np.zeros_like(tensors["norm.bias"])
    names = {"ln_1": "norm1", "ln_2": "norm2", "attn.c_proj": "output", "mlp.c_fc": "up", "mlp.c_proj": "down"}
    for layer in range(config["n_layer"]):
        start = f"transformer.h.{layer}"
        for name, target in names.items():
            weight = read[f"{start}.{name}.weight"]
            tensors[f"{layer}.{target}"] = weight.T if weight.ndim == 2 else weight
            tensors[f"{layer}.{target}.bias"] = read[f"{start}.{name}.bias"]
        weights = np.split(read[f"{start}.attn.c_attn.weight"].T, 3)
        biases = np.split(read[f"{start}.attn.c_attn.bias"], 3)
        for target, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            tensors[f"{layer}.{target}"], tensors[f"{layer}.{target}.bias"] = weight, bias
    return tensors


def _rotary(read: Tensors, config: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors of Llama and Qwen3 by the names of the page."""
    tensors = {"embedding": read["model.embed_tokens.weight"], "norm": read["model.norm.weight"]}
    if "lm_head.weight" in read and not config.get("tie_word_embeddings"):
        tensors["head"] = read["lm_head.weight"]
    names = {
        "input_layernorm": "norm1",
        "post_attention_layernorm": "norm2",
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "key",
        "self_attn.v_proj": "value",
        "self_attn.o_proj": "output",
        "self_attn.q_norm": "query.norm",
        "self_attn.k_norm": "key.norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "up",
        "mlp.down_proj": "down",
    }
    optional = {"self_attn.q_norm", "self_attn.k_norm"} if config["model_type"] == "llama" else set()
    for layer in range(config["num_hidden_layers"]):
        for name, target in names.items():
            key = f"model.layers.{layer}.{name}"
            if name not in optional:
                tensors[f"{layer}.{target}"] = read[f"{key}.weight"]
            if f"{key}.bias" in read:
                tensors[f"{layer}.{target}.bias"] = read[f"{key}.bias"]
    return tensors


def _config(config: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Dimensions and variants of the forward pass."""
    if config["model_type"] == "gpt2":
        heads, layers = config["n_head"], config["n_layer"]
        return {
            "norm": "layer", "eps": config["layer_norm_epsilon"], "activation": config["activation_function"],
            "context": config["n_positions"], "width": config["n_embd"], "layers": layers, "heads": heads,
            "kvHeads": heads, "headSize": config["n_embd"] // heads, "mlp": len(tensors["0.up"]), "theta": None,
            "windows": [0] * layers, "vocabulary": len(tensors["embedding"]),
        }  # fmt: skip
    kinds = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
    windowed = config["model_type"] == "qwen3"
    rope = config.get("rope_parameters") or config
    return {
        "norm": "rms", "eps": config["rms_norm_eps"], "activation": config["hidden_act"],
        "context": config["max_position_embeddings"], "width": config["hidden_size"], "layers": len(kinds),
        "heads": config["num_attention_heads"], "kvHeads": config["num_key_value_heads"],
        "headSize": config["head_dim"], "mlp": config["intermediate_size"], "theta": rope["rope_theta"],
        "windows": [config["sliding_window"] if windowed and kind == "sliding_attention" else 0 for kind in kinds],
        "vocabulary": len(tensors["embedding"]),
    }  # fmt: skip


def layers(model: Path) -> int:
    """The number of layers of a model folder that the page can carry."""
    config = _json(model / "config.json")
    return int(config.get("n_layer") or config["num_hidden_layers"])


def _file(config: Mapping[str, Any], tokens: list[str], tensors: Tensors, bits: Bits) -> bytes:
    entries, blocks, offset = {}, [], 0
    for name, tensor in tensors.items():
        matrix = tensor.ndim == 2
        if matrix and bits == 8:
            block = _quantised(tensor)
        else:
            block = np.ascontiguousarray(tensor, "<f2" if matrix and bits == 16 else "<f4").tobytes()
        block += bytes(-len(block) % 4)
        rows, columns = tensor.shape if matrix else (1, len(tensor))
        entries[name] = {"rows": rows, "columns": columns, "bits": bits if matrix else 32, "offset": offset}
        blocks.append(block)
        offset += len(block)
    header = json.dumps({"config": config, "tokens": tokens, "tensors": entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([struct.pack("<I", len(header)), header, *blocks])


def _quantised(matrix: npt.NDArray[np.float32]) -> bytes:
    """One scale per row (float32), then the rows as int8."""
    scales = np.abs(matrix).max(axis=1) / np.float32(127)
    divisors = np.where(scales > 0, scales, 1)
    rows = np.rint(matrix / divisors[:, None]).astype(np.int8)
    return bytes(scales.astype("<f4").tobytes() + rows.tobytes())
