"""Labels and prediction heads of trace supervision, and the sums over tokens of its loss.

A TinyPy prompt is decoded from its tokens, ``programs.values_of`` gives the values that the program computes, and each
value becomes the label of the token that holds its position in the text. Labels are computed from each batch and are
not stored; text that is not TinyPy has none.

A value is one class (``values``), where it is one of the most common ones, or has a class for each part of its notation
(``digits``): its kind and sign, the ones, tens and hundreds of its integer part and its fraction, so that 41 and 42
differ in one digit and rare values have labels too.

A head is one matrix on the hidden states of an inner layer (deep supervision: Lee et al., arXiv 1409.5185). The heads
are not part of the model and are in no saved model.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any, Literal

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

_MAX_CACHED_VALUES = 100_000

Labels = npt.NDArray[np.int64]
LabelKind = Literal["digits", "values"]

_KINDS = ("False", "True", "int", "-int", "float", "-float")
_DIGITS = tuple("0123456789")
_PLACES = 3
_NO_FRACTION = "0.0"
"""The only fraction where the samples have no float: a part without classes has no prediction."""
_DECIMALS = 5
"""Decimals to which floats are rounded: 0.6666666666666666 and 0.6666666666666667 have the same class."""


@dataclass(frozen=True)
class Parts:
    """The parts of a value that have a class each, and their classes: ``classes[part]`` in the order of a head's rows.

    ``digits``: the kind with the sign; the ones, tens and hundreds of the integer part, which have no class from 1000
    on; and the fraction, for floats whose fraction is one of the most common. ``values``: one part, the whole value in
    Python's notation, such as ``-3``, ``0.5`` and ``True``.
    """

    kind: LabelKind
    classes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, kind: LabelKind, values: Iterable[Any], count: int) -> Parts:
        """The parts for the classes of ``values``: its ``count`` most common values or fractions, ties by text."""
        last_parts = (_texts(kind, value)[-1] for value in values)
        counts = Counter(text for text in last_parts if text is not None)
        common = tuple(sorted(counts, key=lambda text: (-counts[text], text))[:count]) or (_NO_FRACTION,)
        return cls(kind, (common,) if kind == "values" else (_KINDS, *[_DIGITS] * _PLACES, common))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of classes of each part."""
        return tuple(map(len, self.classes))

    @cached_property
    def _indices(self) -> tuple[dict[str | None, int], ...]:
        return tuple({text: index for index, text in enumerate(texts)} for texts in self.classes)

    def labels(self, value: Any) -> tuple[int, ...]:
        """The class of each part of ``value``; -100 for a part without a class."""
        texts = _texts(self.kind, value)
        return tuple([indices.get(text, IGNORE) for indices, text in zip(self._indices, texts, strict=True)])


def _texts(kind: LabelKind, value: Any) -> tuple[str | None, ...]:
    """The text of each part of ``value``; None where the value has no such part."""
    if kind == "values":
        return (str(value),)
    if isinstance(value, bool):
        return (str(value), *[None] * _PLACES, None)
    sign = "-" if str(value).startswith("-") else ""
    if isinstance(value, int):
        return (f"{sign}int", *_places(abs(value)), None)
    if not isfinite(value):
        return (f"{sign}float", *[None] * _PLACES, None)
    whole, fraction = f"{abs(value):.{_DECIMALS}f}".split(".")
    return (f"{sign}float", *_places(int(whole)), f"0.{fraction.rstrip('0') or '0'}")


