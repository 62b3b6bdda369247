"""Preference losses between a chosen and a rejected answer: DPO, SimPO, and their sum with cross-entropy.

DPO (arXiv 2305.18290) uses log-ratios to the model at the stage's start (the reference model), SimPO (arXiv 2405.14734)
mean log-probabilities without a reference. ``sft_dpo`` (SFT + DPO, arXiv 2408.03680) adds the cross-entropy
of chosen answers from the same forward pass; rows without a rejected answer contribute only that term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import torch
from ..model import hardware
from ..model.settings import Requirements, TrainSettings
from ..stage import Event
from . import batches, losses
from .cross_entropy import answer_weights
from .objective import Loss, LossContext, Term

if TYPE_CHECKING:
    from .batches import Batch


class Preference(Loss):
    """The preference loss alone: -log sigmoid(beta x (chosen - rejected) - gamma).

    Two further values are logged: the mean margin in nats x beta, and the share of pairs with a positive margin.
    """

    def __init__(self, context: LossContext) -> None:
        self.settings = context.train.preference
        with_reference = not self.settings.reference_free
        beta, length_normalized = self.settings.beta, self.settings.length_normalized
        self.beta = beta if beta is not None else 0.1 if with_reference else 2.0
        self.length_normalized = length_normalized if length_normalized is not None else not with_reference
        self.terms = self._terms(context.train)
        self._losses = losses.compiled(losses.make_losses(context.model, context.train), context.train)
        self._reference: torch.Tensor | None = None
        if with_reference and getattr(context.batcher, "second_answers", None) is not None:
            self._reference = torch.from_numpy(losses.stage_start(context, self._log_probabilities))

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements("rejected", pairs_only=True, isolated_samples=True, prompt_loss=False)

    @staticmethod
    def _terms(train: TrainSettings) -> tuple[Term, ...]:
        return _preference_terms(1.0)

    def counts(self, batch: Batch) -> torch.Tensor:
        return torch.full((3,), float(_pairs(batch)), device=hardware.device())

    def sums(self, batch: Batch) -> torch.Tensor:
        return self._preference_sums(batch, self._token_losses(batch))

    def _token_losses(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        return self._losses(inputs, labels, *attention)

    def _preference_sums(self, batch: Batch, token_losses: torch.Tensor) -> torch.Tensor:
        """Summed loss, summed margin, and the number of pairs with a positive margin; shape (3,)."""
        if not _pairs(batch):
            return token_losses.new_zeros(3)
        margins = self.beta * self._log_ratios(batch, token_losses)
        loss = losses.preference(margins, self.settings.gamma).sum()
        detached = margins.detach()
        return torch.stack([loss, detached.sum(), (detached > 0).float().sum()])

    def _log_ratios(self, batch: Batch, token_losses: torch.Tensor) -> torch.Tensor:
        """Log-ratio of the chosen answer minus that of the rejected one, nats, shape (pairs,)."""
        ratios = self._pair_sums(batch, -token_losses)
        if self._reference is not None:
            ratios = ratios - self._reference[batch.rows].to(ratios.device)
        if self.length_normalized:
            predicted = torch.from_numpy(batch.labels != batches.IGNORE).to(token_losses.device)
            ratios = ratios / self._pair_sums(batch, predicted.float()).clamp(min=1)
        return ratios[:, 0] - ratios[:, 1]

    def _pair_sums(self, batch: Batch, values: torch.Tensor) -> torch.Tensor:
        assert batch.pairs is not None
        assert batch.second is not None
        pairs, second = (torch.from_numpy(array).to(values.device) for array in (batch.pairs, batch.second))
        return losses.pair_sums(values, pairs, second, _pairs(batch))

    def _log_probabilities(self, batch: Batch) -> torch.Tensor:
        return self._pair_sums(batch, -self._token_losses(batch))


class SupervisedPreference(Preference):
    """Cross-entropy of chosen answers + ``train.preference.weight`` x the preference loss of the pairs."""

    def __init__(self, context: LossContext) -> None:
        self.prompt_weight = context.train.prompt_loss_weight
        if getattr(context.batcher, "second_answers", None) is None:
            note = "no sample has a rejected answer: the loss is cross-entropy of the chosen answers alone"
            context.events(Event("note", "train", text=note))
        super().__init__(context)

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements("rejected", isolated_samples=True, prompt_loss=train.prompt_loss_weight > 0)

    @staticmethod
    def _terms(train: TrainSettings) -> tuple[Term, ...]:
        return Term(1.0), *_preference_terms(train.preference.weight)

    def counts(self, batch: Batch) -> torch.Tensor:
        chosen_weight = answer_weights(batch, self.prompt_weight).sum()
        return torch.cat(
            [chosen_weight.reshape(1), torch.full((3,), float(_pairs(batch)), device=chosen_weight.device)]
        )

    def sums(self, batch: Batch) -> torch.Tensor:
        token_losses = self._token_losses(batch)
        chosen_loss = (token_losses * answer_weights(batch, self.prompt_weight)).sum()
        return torch.cat([chosen_loss.reshape(1), self._preference_sums(batch, token_losses)])


def _preference_terms(weight: float) -> tuple[Term, ...]:
    named = (("contrast_loss", weight), ("margin", 0.0), ("accuracy_of_preference", 0.0))
    return tuple(Term(share, name, bounded=False) for name, share in named)


def _pairs(batch: Batch) -> int:
    """The number of pairs in a batch."""
    return 0 if batch.rows is None else len(batch.rows)
