"""Batched generation of completions, and next-token predictions for given texts.

``complete`` generates completions for many prompts with a KV cache; ``predict_next`` takes one forward pass for the
predicted token after each true prefix of a text. Evaluation suites and `gradatim sample` use both. Properties, each
with a test:

- *Exact.* Greedy completions equal those of a plain loop without cache.
- *Independent.* A sampled completion depends on the seed and the index of the prompt, not on the batch: the random
  number of token j of prompt i comes from a Philox generator keyed by (seed, i), through the inverse of the cdf.
- *Speculative.* Prompt and draft (for example the expected answer) share one forward pass, and the longest prefix of
  the draft that the model predicts is accepted (2211.17192). Drafts change only the speed.
- *Shared prefixes.* Prompts and drafts that are prefixes of one text cost one pass over that text.
- *Token healing.* With ``heal`` the last tokens of a prompt are removed if they may begin a longer token, and
  the first new token must begin with the removed text; otherwise a newline before an indented line would be a token
  boundary that hardly occurs in pretraining.
- *Lossless.* A completion is decoded after the prompt's tokens, so it neither gains nor loses a space (``text_codec``).
- *Early exit.* ``settled`` may end a completion when the remaining text does not matter.

Both functions divide their rows among the processes of a training (``sharing``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

from ..model.architecture import (
    LARGE_VOCABULARY,
    PreallocatedLayer,
    additive_mask,
    compact_order,
    kv_cache_for,
    logits_at,
    sliding_window_of,
    supports_masking,
    window_mask,
)
from ..model.hardware import evaluation_mode
from ..model.load import LoadedModel
from ..model.vocabulary import Vocabulary
from ..random_streams import text_stream
from ..stage import Event, Events, Model, ignore_events
from . import sharing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Finish = Literal["eos", "stop", "limit", "context", "settled", "too_long", "unknown_character"]
"""The reason of a completion's end. ``context``: the end of the model's context, before the limit. ``settled``: early
exit. With the last two the completion is empty: the prompt is longer than the model's context, or has a character that
is not in the vocabulary."""

Settled = Callable[[int, str], bool]
"""Early exit: whether the remaining text does not matter, given the index of a prompt and the completion so far."""

Numbers = npt.NDArray[np.int64]
Draws = npt.NDArray[np.float64]
_EMPTY: Numbers = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Completion:
    """The completion of one prompt, without the final ``<eos>`` or stop string, and the reason of its end."""

    text: str
    finish: Finish


@dataclass(frozen=True)
class Prediction:
    """The predicted next tokens after all non-empty true prefixes of one text.

    ``total`` is the number of these prefixes. ``truth`` and ``predicted`` (shape (m,), token ids) are the true and the
    predicted next tokens of the first m: m < total when the text is longer than the model's context, and 0 when it
    cannot be encoded (``finish``). ``before`` is the token before the first true one, needed to decode them.
    """

    total: int
    truth: Numbers
    predicted: Numbers
    finish: Literal["done", "too_long", "unknown_character"] = "done"
    before: Numbers = field(default_factory=lambda: _EMPTY)


def complete(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    limits: int | Sequence[int],
    greedy: bool = True,
    temperature: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    drafts: Sequence[str] | None = None,
    settled: Settled | None = None,
    heal: bool = False,
    prefixes: Sequence[str] | None = None,
    indices: Sequence[int] | None = None,
    batch: int | None = None,
    events: Events = ignore_events,
    task: str = "complete",
) -> list[Completion]:
    """One ``Completion`` per prompt, in the order of the prompts.

    A completion ends at ``<eos>``, before the first ``stop`` string, after ``limits`` tokens (one number for all, or
    one per prompt), or at the end of the model's context. ``greedy`` takes the most probable token, otherwise tokens
    are sampled at ``temperature``. ``drafts`` are expected completions, for speculative decoding. An empty prompt is
    the start of a sample, one ``<eos>``. ``settled`` is called after each token for early exit; of a model that several
    processes share it is pickled. ``heal``: token healing, without effect for character tokenizers. ``prefixes``: the
    text before each prompt (a rendered chat template), encoded separately and not healed. ``indices`` (default 0, 1, 2,
    …) select the random streams of the prompts: ``indices=[7]`` reproduces prompt 7 of a long list alone. ``batch`` is
    the maximal number of prompts in a batch (default 64 on a CPU, 512 elsewhere). ``model`` is any Hugging Face causal
    model; its device and training mode do not change.
    """
    limits = [limits] * len(prompts) if isinstance(limits, int) else limits
    drafts = [""] * len(prompts) if drafts is None else drafts
    indices = range(len(prompts)) if indices is None else indices
    if prefixes is not None and len(prefixes) != len(prompts):
        raise ValueError(f"different lengths: {len(prompts)} prompts, {len(prefixes)} prefixes")
    if not len(prompts) == len(limits) == len(drafts) == len(indices):
        counts = f"{len(prompts)} prompts, {len(limits)} limits, {len(drafts)} drafts, {len(indices)} indices"
        raise ValueError(f"different lengths: {counts}")
    options: dict[str, Any] = {"greedy": greedy, "temperature": temperature, "seed": seed, "stop": stop}
    options |= {"heal": heal, "batch": batch, "task": task}
    rows: dict[str, Any] = {"prompts": prompts, "limits": limits, "drafts": drafts, "indices": indices}
    rows["prefixes"] = prefixes
    if (processes := sharing.processes_of(model)) is None or not prompts:
        return _complete(LoadedModel(model, tokenizer), settled=settled, **rows, **options, events=events)
    shares = [
        {name: None if values is None else list(values[first:stop_]) for name, values in rows.items()}
        | {"settled": None if settled is None else _Shifted(settled, first)}
        | options
        for first, stop_ in sharing.spans(len(prompts), processes.size)
    ]
    parts = sharing.collect(processes, _complete, LoadedModel(model, tokenizer), shares, events)
    return [completion for part in parts for completion in part]


@dataclass(frozen=True)
class _Shifted:
    """``settled`` for a share of the prompts, of which the first has the index ``first``."""

    settled: Settled
    first: int

    def __call__(self, index: int, text: str) -> bool:
        return self.settled(self.first + index, text)


def _complete(
    student: Model,
    *,
    prompts: Sequence[str],
    limits: Sequence[int],
    drafts: Sequence[str],
    indices: Sequence[int],
    prefixes: Sequence[str] | None,
    settled: Settled | None,
    greedy: bool,
    temperature: float,
    seed: int,
    stop: Sequence[str],
    heal: bool,
    batch: int | None,
    task: str,
    events: Events,
) -> list[Completion]:
    """``complete`` in this process, with all arguments."""
    model: PreTrainedModel = student.model
    decoder = _Decoder(model, Vocabulary(student.tokenizer, stop), None if greedy else seed, indices, settled, heal)
    # Without a complete KV cache, padding and rejected drafts would count as past tokens: equal lengths and no drafts.
    mixed_lengths = supports_masking(model)
    completions: dict[int, Completion] = {}
    rows: list[_Row] = []
    encoded = decoder.encode_prompts(prompts, prefixes)
    for index, row in enumerate(decoder.admit(encoded, limits, drafts if mixed_lengths else [""] * len(prompts))):
        if isinstance(row, Completion):
            completions[index] = row
        else:
            rows.append(row)
    with evaluation_mode(model), _at_temperature(model, temperature):
        events(Event("start", task, len(completions), len(prompts)))
        for results in decoder.work(rows, batch or default_batch_size(model), mixed_lengths):
            completions.update(results)
            events(Event("advance", task, len(completions), len(prompts)))
        events(Event("finish", task, len(completions), len(prompts)))
    return [completions[index] for index in range(len(prompts))]


@contextmanager
def _at_temperature(model: PreTrainedModel, temperature: float) -> Iterator[None]:
    """Divide the model's logits by ``temperature`` inside the context."""
    if temperature in (0, 1):
        yield
        return

    def scale(module: Any, inputs: Any, output: Any) -> Any:
        output.logits = output.logits / temperature
        return output

    hook = model.register_forward_hook(scale)
    try:
        yield
    finally:
        hook.remove()


