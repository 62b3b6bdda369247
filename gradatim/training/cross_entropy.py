"""Cross-entropy losses: all tokens with a weight for the prompt (``next_token``), or the answer (``answer_only``).

Second answers of a batch (rejected answers, completions of the model) have no loss here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import torch
from ..model.settings import Requirements, TrainSettings
from . import losses
from .objective import Loss, LossContext, Term

if TYPE_CHECKING:
    from .batches import Batch


def answer_weights(batch: Batch, prompt_weight: float) -> torch.Tensor:
    """The weight of each token, 0 in second answers; fp32 on the device, shape (size, length)."""
    weights = losses.token_weights(*losses.labels_of(batch), prompt_weight)
    if batch.second is None:
        return weights
    return weights.masked_fill(torch.from_numpy(batch.second).to(weights.device), 0.0)


class NextToken(Loss):
    """Cross-entropy of all tokens in nats; those outside the answer have the weight ``train.prompt_loss_weight``."""

    terms = (Term(1.0),)

    def __init__(self, context: LossContext) -> None:
        self.prompt_weight = self._prompt_weight(context.train)
        token_losses = losses.make_losses(context.model, context.train)

        def weighted(
            inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, *attention: torch.Tensor
        ) -> torch.Tensor:
            return (token_losses(inputs, labels, *attention) * weights).sum()

        self._weighted = losses.compiled(weighted, context.train)

    @staticmethod
    def _prompt_weight(train: TrainSettings) -> float:
        return train.prompt_loss_weight

    def counts(self, batch: Batch) -> torch.Tensor:
        return answer_weights(batch, self.prompt_weight).sum().reshape(1)

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        return self._weighted(inputs, labels, answer_weights(batch, self.prompt_weight), *attention).reshape(1)


class AnswerOnly(NextToken):
    """Cross-entropy of the answer tokens in nats."""

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements(prompt_loss=False)

    @staticmethod
    def _prompt_weight(train: TrainSettings) -> float:
        return 0.0
