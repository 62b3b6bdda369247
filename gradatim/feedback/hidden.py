"""What does the student's last layer hold of an attempt, as one row of figures?

One forward pass over prompt and attempt. The figures: the mean of the last hidden states over the prompt and over the
attempt, the mean and the least log-probability of the attempt's tokens, and the logarithm of their number; the end of
the text counts as a token. Of a prompt that does not fit into the context with its attempt, the end is read.
What is learnt from these rows is the affair of ``scoring``. torch is imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["pooled"]

Numbers = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]


def pooled(student: Any, prompts: Sequence[str], attempts: Sequence[str], batch: int) -> list[Numbers | None]:
    """Rows of 2 × hidden size + 3 figures; None where a text cannot be encoded."""
    import torch

    from ..student.vocabulary import Vocabulary

    model, vocabulary = student.model, Vocabulary(student.tokenizer)
    found: list[Numbers | None] = [None] * len(prompts)
    encoded: list[tuple[int, Tokens, int]] = []
    for row, (prompt, attempt) in enumerate(zip(prompts, attempts, strict=True)):
        tokens = _tokens(vocabulary, student, prompt, attempt)
        if tokens is not None:
            encoded.append((row, *tokens))
    # Neighbours of about one length: little is padded.
    encoded.sort(key=lambda each: (len(each[1]), each[0]))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(encoded), batch):
                _read(model, encoded[start : start + batch], found)
    finally:
        model.train(training)
    return found


def _tokens(vocabulary: Any, student: Any, prompt: str, attempt: str) -> tuple[Tokens, int] | None:
    """All tokens, and how many of them are the prompt's."""
    (pair,) = vocabulary.pairs([prompt], [attempt])
    if pair is None:
        return None
    before, after = pair[0][: pair[1]], pair[0][pair[1] :]
    end = student.tokenizer.eos_token_id
    after = after if end is None else np.append(after, end)
    context = int(getattr(student.model.config, "max_position_embeddings", None) or 2**31)
    after = after[: max(context // 2, context - len(before))]
    before = before[max(len(before) + len(after) - context, 0) :]
    return np.concatenate([before, after]), len(before)


def _read(model: Any, some: Sequence[tuple[int, Tokens, int]], found: list[Numbers | None]) -> None:
    import torch

    ids = np.zeros((len(some), max(len(tokens) for _, tokens, _ in some)), dtype=np.int64)
    for line, (_, tokens, _) in zip(ids, some, strict=True):
        # Padding stands on the right, where a causal model does not look.
        line[: len(tokens)] = tokens
    states = model.get_decoder()(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False).last_hidden_state
    for state, (row, tokens, first) in zip(states, some, strict=True):
        # The vocabulary may be large: only the columns that predict the attempt become logits, one text at a time.
        logits = model.get_output_embeddings()(state[first - 1 : len(tokens) - 1]).float()
        written = torch.from_numpy(tokens[first:]).to(model.device)
        likely = torch.log_softmax(logits, -1).gather(1, written[:, None])[:, 0]
        held = [state[:first].float().mean(0), state[first : len(tokens)].float().mean(0)]
        figures = torch.stack([likely.mean(), likely.min(), torch.tensor(float(np.log(len(written)))).to(likely)])
        found[row] = torch.cat([*held, figures]).double().cpu().numpy()
