"""Trace supervision: next-token loss and an auxiliary loss on the intermediate values of TinyPy programs.

The tokens of an answer give only the result of a program's execution. The auxiliary loss supervises the steps before
it: while the model reads a TinyPy prompt, linear heads on inner layers predict the value of each name that is read
(operands) and the result of each operation and condition (results); ``trace_heads`` computes the labels. The loss is
that of ``next_token`` plus ``train.trace_supervision.weight`` x the mean cross-entropy of each. Text that is not
TinyPy has no auxiliary labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..errors import RecipeError
from ..lazy import torch
from ..model import hardware, text_codec
from ..model.settings import Requirements, TraceSupervisionSettings, TrainSettings
from . import batches, losses, trace_heads
from .cross_entropy import answer_weights
from .objective import Loss, LossContext, Term

if TYPE_CHECKING:
    from .batches import Batch


class TraceLoss(Loss):
    """Cross-entropy of the tokens + ``train.trace_supervision.weight`` x (operand loss + result loss), all in nats.

    The heads continue from the stage before where it has some. ``RecipeError`` when no sample is a TinyPy program, or
    the model lacks a layer that the recipe names.
    """

    def __init__(self, context: LossContext) -> None:
        settings, train = context.train.trace_supervision, context.train
        self.prompt_weight = train.prompt_loss_weight
        self.auxiliary, self.trace_labels = _heads(context)
        self.terms = (
            Term(1.0),
            Term(settings.weight, "operand_loss", bounded=False),
            Term(settings.weight, "result_loss", bounded=False),
        )
        self._labels_by_batch: WeakKeyDictionary[Batch, torch.Tensor] = WeakKeyDictionary()
        variable_layer, result_layers = _layers(settings, int(context.model.config.num_hidden_layers))
        outputs, kind = losses.make_outputs(context.model, train, hidden=True), hardware.compute_type(train.precision)
        self._sums = losses.compiled(
            trace_heads.trace_sums(outputs, self.auxiliary, kind, variable_layer, result_layers), train
        )

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements(isolated_samples=True, prompt_loss=train.prompt_loss_weight > 0)

    def counts(self, batch: Batch) -> torch.Tensor:
        labels = self._trace_labels(batch)
        weights = answer_weights(batch, self.prompt_weight).sum().reshape(1)
        return torch.cat([weights, (labels != batches.IGNORE).sum(dim=(1, 2)).to(weights.dtype)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        return self._sums(
            inputs, labels, answer_weights(batch, self.prompt_weight), self._trace_labels(batch), *attention
        )

    def _trace_labels(self, batch: Batch) -> torch.Tensor:
        """The labels of the heads; ``counts`` and ``sums`` of one batch share them."""
        if batch not in self._labels_by_batch:
            self._labels_by_batch[batch] = torch.from_numpy(self.trace_labels.labels(batch)).to(hardware.device())
        return self._labels_by_batch[batch]


def _heads(context: LossContext) -> tuple[trace_heads.TraceHeads, trace_heads.TraceLabels]:
    """The heads as saved by the stage before, or new ones for the most common values; and their labels."""
    assert isinstance(context.batcher, batches.Packed)  # Requirements.isolated_samples
    pieces = text_codec.codec_of(context.tokenizer).pieces
    saved = None if context.previous is None else context.previous / "auxiliary.safetensors"
    if saved is not None and saved.exists():
        heads = trace_heads.TraceHeads.load(saved)
    else:
        num_classes = context.train.trace_supervision.num_classes
        classes = trace_heads.most_common_values(context.batcher.encoded, pieces, num_classes)
        if not classes:
            raise RecipeError(
                "the objective trace_supervision needs TinyPy programs, and no sample is one",
                where="train.objective",
                given="trace_supervision",
                hint="train.objective: next_token",
            )
        heads = trace_heads.TraceHeads(context.model.config.hidden_size, classes)
    return heads.to(hardware.device()), trace_heads.TraceLabels(
        pieces, {value: number for number, value in enumerate(heads.classes)}
    )


def _layers(settings: TraceSupervisionSettings, layers: int) -> tuple[int, tuple[int, ...]]:
    """The layer of the operand head and those of the result head, from 1; by default at 1/4, and at 1/2 and 3/4."""
    variable_layer = settings.variable_layer or max(1, round(layers / 4))
    result_layers = settings.result_layers or tuple(sorted({max(1, round(layers * quarter / 4)) for quarter in (2, 3)}))
    if max(variable_layer, *result_layers) > layers:
        raise RecipeError(
            "the model has no such layer",
            where="train.trace_supervision",
            given=f"variable_layer {variable_layer}, result_layers {', '.join(map(str, result_layers))}",
            allowed=f"1 to {layers}",
        )
    return variable_layer, result_layers
