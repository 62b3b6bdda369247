"""Proof of an exported model: tokens, log-probabilities and accuracy beside those of the original.

Three comparisons, each with its own error, so that no wrong file is written:

- *Tokens* of all samples, prompts and answers, by the exported tokenizer.
- *Log-probabilities* of the exported model at full precision, along its own greedy continuations of up to 64 prompts:
  a difference is a fault of the exported graph. At fewer bits the mean difference must stay below a wide limit.
- *Accuracy*, the suite ``output`` (greedy, or by the printed lines where answers have scratchpads), sample by sample:
  counts of correct outputs before and after, of those lost and of those won.

Differences are taken over the likeliest tokens of a position, those with a probability of at least 1/1000.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..errors import DataError, WorkFailed
from ..evaluation.output import MARGIN, Output, OutputProtocol
from ..evaluation.statistics import Attempt, check_samples, tally, text_column
from ..inference import decode
from ..model.hardware import evaluation_mode
from ..model.prompt_format import prompt_formatter
from ..model.vocabulary import Vocabulary
from ..programs import has_scratchpad
from ..random_streams import subset_stream
from ..stage import Event, Events, SuiteResult, ignore_events
from ..table import make_table
from .exporter import CANDIDATES, Generation, Runtime

if TYPE_CHECKING:
    import pyarrow as pa

    from ..model.load import LoadedModel

Tokens = npt.NDArray[np.int64]

PROMPTS = 64
"""Prompts whose continuations are compared."""
EXACT = 0.05
"""Limit in nats on the largest difference at full precision. llama.cpp has GELU's tanh form, 0.01 off; a model without
its sliding windows is 0.9 off."""
ROUNDED = 0.5
"""Limit in nats on the mean difference of an export with fewer bits."""
LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Agreement:
    """Log-probabilities of an export beside the original's, in nats, over ``positions`` of greedy continuations."""

    positions: int
    largest: float
    mean: float


@dataclass(frozen=True)
class Accuracy:
    """Correct outputs of ``total`` samples: ``before`` by the original, ``after`` by the export; counts.

    ``lost``: correct only before, ``won``: correct only after. ``suite``: the result of the export.
    """

    total: int
    before: int
    after: int
    lost: int
    won: int
    suite: SuiteResult


@dataclass(frozen=True)
class Samples:
    """Prompts and answers of a table as tokens of the original: one entry per row, None where a text has none."""

    table: pa.Table
    prompts: list[Tokens | None]
    answers: list[Tokens | None]
    limits: list[int] = field(default_factory=list)

    @property
    def protocol(self) -> OutputProtocol:
        """The protocol of the suite ``output``: ``scratchpad`` where the answers have steps, else ``greedy``."""
        pairs = zip(text_column(self.table, "prompt"), text_column(self.table, "answer"), strict=True)
        return "scratchpad" if any(has_scratchpad(*pair) for pair in pairs) else "greedy"

    def readable(self, context: int) -> list[int]:
        """Rows whose prompt and longest continuation fit into the context."""
        return [
            row
            for row, (prompt, limit) in enumerate(zip(self.prompts, self.limits, strict=True))
            if prompt is not None and len(prompt) + limit <= context
        ]


def samples_of(student: LoadedModel, table: pa.Table) -> Samples:
    """The samples of ``table`` in the student's prompt format. ``DataError`` when none can be encoded."""
    check_samples(table)
    vocabulary = Vocabulary(student.tokenizer)
    prompts = vocabulary.prompts(list(map(prompt_formatter(student.tokenizer), text_column(table, "prompt"))))
    answers = vocabulary.encode_all(text_column(table, "answer"))
    if not any(prompt is not None for prompt in prompts):
        raise DataError(
            "the model's tokenizer can encode none of the samples",
            where="--data",
            hint="samples like those of training",
        )
    longest = max((len(tokens) for tokens in answers if tokens is not None), default=0)
    return Samples(table, prompts, answers, [longest + 1 + MARGIN] * table.num_rows)


def random_samples(student: LoadedModel) -> Samples:
    """Prompts of random tokens without texts, for a tokenizer that can encode none of the samples at hand."""
    stream = subset_stream(0)
    special = set(student.tokenizer.all_special_ids)
    tokens = np.array([number for number in range(len(student.tokenizer)) if number not in special], dtype=np.int64)
    length = max(1, min(16, int(student.model.config.max_position_embeddings) - MARGIN))
    prompts: list[Tokens | None] = [stream.choice(tokens, length) for _ in range(PROMPTS)]
    return Samples(make_table({"answer": []}), prompts, [None] * PROMPTS, [MARGIN] * PROMPTS)


