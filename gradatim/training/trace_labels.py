"""Which value is a student asked for at which token?

A TinyPy prompt is put together again from its tokens, ``programs.values_of`` says what it computes on its way, and each
value falls to the token that its place lies in. Values are told apart as classes, the commonest of the samples. Nothing
is stored: marks are made from a batch as it comes. Nothing here knows of models; what is no TinyPy has no marks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model.tokenizer import Encoded
from ..programs import Values, values_of
from .batches import IGNORE, Batch

__all__ = ["Marker", "commonest_values"]


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
