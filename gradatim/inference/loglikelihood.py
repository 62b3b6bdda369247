"""Log-likelihoods and attention statistics of given texts, for model-based difficulties and the suite ``choice``.

One forward pass tells how likely a model finds each token of a continuation and where it looks while it reads it. On
this stand the difficulties that ask a model (``difficulty.model_based``) and the suite ``choice``.

``read_model`` opens a model by name and computes the metrics of ``difficulty.model_based``, which also caches them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..difficulty.model_based import Quantity, ScoringRequest
from ..errors import DataError
from ..model.hardware import device
from ..model.hub import resolve_model
from ..model.load import load_model
from ..model.prompt_format import chat_formatter, prompt_format_of
from ..model.vocabulary import Vocabulary
from .decode import padded
from .onednn_linear import evaluation_mode

__all__ = [
    "Continuation",
    "attention_scores",
    "context_of",
    "encode_apart",
    "encode_option",
    "encode_together",
    "log_likelihoods",
    "read_model",
]


Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

NO_ANSWER = "the answer is empty"
UNKNOWN = "a character that the tokenizer does not know"
SWALLOWED = "the continuation has no token of its own"
TOO_LONG = "longer than the model's context"

_MAX_VALUES = {"cpu": 1 << 26}
"""Maximal number of logits or attention weights of a pass, by device type: a quarter of a gigabyte on a CPU."""


@dataclass(frozen=True)
class Continuation:
    """A text as tokens: the continuation begins at ``start`` (1 or more), the tokens before it are the context."""

    tokens: Numbers
    start: int


def encode_apart(vocabulary: Vocabulary, context: str, continuation: str) -> Continuation | str:
    """Both encoded separately, as prompts and answers are in training; a string is the cause of failure.

    An empty context is one ``<eos>``; ``DataError`` when the tokenizer has none.
    """
    if not continuation:
        return NO_ANSWER
    (pair,) = vocabulary.pairs([context], [continuation])
    return UNKNOWN if pair is None else Continuation(*pair)


def encode_together(vocabulary: Vocabulary, context: str, continuation: str) -> Continuation | str:
    """Both encoded as one text and split at the end of the context alone, as in lm-evaluation-harness; a token across
    the boundary belongs to the continuation.

    Trailing spaces of the context move to the continuation: most vocabularies have a space at the beginning of a word,
    not at its end. A string is the cause of failure; errors as in ``encode_apart``.
    """
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    if not context:
        return encode_apart(vocabulary, context, continuation)
    pair = vocabulary.joined(context, continuation)
    if pair is None:
        return UNKNOWN
    tokens, start = pair
    # A token across the boundary may leave no context.
    return Continuation(tokens, start) if 0 < start < len(tokens) else SWALLOWED


def encode_option(vocabulary: Vocabulary, context: str, option: str, *, apart: bool) -> Continuation | str:
    """One of several options after a question. ``apart``: the context ends with a control token of a template, so no
    token crosses the boundary, and the space between a plain question and an option is omitted.
    """
    if apart:
        return encode_apart(vocabulary, context, option.removeprefix(" "))
    return encode_together(vocabulary, context, option)


def log_likelihoods(
    model: Any, continuations: Sequence[Continuation], *, batch: int | None = None
) -> Iterator[dict[int, Values]]:
    """The natural logarithms of the token probabilities of each continuation, by its index.

    In batches, longest first, so that memory runs out at once or never. ``batch``: maximal number of texts in a pass.
    """
    # The last token is a target, not an input.
    lengths = [len(continuation.tokens) - 1 for continuation in continuations]
    with evaluation_mode(model):
        for group in _groups(model, lengths, int(model.config.vocab_size), batch):
            tokens = padded([continuations[index].tokens[:-1] for index in group]).to(model.device)
            logits = model(tokens, use_cache=False).logits
            yield {index: _token_log_likelihoods(logits[row], continuations[index]) for row, index in enumerate(group)}


def _token_log_likelihoods(logits: torch.Tensor, continuation: Continuation) -> Values:
    """Position i of ``logits`` (length, vocabulary) predicts token i + 1."""
    rows = logits[continuation.start - 1 : len(continuation.tokens) - 1].float()
    truth = torch.from_numpy(continuation.tokens[continuation.start :]).to(rows.device)
    log_probabilities = rows.gather(1, truth[:, None])[:, 0] - rows.logsumexp(1)
    return np.asarray(log_probabilities.double().cpu().numpy(), dtype=np.float64)


def attention_scores(
    model: Any, continuations: Sequence[Continuation], *, batch: int | None = None
) -> Iterator[dict[int, float]]:
    """The unevenness of the attention of each continuation's tokens (2405.07490), by the continuation's index.

    Per layer and token the standard deviation (n - 1) of the attention weights on the tokens before it, averaged over
    heads, tokens, layers. Tokens with fewer than two tokens before them are excluded; NaN when no token remains.
    Raises ``DataError`` for a model without attention weights.
    """
    lengths = [len(continuation.tokens) for continuation in continuations]
    config = model.config
    weights_per_token = int(getattr(config, "num_hidden_layers", 1)) * int(getattr(config, "num_attention_heads", 1))
    with evaluation_mode(model), _eager_attention(model):
        for group in _groups(model, lengths, weights_per_token * max(lengths, default=1), batch):
            tokens = padded([continuations[index].tokens for index in group]).to(model.device)
            layers = model(tokens, use_cache=False, output_attentions=True).attentions
            if not layers or any(weights is None for weights in layers):
                raise DataError("the model does not return attention weights", given=type(model).__name__)
            yield {index: _attention_spread(layers, row, continuations[index]) for row, index in enumerate(group)}


def _attention_spread(layers: Sequence[torch.Tensor], row: int, continuation: Continuation) -> float:
    first, end = max(continuation.start, 2), len(continuation.tokens)
    if first >= end:
        return math.nan
    counts = torch.arange(first, end, device=layers[0].device, dtype=torch.float64)[:, None]
    before = torch.arange(end, device=layers[0].device) < counts
    layer_means = []
    for weights in layers:
        attention = weights[row, :, first:end, :end].double() * before
        centered = (attention - attention.sum(-1, keepdim=True) / counts) * before
        deviations = (centered.square().sum(-1) / (counts[:, 0] - 1)).sqrt()  # (heads, tokens)
        layer_means.append(float(deviations.mean(0).mean()))
    return sum(layer_means) / len(layer_means)


def read_model(
    name: str, quantity: Quantity, samples: Sequence[ScoringRequest], *, batch: int | None = None, chat: bool = False
) -> Iterator[Mapping[int, float | str]]:
    """Scores as by ``difficulty.model_based.Scorer.read``, by the model of ``name``, computed in single precision.

    With ``chat`` prompts go through the tokenizer's chat template, and answers and options follow it.

    In bf16, the stored dtype of many models, the loss of a short answer varied by 0.03 nats with its batch
    (SmolLM2-135M), too much for cached values.

    Raises ``DataError`` when the model is incomplete, when its tokenizer has no ``<eos>`` for an empty prompt, or for
    ``chat`` without a template.
    """
    _check_tokenizer(resolve_model(name))
    student = load_model(name, device())
    student.model.float()
    vocabulary = Vocabulary(student.tokenizer)
    if chat:
        format_prompt = chat_formatter(student.tokenizer, prompt_format_of(student.tokenizer).system)
        samples = [sample._replace(prompt=format_prompt(sample.prompt)) for sample in samples]
    if quantity == "choice":
        yield from _choices(student.model, vocabulary, samples, batch, apart=chat)
        return
    # The last answer token is an input for attention, and only a target for the loss.
    max_tokens = context_of(student.model) + (1 if quantity == "loss" else 0)
    valid, causes = _split_by_validity(
        [encode_apart(vocabulary, sample.prompt, sample.answer) for sample in samples], max_tokens
    )
    yield causes
    indices = list(valid)
    if quantity == "attention":
        for scores in attention_scores(student.model, list(valid.values()), batch=batch):
            yield {indices[position]: score for position, score in scores.items()}
        return
    for values in log_likelihoods(student.model, list(valid.values()), batch=batch):
        yield {indices[position]: float(-log_likelihood.mean()) for position, log_likelihood in values.items()}


def _choices(
    model: Any, vocabulary: Vocabulary, samples: Sequence[ScoringRequest], batch: int | None, *, apart: bool
) -> Iterator[Mapping[int, float | str]]:
    """The probability of the answer in the softmax over the options' log-likelihoods; a bad option fails its sample."""
    causes: dict[int, float | str] = {}
    pairs: list[tuple[int, int]] = []
    encoded: list[Continuation] = []
    for index, sample in enumerate(samples):
        if sample.answer not in sample.options:
            causes[index] = "the answer is not among the options"
            continue
        options = [encode_option(vocabulary, sample.prompt, option, apart=apart) for option in sample.options]
        valid, option_causes = _split_by_validity(options, context_of(model) + 1)
        if option_causes:
            causes[index] = next(iter(option_causes.values()))
            continue
        pairs += [(index, position) for position in valid]
        encoded += valid.values()
    yield causes
    pending: dict[int, dict[int, float]] = {}
    for batch_values in log_likelihoods(model, encoded, batch=batch):
        probabilities: dict[int, float] = {}
        for position, log_likelihood in batch_values.items():
            index, option = pairs[position]
            sums = pending.setdefault(index, {})
            sums[option] = float(log_likelihood.sum())
            if len(sums) == len(samples[index].options):
                totals = np.array([sums[key] for key in sorted(sums)])
                weights = np.exp(totals - totals.max())
                answer = samples[index].options.index(samples[index].answer)
                probabilities[index] = float(weights[answer] / weights.sum())
                del pending[index]
        yield probabilities