def check_tokens(runtime: Runtime, student: LoadedModel, table: pa.Table, *, events: Events = ignore_events) -> int:
    """The number of texts with equal tokens: all prompts and answers. ``WorkFailed`` names the first that differs."""
    texts = [text for text in dict.fromkeys([*text_column(table, "prompt"), *text_column(table, "answer")]) if text]
    count = 0
    encoded = zip(texts, Vocabulary(student.tokenizer).encode_all(texts), strict=True)
    for text, tokens in _with_progress(list(encoded), "compare tokens", events):
        if tokens is None:
            continue
        if (actual := runtime.encode(text)) != tokens.tolist():
            first = next((i for i, pair in enumerate(zip(actual, tokens, strict=False)) if pair[0] != pair[1]), 0)
            raise WorkFailed(
                "nothing was written: the exported tokenizer gives other tokens",
                where=f"text {text[:60]!r}, token {first}",
                given=actual[first : first + 4],
                allowed=tokens[first : first + 4].tolist(),
                hint="--to onnx, which keeps tokenizer.json",
            )
        count += 1
    return count


Item = TypeVar("Item")


def _with_progress(items: Sequence[Item], task: str, events: Events) -> Iterator[Item]:
    """``items``, with an event before the first, after each, and at the end."""
    events(Event("start", task, 0, len(items)))
    for done, item in enumerate(items, 1):
        yield item
        events(Event("advance", task, done, len(items)))
    events(Event("finish", task, len(items), len(items)))


def agreement(
    runtime: Runtime,
    student: LoadedModel,
    samples: Samples,
    *,
    events: Events = ignore_events,
    task: str = "compare log-probabilities",
) -> Agreement:
    """The log-probabilities of ``runtime`` along its greedy continuations of the first prompts.

    ``DataError`` when no prompt fits into the context.
    """
    rows = samples.readable(student.model.config.max_position_embeddings)[:PROMPTS]
    if not rows:
        raise DataError("no prompt of the samples fits into the model's context", where="--data")
    differences: list[npt.NDArray[np.float64]] = []
    positions = 0
    for row in _with_progress(rows, task, events):
        prompt = samples.prompts[row]
        assert prompt is not None
        generation = runtime.generate(prompt.tolist(), samples.limits[row])
        expected = _log_probabilities(student, prompt, generation.tokens)
        reference = np.take_along_axis(expected, generation.candidates, axis=1)
        likely = reference >= np.log(LEAST_PROBABILITY)
        differences.append(np.abs(generation.log_probabilities - reference)[likely])
        positions += len(generation.tokens)
    values = np.concatenate(differences)
    # A NaN of the export is an infinite difference, not a missing one.
    values = np.where(np.isnan(values), np.inf, values)
    return Agreement(positions, float(values.max()), float(values.mean()))


