"""Randomly initialised Hugging Face causal models from presets, their KV cache, and masks for sliding windows.

A saved model opens with ``AutoModelForCausalLM.from_pretrained`` and without this package. ``gpt2-tied`` is a
``GPT2LMHeadModel`` with exact GELU, tied embeddings, no dropout and all biases frozen at zero. ``paper`` is the
published 1.08M-parameter GPT (arXiv 2407.10194), ``PublishedGPT``: 120 dimensions, 6 layers, 6 heads, pre-norm blocks
with learned positions, exact GELU, an MLP of four times the width, LayerNorm without bias, no dropout, untied head.
Only the projection after attention and the head have a bias; the other biases of GPT-2 stay zero and are not trained.
Initial weights are torch's defaults.

A saved ``paper`` folder is a plain GPT-2: an equivalent bias of the last norm replaces that of the head (``W β = b``
has an exact solution, since there are no more tokens than dimensions), so other programs compute the same logits.
``head.safetensors`` holds the exact bias of the head; ``opening.open_weights`` restores it for further training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.pytorch_utils import Conv1D

from ..errors import RecipeError
from .settings import PRESETS, Preset

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD = "head.safetensors"
"""File of a ``paper`` model folder with the exact bias of the head."""
BIAS = "lm_head.bias"


class PublishedGPT(GPT2LMHeadModel):  # type: ignore[misc]
    """GPT-2 with an untied head that has a bias; see the module docstring."""

    _keys_to_ignore_on_load_missing = [r"lm_head\.bias"]  # noqa: RUF012 - transformers reads it from the class

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=True)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, *arguments: Any, **options: Any
    ) -> PublishedGPT:
        """Open a folder, with the exact bias of the head if ``head.safetensors`` exists, else as a plain GPT-2."""
        model = super().from_pretrained(folder, *arguments, **options)
        head_file = Path(folder) / HEAD
        with torch.no_grad():
            model.lm_head.bias.zero_()
            if head_file.is_file():
                model.lm_head.bias.copy_(load_file(head_file)[BIAS])
                model.transformer.ln_f.bias.zero_()
        return model

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write a plain GPT-2 folder with the same logits, and ``head.safetensors`` with the bias of the head."""
        super().save_pretrained(save_directory, state_dict=self._plain_state(), **options)
        self.config.architectures = [GPT2LMHeadModel.__name__]
        self.config.save_pretrained(save_directory)
        save_file({BIAS: self.lm_head.bias.detach().cpu().contiguous()}, Path(save_directory) / HEAD)

    def as_gpt2(self) -> GPT2LMHeadModel:
        """A GPT-2 of transformers with the same logits, as other programs open the saved folder."""
        plain: Any = GPT2LMHeadModel(self.config)
        plain.load_state_dict(self._plain_state())
        return cast(GPT2LMHeadModel, plain.to(self.device, self.dtype).eval())

    def _plain_state(self) -> dict[str, torch.Tensor]:
        """The weights of ``as_gpt2``: without the bias of the head, with an equivalent bias of the last norm."""
        state = {name: value for name, value in self.state_dict().items() if name != BIAS}
        state["transformer.ln_f.bias"] = self._norm_bias()
        return state

    def _norm_bias(self) -> torch.Tensor:
        """The bias of the last norm, its present bias included, that adds the bias of the head to the logits."""
        norm_bias: torch.Tensor = self.transformer.ln_f.bias.detach()
        matrix, bias = (value.detach().double().cpu() for value in (self.lm_head.weight, self.lm_head.bias))
        solution = torch.linalg.lstsq(matrix, bias[:, None], driver="gelsd").solution[:, 0]
        result: torch.Tensor = norm_bias + solution.to(norm_bias.device, norm_bias.dtype)
        return result

    def reset_as_torch(self) -> None:
        """Reset the weights to torch's defaults: linear layers uniform in ±1/√inputs, embeddings from N(0, 1)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                module.reset_parameters()
            elif isinstance(module, Conv1D):  # transformers' linear layer, its matrix transposed
                bound = 1 / math.sqrt(module.weight.shape[0])
                nn.init.uniform_(module.weight, -bound, bound)
                if self.is_trained(f"{name}.bias"):
                    nn.init.uniform_(module.bias, -bound, bound)
                else:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def is_trained(name: str) -> bool:
        """Whether the published model has the parameter ``name``; the remaining biases of GPT-2 stay zero."""
        return not name.endswith(".bias") or name.endswith("attn.c_proj.bias") or name == BIAS


def create(preset: str, *, vocabulary: int, context: int, special: dict[str, Any], seed: int) -> PreTrainedModel:
    """A new model of the preset with random weights from ``seed``; the global random state does not change.

    ``special`` holds ``pad_token_id`` and ``eos_token_id``. Raises ``UnknownPart`` for an unknown preset and
    ``RecipeError`` when the vocabulary is larger than the preset allows.
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


