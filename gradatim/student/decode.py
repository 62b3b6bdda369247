"""What does a student write after a prompt, and what would it write next at every point of a text?

``complete`` writes texts: many prompts at a time, each read once, then one token per step from a cache of keys
and values. ``predict_next`` writes nothing: one forward pass tells what the student would choose after every true
prefix. Suites and `gradatim sample` stand on these two. Scoring what was written is not done here.

Three properties, each held by a test:

- *Exact.* Greedy texts are those of a plain loop that reads the whole text again for every token.
- *Independent.* A sampled text depends on the seed and the prompt's place in the list, not on the batch: the
  random number for token j of prompt i comes from a Philox generator keyed by (seed, i), through the inverse of
  the cumulative distribution.
- *Drafts change the speed only.* With a guess of what will be written (a suite knows the true answer) prompt and
  guess are read in one pass, and the tokens that the student would have chosen anyway are kept; only where it
  departs from the guess does it go on token by token. This is speculative decoding (2211.17192) with the truth as
  the draft: a student that is always right is examined in one forward pass per batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

from ..stage import Event, Events, ignore_events
from .memory import attends_everywhere, memory_for, without
from .vocabulary import Vocabulary

__all__ = ["Completion", "Finish", "Prediction", "complete", "predict_next", "uniforms"]

Finish = Literal["eos", "stop", "limit", "context", "too_long", "unknown_character"]
"""Why a text ended. ``context``: the model's positions ran out before the limit. After the last two nothing was
written: the prompt is longer than the model's context, or has a character that the tokenizer does not know."""

Numbers = npt.NDArray[np.int64]
Draws = npt.NDArray[np.float64]
_NOTHING: Numbers = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Completion:
    """What was written after one prompt, without the ``<eos>`` or stop that ended it, and why it ended."""

    text: str
    finish: Finish


@dataclass(frozen=True)
class Prediction:
    """What a student would write after every non-empty true prefix of one text.

    ``total`` is how many such prefixes there are. ``truth`` and ``chosen`` (shape (m,), token numbers) are the
    true and the chosen next tokens of the first m of them: m < total when the text outgrows the model's context,
    and 0 when it cannot be encoded; ``finish`` says which.
    """

    total: int
    truth: Numbers
    chosen: Numbers
    finish: Literal["done", "too_long", "unknown_character"] = "done"


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    limits: int | Sequence[int],
    greedy: bool = True,
    seed: int = 0,
    stop: Sequence[str] = (),
    drafts: Sequence[str] | None = None,
    batch: int | None = None,
    events: Events = ignore_events,
    task: str = "complete",
) -> list[Completion]:
    """One ``Completion`` per prompt, in the order of the prompts.

    A text ends at ``<eos>``, before the first of the ``stop`` strings, after ``limits`` tokens (one number for
    all, or one per prompt), or where the model's context ends. ``greedy`` takes the likeliest token, otherwise
    the whole distribution is sampled (temperature 1). ``drafts`` are guesses of the texts; see the module. An
    empty prompt stands for the start of a sample: the student is given one ``<eos>``. ``batch`` is the most
    prompts read at a time (64 on a CPU, 512 elsewhere). ``model`` is any Hugging Face causal model; its device
    and training mode are left as they were.
    """
    limits = [limits] * len(prompts) if isinstance(limits, int) else limits
    drafts = [""] * len(prompts) if drafts is None else drafts
    if not len(prompts) == len(limits) == len(drafts):
        raise ValueError(f"{len(prompts)} prompts, {len(limits)} limits and {len(drafts)} drafts do not fit")
    decoder = _Decoder(model, Vocabulary(tokenizer, stop), greedy, seed)
    # Others would take padding and rejected drafts for past: prompts of one length at a time, and no drafts.
    mixed = attends_everywhere(model)
    done: dict[int, Completion] = {}
    rows: list[_Row] = []
    for index, (prompt, limit, draft) in enumerate(zip(prompts, limits, drafts, strict=True)):
        row = decoder.admit(index, prompt, limit, draft if mixed else "")
        if isinstance(row, Completion):
            done[index] = row
        else:
            rows.append(row)
    with _at_rest(model):
        events(Event("start", task, len(done), len(prompts)))
        for group in _groups(rows, batch or _batch_size(model), mixed):
            done.update(decoder.write(group))
            events(Event("advance", task, len(done), len(prompts)))
        events(Event("finish", task, len(done), len(prompts)))
    return [done[index] for index in range(len(prompts))]