def _split_by_validity(
    encoded: Sequence[Continuation | str], max_tokens: int
) -> tuple[dict[int, Continuation], dict[int, float | str]]:
    """The valid continuations by index, and the causes of failure of the others."""
    valid: dict[int, Continuation] = {}
    causes: dict[int, float | str] = {}
    for index, item in enumerate(encoded):
        if isinstance(item, str):
            causes[index] = item
        elif len(item.tokens) > max_tokens:
            causes[index] = TOO_LONG
        else:
            valid[index] = item
    return valid, causes


def _check_tokenizer(folder: Path) -> None:
    """Raise ``DataError`` for a model folder without tokenizer files."""
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
    if (folder / "config.json").is_file() and not any((folder / name).is_file() for name in files):
        hint = "tokenizer.save_pretrained(FOLDER) beside the weights"
        raise DataError("the model folder has no tokenizer", where=folder, allowed=", ".join(files), hint=hint)


def context_of(model: Any) -> int:
    """The model's context length; unlimited when its configuration has none."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def _groups(model: Any, lengths: Sequence[int], width: int, batch: int | None) -> Iterator[list[int]]:
    """Batches of indices by falling length, bounded by ``batch`` and by the memory for ``width`` values per token."""
    device_type = model.device.type
    max_rows = batch or (64 if device_type == "cpu" else 512)
    max_values = _MAX_VALUES.get(device_type, 1 << 30)
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    while order:
        count = max(1, min(max_rows, max_values // (width * max(lengths[order[0]], 1))))
        yield order[:count]
        order = order[count:]


@contextmanager
def _eager_attention(model: Any) -> Iterator[None]:
    """Eager attention, the only implementation that returns its weights; the original is restored on exit."""
    original: str | None = getattr(model.config, "_attn_implementation", None)
    set_implementation: Callable[[str], Any] | None = getattr(model, "set_attn_implementation", None)
    if original in (None, "eager") or set_implementation is None:
        yield
        return
    set_implementation("eager")
    try:
        yield
    finally:
        set_implementation(original)
