"""Does the student know what a program computes on its way?

The answer's tokens say only where a program ends, so a student must guess what lies between: names stand for values,
operations have results, a branch is taken or not. The objective ``traced`` tells it. While it reads a TinyPy prompt,
two small heads on the states of inner layers (deep supervision: Lee et al., arXiv 1409.5185) are asked what ``marks``
knows: the value of each name that is read, and the result of each operation and condition. The loss is that of
``next_token`` plus ``train.trace.weight`` x the mean cross-entropy of each. The heads are thrown away in the end: the
student answers without them, in one go.

Nothing here runs a program that a model wrote; what is not TinyPy has no values and is learnt as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import RecipeError, RunFolderError
from .batches import IGNORE, Batch, Packed
from .forward import compiled, make_outputs, tensors
from .hardware import compute_type, device
from .losses import token_losses
from .marks import Marker, commonest_values
from .objective import Column, Lesson
from .supervised import right_weights
from .text_codec import codec_of

__all__ = ["Heads", "Traced", "pieces_of", "traced"]


def traced(lesson: Lesson) -> Traced:
    """The measure, with heads as the stage before left them, or new ones. ``RecipeError`` without TinyPy programs."""
    assert isinstance(lesson.batcher, Packed)  # check_objective
    pieces = pieces_of(lesson.tokenizer)
    before = None if lesson.previous is None else lesson.previous / "auxiliary.safetensors"
    if before is not None and before.exists():
        heads = Heads.load(before)
    else:
        classes = commonest_values(lesson.batcher.encoded, pieces, lesson.train.trace.values)
        if not classes:
            raise RecipeError(
                "the objective traced needs TinyPy programs: none of the samples is one",
                where="train.objective",
                given="traced",
                hint="train.objective: next_token",
            )
        heads = Heads(lesson.model.config.hidden_size, classes)
    marker = Marker(pieces, {value: number for number, value in enumerate(heads.classes)})
    return Traced(lesson, heads.to(device()), marker)


def pieces_of(tokenizer: Any) -> list[str]:
    """The text of each token inside a text; the first of a text may have a space before it."""
    return codec_of(tokenizer).pieces


class Heads(nn.Module):
    """What asks a state for a value: one matrix (classes, width) for ``operands``, one for ``results``; zero at first.

    ``classes``: see ``marks``.
    """

    def __init__(self, width: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        # As numbers, so that they travel with the weights.
        self.register_buffer("text", torch.tensor(list(json.dumps(self.classes).encode()), dtype=torch.uint8))
        self.operands = nn.Parameter(torch.zeros(len(classes), width))
        self.results = nn.Parameter(torch.zeros(len(classes), width))

    @classmethod
    def load(cls, file: Path) -> Heads:
        """The heads that a stage left; ``RunFolderError`` when the file is not whole."""
        try:
            weights = load_file(file)
            heads = cls(weights["operands"].shape[1], json.loads(bytes(weights["text"].tolist())))
            heads.load_state_dict(weights)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
            raise RunFolderError(
                "what the stage before left of its heads is damaged",
                where=file,
                given=error,
                hint="remove that stage's folder: it is learnt again",
            ) from error
        return heads


class Traced:
    """The measure: cross-entropy of the tokens, and of the operands and results that ``heads`` are asked for; that of
    results is summed over the layers that are asked.
    """

    def __init__(self, lesson: Lesson, heads: Heads, marker: Marker) -> None:
        settings = lesson.train.trace
        self.auxiliary, self.marker, self.other_weight = heads, marker, lesson.train.other_weight
        self.columns = (
            Column(1.0),
            Column(settings.weight, "operand_loss", bounded=False),
            Column(settings.weight, "result_loss", bounded=False),
        )
        self._marked: WeakKeyDictionary[Batch, torch.Tensor] = WeakKeyDictionary()
        layers = int(lesson.model.config.num_hidden_layers)
        after_operands = settings.operands or max(1, round(layers / 4))
        after_results = settings.results or tuple(sorted({max(1, round(layers * part / 4)) for part in (2, 3)}))
        if max(after_operands, *after_results) > layers:
            raise RecipeError(
                "the student has no such layer",
                where="train.trace",
                given=f"operands {after_operands}, results {', '.join(map(str, after_results))}",
                allowed=f"1 to {layers}",
            )
        outputs, kind = make_outputs(lesson.model, lesson.train, hidden=True), compute_type(lesson.train.precision)

        def sums(inputs: torch.Tensor, labels: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            weights, marks, *context = rest
            found = outputs(inputs, *context)
            states, asked = found.hidden_states, heads.results.to(kind)
            tokens = (token_losses(found.logits, labels) * weights).sum()
            operands = _asked(states[after_operands], heads.operands.to(kind), marks[0])
            results = [_asked(states[layer], asked, marks[1]) for layer in after_results]
            return torch.stack([tokens, operands, torch.stack(results).sum()])

        self._sums = compiled(sums, lesson.train)

    def learnt(self, batch: Batch) -> int:
        return batch.tokens if self.other_weight else batch.answer_tokens

    def counts(self, batch: Batch) -> torch.Tensor:
        marks = self._marks(batch)
        right = right_weights(batch, self.other_weight).sum().reshape(1)
        return torch.cat([right, (marks != IGNORE).sum(dim=(1, 2)).to(right.dtype)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *context = tensors(batch)
        weights = right_weights(batch, self.other_weight)
        return self._sums(inputs, labels, weights, self._marks(batch), *context)

    def _marks(self, batch: Batch) -> torch.Tensor:
        """Counts and sums ask for the same marks, one after the other."""
        if batch not in self._marked:
            self._marked[batch] = torch.from_numpy(self.marker.marks(batch)).to(device())
        return self._marked[batch]


def _asked(states: torch.Tensor, matrix: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats of the values at the places that are marked; states are brought to one length."""
    scale = torch.rsqrt(states.float().pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    return token_losses(nn.functional.linear((states * scale).to(matrix.dtype), matrix), marks).sum()