def predict_next(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    greedy: bool = True,
    seed: int = 0,
    batch: int | None = None,
    events: Events = ignore_events,
    task: str = "predict",
) -> list[Prediction]:
    """One ``Prediction`` per text: the likeliest (or sampled, temperature 1) token after every true prefix.

    No token is written, so the cost is one forward pass over the texts. Keywords as in ``complete``.
    """
    vocabulary = Vocabulary(tokenizer)
    done: dict[int, Prediction] = {}
    rows: list[_Row] = []
    for index, text in enumerate(texts):
        tokens = vocabulary.encode(text)
        if tokens is None:
            done[index] = Prediction(max(len(text) - 1, 0), _NOTHING, _NOTHING, "unknown_character")
        elif len(tokens) < 2:
            done[index] = Prediction(0, _NOTHING, _NOTHING)
        else:
            rows.append(_Row(index, tokens, _NOTHING, len(tokens) - 1, "limit"))
    with _at_rest(model):
        events(Event("start", task, len(done), len(texts)))
        for group in _groups(rows, batch or _batch_size(model), True):
            done.update(_predict_group(model, group, None if greedy else seed))
            events(Event("advance", task, len(done), len(texts)))
        events(Event("finish", task, len(done), len(texts)))
    return [done[index] for index in range(len(texts))]


