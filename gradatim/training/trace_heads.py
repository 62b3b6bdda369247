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

_COUNTED_SAMPLES = 20_000
"""Samples, from the table's beginning, whose values are counted: the classes do not depend on the stage."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TraceLabels:
    """Labels of the trace loss. ``pieces``: the text of each token; ``classes``: {value: class}, values in Python's
    notation, such as ``-3``, ``0.5`` and ``True``; ``turns``: number of turns of a loop that have labels.
    """

    pieces: Sequence[str]
    classes: Mapping[str, int]
    turns: int = 1

    def labels(self, batch: Batch) -> Labels:
        """For each input of the batch the classes of its operand and of its result, shape (2, turns, size, length).

        -100 for tokens without a value in that turn and for values outside the classes.
        """
        labels = np.full((2, self.turns, *batch.inputs.shape), IGNORE, dtype=np.int64)
        for line, start, stop in _prompts(batch):
            program, ends = _program_values(batch.inputs[line, start:stop], self.pieces)
            for kind, values_at in zip(labels, (program.operands, program.results), strict=True):
                for offset, values in values_at.items():
                    token = start + bisect_right(ends, offset)
                    for row, value in zip(kind, values, strict=False):
                        if row[line, token] == IGNORE:
                            row[line, token] = self.classes.get(str(value), IGNORE)
        return labels


def most_common_values(encoded: Encoded, pieces: Sequence[str], count: int) -> tuple[str, ...]:
    """Up to ``count`` most common values of the first samples, ties sorted by text; empty when none is TinyPy."""
    counts: Counter[str] = Counter()
    for row in range(min(_COUNTED_SAMPLES, len(encoded))):
        values, _ = _program_values(encoded.sample(row)[: int(encoded.answer_starts[row])], pieces)
        counts.update(str(each_turn[0]) for each_turn in [*values.operands.values(), *values.results.values()])
    return tuple(sorted(counts, key=lambda value: (-counts[value], value))[:count])


def _program_values(token_ids: Sequence[int] | npt.NDArray[Any], pieces: Sequence[str]) -> tuple[Values, list[int]]:
    """The values of the program that the tokens spell (empty when it is not TinyPy); the end offset of each token."""
    words = [pieces[token] for token in token_ids]
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
                # ``answer`` refers to labels, shifted by one: the prompt's last token predicts the answer's first.
                answer_labels = np.flatnonzero(answer[start:stop])
                yield line, start, start + int(answer_labels[0]) + 1 if len(answer_labels) else stop


class TraceHeads(nn.Module):
    """Linear heads for ``operands`` and ``results``, zero at first: (turns x classes, width), a block per turn."""

    def __init__(self, width: int, classes: Sequence[str], turns: int = 1) -> None:
        super().__init__()
        self.classes, self.turns = tuple(classes), turns
        # Stored as bytes in a buffer, so that the classes are saved with the weights.
        self.register_buffer("text", torch.tensor(list(json.dumps(self.classes).encode()), dtype=torch.uint8))
        self.operands = nn.Parameter(torch.zeros(turns * len(classes), width))
        self.results = nn.Parameter(torch.zeros(turns * len(classes), width))

    @classmethod
    def load(cls, file: Path) -> TraceHeads:
        """The heads saved by a stage; ``RunFolderError`` when the file is damaged."""
        try:
            weights = load_file(file)
            classes = json.loads(bytes(weights["text"].tolist()))
            rows, width = weights["operands"].shape
            heads = cls(width, classes, rows // max(len(classes), 1))
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
    heads: TraceHeads,
    kind: torch.dtype,
    operand_layer: int,
    result_layers: Sequence[int],
) -> Callable[..., torch.Tensor]:
    """(inputs, labels, weights, trace labels, [positions, mask]) -> sums of token, operand and result loss, shape (3,).

    Trace labels: classes of the operand and of the result at each token, int64 (2, turns, size, length), -100 for none.
    The first turn of a loop is predicted by ``operand_layer`` and by each of ``result_layers``, whose losses are added;
    later turns by the last of ``result_layers``, as they need the results of the turn before.
    """
    last = result_layers[-1]

    def sums(inputs: torch.Tensor, labels: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        weights, trace_labels, *context = arguments
        output = outputs(inputs, *context)
        states = output.hidden_states
        operand_heads = heads.operands.to(kind).chunk(heads.turns)
        result_heads = heads.results.to(kind).chunk(heads.turns)
        tokens = (token_losses(output.logits, labels) * weights).sum()
        operands = [_head_loss(states[operand_layer], operand_heads[0], trace_labels[0, 0])]
        results = [_head_loss(states[layer], result_heads[0], trace_labels[1, 0]) for layer in result_layers]
        for turn in range(1, heads.turns):
            operands.append(_head_loss(states[last], operand_heads[turn], trace_labels[0, turn]))
            results.append(_head_loss(states[last], result_heads[turn], trace_labels[1, turn]))
        return torch.stack([tokens, torch.stack(operands).sum(), torch.stack(results).sum()])

    return sums


def _head_loss(states: torch.Tensor, matrix: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats of the labelled values; states are normalised to one length."""
    scale = torch.rsqrt(states.float().pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    return token_losses(nn.functional.linear((states * scale).to(matrix.dtype), matrix), labels).sum()
