"""How does a preset become a model?

A preset's row of numbers becomes a randomly initialised Hugging Face causal model. What it saves opens with
``AutoModelForCausalLM.from_pretrained`` and nothing of ours. Nothing here trains.

``paper`` is the published 1.08M-parameter GPT (arXiv 2407.10194), see ``published``: 120 dimensions, 6 layers, 6 heads.
``gpt2-tied`` is of that size too, a ``GPT2LMHeadModel`` with exact GELU, tied embeddings, no dropout and all biases
frozen at zero: the meaning of the name ``paper`` until the authors' own weights, head and first numbers were followed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ..errors import RecipeError
from .presets import PRESETS, Shape
from .published import PublishedGPT

__all__ = ["create", "freeze", "trainable_parameters"]


def create(preset: str, *, vocabulary: int, context: int, special: dict[str, Any], seed: int) -> PreTrainedModel:
    """A new model of the preset with weights drawn from ``seed``; the global random state is left as it was.

    ``special`` holds ``pad_token_id`` and ``eos_token_id``. Raises ``UnknownPart`` for an unknown preset and
    ``RecipeError`` for more tokens than the preset can have.
    """
    shape = PRESETS.get(preset, where="student.preset")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.family == "gpt":
            return _published(preset, shape, vocabulary, context, special)
        if shape.family == "gpt2":
            model = GPT2LMHeadModel(_gpt2_config(shape, vocabulary, context, special))
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    torch.nn.init.zeros_(parameter)
            return model
        return _rotary(shape, vocabulary, context, special)


def _published(preset: str, shape: Shape, vocabulary: int, context: int, special: dict[str, Any]) -> PreTrainedModel:
    if vocabulary > shape.width:
        raise RecipeError(
            "this preset is a model of characters, with at most as many tokens as dimensions",
            where="student.preset",
            given=f"{preset} and {vocabulary} tokens",
            allowed=f"at most {shape.width} tokens",
            hint="student.tokenizer: character, or student.preset: gpt2-tied",
        )
    config = _gpt2_config(shape, vocabulary, context, special)
    config.tie_word_embeddings, config.head_bias = False, True
    model = PublishedGPT(config)
    model.reset_as_torch()
    return model


def _gpt2_config(shape: Shape, vocabulary: int, context: int, special: dict[str, Any]) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.mlp,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=special["eos_token_id"],
        **special,
    )


def freeze(model: PreTrainedModel) -> None:
    """Keep those biases of GPT-2 at zero that its preset has not. Other families have nothing to freeze."""
    published = isinstance(model, PublishedGPT)
    if isinstance(model, GPT2LMHeadModel):
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and not (published and PublishedGPT.is_trained(name)):
                parameter.requires_grad_(False)


def _rotary(shape: Shape, vocabulary: int, context: int, special: dict[str, Any]) -> PreTrainedModel:
    """Llama, or Qwen3: the same with normalised queries and keys, and windows where the shape has one."""
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.width // shape.heads,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": special["eos_token_id"],
        **special,
    }
    model: PreTrainedModel
    if shape.family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common))
    else:
        kinds = [
            "sliding_attention" if shape.window and layer % 2 == 0 else "full_attention"
            for layer in range(shape.layers)
        ]
        window: dict[str, Any] = {
            "use_sliding_window": bool(shape.window),
            "sliding_window": shape.window,
            "layer_types": kinds,
        }
        model = Qwen3ForCausalLM(Qwen3Config(**common, **window))
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def trainable_parameters(model: PreTrainedModel) -> int:
    """How many numbers training may change; tied weights are counted once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
