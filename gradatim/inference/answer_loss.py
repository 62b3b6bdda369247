"""Loss of the answers before training, by the part of an answer: first tokens, body and end token.

A model that is trained on answers in a form that it never writes pays for the form, not for the content: a bare program
for a chat model costs many nats per token at its beginning and at its end. The three parts show this before training.

``answer_losses`` measures the right answers, the rejected answers and the attempts of a sample of the rows under one
model; ``unlike_model`` names the parts that cost more than ``LIMIT`` nats per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.tokenizer import Encoded
from ..random_streams import answer_loss_stream
from ..stage import Event, Events, Model, ignore_events
from .loglikelihood import Continuation, context_of, log_likelihoods

FIRST_TOKENS = 3
"""Tokens of an answer that count as its beginning: a chat model's fence, or the words before it."""
LIMIT = 3.0
"""Nats per token above which a part of the answers is reported as unlike the model."""
ROWS = 64
PARTS = ("first", "body", "end")

Losses = dict[str, dict[str, Any]]


def answer_losses(
    student: Model, samples: Encoded, *, seed: int = 0, batch: int | None = None, events: Events = ignore_events
) -> Losses:
    """The loss of the answers in at most ``ROWS`` random rows, by kind of answer and part; plain JSON.

    {kind: {"samples": number, part: {"nats": sum, "tokens": number}}} with the kinds ``answer``, ``rejected`` and
    ``attempt``, as far as the samples have them, and the parts ``PARTS``. Answers longer than the model's context are
    left out. ``seed`` chooses the rows. Deterministic.
    """
    rows = np.sort(answer_loss_stream(seed).permutation(len(samples))[:ROWS])
    readers: Mapping[str, Callable[[int], npt.NDArray[Any]] | None] = {
        "answer": lambda row: samples.sample(row)[int(samples.answer_starts[row]) :],
        "rejected": None if samples.rejected is None else samples.rejected.answer,
        "attempt": None if samples.attempt is None else samples.attempt.answer,
    }
    losses: Losses = {}
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


def _by_part(student: Model, texts: list[Continuation], kind: str, batch: int | None, events: Events) -> dict[str, Any]:
    sums = {part: [0.0, 0] for part in PARTS}
    done = 0
    events(Event("start", f"loss of the {kind}s", 0, len(texts)))
    for results in log_likelihoods(student.model, texts, batch=batch):
        for values in results.values():
            first = min(FIRST_TOKENS, len(values) - 1)
            for part, nats in zip(PARTS, (values[:first], values[first:-1], values[-1:]), strict=True):
                sums[part][0] -= float(nats.sum())
                sums[part][1] += len(nats)
        done += len(results)
        events(Event("advance", f"loss of the {kind}s", done, len(texts)))
    events(Event("finish", f"loss of the {kind}s", done, len(texts)))
    return {"samples": done, **{part: {"nats": nats, "tokens": tokens} for part, (nats, tokens) in sums.items()}}


def nats_per_token(losses: Losses) -> dict[str, dict[str, float]]:
    """{kind: {part: nats per token}}, without parts that have no token."""
    return {
        kind: {part: parts[part]["nats"] / parts[part]["tokens"] for part in PARTS if parts[part]["tokens"]}
        for kind, parts in losses.items()
    }


def unlike_model(losses: Losses) -> list[str]:
    """The beginnings and ends that cost more than ``LIMIT`` nats per token, in words."""
    means = nats_per_token(losses)
    words = {"first": "beginning", "end": "end"}
    return [
        f"the {words[part]} of the {kind}s costs {means[kind][part]:.1f} nats per token"
        for kind in means
        for part in words
        if means[kind].get(part, 0.0) > LIMIT
    ]


def notes(losses: Losses) -> list[str]:
    """One line with the means of all kinds and parts, and a warning where the model never writes such answers."""
    if not losses:
        return []
    names = {"first": f"first {FIRST_TOKENS} tokens", "body": "body", "end": "end"}
    kinds = [
        f"{kind} {', '.join(f'{names[part]} {value:.2f}' for part, value in parts.items())}"
        for kind, parts in nats_per_token(losses).items()
    ]
    lines = [f"nats per token before training: {'; '.join(kinds)}"]
    unlike = unlike_model(losses)
    if unlike:
        lines.append(
            f"warning: {'; '.join(unlike)}: the model never writes such answers, and training changes its form first; "
            f"see student.answer_format"
        )
    return lines
