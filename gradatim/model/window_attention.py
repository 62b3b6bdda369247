"""Attention of sliding-window layers in proportion to the window: each token with its last few tokens alone.

Every other layer of the preset ``modern`` attends to three tokens. The implementations of transformers compute all
scores of a line for such a layer too and mask them, which for a window of 3 tokens and lines of 512 is 170 times the
work. ``WINDOWED`` names an implementation for training on a CPU that computes the scores within the window, as shifted
products, which compilation fuses. Layers with full attention are those of transformers.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from . import hardware
from .architecture import sliding_window_of

WINDOWED = "gradatim_windowed"
"""Name of the implementation in transformers."""

LARGEST = 8
"""The largest window in tokens for which it is used. The work grows with the window; larger ones are not measured."""


def select_attention(model: PreTrainedModel, length: int) -> None:
    """Set the attention implementation that trains ``model`` fastest on sequences of ``length`` tokens."""
    windowed = hardware.device().type == "cpu" and 0 < sliding_window_of(model) <= LARGEST
    model.set_attn_implementation(WINDOWED if windowed else hardware.attention(length))


def is_windowed(model: PreTrainedModel) -> bool:
    """Whether ``model`` has the implementation ``WINDOWED``, whose sliding-window layers take a mask of the window."""
    return bool(model.config._attn_implementation == WINDOWED)


def window_visible(positions: torch.Tensor, window: int) -> torch.Tensor:
    """Whether each token attends to the one ``offset`` before it: bool, shape (size, length, window), by offset.

    ``positions``: the place of each token in its sample, from 0, shape (size, length).
    """
    return positions[:, :, None] >= torch.arange(window, device=positions.device)


def window_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor, scaling: float, dropout: float
) -> torch.Tensor:
    """Softmax attention within the window, in fp32: shape (size, heads, length, width), as the three states have.

    ``visible``: see ``window_visible``; a token always attends to itself.
    """
    offsets = range(visible.shape[-1])
    scores = torch.stack([(query.float() * _shifted(key, offset).float()).sum(-1) for offset in offsets], dim=-1)
    scores = (scores * scaling).masked_fill(~visible[:, None], torch.finfo(torch.float32).min)
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    terms = [weights[..., offset, None] * _shifted(value, offset).float() for offset in offsets]
    return torch.stack(terms).sum(0).to(query.dtype)


def _shifted(states: torch.Tensor, offset: int) -> torch.Tensor:
    """``states`` of the token ``offset`` before each, zeros before the first one."""
    return functional.pad(states, (0, 0, offset, 0))[:, :, : states.shape[2]]


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The interface of transformers: states of (size, heads, length, width) to (size, length, heads, width).

    A mask of three dimensions is that of a window. An additive mask belongs to eager attention, a boolean one or None
    to the fused one.
    """
    if attention_mask is not None and attention_mask.dim() == 3:
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, dim=1) if groups > 1 else states for states in (key, value))
        scaling, dropout = options["scaling"], options.get("dropout", 0.0)
        result = window_attention(query, key, value, attention_mask, scaling, dropout)
        return result.transpose(1, 2).contiguous(), None
    if attention_mask is None or attention_mask.dtype is torch.bool:
        forward = ALL_ATTENTION_FUNCTIONS["sdpa"]
    else:
        forward = sys.modules[type(module).__module__].eager_attention_forward
    result, weights = forward(module, query, key, value, attention_mask, **options)
    return result, weights


def _mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """The mask of transformers for a model that is given none, in the form of ``hardware.attention``."""
    eager = hardware.attention(int(options["q_length"])) == "eager"
    mask: torch.Tensor | None = (eager_mask if eager else sdpa_mask)(*arguments, **options)
    return mask


ALL_ATTENTION_FUNCTIONS.register(WINDOWED, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(WINDOWED, _mask)
