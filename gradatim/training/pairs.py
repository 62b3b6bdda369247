"""Second answers to a prompt, laid out in the same line as the first.

A preference loss needs the chosen and the rejected answer to one prompt in one step, and distillation on the student's
own text needs its attempts. ``Beside`` gives the segments that ``batches.Packed`` lays out for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model.settings import Requirements, TrainSettings
from ..model.tokenizer import Answers, Encoded, Tokens

__all__ = ["Beside", "Part", "make_beside", "paired_rows", "row_tokens"]


Ints = npt.NDArray[np.int64]
Part = tuple[Tokens, int, bool]
"""The tokens of a prompt and one answer, where the answer starts, and whether it is the second answer."""


@dataclass(frozen=True)
class Beside:
    """The answers of ``encoded`` and second ones to the same prompts; ``instead`` leaves the first one out."""

    encoded: Encoded
    answers: Answers
    instead: bool = False

    def sizes(self, rows: Ints) -> Ints:
        """Tokens that each row takes up in a line, all its answers together; shape of ``rows``."""
        own, more = self.encoded.offsets[rows + 1] - self.encoded.offsets[rows], self.answers.sizes(rows)
        second = np.where(more > 0, self.encoded.answer_starts[rows] + more, 0)
        return np.asarray(np.where((more > 0) & self.instead, second, own + second))

    def parts(self, row: int) -> list[Part]:
        """One sample, or two where the row has a second answer."""
        sample, start, more = (
            self.encoded.sample(row),
            int(self.encoded.answer_starts[row]),
            self.answers.answer(row),
        )
        if not len(more):
            return [(sample, start, False)]
        second: Part = (np.concatenate([sample[:start], more]), start, True)
        return [second] if self.instead else [(sample, start, False), second]


def make_beside(objective: str, requirements: Requirements, samples: Encoded) -> Beside | None:
    """The second answers that a loss needs; None when it needs none or the table has none.

    Raises ``DataError`` when the loss learns from pairs alone and the table has none.
    """
    column = requirements.second_answer
    answers = None if column is None else samples.rejected if column == "rejected" else samples.attempt
    if answers is None:
        if requirements.pairs_only:
            raise DataError(
                f"the objective {objective!r} needs pairs of answers, and no sample has a second answer",
                where=f"the column {column!r}",
                hint="delivery: {faulty: {mutation: 1}}, or the objective correct_and_fault, which also learns "
                "samples without a rejected answer",
            )
        return None
    return Beside(samples, answers, instead=requirements.replaces_first)


def paired_rows(beside: Beside, rows: Ints) -> Ints:
    """Those of ``rows`` that have a second answer, in their order. ``DataError`` when none has."""
    kept = rows[beside.answers.sizes(rows) > 0]
    if not len(kept):
        raise DataError("no sample of the stage has a rejected answer", where="the column 'rejected'", given=len(rows))
    return np.asarray(kept)


def row_tokens(
    requirements: Requirements, train: TrainSettings, encoded: Encoded, rows: Ints, beside: Beside | None = None
) -> Ints:
    """Loss tokens of each of ``rows``, all its answers together, shape of ``rows``; what ``Batch.loss_tokens`` counts.

    Where samples attend to each other (no ``isolate``), the first sample of a line has one token less.
    """
    prompt = encoded.answer_starts[rows]
    answer = encoded.offsets[rows + 1] - encoded.offsets[rows] - prompt
    second = np.zeros_like(answer) if beside is None else beside.answers.sizes(rows)
    if train.isolate:  # nothing predicts the first token of a sample
        answer, second = answer - (prompt == 0), second - ((prompt == 0) & (second > 0))
        prompt = np.maximum(prompt - 1, 0)
    if not requirements.prompt_loss:
        prompt = np.zeros_like(prompt)
    if requirements.replaces_first:
        answer = np.where(second > 0, 0, answer)
    return np.asarray(prompt + answer + second)