def predict_next(
    model: PreTrainedModel,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    greedy: bool = True,
    seed: int = 0,
    batch: int | None = None,
    prefixes: Sequence[str] | None = None,
    events: Events = ignore_events,
    task: str = "predict",
) -> list[Prediction]:
    """One ``Prediction`` per text: the most probable (or sampled, temperature 1) token after each true prefix.

    One forward pass over the texts. Keywords as in ``complete``. With ``prefixes`` the first token of a text is also
    predicted, and the tokens of its prefix are not.
    """
    student = LoadedModel(model, tokenizer)
    options: dict[str, Any] = {"greedy": greedy, "seed": seed, "batch": batch, "task": task}
    if (processes := sharing.processes_of(model)) is None or not texts:
        return _predict_next(student, texts=texts, prefixes=prefixes, first=0, events=events, **options)
    shares = [
        {**options, "texts": texts[first:stop], "prefixes": prefixes and prefixes[first:stop], "first": first}
        for first, stop in sharing.spans(len(texts), processes.size)
    ]
    parts = sharing.collect(processes, _predict_next, student, shares, events)
    return [prediction for part in parts for prediction in part]


def _predict_next(
    student: Model,
    *,
    texts: Sequence[str],
    prefixes: Sequence[str] | None,
    first: int,
    greedy: bool,
    seed: int,
    batch: int | None,
    task: str,
    events: Events,
) -> list[Prediction]:
    """``predict_next`` in this process; ``first``: the random stream of the first text."""
    model: PreTrainedModel = student.model
    vocabulary = Vocabulary(student.tokenizer)
    predictions: dict[int, Prediction] = {}
    rows: list[_Row] = []
    skipped = [0] * len(texts)
    pairs = None if prefixes is None else vocabulary.pairs(prefixes, texts)
    token_rows = (
        vocabulary.encode_all(texts) if pairs is None else [None if pair is None else pair[0] for pair in pairs]
    )
    for index, (text, tokens) in enumerate(zip(texts, token_rows, strict=True)):
        if pairs is not None:
            pair = pairs[index]
            skipped[index] = 0 if pair is None else pair[1] - 1
        if tokens is None:
            count = len(text) if prefixes is not None else max(len(text) - 1, 0)
            predictions[index] = Prediction(count, _EMPTY, _EMPTY, "unknown_character")
        elif len(tokens) < 2:
            predictions[index] = Prediction(0, _EMPTY, _EMPTY)
        else:
            rows.append(_Row(index, tokens, _EMPTY, len(tokens) - 1, "limit"))
    size = batch or default_batch_size(model)
    with evaluation_mode(model):
        events(Event("start", task, len(predictions), len(texts)))
        for group in _groups(_prefills(rows, share=False), size, True, tokens=_read_at_once(model)):
            members = [prefill.rows[0] for prefill in group]
            predictions.update(_predict_group(model, members, None if greedy else seed, first))
            events(Event("advance", task, len(predictions), len(texts)))
        events(Event("finish", task, len(predictions), len(texts)))
    return [_without_prefix(predictions[index], skipped[index]) for index in range(len(texts))]