def _published(preset: str, shape: Preset, vocabulary: int, context: int, special: dict[str, Any]) -> PreTrainedModel:
    if vocabulary > shape.width:
        raise RecipeError(
            "this preset is a character-level model: its vocabulary is at most its width",
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


def _gpt2_config(shape: Preset, vocabulary: int, context: int, special: dict[str, Any]) -> GPT2Config:
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
    """Exclude the biases of GPT-2 that the preset does not have from training; other families have none."""
    published = isinstance(model, PublishedGPT)
    if isinstance(model, GPT2LMHeadModel):
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and not (published and PublishedGPT.is_trained(name)):
                parameter.requires_grad_(False)


def _rotary(shape: Preset, vocabulary: int, context: int, special: dict[str, Any]) -> PreTrainedModel:
    """A Llama, or a Qwen3: Llama with normalised queries and keys, and sliding windows if the shape has a window."""
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
        if shape.window:
            # vLLM's Qwen3 ignores layer_types. It refuses windows in some layers unless this is the number of layers.
            window["max_window_layers"] = 0
        model = Qwen3ForCausalLM(Qwen3Config(**common, **window))
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def trainable_parameters(model: PreTrainedModel) -> int:
    """The number of trainable parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, with memory for ``capacity`` columns of ``rows`` texts, or of the first texts.

    ``keys`` and ``values`` (rows, heads, columns, size) are views of the used part of the buffers, so for the rest of
    transformers it is an ordinary cache layer. Without ``positions`` an update appends columns, as for a text that is
    read at once. With ``positions`` (shape (rows,)) it writes one token of each row into the column of its position.

    The cache of transformers copies all its keys and values for each new token: a quarter of the decoding time of a
    small model. A ``PreallocatedLayer`` writes each token in place; when sequences end, the last rows fill the gaps and
    no other row is copied, and rows of another cache take the free places. ``inference.decode`` handles prompts and
    tokens.
    """

    def __init__(self, capacity: int, rows: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity, self.rows = capacity, rows
        self.positions: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers for ``rows`` texts, or those of the first keys and values, with their heads and sizes.

        Zeros, since a masked column must be finite: its value is multiplied by a probability of 0.
        """
        super().lazy_initialization(key_states, value_states)
        self._rows = len(key_states)
        self._buffers = [
            states.new_zeros((max(self.rows, len(states)), states.shape[1], self.capacity, states.shape[3]))
            for states in (key_states, value_states)
        ]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write columns; return all keys and values. Raises ``RuntimeError`` when the buffer is too small."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            if self.positions is None:
                buffer[: self._rows, :, used : used + states.shape[2]] = states
            else:
                buffer[torch.arange(self._rows, device=states.device), :, self.positions] = states[:, :, 0]
        return self._expose(used + key_states.shape[2])

    def write_at(self, positions: torch.Tensor) -> None:
        """Let the next update write the token of each row at its position, shape (rows,)."""
        self.positions = positions
        self._expose(int(positions.max()))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Select rows in this order, repetitions allowed; rows that keep their index are not copied."""
        used = self.get_seq_length()
        self._reserve(len(indices))
        order = torch.arange(len(indices), device=indices.device)
        targets = (indices != order).nonzero()[:, 0]
        for buffer in self._buffers:
            buffer[targets, :, :used] = buffer[indices[targets], :, :used]
        self._rows = len(indices)
        self._expose(used)

    def append_rows(self, layer: PreallocatedLayer, indices: torch.Tensor, rows: int) -> None:
        """Add the rows ``indices`` of another layer behind the first ``rows`` of this one."""
        used = layer.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(*(buffer[:0] for buffer in layer._buffers))
        self._rows = rows
        self._reserve(rows + len(indices))
        for target, buffer in zip(self._buffers, layer._buffers, strict=True):
            target[rows : rows + len(indices), :, :used] = buffer[indices, :, :used]
        self._rows = rows + len(indices)
        self._expose(max(used, self.get_seq_length()))

    def _reserve(self, rows: int) -> None:
        """Enlarge the buffers to ``rows`` rows, where they have fewer."""
        if rows <= len(self._buffers[0]):
            return
        larger = [buffer.new_zeros((rows, *buffer.shape[1:])) for buffer in self._buffers]
        for target, buffer in zip(larger, self._buffers, strict=True):
            target[: self._rows] = buffer[: self._rows]
        self._buffers = larger

    def _expose(self, used: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[: self._rows, :, :used] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def kv_cache_for(model: PreTrainedModel, columns: int, rows: int = 0) -> Cache:
    """An empty cache for ``columns`` tokens of ``rows`` texts, or of the first ones; the cache of transformers for
    models without a complete KV cache.
    """
    if not supports_masking(model):
        return DynamicCache(config=model.config)
    return Cache(layers=[PreallocatedLayer(columns, rows) for _ in range(model.config.num_hidden_layers)])


def supports_masking(model: PreTrainedModel) -> bool:
    """Whether a complete KV cache with one mask per kind of layer is correct for the model. It is not for recurrent
    layers, nor for sliding windows of models that take one mask for all layers.
    """
    layer_types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_types == {"full_attention"}:
        return not getattr(model.config, "sliding_window", None)
    return layer_types <= {"full_attention", "sliding_attention"}


LARGE_VOCABULARY = 16_384
"""The number of tokens from which logits of all positions cost more than the selection of some positions."""


def has_large_vocabulary(model: PreTrainedModel) -> bool:
    """Whether the model has ``LARGE_VOCABULARY`` tokens or more."""
    return int(model.config.get_text_config().vocab_size) >= LARGE_VOCABULARY


def logits_at(
    model: PreTrainedModel, positions: tuple[torch.Tensor, ...], forward: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """The logits that ``forward`` returns, shape (size, length, vocabulary), indexed by ``positions``.

    ``forward`` is a forward pass of ``model``. With a large vocabulary the output layer is applied to these positions
    alone: logits of every token of a line would take more memory and time than the layers below them.
    """
    head: Any = model.get_output_embeddings()
    if head is None or not has_large_vocabulary(model):
        return forward()[positions]
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][positions], *inputs[1:]))
    try:
        return forward()
    finally:
        hook.remove()


def sliding_window_of(model: PreTrainedModel) -> int:
    """The number of tokens that a sliding-window layer attends to, the current token included; 0 for a model without
    such layers. A model with them takes one mask per kind of layer.
    """
    layer_types = getattr(model.config, "layer_types", None) or []
    return int(model.config.sliding_window) if "sliding_attention" in layer_types else 0


def window_mask(visible: torch.Tensor, window: int) -> torch.Tensor:
    """The last ``window`` of the ``visible`` columns of each query (bool, shape (…, columns))."""
    return visible & (visible.flip(-1).cumsum(-1).flip(-1) <= window)


def additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive attention mask: 0 where ``visible``, the minimum of ``dtype`` elsewhere."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)


def compact_order(ended: list[bool]) -> list[int]:
    """The active rows in an order that moves as few as possible: the last rows fill the gaps."""
    active = [row for row, end in enumerate(ended) if not end]
    count = len(active)
    tail = [row for row in active if row >= count]
    return [row if not ended[row] else tail.pop() for row in range(count)]