def _places(whole: int) -> list[str | None]:
    """The ones, tens and hundreds of ``whole``; None from 1000 on."""
    return [str(whole // 10**place % 10) if whole < 10**_PLACES else None for place in range(_PLACES)]


@dataclass(frozen=True)
class TraceLabels:
    """Labels of the trace loss. ``pieces``: the text of each token; ``turns``: number of turns of a loop that have
    labels.
    """

    pieces: Sequence[str]
    parts: Parts
    turns: int = 1

    def labels(self, batch: Batch) -> Labels:
        """The classes of the operand and of the result at each input, shape (2, turns, parts, size, length).

        -100 for tokens without a value in that turn and for parts without a class.
        """
        labels = np.full((2, self.turns, len(self.parts.classes), *batch.inputs.shape), IGNORE, dtype=np.int64)
        for line, start, stop in _prompts(batch):
            program, ends = _program_values(batch.inputs[line, start:stop], self.pieces)
            for kind, values_at in zip(labels, (program.operands, program.results), strict=True):
                for offset, values in values_at.items():
                    token = start + bisect_right(ends, offset)
                    for turn, value in zip(kind, values, strict=False):
                        if turn[0, line, token] == IGNORE:  # of two values within a token the first with a class
                            turn[:, line, token] = self._classes_of(value)
        return labels

    def _classes_of(self, value: Any) -> tuple[int, ...]:
        key = (type(value), value, str(value)[:1])  # True, 1 and 1.0 are equal, as are 0.0 and -0.0
        if (labels := self._cached_labels.get(key)) is None:
            labels = self.parts.labels(value)
            if len(self._cached_labels) < _MAX_CACHED_VALUES:
                self._cached_labels[key] = labels
        return labels

    @cached_property
    def _cached_labels(self) -> dict[tuple[type, Any, str], tuple[int, ...]]:
        return {}


def parts_of(encoded: Encoded, pieces: Sequence[str], kind: LabelKind, count: int) -> Parts | None:
    """The parts for the values of the first samples, with ``count`` values or fractions; None when none is TinyPy."""
    values = []
    for row in range(min(_COUNTED_SAMPLES, len(encoded))):
        program, _ = _program_values(encoded.sample(row)[: int(encoded.answer_starts[row])], pieces)
        values += [each_turn[0] for each_turn in [*program.operands.values(), *program.results.values()]]
    return Parts.of(kind, values, count) if values else None


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
    """Linear heads for ``operands`` and ``results``, zero at first: (turns x classes of all parts, width)."""

    def __init__(self, width: int, parts: Parts, turns: int = 1) -> None:
        super().__init__()
        self.parts, self.turns = parts, turns
        # Stored as bytes in a buffer, so that the classes are saved with the weights.
        self.register_buffer("text", torch.tensor(list(_written(parts)), dtype=torch.uint8))
        self.operands = nn.Parameter(torch.zeros(turns * sum(parts.sizes), width))
        self.results = nn.Parameter(torch.zeros(turns * sum(parts.sizes), width))

    @classmethod
    def load(cls, file: Path) -> TraceHeads:
        """The heads saved by a stage; ``RunFolderError`` when the file is damaged."""
        try:
            weights = load_file(file)
            parts = _read_parts(bytes(weights["text"].tolist()))
            rows, width = weights["operands"].shape
            heads = cls(width, parts, rows // max(sum(parts.sizes), 1))
            heads.load_state_dict(weights)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
            raise RunFolderError(
                "the heads saved by the stage before are damaged",
                where=file,
                given=error,
                hint="remove that stage's folder: it is trained again",
            ) from error
        return heads


def _written(parts: Parts) -> bytes:
    """The parts as JSON: whole values as the list of their classes, as in earlier versions."""
    return json.dumps(list(parts.classes[0]) if parts.kind == "values" else asdict(parts)).encode()


def _read_parts(text: bytes) -> Parts:
    content = json.loads(text)
    if isinstance(content, list):
        return Parts("values", (tuple(content),))
    return Parts(content["kind"], tuple(map(tuple, content["classes"])))


def trace_sums(
    outputs: Callable[..., Any],
    heads: TraceHeads,
    kind: torch.dtype,
    operand_layer: int,
    result_layers: Sequence[int],
) -> Callable[..., torch.Tensor]:
    """(inputs, labels, weights, trace labels, [positions, mask]) -> sums of token, operand and result loss, shape (3,).

    Trace labels: classes of the operand and of the result at each token, int64 (2, turns, parts, size, length), -100
    for none. The losses of the parts of a value are added.
    The first turn of a loop is predicted by ``operand_layer`` and by each of ``result_layers``, whose losses are added;
    later turns by the last of ``result_layers``, as they need the results of the turn before.
    """
    last, sizes = result_layers[-1], heads.parts.sizes

    def sums(inputs: torch.Tensor, labels: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        weights, trace_labels, *context = arguments
        output = outputs(inputs, *context)
        states = output.hidden_states
        operand_heads = heads.operands.to(kind).chunk(heads.turns)
        result_heads = heads.results.to(kind).chunk(heads.turns)
        tokens = (token_losses(output.logits, labels) * weights).sum()
        operands = [_head_loss(states[operand_layer], operand_heads[0], sizes, trace_labels[0, 0])]
        results = [_head_loss(states[layer], result_heads[0], sizes, trace_labels[1, 0]) for layer in result_layers]
        for turn in range(1, heads.turns):
            operands.append(_head_loss(states[last], operand_heads[turn], sizes, trace_labels[0, turn]))
            results.append(_head_loss(states[last], result_heads[turn], sizes, trace_labels[1, turn]))
        return torch.stack([tokens, torch.stack(operands).sum(), torch.stack(results).sum()])

    return sums


def _head_loss(states: torch.Tensor, matrix: torch.Tensor, sizes: Sequence[int], labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats over the parts of the labelled values; states are normalised to one length."""
    scale = torch.rsqrt(states.float().pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    scores = nn.functional.linear((states * scale).to(matrix.dtype), matrix).split(list(sizes), dim=-1)
    return torch.stack([token_losses(*pair).sum() for pair in zip(scores, labels, strict=True)]).sum()
