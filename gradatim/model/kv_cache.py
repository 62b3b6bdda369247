"""Preallocated KV cache for batched decoding, and attention masks for models with sliding windows.

The cache of transformers copies all its keys and values for each new token: a quarter of the decoding time of a small
model. A ``PreallocatedLayer`` allocates the memory of a batch once and writes each token in place; when sequences end,
the last rows fill the gaps and no other row is copied. ``inference.decode`` handles prompts and tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

__all__ = [
    "PreallocatedLayer",
    "additive_mask",
    "compact_order",
    "kv_cache_for",
    "sliding_window_of",
    "supports_masking",
    "window_mask",
]


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, with memory for ``capacity`` columns.

    ``keys`` and ``values`` (rows, heads, columns, size) are views of the used part of the buffers, so for the rest of
    transformers it is an ordinary cache layer.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers, whose rows, heads and sizes are those of the first keys and values."""
        super().lazy_initialization(key_states, value_states)
        self._buffers = [
            states.new_empty((*states.shape[:2], self.capacity, states.shape[3]))
            for states in (key_states, value_states)
        ]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; return all keys and values. Raises ``RuntimeError`` when the buffer is too small."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, used : used + states.shape[2]] = states
        return self._expose(used + key_states.shape[2])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Select rows in this order, repetitions allowed; rows that keep their index are not copied."""
        used = self.get_seq_length()
        if len(indices) > len(self._buffers[0]):
            larger = [buffer.new_empty((len(indices), *buffer.shape[1:])) for buffer in self._buffers]
            for target, buffer in zip(larger, self._buffers, strict=True):
                target[:, :, :used] = buffer[indices, :, :used]
            self._buffers = larger
        else:
            order = torch.arange(len(indices), device=indices.device)
            targets = (indices != order).nonzero()[:, 0]
            for buffer in self._buffers:
                buffer[targets, :, :used] = buffer[indices[targets], :, :used]
            self._buffers = [buffer[: len(indices)] for buffer in self._buffers]
        self._expose(used)

    def _expose(self, used: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[:, :, :used] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def kv_cache_for(model: Any, columns: int) -> Cache:
    """An empty cache for ``columns`` tokens; the one of transformers for models without a complete KV cache."""
    if not supports_masking(model):
        return DynamicCache(config=model.config)
    return Cache(layers=[PreallocatedLayer(columns) for _ in range(model.config.num_hidden_layers)])


def supports_masking(model: Any) -> bool:
    """Whether a complete KV cache with one mask per kind of layer is correct for the model. It is not for recurrent
    layers, nor for sliding windows of models that take one mask for all layers.
    """
    layer_types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_types == {"full_attention"}:
        return not getattr(model.config, "sliding_window", None)
    return layer_types <= {"full_attention", "sliding_attention"}


def sliding_window_of(model: Any) -> int:
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
