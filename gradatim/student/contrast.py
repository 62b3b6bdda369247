"""Does the student tell right answers from faulty ones?

The contrast is a preference between the two answers of a pair: DPO (arXiv 2305.18290) when measured from the student at
the stage's start, SimPO (arXiv 2405.14734) without a reference. ``correct_and_fault`` adds it to the cross-entropy of
right answers, from the same forward pass; samples without a faulty answer have a part in the cross-entropy only.
"""

from __future__ import annotations

import torch

from ..stage import Event
from .batches import IGNORE, Batch, Packed
from .forward import compiled, make_losses, tensors
from .hardware import device
from .losses import pair_sums, preference
from .objective import Column, Lesson
from .reference import stage_start
from .supervised import right_weights

__all__ = ["Contrast", "contrast", "correct_and_fault"]


def contrast(lesson: Lesson) -> Contrast:
    """The preference alone."""
    return Contrast(lesson, 1.0, None)


def correct_and_fault(lesson: Lesson) -> Contrast:
    """Cross-entropy of right answers, and ``train.contrast.weight`` times the preference."""
    if not isinstance(lesson.batcher, Packed) or lesson.batcher.beside is None:
        text = "no sample has a faulty answer: right answers alone are learnt"
        lesson.events(Event("note", "train", text=text))
    return Contrast(lesson, lesson.train.contrast.weight, lesson.train.other_weight)


class Contrast:
    """The measure of both. ``factor`` weighs the preference; ``other_weight`` None leaves the cross-entropy out."""

    auxiliary = None

    def __init__(self, lesson: Lesson, factor: float, other_weight: float | None) -> None:
        self.settings, self.other_weight = lesson.train.contrast, other_weight
        with_reference = self.settings.reference == "stage_start"
        own, normalise = self.settings.beta, self.settings.normalise
        self.beta = own if own is not None else 0.1 if with_reference else 2.0
        self.normalise = normalise if normalise is not None else not with_reference
        told = [("contrast_loss", factor), ("margin", 0.0), ("accuracy_of_preference", 0.0)]
        columns = [Column(share, name, bounded=False) for name, share in told]
        self.columns = tuple(columns if other_weight is None else [Column(1.0), *columns])
        self._losses = compiled(make_losses(lesson.model, lesson.train), lesson.train)
        self._reference: torch.Tensor | None = None
        if with_reference and isinstance(lesson.batcher, Packed) and lesson.batcher.beside is not None:
            self._reference = torch.from_numpy(stage_start(lesson, self._log_probabilities))

    def learnt(self, batch: Batch) -> int:
        """Both answers of a pair count; the prompt counts once, where it is learnt at all."""
        return batch.tokens if self.other_weight else batch.answer_tokens

    def counts(self, batch: Batch) -> torch.Tensor:
        pairs = 0 if batch.rows is None else len(batch.rows)
        if self.other_weight is None:
            return torch.full((3,), float(pairs), device=device())
        right = right_weights(batch, self.other_weight).sum()
        return torch.cat([right.reshape(1), torch.full((3,), float(pairs), device=right.device)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *context = tensors(batch)
        losses = self._losses(inputs, labels, *context)
        told = self._preferences(batch, losses)
        if self.other_weight is None:
            return told
        right = (losses * right_weights(batch, self.other_weight)).sum()
        return torch.cat([right.reshape(1), told])

    def _preferences(self, batch: Batch, losses: torch.Tensor) -> torch.Tensor:
        """Summed loss, margin and number of pairs whose right answer is ahead, shape (3,)."""
        if batch.rows is None or not len(batch.rows):
            return losses.new_zeros(3)
        margins = self.beta * self._leads(batch, losses)
        loss = preference(margins, self.settings.target).sum()
        seen = margins.detach()
        return torch.stack([loss, seen.sum(), (seen > 0).float().sum()])

    def _leads(self, batch: Batch, losses: torch.Tensor) -> torch.Tensor:
        """How much likelier the right answer has become than the faulty one, or is; nats, shape (pairs,)."""
        ratios = self._summed(batch, -losses)
        if self._reference is not None:
            ratios = ratios - self._reference[batch.rows].to(ratios.device)
        if self.normalise:
            predicted = torch.from_numpy(batch.labels != IGNORE).to(losses.device)
            ratios = ratios / self._summed(batch, predicted.float()).clamp(min=1)
        return ratios[:, 0] - ratios[:, 1]

    def _summed(self, batch: Batch, values: torch.Tensor) -> torch.Tensor:
        assert batch.pairs is not None
        assert batch.second is not None
        assert batch.rows is not None
        pairs, second = (torch.from_numpy(part).to(values.device) for part in (batch.pairs, batch.second))
        return pair_sums(values, pairs, second, len(batch.rows))

    def _log_probabilities(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *context = tensors(batch)
        return self._summed(batch, -self._losses(inputs, labels, *context))
