"""Log-likelihoods and attention statistics of given texts, for model-based difficulties and the suite ``choice``.

Log-likelihood and attention of each token of a continuation, from one forward pass. Used by the difficulties based on a
model (``difficulty.model_based``) and the suite ``choice``.

``read_model`` opens a model by name and computes the metrics of ``difficulty.model_based``, which also caches them.

Progress of a student by difficulty band and by sample, for adaptive schedules.

After each stage ``measure`` evaluates the student on the bands of the fixed validation samples, and on some of the
training samples. One teacher-forced forward pass per sample gives the loss of its answer, and whether each of its
tokens is the most probable one, which is equivalent to greedy decoding of the answer.

Samples do not share a context. Samples that are longer than the student's context are excluded.

``log_likelihoods`` and ``read_answers`` divide their rows among the processes of a training (``sharing``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ..difficulty.model_based import Quantity, ScoringRequest
from ..errors import DataError, RunFolderError
from ..model.hardware import device, evaluation_mode, reproducible
from ..model.hub import resolve_model
from ..model.load import LoadedModel, load_model
from ..model.prompt_format import chat_formatter, prompt_format_of
from ..model.tokenizer import Encoded
from ..model.vocabulary import Vocabulary
from ..record import write_atomically
from ..schedule import Bands, probe_rows
from ..stage import BandProgress, Event, Events, Model, Needs, Probe, ignore_events
from ..training.batches import IGNORE
from ..training.losses import token_losses
from . import sharing
from .decode import padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

NO_ANSWER = "the answer is empty"
UNKNOWN = "a character outside the tokenizer's vocabulary"
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
    model: PreTrainedModel, continuations: Sequence[Continuation], *, batch: int | None = None
) -> Iterator[dict[int, Values]]:
    """The natural logarithms of the token probabilities of each continuation, by its index.

    In batches, longest first, so that memory runs out at once or never. ``batch``: maximal number of texts in a pass.
    """
    if (processes := sharing.processes_of(model)) is None or not continuations:
        yield from _log_likelihoods(model, continuations, batch)
        return
    spans = sharing.spans(len(continuations), processes.size)
    shares = [{"continuations": list(continuations[first:stop]), "batch": batch} for first, stop in spans]
    parts = sharing.collect(processes, _share_of_log_likelihoods, LoadedModel(model, None), shares, ignore_events)
    for (first, _), part in zip(spans, parts, strict=True):
        yield {first + index: values for index, values in part.items()}


def _share_of_log_likelihoods(
    student: Model, *, continuations: Sequence[Continuation], batch: int | None, events: Events
) -> dict[int, Values]:
    values: dict[int, Values] = {}
    for group in _log_likelihoods(student.model, continuations, batch):
        values.update(group)
    return values


def _log_likelihoods(
    model: PreTrainedModel, continuations: Sequence[Continuation], batch: int | None
) -> Iterator[dict[int, Values]]:
    """``log_likelihoods`` in this process."""
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
    model: PreTrainedModel, continuations: Sequence[Continuation], *, batch: int | None = None
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
    model: PreTrainedModel, vocabulary: Vocabulary, samples: Sequence[ScoringRequest], batch: int | None, *, apart: bool
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


def context_of(model: PreTrainedModel) -> int:
    """The model's context length; unlimited when its configuration has none."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def _groups(model: PreTrainedModel, lengths: Sequence[int], width: int, batch: int | None) -> Iterator[list[int]]:
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
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
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


Ints = npt.NDArray[np.int64]

MAX_TOKENS = 16_384
"""Maximal number of tokens in a batch, padding included."""

MAX_LOGITS = 1 << 26
"""Approximate maximal number of logits in a batch (a quarter of a GiB), which limits batches of large vocabularies."""


@dataclass(frozen=True)
class AnswerScores:
    """Scores of answers, aligned with ``rows``: ``loss`` (float64, nats, the sum over the answer and its end token),
    ``tokens`` (int64): the answer's length, ``correct`` (bool): greedy decoding gives the answer.
    """

    rows: Ints
    loss: npt.NDArray[np.float64]
    tokens: Ints
    correct: npt.NDArray[np.bool_]


def measure(
    needs: Needs,
    student: Model,
    samples: Encoded,
    validation: Encoded,
    bands: Bands,
    band_indices: npt.NDArray[np.int8],
    *,
    seed: int,
    path: Path,
    events: Events = ignore_events,
) -> dict[str, Any]:
    """The metrics of the student that a schedule ``needs`` after a stage, as JSON values for the stage's result.

    ``samples`` are the cycle's training samples, which ``bands`` describes; ``band_indices`` is the band of each
    validation sample (``Bands.place``). Keys: ``progress`` and ``probed``, as in ``StageResult``. The probe, of random
    rows from ``seed``, is written to ``path``.
    """
    result: dict[str, Any] = {"progress": {}, "probed": 0}
    if needs.band_loss:
        progress = band_progress(student, validation, band_indices, bands.names, events=events)
        result["progress"] = {name: asdict(values) for name, values in progress.items()}
    if needs.sample_loss:
        rows = probe_rows(bands, needs.probe, seed)
        read = read_answers(student, samples, rows, task="probe the student", events=events)
        save_probe(Probe(read.rows, read.loss, read.tokens), path)
        result["probed"] = len(read.rows)
    return result


