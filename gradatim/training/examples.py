"""Formatted training examples with their loss mask: samples as the trainer reads them, after the prompt format.

``gradatim plan --examples`` and the first stage of a run show three of them, so that a wrong chat template, a missing
separator or a loss on the prompt is visible before the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.settings import TrainSettings
from ..model.tokenizer import Encoded
from ..stage import Stage, StageSpec
from .batches import IGNORE, Packed, make_second_answers
from .objective import OBJECTIVES

SHOWN = 3
"""Examples that are shown."""
LONGEST = 300
"""Characters of a segment that are shown; a longer one is cut in its middle."""


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of an example that all have a loss, or none. ``tokens`` is their number."""

    text: str
    loss: bool
    tokens: int


@dataclass(frozen=True)
class FormattedExample:
    """The tokens of one training sample, control tokens included, as segments in order.

    A sample with a second answer in training (a rejected answer) has its prompt and that answer after the first ones.
    """

    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(segment.tokens for segment in self.segments)

    @property
    def loss_tokens(self) -> int:
        """The number of tokens with a loss."""
        return sum(segment.tokens for segment in self.segments if segment.loss)

    def lines(self) -> Iterator[str]:
        """One line for each segment: ``masked`` or ``loss``, and its text with escaped line breaks."""
        for segment in self.segments:
            yield f"{'loss' if segment.loss else 'masked'}: {_shortened(segment.text)}"


def _shortened(text: str) -> str:
    half = LONGEST // 2
    shown = text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def formatted_examples(
    tokenizer: Any, samples: Encoded, train: TrainSettings, rows: Sequence[int]
) -> tuple[FormattedExample, ...]:
    """The samples ``rows`` with the loss mask of the recipe's objective, each laid into a batch of its own.

    The first token of a text has nothing before it and is never predicted, so it counts as masked.
    """
    requirements = OBJECTIVES.get(train.objective).requirements(train)
    second_answers = make_second_answers(train.objective, requirements, samples)
    examples = []
    for row in rows:
        stage = Stage(StageSpec("example", (1.0,), 1, order="sorted"), 0, np.array([row]), 0, 0, 1)
        if second_answers is None:
            size = int(samples.offsets[row + 1] - samples.offsets[row])
        else:
            size = int(second_answers.sizes(stage.rows)[0])
        pad, isolate = int(tokenizer.pad_token_id), train.block_diagonal_attention
        packed = Packed(samples, stage, 1, max(size - 1, 1), pad, isolate, second_answers=second_answers)
        (batch,) = packed.one_pass()
        tokens = np.concatenate([batch.inputs[0], batch.labels[0, -1:]])[:size]
        mask = (batch.labels[0] != IGNORE) & (batch.answer[0] | requirements.prompt_loss)
        examples.append(FormattedExample(tuple(_segments(tokenizer, tokens, np.concatenate([[False], mask])[:size]))))
    return tuple(examples)


def _segments(tokenizer: Any, tokens: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> Iterator[Segment]:
    """Runs of tokens with equal mask, each with the characters that it adds to the decoded text before it."""
    edges = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(tokens)]
    texts = [tokenizer.decode(tokens[:edge].tolist(), clean_up_tokenization_spaces=False) for edge in edges]
    for index, (first, end) in enumerate(pairwise(edges)):
        yield Segment(texts[index + 1][len(texts[index]) :], bool(mask[first]), end - first)
