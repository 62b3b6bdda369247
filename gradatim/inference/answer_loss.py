"""Loss of the answers before training, by the part of an answer: first tokens, body and end token.

A model that is trained on answers in a form that it never writes pays for the form, not for the content: a bare program
for a chat model costs many nats per token at its beginning and at its end. The three parts show this before training.

``answer_losses`` measures the right answers, the rejected answers and the attempts of a sample of the rows under one
model; ``results.answer_notes`` puts them into words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.tokenizer import Encoded
from ..random_streams import answer_loss_stream
from ..stage import AnswerLoss, Event, Events, Model, ignore_events
from .loglikelihood import Continuation, context_of, log_likelihoods

FIRST_TOKENS = 3
"""Tokens of an answer that count as its beginning: a chat model's fence, or the words before it."""
ROWS = 64
"""Number of samples whose answers are measured."""


def answer_losses(
    student: Model, samples: Encoded, *, seed: int = 0, batch: int | None = None, events: Events = ignore_events
) -> dict[str, AnswerLoss]:
    """The loss of the answers in at most ``ROWS`` random rows, by kind of answer.

    The kinds are ``answer``, ``rejected`` and ``attempt``, as far as the samples have them. Answers longer than the
    model's context are left out. ``seed`` chooses the rows. Deterministic.
    """
    rows = np.sort(answer_loss_stream(seed).permutation(len(samples))[:ROWS])
    readers: Mapping[str, Callable[[int], npt.NDArray[Any]] | None] = {
        "answer": lambda row: samples.sample(row)[int(samples.answer_starts[row]) :],
        "rejected": None if samples.rejected is None else samples.rejected.answer,
        "attempt": None if samples.attempt is None else samples.attempt.answer,
    }
    losses: dict[str, AnswerLoss] = {}
    for kind, reader in readers.items():
        texts = [] if reader is None else list(_continuations(student, samples, rows, reader))
        if texts:
            losses[kind] = _by_part(student, texts, kind, batch, events)
    return losses


def _continuations(
    student: Model, samples: Encoded, rows: npt.NDArray[np.int64], reader: Callable[[int], npt.NDArray[Any]]
) -> Iterator[Continuation]:
    """Prompt and answer of each row that has an answer and fits into the context."""
    context = context_of(student.model)
    for row in rows.tolist():
        start, answer = int(samples.answer_starts[row]), reader(row)
        tokens = np.concatenate([samples.sample(row)[:start], answer]).astype(np.int64)
        if start and len(answer) > 1 and len(tokens) <= context + 1:
            yield Continuation(tokens, start)


def _by_part(student: Model, texts: list[Continuation], kind: str, batch: int | None, events: Events) -> AnswerLoss:
    nats, tokens, done, task = np.zeros(3), np.zeros(3, dtype=np.int64), 0, f"loss of the {kind}s"
    events(Event("start", task, 0, len(texts)))
    for results in log_likelihoods(student.model, texts, batch=batch):
        for values in results.values():
            first = min(FIRST_TOKENS, len(values) - 1)
            parts = (values[:first], values[first:-1], values[-1:])
            nats -= [part.sum() for part in parts]
            tokens += [len(part) for part in parts]
        done += len(results)
        events(Event("advance", task, done, len(texts)))
    events(Event("finish", task, done, len(texts)))
    return AnswerLoss(done, *((float(total), int(count)) for total, count in zip(nats, tokens, strict=True)))