def _without_prefix(prediction: Prediction, skipped: int) -> Prediction:
    """The prediction without its first ``skipped`` positions."""
    if not skipped or prediction.finish == "unknown_character":
        return prediction
    before = prediction.truth[skipped - 1 : skipped]
    return Prediction(
        prediction.total - skipped,
        prediction.truth[skipped:],
        prediction.predicted[skipped:],
        prediction.finish,
        before,
    )


def uniforms(seed: int, index: int, count: int) -> Draws:
    """The first ``count`` random numbers in [0, 1) of text ``index``; a longer sequence has the same beginning."""
    return text_stream(seed, index).random(count)


@dataclass(frozen=True)
class _Row:
    """One active prompt. ``limit`` is the maximal number of new tokens, ``ending`` the reason of the end at the limit.

    ``healed`` is the removed end of the prompt's text, with which the first new token must begin.
    """

    index: int
    prompt: Numbers
    draft: Numbers
    limit: int
    ending: Literal["limit", "context"]
    healed: str = ""


@dataclass(frozen=True)
class _Prefill:
    """One text for the first forward pass, and the rows whose prompt and draft are a prefix of it."""

    tokens: Numbers
    rows: list[_Row]


@dataclass(frozen=True)
class _Decoder:
    """The settings that all groups share. ``seed`` is None for greedy decoding."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    seed: int | None
    indices: Sequence[int]
    settled: Settled | None
    heal: bool

    def encode_prompts(
        self, prompts: Sequence[str], prefixes: Sequence[str] | None
    ) -> list[tuple[Numbers | None, int]]:
        """The tokens of each prompt, and the number of leading tokens that healing must keep."""
        if prefixes is None:
            return [(tokens, 1) for tokens in self.vocabulary.prompts(prompts)]
        return [(None, 1) if pair is None else pair for pair in self.vocabulary.pairs(prefixes, prompts)]

    def admit(
        self, encoded: Sequence[tuple[Numbers | None, int]], limits: Sequence[int], drafts: Sequence[str]
    ) -> Iterator[_Row | Completion]:
        """The row of each prompt, or its completion when no token can be generated."""
        context = _context(self.model)
        heal = self.vocabulary.cut
        cut = [
            heal(prompt_tokens, fixed) if self.heal and prompt_tokens is not None else (prompt_tokens, "")
            for prompt_tokens, fixed in encoded
        ]
        continuations = [healed + draft if draft else "" for (_, healed), draft in zip(cut, drafts, strict=True)]
        contexts = [_EMPTY if tokens is None else tokens for tokens, _ in cut]
        guesses = self.vocabulary.continuations(contexts, continuations)
        for index, (tokens, healed) in enumerate(cut):
            original, guess, limit = encoded[index][0], guesses[index], limits[index] + bool(healed)
            if original is None or tokens is None:
                yield Completion("", "unknown_character")
            elif len(original) > context:
                yield Completion("", "too_long")
            elif limits[index] <= 0:
                yield Completion("", "limit")
            else:
                # The last new token is not an input, so it needs no position.
                max_tokens = min(limit, context - len(tokens) + 1)
                guess = _EMPTY if guess is None else guess[: max_tokens - 1]
                yield _Row(index, tokens, guess, max_tokens, "limit" if max_tokens == limit else "context", healed)

    def work(self, rows: list[_Row], batch_size: int, mixed_lengths: bool) -> Iterator[dict[int, Completion]]:
        """The completions of all rows, group by group.

        With early exit most rows end after one forward pass, so the first pass keeps no KV cache. Rows that continue
        are read again with their output as draft. The first passes stop when more than a quarter of the rows continue.
        """
        remaining = _prefills(rows, share=mixed_lengths)
        open_rows: list[_Row] = []
        if self.settled is not None and mixed_lengths:
            groups = deque(_groups(remaining, batch_size, mixed_lengths, tokens=_read_at_once(self.model)))
            examined = 0
            while groups and 4 * len(open_rows) <= examined:
                results = dict(self.examine(groups.popleft()))
                examined += len(results)
                open_rows += [result for result in results.values() if isinstance(result, _Row)]
                yield {index: result for index, result in results.items() if isinstance(result, Completion)}
            remaining = [prefill for group in groups for prefill in group]
        for prefills in (remaining, _prefills(open_rows, share=mixed_lengths)):
            yield from self.write(prefills, batch_size, mixed_lengths)

    def examine(self, prefills: list[_Prefill]) -> Iterator[tuple[int, Completion | _Row]]:
        """One forward pass without KV cache: completions, and the rows that continue with their output as draft."""
        rows = [row for prefill in prefills for row in prefill.rows]
        for row, tokens in zip(rows, self.read_texts(prefills, None, self.draws_of(rows)), strict=True):
            completion = self.completion(row, tokens)
            yield row.index, replace(row, draft=np.array(tokens, dtype=np.int64)) if completion is None else completion

    def write(self, prefills: list[_Prefill], batch_size: int, mixed_lengths: bool) -> Iterator[dict[int, Completion]]:
        """Read the texts, then generate until all rows have ended; the completions as they end.

        A row leaves the batch when it ends. With ``mixed_lengths`` rows of the next texts take its place, as soon as a
        quarter of the batch is free, so that a few long completions do not run alone.
        """
        groups = deque(_groups(prefills, batch_size // REFILLS or 1 if mixed_lengths else batch_size, mixed_lengths))
        columns = max((_columns(prefill) for prefill in prefills), default=0) if mixed_lengths else None
        batch = _Batch(self, columns, min(batch_size, _row_count(prefills)))
        while groups or batch.rows:
            if texts := batch.next_texts(groups, batch_size):
                for part in _parts(texts, _tokens_of_a_pass(self.model)) if mixed_lengths else [texts]:
                    batch.read(part)
            if results := batch.ended():
                yield results
            elif batch.rows:
                batch.step()

    def completion(self, row: _Row, tokens: list[int]) -> Completion | None:
        """The completion, or None while the row is incomplete."""
        ending = self.vocabulary.ending(tokens, row.limit, row.healed, row.prompt)
        if ending is not None:
            return Completion(ending[0], row.ending if ending[1] == "limit" else ending[1])
        if self.settled is None:
            return None
        # An incomplete multi-token character is not part of the text.
        text = self.vocabulary.text(tokens, row.prompt)[len(row.healed) :].rstrip("\ufffd")
        return Completion(text, "settled") if self.settled(row.index, text) else None

    def draws_of(self, rows: list[_Row]) -> Draws:
        return _draws([(self.indices[row.index], row.limit) for row in rows], self.seed)

    def read_texts(self, prefills: list[_Prefill], cache: Cache | None, draws: Draws) -> list[list[int]]:
        """The new tokens of each row after one forward pass over the texts: at least one token.

        Shorter texts are padded on the right; causal attention needs no mask for that.
        """
        rows = [row for prefill in prefills for row in prefill.rows]
        starts = np.array([len(row.prompt) - 1 for row in rows])
        last = max(len(prefill.tokens) for prefill in prefills) - 1
        # Logits are needed only from the first column with a new token.
        columns = np.arange(starts.min(), last + 1)
        widest = max(len(row.draft) for row in rows) + 1
        positions = np.minimum(starts[:, None] + np.arange(widest), last) - columns[0]
        lines, column = (
            torch.from_numpy(array).to(self.model.device) for array in (_text_indices(prefills)[:, None], positions)
        )
        inputs = padded([prefill.tokens for prefill in prefills]).to(self.model.device)

        def forward() -> torch.Tensor:
            logits: torch.Tensor = self.model(
                input_ids=inputs,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=torch.from_numpy(columns).to(self.model.device),
            ).logits
            return logits

        selected = logits_at(self.model, (lines, column), forward)
        for index, row in enumerate(rows):
            if row.healed:
                first = torch.full_like(selected[index, 0], -torch.inf)
                fitting = torch.from_numpy(self.vocabulary.beginning(row.healed)).to(selected.device)
                selected[index, 0] = first.index_copy(0, fitting, selected[index, 0, fitting])
        outputs = []
        for row, predicted in zip(rows, _choose(selected, draws[:, :widest]), strict=True):
            accepted = int(np.cumprod(predicted[: len(row.draft)] == row.draft).sum())
            outputs.append(predicted[: accepted + 1].tolist())
        return outputs

    def next_logits(
        self, tokens: Sequence[int], position: Numbers, visible: npt.NDArray[np.bool_] | None, cache: Cache
    ) -> torch.Tensor:
        """Logits (rows, 1, vocabulary) after each row's newest token; ``visible`` (rows, columns), None for all."""
        device = self.model.device
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([[token] for token in tokens], device=device),
            attention_mask=None
            if visible is None or visible.all()
            else self._mask(torch.from_numpy(visible).to(device)),
            position_ids=torch.from_numpy(position[:, None]).to(device),
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits

    def _mask(self, visible: torch.Tensor) -> Any:
        """The attention mask for ``visible`` (rows, columns): one per kind of layer for models with sliding windows.

        Invisible columns may lie between visible ones, so a window covers the last visible columns.
        """
        window = sliding_window_of(self.model)
        if not window:
            return visible
        dtype = self.model.dtype
        visible_by_type = {"full_attention": visible, "sliding_attention": window_mask(visible, window)}
        return {name: additive_mask(mask[:, None, None], dtype) for name, mask in visible_by_type.items()}