def read_answers(
    student: Model, samples: Encoded, rows: Ints, *, task: str = "read answers", events: Events = ignore_events
) -> AnswerScores:
    """Score the answers of ``rows`` of ``samples``, encoded by the student's tokenizer; too long ones are excluded.

    The result depends only on the student and the samples. ``events`` may raise ``Stopped``.
    """
    if (processes := sharing.processes_of(student.model)) is None or not rows.size:
        return _read_answers(student, samples=samples, rows=rows, task=task, events=events)
    parts = np.array_split(rows, processes.size)
    shares = [{"samples": samples.take(part), "rows": np.arange(len(part)), "task": task} for part in parts]
    scores = sharing.collect(processes, _read_answers, student, shares, events)
    return AnswerScores(
        np.concatenate([part[score.rows] for part, score in zip(parts, scores, strict=True)]),
        np.concatenate([score.loss for score in scores]),
        np.concatenate([score.tokens for score in scores]),
        np.concatenate([score.correct for score in scores]),
    )


def _read_answers(student: Model, *, samples: Encoded, rows: Ints, task: str, events: Events) -> AnswerScores:
    """``read_answers`` in this process."""
    sizes = np.asarray(samples.offsets[rows + 1] - samples.offsets[rows])
    context = getattr(student.model.config, "max_position_embeddings", None)
    fits = (sizes >= 2) & (sizes <= (context or sizes.max(initial=0)) + 1)
    readable, sizes = rows[fits], sizes[fits]
    loss, correct = np.zeros(readable.size), np.zeros(readable.size, dtype=np.bool_)
    # The first token of a sample without a prompt has no context, so it has no prediction.
    tokens = sizes - np.maximum(samples.answer_starts[readable], 1)
    done = 0
    events(Event("start", task, 0, readable.size))
    with torch.inference_mode(), reproducible():
        for batch in _batches(sizes, min(MAX_TOKENS, MAX_LOGITS // len(student.tokenizer))):
            loss[batch], correct[batch] = _answer_losses(student, samples, readable[batch], int(sizes[batch].max()))
            done += batch.size
            events(Event("advance", task, done, readable.size))
    events(Event("finish", task, readable.size, readable.size))
    return AnswerScores(readable, loss, np.asarray(tokens, dtype=np.int64), correct)


def band_progress(
    student: Model,
    validation: Encoded,
    band_indices: npt.NDArray[np.int8],
    names: tuple[str, ...],
    *,
    events: Events = ignore_events,
) -> Mapping[str, BandProgress]:
    """The student's progress on each band of the validation samples; a band without readable samples is omitted.

    ``band_indices``: the band of each validation sample, -1 for one without a difficulty (``Bands.place``).
    """
    scores = read_answers(
        student, validation, np.flatnonzero(band_indices >= 0), task="validate by band", events=events
    )
    bands = band_indices[scores.rows]
    progress = {}
    for band, name in enumerate(names):
        members = bands == band
        if members.any():
            mean = float(scores.loss[members].sum() / scores.tokens[members].sum())
            progress[name] = BandProgress(mean, float(scores.correct[members].mean()), int(members.sum()))
    return progress


def save_probe(probe: Probe, path: Path) -> None:
    """Write a probe atomically: an .npz file with the arrays ``rows``, ``loss`` and ``tokens``."""
    buffer = BytesIO()
    np.savez(buffer, rows=probe.rows, loss=probe.loss, tokens=probe.tokens)
    write_atomically(path, buffer.getvalue())


def load_probe(path: Path) -> Probe:
    """The probe that ``save_probe`` wrote. Raises ``RunFolderError`` when it is missing or damaged."""
    try:
        # Read into memory first: NumPy leaves the file of a broken archive open.
        with np.load(BytesIO(path.read_bytes())) as archive:
            return Probe(archive["rows"], archive["loss"], archive["tokens"])
    # A broken archive can raise OSError, ValueError, KeyError, zipfile.BadZipFile or EOFError.
    except Exception as error:
        raise RunFolderError(
            "the probe of a stage cannot be read",
            where=path,
            given=f"{type(error).__name__}: {error}",
            hint="remove progress.json and result.json in its folder to measure the student again",
        ) from error


def _batches(sizes: Ints, max_tokens: int) -> Iterator[Ints]:
    """Batches of indices of samples of similar length, longest first, which minimises padding."""
    order = np.argsort(-sizes, kind="stable")
    start = 0
    while start < order.size:
        count = max(max_tokens // int(sizes[order[start]]), 1)
        yield order[start : start + count]
        start += count


def _answer_losses(
    student: Model, samples: Encoded, rows: Ints, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The summed loss of each answer, and whether each of its tokens is the most probable one."""
    inputs = np.zeros((rows.size, width - 1), dtype=np.int64)
    labels = np.full((rows.size, width - 1), IGNORE, dtype=np.int64)
    for line, row in enumerate(rows):
        sample = samples.sample(int(row))
        first = max(int(samples.answer_starts[row]), 1)
        inputs[line, : len(sample) - 1], inputs[line, len(sample) - 1 :] = sample[:-1], sample[0]
        labels[line, first - 1 : len(sample) - 1] = sample[first:]
    device = student.model.device
    targets = torch.from_numpy(labels).to(device)
    # Padding on the right, which causal attention ignores. It is not the pad token, for which transformers would warn
    # about a missing mask.
    logits = student.model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False).logits
    losses = token_losses(logits, targets).double().sum(dim=1)
    correct = ((logits.argmax(dim=-1) == targets) | (targets == IGNORE)).all(dim=1)
    return losses.cpu().numpy(), correct.cpu().numpy()
