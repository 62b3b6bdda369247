"""How well does the student predict right answers? (Weighted cross-entropy; what validation measures too.)

Where a batch holds second answers (faulty ones, attempts), these are not learnt here.
"""

from __future__ import annotations

from typing import Any

import torch

from .batches import Batch
from .forward import compiled, labels_of, make_losses, tensors
from .losses import token_weights
from .objective import Column, Lesson
from .settings import TrainSettings

__all__ = ["Supervised", "answer_only", "next_token", "right_weights"]


def next_token(lesson: Lesson) -> Supervised:
    """Every token, those outside the answer with the weight ``train.other_weight``."""
    return Supervised(lesson.model, lesson.train, lesson.train.other_weight)


def answer_only(lesson: Lesson) -> Supervised:
    """The answers alone."""
    return Supervised(lesson.model, lesson.train, 0.0)


def right_weights(batch: Batch, other_weight: float) -> torch.Tensor:
    """The weight of each place, 0 in second answers; fp32 on the device, shape (size, length)."""
    weights = token_weights(*labels_of(batch), other_weight)
    if batch.second is None:
        return weights
    return weights.masked_fill(torch.from_numpy(batch.second).to(weights.device), 0.0)


class Supervised:
    """The measure of ``next_token`` and ``answer_only``: one column, nats per weighted token."""

    columns = (Column(1.0),)
    auxiliary = None

    def __init__(self, model: Any, settings: TrainSettings, other_weight: float) -> None:
        self.other_weight = other_weight
        losses = make_losses(model, settings)

        def weighted(
            inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, *context: torch.Tensor
        ) -> torch.Tensor:
            return (losses(inputs, labels, *context) * weights).sum()

        self._weighted = compiled(weighted, settings)

    def learnt(self, batch: Batch) -> int:
        return batch.tokens if self.other_weight else batch.answer_tokens

    def counts(self, batch: Batch) -> torch.Tensor:
        return right_weights(batch, self.other_weight).sum().reshape(1)

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *context = tensors(batch)
        weights = right_weights(batch, self.other_weight)
        return self._weighted(inputs, labels, weights, *context).reshape(1)