class _Batch:
    """The rows in generation, their tokens and their KV cache.

    ``position`` is the position of each row's newest token, which is no input yet. ``size`` is the largest number of
    rows. With ``columns``, the width of the cache, a token's column is its position: a row sees its prompt, the
    accepted part of its draft and its own tokens, and rows may be added at any time. Without it (models for which masks
    are not correct) all rows have equal lengths, and a batch is empty before others are read.
    """

    def __init__(self, decoder: _Decoder, columns: int | None, size: int) -> None:
        self.decoder, self.columns = decoder, columns
        self.rows: list[_Row] = []
        self.outputs: list[list[int]] = []
        self.draws: list[Draws] = []
        self.position: Numbers = _EMPTY
        self.cache: Cache | None = None if columns is None else kv_cache_for(decoder.model, columns, size)

    def next_texts(self, groups: deque[list[_Prefill]], batch_size: int) -> list[_Prefill]:
        """Take the texts from ``groups`` that the batch has places for; into an empty batch one group at least."""
        if self.columns is None:
            return groups.popleft() if groups and not self.rows else []
        texts: list[_Prefill] = []
        rows = len(self.rows)
        while groups and (rows == 0 or rows + _row_count(groups[0]) <= batch_size):
            rows += _row_count(groups[0])
            texts += groups.popleft()
        return texts

    def read(self, prefills: list[_Prefill]) -> None:
        """Read the texts of a group, and add its rows with their first tokens."""
        decoder, model = self.decoder, self.decoder.model
        rows = [row for prefill in prefills for row in prefill.rows]
        columns = max(len(prefill.tokens) for prefill in prefills)
        cache = kv_cache_for(model, columns)
        draws = decoder.draws_of(rows)
        outputs = decoder.read_texts(prefills, cache, draws)
        indices = torch.from_numpy(_text_indices(prefills)).to(model.device)
        if self.cache is None or self.columns is None:
            if len(rows) > len(prefills):
                cache.batch_select_indices(indices)
            self.cache = cache
        else:
            for layer, texts in zip(self.cache.layers, cache.layers, strict=True):
                cast("PreallocatedLayer", layer).append_rows(cast("PreallocatedLayer", texts), indices, len(self.rows))
        position = [len(row.prompt) + len(tokens) - 1 for row, tokens in zip(rows, outputs, strict=True)]
        self.position = np.concatenate([self.position, np.array(position, dtype=np.int64)])
        self.rows, self.outputs, self.draws = self.rows + rows, self.outputs + outputs, self.draws + list(draws)

    def ended(self) -> dict[int, Completion]:
        """The completions of the rows that have ended, which leave the batch."""
        completions = [self.decoder.completion(row, out) for row, out in zip(self.rows, self.outputs, strict=True)]
        results = {
            row.index: completion
            for row, completion in zip(self.rows, completions, strict=True)
            if completion is not None
        }
        if results:
            active = compact_order([completion is not None for completion in completions])
            self.rows = [self.rows[index] for index in active]
            self.outputs = [self.outputs[index] for index in active]
            self.draws = [self.draws[index] for index in active]
            self.position = self.position[active]
            if self.cache is not None and active:
                self.cache.batch_select_indices(torch.tensor(active, device=self.decoder.model.device))
            elif self.columns is None:
                self.cache = None
        return results

    def step(self) -> None:
        """Generate one token of each row."""
        assert self.cache is not None
        visible = None
        if self.columns is not None:
            positions = torch.from_numpy(self.position).to(self.decoder.model.device)
            for layer in self.cache.layers:
                cast("PreallocatedLayer", layer).write_at(positions)
            visible = np.arange(self.position.max() + 1) <= self.position[:, None]
        logits = self.decoder.next_logits([tokens[-1] for tokens in self.outputs], self.position, visible, self.cache)
        numbers = [draws[len(tokens) : len(tokens) + 1] for draws, tokens in zip(self.draws, self.outputs, strict=True)]
        for tokens, token in zip(self.outputs, _choose(logits, np.array(numbers))[:, 0].tolist(), strict=True):
            tokens.append(token)
        self.position = self.position + 1


