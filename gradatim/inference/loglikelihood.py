"""How does a model find a text that it did not write?

One forward pass tells how likely a model finds each token of a continuation and where it looks while it reads it. On
this stand the difficulties that ask a model (``difficulty.model_based``) and the suite ``choice``.

- *Aligned*: the probability of a token is read where the model has seen what is before it, and nothing else.
- *Batched by length*: continuations of like length share a pass, padded on the right, where a causal model never looks.
  So no padding token is needed, and the figures are those of one text at a time, up to the last bits of sums.
- *Bounded*: a pass holds so many logits or attention weights and no more, whatever the vocabulary and the length.

``read_model`` opens the model when there is something to ask. Nothing here writes text or remembers figures.
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
from ..model.hub import held
from ..model.load import load_model
from ..model.prompt_format import form_of, templated
from ..model.vocabulary import Vocabulary
from .decode import padded
from .onednn_linear import at_rest

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
Figures = npt.NDArray[np.float64]

NO_ANSWER = "the answer is empty"
UNKNOWN = "a character that the tokenizer does not know"
SWALLOWED = "the continuation has no token of its own"
TOO_LONG = "longer than the model's context"

_NUMBERS_AT_ONCE = {"cpu": 1 << 26}
"""Logits or attention weights of one pass, by kind of device: a quarter of a gigabyte on a processor."""


@dataclass(frozen=True)
class Continuation:
    """A text as tokens: those from ``start`` (1 or more) on are asked about, those before it are given."""

    tokens: Numbers
    start: int


def encode_apart(vocabulary: Vocabulary, context: str, continuation: str) -> Continuation | str:
    """The continuation as it goes on after the context's own tokens, as students learn answers; a text says why not.

    An empty context is one ``<eos>``; ``DataError`` when the tokenizer has none.
    """
    if not continuation:
        return NO_ANSWER
    (pair,) = vocabulary.pairs([context], [continuation])
    return UNKNOWN if pair is None else Continuation(*pair)


def encode_together(vocabulary: Vocabulary, context: str, continuation: str) -> Continuation | str:
    """Both encoded as one text and cut where the context alone would end, as lm-evaluation-harness does; a token over
    the seam is asked about.

    Spaces at the end of the context go to the continuation first: most vocabularies have a space at the beginning of a
    word, not at the end of the one before. A text says why not; errors as those of ``encode_apart``.
    """
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    if not context:
        return encode_apart(vocabulary, context, continuation)
    pair = vocabulary.joined(context, continuation)
    if pair is None:
        return UNKNOWN
    tokens, start = pair
    # A token over the seam may leave nothing before it.
    return Continuation(tokens, start) if 0 < start < len(tokens) else SWALLOWED


def encode_option(vocabulary: Vocabulary, context: str, option: str, *, apart: bool) -> Continuation | str:
    """One of several answers after a question. ``apart``: the context ends with a template's mark, so that nothing goes
    over the seam, and the space that parts an option from a plain question is left out.
    """
    if apart:
        return encode_apart(vocabulary, context, option.removeprefix(" "))
    return encode_together(vocabulary, context, option)


def log_likelihoods(
    model: Any, asked: Sequence[Continuation], *, batch: int | None = None
) -> Iterator[dict[int, Figures]]:
    """For each continuation, by its place, the natural logarithm of the probability of each of its tokens.

    Some at a time, longest first, so that memory runs out at once or never. ``batch`` is the most texts of a pass.
    """
    # The last token is asked for, not read.
    lengths = [len(each.tokens) - 1 for each in asked]
    with at_rest(model):
        for group in _groups(model, lengths, int(model.config.vocab_size), batch):
            tokens = padded([asked[place].tokens[:-1] for place in group]).to(model.device)
            logits = model(tokens, use_cache=False).logits
            yield {place: _of(logits[row], asked[place]) for row, place in enumerate(group)}


def _of(logits: torch.Tensor, each: Continuation) -> Figures:
    """Position i of ``logits`` (length, vocabulary) speaks of token i + 1."""
    rows = logits[each.start - 1 : len(each.tokens) - 1].float()
    truth = torch.from_numpy(each.tokens[each.start :]).to(rows.device)
    found = rows.gather(1, truth[:, None])[:, 0] - rows.logsumexp(1)
    return np.asarray(found.double().cpu().numpy(), dtype=np.float64)


def attention_scores(
    model: Any, asked: Sequence[Continuation], *, batch: int | None = None
) -> Iterator[dict[int, float]]:
    """For each continuation, by its place, how unevenly its tokens attend to what is before them (2405.07490).

    Per layer and token the standard deviation (n - 1) of the attention weights on the tokens before it, averaged over
    heads, tokens, layers. A token with fewer than two tokens before it has none and is left out; NaN when all are.
    Raises ``DataError`` for a model without attention weights.
    """
    lengths = [len(each.tokens) for each in asked]
    config = model.config
    shape = int(getattr(config, "num_hidden_layers", 1)) * int(getattr(config, "num_attention_heads", 1))
    with at_rest(model), _plain_attention(model):
        for group in _groups(model, lengths, shape * max(lengths, default=1), batch):
            tokens = padded([asked[place].tokens for place in group]).to(model.device)
            layers = model(tokens, use_cache=False, output_attentions=True).attentions
            if not layers or any(weights is None for weights in layers):
                raise DataError("the model does not tell its attention weights", given=type(model).__name__)
            yield {place: _spread(layers, row, asked[place]) for row, place in enumerate(group)}


def _spread(layers: Sequence[torch.Tensor], row: int, each: Continuation) -> float:
    first, end = max(each.start, 2), len(each.tokens)
    if first >= end:
        return math.nan
    counts = torch.arange(first, end, device=layers[0].device, dtype=torch.float64)[:, None]
    before = torch.arange(end, device=layers[0].device) < counts
    found = []
    for weights in layers:
        part = weights[row, :, first:end, :end].double() * before
        apart = (part - part.sum(-1, keepdim=True) / counts) * before
        deviations = (apart.square().sum(-1) / (counts[:, 0] - 1)).sqrt()  # (heads, tokens)
        found.append(float(deviations.mean(0).mean()))
    return sum(found) / len(found)


def read_model(
    name: str, quantity: Quantity, asked: Sequence[ScoringRequest], *, batch: int | None = None, chat: bool = False
) -> Iterator[Mapping[int, float | str]]:
    """Scores as by ``difficulty.model_based.Scorer.read``, by the model of ``name``, computed in single precision.

    With ``chat`` a prompt goes through the tokenizer's chat template, and answers and options begin where that ends.

    In bf16, as many models are stored, the loss of a short answer moved by 0.03 nats with the company that it was read
    in (SmolLM2-135M): not good enough to remember.

    Raises ``DataError`` when it is no whole model, when its tokenizer has no start for an empty prompt, or for a chat
    without a template.
    """
    _with_tokenizer(held(name))
    student = load_model(name, device())
    student.model.float()
    vocabulary = Vocabulary(student.tokenizer)
    if chat:
        shape = templated(student.tokenizer, form_of(student.tokenizer).system)
        asked = [each._replace(prompt=shape(each.prompt)) for each in asked]
    if quantity == "choice":
        yield from _choices(student.model, vocabulary, asked, batch, apart=chat)
        return
    # A last answer token is read for its attention, but only asked for where its probability matters.
    room = context_of(student.model) + (1 if quantity == "loss" else 0)
    fit, misfits = _admitted([encode_apart(vocabulary, each.prompt, each.answer) for each in asked], room)
    yield misfits
    places = list(fit)
    if quantity == "attention":
        for spreads in attention_scores(student.model, list(fit.values()), batch=batch):
            yield {places[place]: spread for place, spread in spreads.items()}
        return
    for found in log_likelihoods(student.model, list(fit.values()), batch=batch):
        yield {places[place]: float(-each.mean()) for place, each in found.items()}


def _choices(
    model: Any, vocabulary: Vocabulary, asked: Sequence[ScoringRequest], batch: int | None, *, apart: bool
) -> Iterator[Mapping[int, float | str]]:
    """The softmax over the options' log-likelihoods, at the answer; a question fails as a whole."""
    causes: dict[int, float | str] = {}
    pairs: list[tuple[int, int]] = []
    encoded: list[Continuation] = []
    for place, each in enumerate(asked):
        if each.answer not in each.options:
            causes[place] = "the answer is not among the options"
            continue
        both = [encode_option(vocabulary, each.prompt, option, apart=apart) for option in each.options]
        fit, misfits = _admitted(both, context_of(model) + 1)
        if misfits:
            causes[place] = next(iter(misfits.values()))
            continue
        pairs += [(place, number) for number in fit]
        encoded += fit.values()
    yield causes
    waiting: dict[int, dict[int, float]] = {}
    for found in log_likelihoods(model, encoded, batch=batch):
        done: dict[int, float] = {}
        for number, each_token in found.items():
            place, option = pairs[number]
            sums = waiting.setdefault(place, {})
            sums[option] = float(each_token.sum())
            if len(sums) == len(asked[place].options):
                values = np.array([sums[key] for key in sorted(sums)])
                shares = np.exp(values - values.max())
                right = asked[place].options.index(asked[place].answer)
                done[place] = float(shares[right] / shares.sum())
                del waiting[place]
        yield done


