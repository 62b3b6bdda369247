"""What else answers a prompt, and how do both answers come to lie beside each other?

Contrast needs the right and the faulty answer to one prompt in one step, and distillation on the student's own texts
needs its attempts. ``Beside`` says for each row which samples ``batches.Packed`` lays into a line, one after the other;
``make_beside`` which of an objective's answers they are. Nothing here knows of losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .settings import TrainSettings
from .tokenizer import Answers, Encoded, Tokens

__all__ = ["Beside", "Part", "make_beside", "paired_rows"]

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


def make_beside(objective: str, train: TrainSettings, samples: Encoded) -> Beside | None:
    """What lies beside the right answers under ``objective``; None when they are alone.

    Raises ``DataError`` when the objective is the contrast alone and there is no faulty answer.
    """
    if objective == "contrast" and samples.rejected is None:
        raise DataError(
            "the objective 'contrast' needs faulty answers, and no sample has one",
            where="the column 'rejected'",
            hint="a delivery of faulty answers, or the objective correct_and_fault, which learns the others too",
        )
    if objective in ("contrast", "correct_and_fault") and samples.rejected is not None:
        return Beside(samples, samples.rejected)
    if objective == "teacher_kl" and train.kl.on != "teacher" and samples.attempt is not None:
        # Right answers are still needed where part of the loss is cross-entropy.
        return Beside(samples, samples.attempt, instead=train.kl.on == "student" and train.kl.weight == 1)
    return None


def paired_rows(beside: Beside, rows: Ints) -> Ints:
    """Those of ``rows`` that have a second answer, in their order. ``DataError`` when none has."""
    kept = rows[beside.answers.sizes(rows) > 0]
    if not len(kept):
        raise DataError("no sample of the stage has a faulty answer", where="the column 'rejected'", given=len(rows))
    return np.asarray(kept)