def _row_count(prefills: list[_Prefill]) -> int:
    return sum(len(prefill.rows) for prefill in prefills)


def _columns(prefill: _Prefill) -> int:
    """The number of cache columns that the longest row of a text needs, its draft included."""
    return max(len(prefill.tokens), *(len(row.prompt) + row.limit for row in prefill.rows))


REFILLS = 4
"""The parts in which a batch is filled: a group of this share of its rows is read when so many places are free."""


def _predict_group(
    model: PreTrainedModel, rows: list[_Row], seed: int | None, first: int
) -> Iterator[tuple[int, Prediction]]:
    inputs = [row.prompt[:-1][: _context(model)] for row in rows]
    logits = model(input_ids=padded(inputs).to(model.device), use_cache=False).logits
    draws = _draws([(first + row.index, row.limit) for row in rows], seed)[:, : logits.shape[1]]
    for row, tokens, predicted in zip(rows, inputs, _choose(logits, draws), strict=True):
        finish: Literal["done", "too_long"] = "done" if len(tokens) == row.limit else "too_long"
        truth = row.prompt[1 : len(tokens) + 1]
        yield row.index, Prediction(row.limit, truth, predicted[: len(tokens)], finish, row.prompt[:1])


def _draws(streams: Sequence[tuple[int, int]], seed: int | None) -> Draws:
    """Random numbers for rows of (index, tokens), shape (rows, maximal tokens); without a seed (rows, 0)."""
    if seed is None:
        return np.zeros((len(streams), 0))
    numbers = np.zeros((len(streams), max(count for _, count in streams)))
    for row, (index, count) in zip(numbers, streams, strict=True):
        row[:count] = uniforms(seed, index, count)
    return numbers