def _admitted(
    encoded: Sequence[Continuation | str], room: int
) -> tuple[dict[int, Continuation], dict[int, float | str]]:
    """What can be asked, by its place, and why the others cannot."""
    fit: dict[int, Continuation] = {}
    misfits: dict[int, float | str] = {}
    for place, each in enumerate(encoded):
        if isinstance(each, str):
            misfits[place] = each
        elif len(each.tokens) > room:
            misfits[place] = TOO_LONG
        else:
            fit[place] = each
    return fit, misfits


def _with_tokenizer(folder: Path) -> None:
    """Raises ``DataError`` when it is a model's folder without the files of a tokenizer."""
    known = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
    if (folder / "config.json").is_file() and not any((folder / name).is_file() for name in known):
        hint = "tokenizer.save_pretrained(FOLDER) beside the weights"
        raise DataError("the model folder has no tokenizer", where=folder, allowed=", ".join(known), hint=hint)


def context_of(model: Any) -> int:
    """The most tokens the model reads; a model that tells no number reads any."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def _groups(model: Any, lengths: Sequence[int], width: int, batch: int | None) -> Iterator[list[int]]:
    """Places by falling length, as many together as ``batch`` and the memory for ``width`` numbers a token allow."""
    kind = model.device.type
    most = batch or (64 if kind == "cpu" else 512)
    numbers = _NUMBERS_AT_ONCE.get(kind, 1 << 30)
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    while order:
        count = max(1, min(most, numbers // (width * max(lengths[order[0]], 1))))
        yield order[:count]
        order = order[count:]


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """The one implementation that keeps its weights; the model's own comes back on the way out."""
    own: str | None = getattr(model.config, "_attn_implementation", None)
    change: Callable[[str], Any] | None = getattr(model, "set_attn_implementation", None)
    if own in (None, "eager") or change is None:
        yield
        return
    change("eager")
    try:
        yield
    finally:
        change(own)
