"""What does a student write after a prompt, and what would it write next at every point of a text?

``complete`` writes texts: many prompts at a time, each read once, then one token per step from a cache of keys
and values. ``predict_next`` writes nothing: one forward pass tells what the student would choose after every true
prefix. Suites and `gradatim sample` stand on these two. Scoring what was written is not done here.

Six properties, each held by a test:

- *Exact.* Greedy texts are those of a plain loop that reads the whole text again for every token.
- *Independent.* A sampled text depends on the seed and the prompt's place in the list, not on the batch: the
  random number for token j of prompt i comes from a Philox generator keyed by (seed, i), through the inverse of
  the cumulative distribution.
- *Drafts change the speed only.* With a guess of what will be written (a suite knows the true answer) prompt and
  guess are read in one pass, and the tokens that the student would have chosen anyway are kept; only where it
  departs from the guess does it go on token by token. This is speculative decoding (2211.17192) with the truth as
  the draft: a student that is always right is examined in one forward pass per batch.
- *A text is read once*, however many of the prompts and drafts are beginnings of it: the lines of a program that are
  asked one by one cost one pass over the program.
- *A prompt may end inside a token.* With ``heal`` it is cut back to where the tokenizer would have cut, and the first
  token is chosen among those that begin with what was cut off. Without, a line's end before an indented line would be
  a place where a pretrained model never stood.
- *A completion is a part of a text.* It is decoded behind the prompt's tokens, and neither gains nor loses a space
  (``text_codec``).
- *Nothing is written that nobody reads.* ``settled`` may say that the rest of a text does not matter any more; the
  text so far is what it would have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

from ..model.kv_cache import additive, in_window, keeps_everything, memory_for, window_of, without
from ..model.vocabulary import Vocabulary
from ..stage import Event, Events, ignore_events
from .onednn_linear import at_rest

__all__ = ["Completion", "Finish", "Prediction", "Settled", "complete", "padded", "predict_next", "uniforms"]


Finish = Literal["eos", "stop", "limit", "context", "settled", "too_long", "unknown_character"]
"""Why a text ended. ``context``: the model's positions ran out before the limit. ``settled``: the caller needed no
more of it. After the last two nothing was written: the prompt is longer than the model's context, or has a character
that the tokenizer does not know."""

Settled = Callable[[int, str], bool]
"""Of the place of a prompt and what was written after it so far: does it not matter how this goes on?"""

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
    and 0 when it cannot be encoded; ``finish`` says which. ``before`` is the token before the first true one, which
    says how they are decoded.
    """

    total: int
    truth: Numbers
    chosen: Numbers
    finish: Literal["done", "too_long", "unknown_character"] = "done"
    before: Numbers = field(default_factory=lambda: _NOTHING)


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
    settled: Settled | None = None,
    heal: bool = False,
    given: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
    batch: int | None = None,
    events: Events = ignore_events,
    task: str = "complete",
) -> list[Completion]:
    """One ``Completion`` per prompt, in the order of the prompts.

    A text ends at ``<eos>``, before the first of the ``stop`` strings, after ``limits`` tokens (one number for
    all, or one per prompt), or where the model's context ends. ``greedy`` takes the likeliest token, otherwise
    the whole distribution is sampled (temperature 1). ``drafts`` are guesses of the texts; see the module. An
    empty prompt stands for the start of a sample: the student is given one ``<eos>``. ``settled`` is asked about
    every text as it grows, and may end it early. ``heal``: see the module; tokenizers of characters have nothing to
    heal. ``given``: what stands before each prompt (a rendered chat template); its tokens are those that it has alone,
    so nothing is cut back into it. ``places`` (0, 1, 2, … unless given) tell the prompts' random numbers
    apart: what was sampled at place 7 of a long list is sampled again by a list of one with ``places=[7]``. ``batch``
    is the most prompts at work at a time (64 on a CPU, 512 elsewhere). ``model`` is any Hugging Face causal model; its
    device and training mode are left as they were.
    """
    limits = [limits] * len(prompts) if isinstance(limits, int) else limits
    drafts = [""] * len(prompts) if drafts is None else drafts
    places = range(len(prompts)) if places is None else places
    if given is not None and len(given) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(given)} texts before them do not fit")
    if not len(prompts) == len(limits) == len(drafts) == len(places):
        numbers = f"{len(prompts)} prompts, {len(limits)} limits, {len(drafts)} drafts and {len(places)} places"
        raise ValueError(f"{numbers} do not fit")
    decoder = _Decoder(model, Vocabulary(tokenizer, stop), None if greedy else seed, places, settled, heal)
    # Others would take padding and rejected drafts for past: prompts of one length at a time, and no drafts.
    mixed = keeps_everything(model)
    done: dict[int, Completion] = {}
    rows: list[_Row] = []
    whole = decoder.whole(prompts, given)
    for index, row in enumerate(decoder.admit(whole, limits, drafts if mixed else [""] * len(prompts))):
        if isinstance(row, Completion):
            done[index] = row
        else:
            rows.append(row)
    with at_rest(model):
        events(Event("start", task, len(done), len(prompts)))
        for ended in decoder.work(rows, batch or _batch_size(model), mixed):
            done.update(ended)
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
    given: Sequence[str] | None = None,
    events: Events = ignore_events,
    task: str = "predict",
) -> list[Prediction]:
    """One ``Prediction`` per text: the likeliest (or sampled, temperature 1) token after every true prefix.

    No token is written, so the cost is one forward pass over the texts. Keywords as in ``complete``. ``given``: what
    stands before each text, encoded apart from it; nothing is asked about it, and the text's first token is.
    """
    vocabulary = Vocabulary(tokenizer)
    done: dict[int, Prediction] = {}
    rows: list[_Row] = []
    before = [0] * len(texts)
    pairs = None if given is None else vocabulary.pairs(given, texts)
    read = vocabulary.encode_all(texts) if pairs is None else [None if pair is None else pair[0] for pair in pairs]
    for index, (text, tokens) in enumerate(zip(texts, read, strict=True)):
        if pairs is not None:
            pair = pairs[index]
            before[index] = 0 if pair is None else pair[1] - 1
        if tokens is None:
            unasked = len(text) if given is not None else max(len(text) - 1, 0)
            done[index] = Prediction(unasked, _NOTHING, _NOTHING, "unknown_character")
        elif len(tokens) < 2:
            done[index] = Prediction(0, _NOTHING, _NOTHING)
        else:
            rows.append(_Row(index, tokens, _NOTHING, len(tokens) - 1, "limit"))
    size = batch or _batch_size(model)
    with at_rest(model):
        events(Event("start", task, len(done), len(texts)))
        for group in _groups(_readings(rows, share=False), size, True, tokens=_read_at_once(model)):
            done.update(_predict_group(model, [reading.rows[0] for reading in group], None if greedy else seed))
            events(Event("advance", task, len(done), len(texts)))
        events(Event("finish", task, len(done), len(texts)))
    return [_beyond(done[index], before[index]) for index in range(len(texts))]


