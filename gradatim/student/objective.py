"""What is a wrong prediction worth?

An objective turns logits and a batch into the summed loss and the summed weight, so that a batch cut into parts adds
up to the same mean. Cross-entropy is always computed in fp32. Nothing here knows of optimizers or stages.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["token_losses", "token_weights"]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats per place, fp32, shape of ``labels``; 0 where the label is -100.

    ``logits``: (size, length, vocabulary).
    """
    flat = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=-100)
    return flat.view_as(labels)


def token_weights(labels: torch.Tensor, answer: torch.Tensor, other_weight: float) -> torch.Tensor:
    """1 for tokens of an answer, ``other_weight`` for all others, 0 where there is no prediction; fp32.

    ``next_token`` is ``other_weight`` 1; ``answer_only`` is 0.
    """
    weights = torch.where(answer, 1.0, other_weight)
    return torch.where(labels == -100, 0.0, weights)