def _choose(logits: torch.Tensor, draws: Draws) -> Numbers:
    """Tokens (rows, columns) from logits (rows, columns, vocabulary): greedy when ``draws`` is empty."""
    if not draws.size:
        return np.asarray(logits.argmax(-1).cpu().numpy())
    # On the CPU, since a cumulative sum on an accelerator is not deterministic.
    logits, numbers = logits.cpu(), torch.from_numpy(draws)
    if logits.shape[-1] < LARGE_VOCABULARY:
        return _sample_tokens(logits, numbers)
    # Row by row: the fp64 values of a whole batch do not fit into the processor's cache.
    return np.stack([_sample_tokens(row, number) for row, number in zip(logits, numbers, strict=True)])


def _sample_tokens(logits: torch.Tensor, numbers: torch.Tensor) -> Numbers:
    """The tokens at the quantiles ``numbers`` (…, columns) of the distributions ``logits`` (…, columns, vocabulary)."""
    climb = torch.softmax(logits.double(), -1).cumsum(-1)
    # Scaled by the last sum, which is not exactly 1 after rounding, so that each number selects a token.
    level = numbers[..., None] * climb[..., -1:]
    return np.asarray((climb <= level).sum(-1).clamp_(max=logits.shape[-1] - 1).numpy())


def padded(rows: Sequence[Numbers]) -> torch.Tensor:
    """Token rows as a tensor (rows, longest), padded on the right with each row's first token.

    The padding is not the pad token, for which transformers would warn about a missing mask.
    """
    ids = np.empty((len(rows), max(map(len, rows))), dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)], line[len(row) :] = row, row[0] if len(row) else 0
    return torch.from_numpy(ids)


