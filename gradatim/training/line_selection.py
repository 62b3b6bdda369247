"""Online batch selection: training on the lines of several candidate batches that have the highest loss.

Before each optimizer step the model scores ``train.candidates`` times as many lines as the step trains on, and those
with the highest loss of their answers are kept (Loshchilov & Hutter, arXiv 1511.06343; selective backpropagation, Jiang
et al., arXiv 1910.00762). Samples that the model already answers cost a forward pass and no token of the budget. The
choice depends on the weights alone, so that a resumed run and every process of a distributed one make the same choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from ..model.settings import TrainSettings
from .batches import IGNORE, Batch
from .losses import compiled, make_losses, tensors


class LineSelection:
    """Selection of the lines with the highest loss from candidate batches of one shape."""

    def __init__(self, model: PreTrainedModel, settings: TrainSettings) -> None:
        self.model = model
        self.batches = settings.gradient_accumulation_steps
        self.losses = compiled(make_losses(model, settings), settings)

    def __call__(self, candidates: Sequence[Batch]) -> list[Batch]:
        """The batches of an optimizer step, in descending order of the lines' losses; equal ones keep their order."""
        scores = np.concatenate([self.scores(batch) for batch in candidates])
        size = len(candidates[0].inputs)
        order = np.argsort(-scores, kind="stable")[: self.batches * size]
        joined = _joined(candidates)
        return [joined.lines(order[start : start + size]) for start in range(0, len(order), size)]

    @torch.no_grad()
    def scores(self, batch: Batch) -> npt.NDArray[np.float32]:
        """The summed loss of the answer tokens of each line in nats, shape (size,), without dropout."""
        inputs, labels, answer, *context = tensors(batch)
        training = self.model.training
        self.model.eval()
        losses = self.losses(inputs, labels, *context)
        self.model.train(training)
        total = torch.where(answer & (labels != IGNORE), losses, 0.0).sum(dim=1)
        return np.asarray(total.float().cpu().numpy(), dtype=np.float32)


def _joined(batches: Sequence[Batch]) -> Batch:
    """All lines of batches of one length, in their order."""
    segments = [batch.segments for batch in batches if batch.segments is not None]
    return Batch(
        np.concatenate([batch.inputs for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate([batch.answer for batch in batches]),
        np.concatenate(segments) if segments else None,
    )
