"""Labels and prediction heads of trace supervision, and the sums over tokens of its loss.

A TinyPy prompt is decoded from its tokens, ``programs.values_of`` gives the values that the program computes, and each
value becomes the label of the token that holds its position in the text. The classes are the most common values of the
samples. Labels are computed from each batch and are not stored; text that is not TinyPy has none.

A head is one matrix on the hidden states of an inner layer (deep supervision: Lee et al., arXiv 1409.5185). The heads
are not part of the model and are in no saved model.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import DataError, RunFolderError
from ..model.tokenizer import Encoded
from ..programs import Values, values_of
from .batches import IGNORE, Batch
from .losses import token_losses

__all__ = ["Heads", "Marker", "commonest_values", "trace_sums"]


_SEEN = 20_000
"""Samples whose values are counted, from the table's beginning: the classes do not depend on the stage."""

Marks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Marker:
    """``pieces``: the text of each token; ``classes``: the number of each value that is told apart, values written as
    Python does, such as ``-3``, ``0.5`` and ``True``.
    """

    pieces: Sequence[str]
    classes: Mapping[str, int]

    def marks(self, batch: Batch) -> Marks:
        """For each input of the batch the class of its operand and of its result, shape (2, size, length); -100 for
        none, which is also where a value is no class.
        """
        marks = np.full((2, *batch.inputs.shape), IGNORE, dtype=np.int64)
        for line, start, stop in _prompts(batch):
            values, ends = _read(batch.inputs[line, start:stop], self.pieces)
            for row, found in zip(marks, (values.operands, values.results), strict=True):
                for place, value in found.items():
                    at = start + bisect_right(ends, place)
                    if row[line, at] == IGNORE:
                        row[line, at] = self.classes.get(str(value), IGNORE)
        return marks


def commonest_values(encoded: Encoded, pieces: Sequence[str], most: int) -> tuple[str, ...]:
    """The commonest values in the first samples, equally common ones by their text; none where nothing is TinyPy."""
    counted: Counter[str] = Counter()
    for row in range(min(_SEEN, len(encoded))):
        values, _ = _read(encoded.sample(row)[: int(encoded.answer_starts[row])], pieces)
        counted.update(map(str, [*values.operands.values(), *values.results.values()]))
    return tuple(sorted(counted, key=lambda value: (-counted[value], value))[:most])


def _read(numbers: Sequence[int] | npt.NDArray[Any], pieces: Sequence[str]) -> tuple[Values, list[int]]:
    """The values of the program that the tokens spell, none where it is not TinyPy; and where each token ends."""
    words = [pieces[number] for number in numbers]
    ends = list(accumulate(map(len, words)))
    try:
        return values_of("".join(words)), ends
    except DataError:
        return Values(), ends


def _prompts(batch: Batch) -> Iterator[tuple[int, int, int]]:
    """(line, first input, end) of each prompt in the batch's inputs."""
    assert batch.segments is not None
    for line, (segments, answer) in enumerate(zip(batch.segments, batch.answer, strict=True)):
        edges = np.flatnonzero(np.diff(segments, prepend=-2, append=-2))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if segments[start] >= 0:
                # ``answer`` is said of labels: the prompt's last token predicts the answer's first.
                told = np.flatnonzero(answer[start:stop])
                yield line, start, start + int(told[0]) + 1 if len(told) else stop


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