def uniforms(seed: int, index: int, count: int) -> Draws:
    """The first ``count`` random numbers in [0, 1) of text ``index``, however many more are asked for later."""
    key = np.array([seed % 2**64, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


@dataclass(frozen=True)
class _Row:
    """One prompt at work. ``limit`` is the most tokens it may write, ``ending`` what running into that means."""

    index: int
    prompt: Numbers
    draft: Numbers
    limit: int
    ending: Literal["limit", "context"]


@dataclass(frozen=True)
class _Decoder:
    """What stays the same from group to group."""

    model: Any
    vocabulary: Vocabulary
    greedy: bool
    seed: int

    def admit(self, index: int, prompt: str, limit: int, draft: str) -> _Row | Completion:
        """The prompt ready to be read, or its completion when nothing can be written."""
        tokens = self.vocabulary.encode(prompt) if prompt else self.vocabulary.start()
        if tokens is None:
            return Completion("", "unknown_character")
        context = _context(self.model)
        if len(tokens) > context:
            return Completion("", "too_long")
        if limit <= 0:
            return Completion("", "limit")
        # The last token that is written is never read, so it needs no position.
        room = min(limit, context - len(tokens) + 1)
        guess = self.vocabulary.encode(draft)
        guess = _NOTHING if guess is None else guess[: room - 1]
        return _Row(index, tokens, guess, room, "limit" if room == limit else "context")

    def write(self, rows: list[_Row]) -> Iterator[tuple[int, Completion]]:
        """Read the prompts, then step until every row has ended; ended rows leave the batch at once."""
        read = max(len(row.prompt) + len(row.draft) for row in rows)
        cache = memory_for(self.model, read + max(row.limit for row in rows))
        draws = _draws(rows, None if self.greedy else self.seed)
        written = self._read(rows, cache, draws)
        # The position of each row's newest token, and the columns of the cache that the row may look at: its
        # prompt and the accepted part of its draft, not the rejected part and the padding.
        position = np.array([len(row.prompt) + len(tokens) - 1 for row, tokens in zip(rows, written, strict=True)])
        visible = np.arange(read) < position[:, None]
        while True:
            ended = [self.vocabulary.ending(w, row.limit) for row, w in zip(rows, written, strict=True)]
            for row, end in zip(rows, ended, strict=True):
                if end is not None:
                    yield row.index, Completion(end[0], row.ending if end[1] == "limit" else end[1])
            live = without([end is not None for end in ended])
            if not live:
                return
            if len(live) < len(rows):
                rows, written = [rows[number] for number in live], [written[number] for number in live]
                draws, position, visible = draws[live], position[live], visible[live]
                cache.batch_select_indices(torch.tensor(live, device=self.model.device))
            visible = np.concatenate([visible, np.ones((len(rows), 1), dtype=bool)], axis=1)
            logits = self._step(written, position, visible, cache)
            counts = np.array([[len(tokens)] for tokens in written])
            drawn = np.take_along_axis(draws, counts, axis=1) if draws.size else draws
            for tokens, token in zip(written, _choose(logits, drawn)[:, 0].tolist(), strict=True):
                tokens.append(token)
            position = position + 1

    def _read(self, rows: list[_Row], cache: Cache, draws: Draws) -> list[list[int]]:
        """What each row has written after one pass over its prompt and draft: at least one token.

        Shorter rows are padded on the right, where a causal model does not look, so no mask is needed.
        """
        ids = _padded([np.concatenate([row.prompt, row.draft]) for row in rows])
        starts = np.array([len(row.prompt) - 1 for row in rows])
        # Only the columns where some row is written are turned into logits.
        columns = np.arange(
            starts.min(), max(start + len(row.draft) + 1 for start, row in zip(starts, rows, strict=True))
        )
        logits = self.model(
            input_ids=ids.to(self.model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(columns).to(self.model.device),
        ).logits
        if draws.size:
            places = np.clip(columns - starts[:, None], 0, draws.shape[1] - 1)
            draws = np.take_along_axis(draws, places, axis=1)
        written = []
        for row, start, line in zip(rows, starts - columns[0], _choose(logits, draws), strict=True):
            chosen = line[start : start + len(row.draft) + 1]
            agreed = int(np.cumprod(chosen[:-1] == row.draft).sum())
            written.append(chosen[: agreed + 1].tolist())
        return written

    def _step(self, written: list[list[int]], position: Numbers, visible: Any, cache: Cache) -> torch.Tensor:
        """Logits (rows, 1, vocabulary) after the newest token of each row."""
        device = self.model.device
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([[tokens[-1]] for tokens in written], device=device),
            attention_mask=None if visible.all() else torch.from_numpy(visible).to(device),
            position_ids=torch.from_numpy(position[:, None]).to(device),
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits


def _predict_group(model: Any, rows: list[_Row], seed: int | None) -> Iterator[tuple[int, Prediction]]:
    read = [row.prompt[:-1][: _context(model)] for row in rows]
    logits = model(input_ids=_padded(read).to(model.device), use_cache=False).logits
    draws = _draws(rows, seed)[:, : logits.shape[1]]
    for row, tokens, chosen in zip(rows, read, _choose(logits, draws), strict=True):
        finish: Literal["done", "too_long"] = "done" if len(tokens) == row.limit else "too_long"
        truth = row.prompt[1 : len(tokens) + 1]
        yield row.index, Prediction(row.limit, truth, chosen[: len(tokens)], finish)


def _draws(rows: Sequence[_Row], seed: int | None) -> Draws:
    """Random numbers for every token each row may write, shape (rows, longest limit); empty without a seed."""
    if seed is None:
        return np.zeros((len(rows), 0))
    drawn = np.zeros((len(rows), max(row.limit for row in rows)))
    for line, row in zip(drawn, rows, strict=True):
        line[: row.limit] = uniforms(seed, row.index, row.limit)
    return drawn


def _choose(logits: torch.Tensor, draws: Draws) -> Numbers:
    """Tokens (rows, columns) from logits (rows, columns, vocabulary): the likeliest when ``draws`` is empty."""
    if not draws.size:
        return np.asarray(logits.argmax(-1).cpu().numpy())
    # On the CPU, because a running sum on an accelerator is not the same from run to run.
    climb = torch.softmax(logits.cpu().double(), -1).cumsum(-1)
    # Scaled by the last sum, which rounding leaves just off 1, so that every number falls on some token.
    level = torch.from_numpy(draws)[..., None] * climb[..., -1:]
    return np.asarray((climb <= level).sum(-1).clamp_(max=logits.shape[-1] - 1).numpy())


def _padded(rows: Sequence[Numbers]) -> torch.Tensor:
    """Shape (rows, longest), padded on the right with each row's first token, which is never looked at there."""
    ids = np.empty((len(rows), max(map(len, rows))), dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)], line[len(row) :] = row, row[0]
    return torch.from_numpy(ids)


def _groups(rows: list[_Row], size: int, mixed: bool) -> Iterator[list[_Row]]:
    """At most ``size`` rows of about one length at a time, longest first; of exactly one unless ``mixed``."""
    rows = sorted(rows, key=lambda row: (-len(row.prompt) - len(row.draft), row.index))
    start = 0
    while start < len(rows):
        end = min(start + size, len(rows))
        if not mixed:
            alike = len(rows[start].prompt)
            end = next((place for place in range(start, end) if len(rows[place].prompt) != alike), end)
        yield rows[start:end]
        start = end


def _context(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def _batch_size(model: Any) -> int:
    return 64 if model.device.type == "cpu" else 512


@contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """No gradients and no dropout while inside; the model's mode is restored on the way out."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