def _beyond(found: Prediction, given: int) -> Prediction:
    """What is left of a prediction when its first ``given`` places are not asked about."""
    if not given or found.finish == "unknown_character":
        return found
    before = found.truth[given - 1 : given]
    return Prediction(found.total - given, found.truth[given:], found.chosen[given:], found.finish, before)


def uniforms(seed: int, index: int, count: int) -> Draws:
    """The first ``count`` random numbers in [0, 1) of text ``index``, however many more are asked for later."""
    key = np.array([seed % 2**64, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


@dataclass(frozen=True)
class _Row:
    """One prompt at work. ``limit`` is the most tokens it may write, ``ending`` what running into that means.

    ``begins`` is the end of the prompt's text that the first token has to write again.
    """

    index: int
    prompt: Numbers
    draft: Numbers
    limit: int
    ending: Literal["limit", "context"]
    begins: str = ""


@dataclass(frozen=True)
class _Reading:
    """One text to be read, and the rows whose prompt and draft are the beginning of it."""

    tokens: Numbers
    rows: list[_Row]


@dataclass(frozen=True)
class _Decoder:
    """What stays the same from group to group. ``seed`` is None where the likeliest token is taken."""

    model: Any
    vocabulary: Vocabulary
    seed: int | None
    places: Sequence[int]
    settled: Settled | None
    heal: bool

    def whole(self, prompts: Sequence[str], given: Sequence[str] | None) -> list[tuple[Numbers | None, int]]:
        """The tokens of each prompt, and how many of them stay as they are."""
        if given is None:
            return [(tokens, 1) for tokens in self.vocabulary.prompts(prompts)]
        return [(None, 1) if pair is None else pair for pair in self.vocabulary.pairs(given, prompts)]

    def admit(
        self, whole: Sequence[tuple[Numbers | None, int]], limits: Sequence[int], drafts: Sequence[str]
    ) -> Iterator[_Row | Completion]:
        """Each prompt ready to be read, or its completion when nothing can be written."""
        context = _context(self.model)
        heal = self.vocabulary.cut
        cut = [heal(each, fixed) if self.heal and each is not None else (each, "") for each, fixed in whole]
        begun = [begins + draft if draft else "" for (_, begins), draft in zip(cut, drafts, strict=True)]
        kept = [_NOTHING if tokens is None else tokens for tokens, _ in cut]
        guesses = self.vocabulary.continuations(kept, begun)
        for index, (tokens, begins) in enumerate(cut):
            given, guess, limit = whole[index][0], guesses[index], limits[index] + bool(begins)
            if given is None or tokens is None:
                yield Completion("", "unknown_character")
            elif len(given) > context:
                yield Completion("", "too_long")
            elif limits[index] <= 0:
                yield Completion("", "limit")
            else:
                # The last token that is written is never read, so it needs no position.
                room = min(limit, context - len(tokens) + 1)
                guess = _NOTHING if guess is None else guess[: room - 1]
                yield _Row(index, tokens, guess, room, "limit" if room == limit else "context", begins)

    def work(self, rows: list[_Row], size: int, mixed: bool) -> Iterator[dict[int, Completion]]:
        """The completions of all rows, group by group.

        Where a text may be settled early, it mostly is after one pass, and keeping keys and values would be for
        nothing: a group is examined first, and what has to go on is read again later, with what it wrote as its
        draft. Once more than a quarter has to, that does not pay any more.
        """
        waiting = _readings(rows, share=mixed)
        open_rows: list[_Row] = []
        if self.settled is not None and mixed:
            groups = deque(_groups(waiting, size, mixed, tokens=_read_at_once(self.model)))
            examined = 0
            while groups and 4 * len(open_rows) <= examined:
                ended = dict(self.examine(groups.popleft()))
                examined += len(ended)
                open_rows += [end for end in ended.values() if isinstance(end, _Row)]
                yield {index: end for index, end in ended.items() if isinstance(end, Completion)}
            waiting = [reading for group in groups for reading in group]
        for readings in (waiting, _readings(open_rows, share=mixed)):
            for group in _groups(readings, size, mixed):
                yield dict(self.write(group))

    def examine(self, readings: list[_Reading]) -> Iterator[tuple[int, Completion | _Row]]:
        """Read the texts and keep nothing: what has ended with that, and rows to go on from."""
        rows = [row for reading in readings for row in reading.rows]
        for row, tokens in zip(rows, self._read(readings, None, self._draws_of(rows)), strict=True):
            end = self._ending(row, tokens)
            yield row.index, replace(row, draft=np.array(tokens, dtype=np.int64)) if end is None else end

    def write(self, readings: list[_Reading]) -> Iterator[tuple[int, Completion]]:
        """Read the texts, then step until every row has ended; ended rows leave the batch at once."""
        rows = [row for reading in readings for row in reading.rows]
        read = max(len(reading.tokens) for reading in readings)
        cache = memory_for(self.model, read + max(row.limit for row in rows))
        draws = self._draws_of(rows)
        # Which line of the cache a row looks at: at first that of the text it begins, later its own.
        lines = _lines(readings)
        shared = len(rows) > len(readings)
        written = self._read(readings, cache, draws)
        # The position of each row's newest token, and the columns of the cache that the row may look at: its
        # prompt and the accepted part of its draft, not the rejected part, what others wrote, and the padding.
        position = np.array([len(row.prompt) + len(tokens) - 1 for row, tokens in zip(rows, written, strict=True)])
        visible = np.arange(read) < position[:, None]
        while True:
            ended = [self._ending(row, tokens) for row, tokens in zip(rows, written, strict=True)]
            yield from ((row.index, end) for row, end in zip(rows, ended, strict=True) if end is not None)
            live = without([end is not None for end in ended])
            if not live:
                return
            if shared or len(live) < len(rows):
                rows, written = [rows[number] for number in live], [written[number] for number in live]
                draws, position, visible = draws[live], position[live], visible[live]
                cache.batch_select_indices(torch.from_numpy(lines[live]).to(self.model.device))
                lines, shared = np.arange(len(rows)), False
            visible = np.concatenate([visible, np.ones((len(rows), 1), dtype=bool)], axis=1)
            logits = self._step(written, position, visible, cache)
            counts = np.array([[len(tokens)] for tokens in written])
            drawn = np.take_along_axis(draws, counts, axis=1) if draws.size else draws
            for tokens, token in zip(written, _choose(logits, drawn)[:, 0].tolist(), strict=True):
                tokens.append(token)
            position = position + 1

    def _ending(self, row: _Row, tokens: list[int]) -> Completion | None:
        """The completion, or None while the row goes on."""
        end = self.vocabulary.ending(tokens, row.limit, row.begins, row.prompt)
        if end is not None:
            return Completion(end[0], row.ending if end[1] == "limit" else end[1])
        if self.settled is None:
            return None
        # A character may be spread over tokens, and half of one is not what was written.
        text = self.vocabulary.text(tokens, row.prompt)[len(row.begins) :].rstrip("\ufffd")
        return Completion(text, "settled") if self.settled(row.index, text) else None

    def _draws_of(self, rows: list[_Row]) -> Draws:
        return _draws([(self.places[row.index], row.limit) for row in rows], self.seed)

    def _read(self, readings: list[_Reading], cache: Cache | None, draws: Draws) -> list[list[int]]:
        """What each row has written after one pass over the texts: at least one token.

        Shorter texts are padded on the right, where a causal model does not look, so no mask is needed.
        """
        rows = [row for reading in readings for row in reading.rows]
        starts = np.array([len(row.prompt) - 1 for row in rows])
        last = max(len(reading.tokens) for reading in readings) - 1
        # Only the columns where some row is written are turned into logits.
        columns = np.arange(starts.min(), last + 1)
        logits = self.model(
            input_ids=padded([reading.tokens for reading in readings]).to(self.model.device),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=torch.from_numpy(columns).to(self.model.device),
        ).logits
        widest = max(len(row.draft) for row in rows) + 1
        places = np.minimum(starts[:, None] + np.arange(widest), last) - columns[0]
        lines, at = (torch.from_numpy(each).to(logits.device) for each in (_lines(readings)[:, None], places))
        found = logits[lines, at]
        for number, row in enumerate(rows):
            if row.begins:
                first = torch.full_like(found[number, 0], -torch.inf)
                fitting = torch.from_numpy(self.vocabulary.beginning(row.begins)).to(found.device)
                found[number, 0] = first.index_copy(0, fitting, found[number, 0, fitting])
        written = []
        for row, chosen in zip(rows, _choose(found, draws[:, :widest]), strict=True):
            agreed = int(np.cumprod(chosen[: len(row.draft)] == row.draft).sum())
            written.append(chosen[: agreed + 1].tolist())
        return written

    def _step(self, written: list[list[int]], position: Numbers, visible: Any, cache: Cache) -> torch.Tensor:
        """Logits (rows, 1, vocabulary) after the newest token of each row."""
        device = self.model.device
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([[tokens[-1]] for tokens in written], device=device),
            attention_mask=None if visible.all() else self._mask(torch.from_numpy(visible).to(device)),
            position_ids=torch.from_numpy(position[:, None]).to(device),
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits

    def _mask(self, visible: torch.Tensor) -> Any:
        """``visible`` (rows, columns) as a model takes it: one mask for each kind of layer where layers have windows.

        What is not visible lies between what is, so a window is not the last columns but the last visible ones.
        """
        window = window_of(self.model)
        if not window:
            return visible
        kind = self.model.dtype
        parts = {"full_attention": visible, "sliding_attention": in_window(visible, window)}
        return {name: additive(part[:, None, None], kind) for name, part in parts.items()}


def _predict_group(model: Any, rows: list[_Row], seed: int | None) -> Iterator[tuple[int, Prediction]]:
    read = [row.prompt[:-1][: _context(model)] for row in rows]
    logits = model(input_ids=padded(read).to(model.device), use_cache=False).logits
    draws = _draws([(row.index, row.limit) for row in rows], seed)[:, : logits.shape[1]]
    for row, tokens, chosen in zip(rows, read, _choose(logits, draws), strict=True):
        finish: Literal["done", "too_long"] = "done" if len(tokens) == row.limit else "too_long"
        truth = row.prompt[1 : len(tokens) + 1]
        yield row.index, Prediction(row.limit, truth, chosen[: len(tokens)], finish, row.prompt[:1])


def _draws(asked: Sequence[tuple[int, int]], seed: int | None) -> Draws:
    """Random numbers for rows of (place, tokens), shape (rows, most tokens); without a seed there are none."""
    if seed is None:
        return np.zeros((len(asked), 0))
    drawn = np.zeros((len(asked), max(count for _, count in asked)))
    for line, (place, count) in zip(drawn, asked, strict=True):
        line[:count] = uniforms(seed, place, count)
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


def padded(rows: Sequence[Numbers]) -> torch.Tensor:
    """Shape (rows, longest), filled up on the right with each row's first token, which is never looked at there.

    Not with the pad token: transformers would warn that padding is not masked.
    """
    ids = np.empty((len(rows), max(map(len, rows))), dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)], line[len(row) :] = row, row[0] if len(row) else 0
    return torch.from_numpy(ids)


def _lines(readings: list[_Reading]) -> Numbers:
    """For every row, which of the texts it begins."""
    return np.repeat(np.arange(len(readings)), [len(reading.rows) for reading in readings])


def _readings(rows: list[_Row], *, share: bool) -> list[_Reading]:
    """The texts to be read, longest first: one for each row, or one for all rows that are beginnings of it."""
    texts = {row.index: np.concatenate([row.prompt, row.draft]) for row in rows}
    if share:
        # In the order of their bytes a text stands right before those that go on from it: backwards, after them.
        rows = sorted(rows, key=lambda row: texts[row.index].tobytes(), reverse=True)
    readings: list[_Reading] = []
    for row in rows:
        text = texts[row.index]
        if share and readings and np.array_equal(readings[-1].tokens[: len(text)], text):
            readings[-1].rows.append(row)
        else:
            readings.append(_Reading(text, [row]))
    return sorted(readings, key=lambda reading: (-len(reading.tokens), reading.rows[0].index))


def _groups(readings: list[_Reading], size: int, mixed: bool, *, tokens: int | None = None) -> Iterator[list[_Reading]]:
    """Texts of about one length with at most ``size`` rows together; of exactly one length unless ``mixed``.

    With ``tokens`` a group is also full when it has as many and a quarter of its rows: long texts differ much in
    length, and many of them together are mostly padding.
    """
    group: list[_Reading] = []
    rows = 0
    for reading in readings:
        for start in range(0, len(reading.rows), size):
            part = reading.rows[start : start + size]
            alike = mixed or not group or len(group[0].tokens) == len(reading.tokens)
            full = tokens and 4 * len(group) >= size and (len(group) + 1) * len(group[0].tokens) > tokens
            if group and (rows + len(part) > size or not alike or full):
                yield group
                group, rows = [], 0
            group.append(_Reading(reading.tokens, part))
            rows += len(part)
    if group:
        yield group


def _context(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def _batch_size(model: Any) -> int:
    return 64 if model.device.type == "cpu" else 512


def _read_at_once(model: Any) -> int | None:
    """Tokens of a group that is read in one pass and not written to; a group that is written to costs by its steps.

    Measured on a CPU (docs/log.md), where 64 programs of TinyPy in lexical tokens are some 1,700; elsewhere no limit.
    """
    return 2048 if model.device.type == "cpu" else None