def _log_probabilities(
    student: LoadedModel, prompt: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The original's log-probabilities (tokens, vocabulary) before each of ``tokens``."""
    inputs = torch.from_numpy(np.concatenate([prompt, tokens[:-1]]))[None].to(student.model.device)
    with evaluation_mode(student.model):
        logits = student.model(input_ids=inputs, use_cache=False).logits[0, len(prompt) - 1 :]
    return np.asarray(torch.log_softmax(logits.double(), -1).cpu().numpy())


def check_agreement(agreement: Agreement, *, exact: bool) -> None:
    """Raise ``WorkFailed`` for differences beyond the limit of full precision, or of fewer bits."""
    value, limit = (agreement.largest, EXACT) if exact else (agreement.mean, ROUNDED)
    if not value <= limit:
        raise WorkFailed(
            "nothing was written: the exported model differs from the original",
            where="log-probabilities",
            given=f"{value:.3g} nats over {agreement.positions} tokens",
            allowed=f"{limit:g} nats",
            hint="--to onnx" if exact else "more --bits",
        )


def accuracy(
    runtime: Runtime,
    student: LoadedModel,
    samples: Samples,
    before: Sequence[Attempt],
    *,
    events: Events = ignore_events,
) -> Accuracy:
    """The suite ``output`` on the export, beside ``before``, the attempts of the original."""
    started = time.perf_counter()
    after = _attempts(samples, _exported(runtime, student, samples, events))
    pairs = [(first.passed, second.passed) for first, second in zip(before, after, strict=True)]
    return Accuracy(
        total=len(pairs),
        before=sum(first for first, _ in pairs),
        after=sum(second for _, second in pairs),
        lost=sum(first > second for first, second in pairs),
        won=sum(first < second for first, second in pairs),
        suite=tally("output", samples.protocol, samples.table, after, started=started),
    )


def original_attempts(student: LoadedModel, samples: Samples, *, events: Events = ignore_events) -> list[Attempt]:
    """The suite ``output`` on the original: one attempt per sample."""
    return _attempts(samples, _original(student, samples, events))


def _original(student: LoadedModel, samples: Samples, events: Events) -> list[decode.Completion]:
    prompts = list(map(prompt_formatter(student.tokenizer), text_column(samples.table, "prompt")))
    return decode.complete(
        student.model,
        student.tokenizer,
        prompts,
        limits=samples.limits,
        drafts=text_column(samples.table, "answer"),
        events=events,
        task="evaluate the original",
    )


def _exported(runtime: Runtime, student: LoadedModel, samples: Samples, events: Events) -> Iterator[decode.Completion]:
    vocabulary, context = Vocabulary(student.tokenizer), student.model.config.max_position_embeddings
    rows = list(enumerate(zip(samples.prompts, samples.answers, strict=True)))
    for row, (prompt, answer) in _with_progress(rows, "evaluate the export", events):
        limit = samples.limits[row] if prompt is None else min(samples.limits[row], context - len(prompt) + 1)
        if prompt is None:
            yield decode.Completion("", "unknown_character")
        elif limit <= 0:
            yield decode.Completion("", "too_long")
        else:
            draft = [] if answer is None else answer[: limit - 1].tolist()
            tokens = runtime.generate(prompt.tolist(), limit, draft=draft).tokens.tolist()
            text, finish = vocabulary.ending(tokens, len(tokens), before=prompt) or ("", "limit")
            yield decode.Completion(text, finish)


def _attempts(samples: Samples, completions: Iterable[decode.Completion]) -> list[Attempt]:
    """One attempt per sample, judged as the suite ``output`` does."""
    suite = Output(samples.protocol, None, None)
    texts = zip(text_column(samples.table, "prompt"), text_column(samples.table, "answer"), completions, strict=True)
    return [suite.judge(row, *item) for row, item in enumerate(texts)]


def milliseconds_per_token(
    runtime: Runtime, samples: Samples, context: int, *, events: Events = ignore_events
) -> float:
    """CPU time of all threads per generated token, one prompt at a time; the prompt's time is included."""
    rows = samples.readable(context)[:PROMPTS]
    started, count = runtime.cpu_seconds(), 0
    for row in _with_progress(rows, "measure the speed", events):
        prompt = samples.prompts[row]
        assert prompt is not None
        count += len(runtime.generate(prompt.tolist(), samples.limits[row]).tokens)
    return 1000 * (runtime.cpu_seconds() - started) / max(count, 1)


@dataclass(frozen=True)
class ForwardRuntime(Runtime):
    """A runtime without KV cache: ``forward`` maps tokens (n,) to logits (n, vocabulary) in one pass."""

    forward: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
    tokenizer: Any
    end: int

    def encode(self, text: str) -> list[int]:
        tokens = Vocabulary(self.tokenizer).encode(text)
        return [] if tokens is None else tokens.tolist()

    def generate(self, prompt: Sequence[int], limit: int, *, draft: Sequence[int] = ()) -> Generation:
        tokens: list[int] = []
        rows: list[npt.NDArray[np.float64]] = []
        guess = list(draft)[: limit - 1]
        while not tokens or (tokens[-1] != self.end and len(tokens) < limit):
            sequence = np.array([*prompt, *tokens, *guess], dtype=np.int64)
            logits = self.forward(sequence)[len(prompt) + len(tokens) - 1 :].astype(np.float64)
            for index, row in enumerate(logits):
                rows.append(row)
                tokens.append(int(row.argmax()))
                if tokens[-1] == self.end or index >= len(guess) or guess[index] != tokens[-1]:
                    break
            guess = []
        return _generation(tokens, np.stack(rows))


def _generation(tokens: Sequence[int], logits: npt.NDArray[np.float64]) -> Generation:
    shifted = logits - logits.max(axis=1, keepdims=True)
    values = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    count = min(CANDIDATES, values.shape[1])
    candidates = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return Generation(np.array(tokens, dtype=np.int64), candidates, np.take_along_axis(values, candidates, axis=1))
