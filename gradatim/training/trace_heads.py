"""Prediction heads of the trace loss, and the sums over tokens that the loss is made of.

A head is one matrix on the hidden states of an inner layer (deep supervision: Lee et al., arXiv 1409.5185). The heads
are no part of the student and are in no saved model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import RunFolderError
from .losses import token_losses

__all__ = ["Heads", "trace_sums"]


class Heads(nn.Module):
    """Linear heads (classes, width) for ``operands`` and for ``results``, zero at first. ``classes``: see ``marks``."""

    def __init__(self, width: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        # Stored as bytes in a buffer, so that the classes are saved with the weights.
        self.register_buffer("text", torch.tensor(list(json.dumps(self.classes).encode()), dtype=torch.uint8))
        self.operands = nn.Parameter(torch.zeros(len(classes), width))
        self.results = nn.Parameter(torch.zeros(len(classes), width))

    @classmethod
    def load(cls, file: Path) -> Heads:
        """The heads saved by a stage; ``RunFolderError`` when the file is damaged."""
        try:
            weights = load_file(file)
            heads = cls(weights["operands"].shape[1], json.loads(bytes(weights["text"].tolist())))
            heads.load_state_dict(weights)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
            raise RunFolderError(
                "the heads saved by the stage before are damaged",
                where=file,
                given=error,
                hint="remove that stage's folder: it is trained again",
            ) from error
        return heads


def trace_sums(
    outputs: Callable[..., Any],
    heads: Heads,
    kind: torch.dtype,
    operand_layer: int,
    result_layers: Sequence[int],
) -> Callable[..., torch.Tensor]:
    """(inputs, labels, weights, marks, [positions, mask]) -> sums of token, operand and result loss, shape (3,).

    ``marks``: class of the operand and of the result at each token, int64 (2, size, length), -100 for none. The result
    loss is summed over ``result_layers``.
    """

    def sums(inputs: torch.Tensor, labels: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        weights, marks, *context = rest
        output = outputs(inputs, *context)
        states, matrix = output.hidden_states, heads.results.to(kind)
        tokens = (token_losses(output.logits, labels) * weights).sum()
        operands = _head_loss(states[operand_layer], heads.operands.to(kind), marks[0])
        results = [_head_loss(states[layer], matrix, marks[1]) for layer in result_layers]
        return torch.stack([tokens, operands, torch.stack(results).sum()])

    return sums


def _head_loss(states: torch.Tensor, matrix: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats of the marked values; states are normalised to one length."""
    scale = torch.rsqrt(states.float().pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    return token_losses(nn.functional.linear((states * scale).to(matrix.dtype), matrix), marks).sum()