def _text_indices(prefills: list[_Prefill]) -> Numbers:
    """The index of each row's text."""
    return np.repeat(np.arange(len(prefills)), [len(prefill.rows) for prefill in prefills])


def _prefills(rows: list[_Row], *, share: bool) -> list[_Prefill]:
    """The texts to read, longest first: one per row, or with ``share`` one for all rows that are prefixes of it."""
    texts = {row.index: np.concatenate([row.prompt, row.draft]) for row in rows}
    if share:
        # Sorted by bytes in reverse, a text follows directly on the texts that it is a prefix of.
        rows = sorted(rows, key=lambda row: texts[row.index].tobytes(), reverse=True)
    prefills: list[_Prefill] = []
    for row in rows:
        text = texts[row.index]
        if share and prefills and np.array_equal(prefills[-1].tokens[: len(text)], text):
            prefills[-1].rows.append(row)
        else:
            prefills.append(_Prefill(text, [row]))
    return sorted(prefills, key=lambda prefill: (-len(prefill.tokens), prefill.rows[0].index))


def _groups(
    prefills: list[_Prefill], size: int, mixed_lengths: bool, *, tokens: int | None = None
) -> Iterator[list[_Prefill]]:
    """Groups of texts of similar length with at most ``size`` rows; of equal length unless ``mixed_lengths``.

    With ``tokens`` a group is also full at that many tokens and a quarter of the rows: long texts differ much in
    length, and a large group of them is mostly padding.
    """
    group: list[_Prefill] = []
    rows = 0
    for prefill in prefills:
        for start in range(0, len(prefill.rows), size):
            chunk = prefill.rows[start : start + size]
            alike = mixed_lengths or not group or len(group[0].tokens) == len(prefill.tokens)
            full = tokens and 4 * len(group) >= size and (len(group) + 1) * len(group[0].tokens) > tokens
            if group and (rows + len(chunk) > size or not alike or full):
                yield group
                group, rows = [], 0
            group.append(_Prefill(prefill.tokens, chunk))
            rows += len(chunk)
    if group:
        yield group


def _parts(prefills: list[_Prefill], tokens: int | None) -> Iterator[list[_Prefill]]:
    """Consecutive texts, longest first, with at most ``tokens`` tokens including padding, or one text."""
    part: list[_Prefill] = []
    for prefill in prefills:
        if part and tokens is not None and (len(part) + 1) * len(part[0].tokens) > tokens:
            yield part
            part = []
        part.append(prefill)
    if part:
        yield part


def _context(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def default_batch_size(model: PreTrainedModel) -> int:
    return 64 if model.device.type == "cpu" else 512


def _tokens_of_a_pass(model: PreTrainedModel) -> int | None:
    """The maximal number of tokens of a forward pass over texts, padding included; None for no limit.

    Activations of more tokens leave the processor's cache, and prompts of a large batch differ much in length.
    """
    return 4096 if model.device.type == "cpu" else None


def _read_at_once(model: PreTrainedModel) -> int | None:
    """The maximal number of tokens in a group without generation; None for no limit.

    Measured on a CPU (docs/log.md), where 64 programs of TinyPy in lexical tokens are some 1,700.
    """
    return 2048 if model.device.type == "cpu" else None
