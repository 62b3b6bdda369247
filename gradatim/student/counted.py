"""How many tokens of a row does the budget count?

Those that receive a gradient when the row lies in a line, all its answers together: what a measure's ``learnt`` finds
in a batch, told beforehand and row by row. A mixture is timed and shared out by it (``mixture``). Which rows a stage
has, and which fit into a line, is not asked here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .pairs import Beside
from .settings import TrainSettings
from .tokenizer import Encoded

__all__ = ["counted_tokens"]

Ints = npt.NDArray[np.int64]


def counted_tokens(
    objective: str, train: TrainSettings, encoded: Encoded, rows: Ints, beside: Beside | None = None
) -> Ints:
    """Tokens of each of ``rows`` that ``objective`` learns, shape of ``rows``; ``beside`` as ``make_beside`` gave it.

    Where samples see each other (no ``isolate``), a line's first sample has one less: nothing predicts its first token.
    """
    prompt = encoded.answer_starts[rows]
    answer = encoded.offsets[rows + 1] - encoded.offsets[rows] - prompt
    second = np.zeros_like(answer) if beside is None else beside.answers.sizes(rows)
    if train.isolate:  # nothing predicts the first token of a sample
        answer, second = answer - (prompt == 0), second - ((prompt == 0) & (second > 0))
        prompt = np.maximum(prompt - 1, 0)
    texts = ("next_token", "traced", "correct_and_fault")
    supervised = objective in texts or (objective == "teacher_kl" and train.kl.weight < 1)
    if not (supervised and train.other_weight):
        prompt = np.zeros_like(prompt)
    if beside is not None and beside.instead:
        answer = np.where(second > 0, 0, answer)
    return np.asarray(prompt + answer + second)
