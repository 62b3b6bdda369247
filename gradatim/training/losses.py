"""Forward pass of a causal language model, loss functions of next-token prediction, and reference log-probabilities.

The forward functions turn a ``Batch`` into the arguments of a Hugging Face causal model, with positions and attention
mask where the samples of a line are separate, and return logits, hidden states or losses per token. The loss functions
are pure functions of tensors: cross-entropy, preference between two answers, divergence between two models. All sums
are computed in fp32.

The reference model of DPO is the model at the start of the stage. The log-probabilities of both answers of each pair
are computed once, before the first step, and stored in the stage folder as ``reference.safetensors``: a resumed stage
reads them back, since its weights have changed by then. Of several processes each computes its batches, and rank 0
writes the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import RecipeError, RunFolderError
from ..model.architecture import additive_mask, has_large_vocabulary, logits_at, sliding_window_of, window_mask
from ..model.hardware import attention, compute_type, cpp_compiler, device
from ..model.settings import TrainSettings
from ..model.window_attention import is_windowed, window_visible
from ..record import write_atomically
from ..stage import Event
from .batches import Batch, Packed, paired_rows
from .objective import LossContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Forward = Callable[..., torch.Tensor]


def labels_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and answer mask on the device."""
    target = device()
    return torch.from_numpy(batch.labels).to(target), torch.from_numpy(batch.answer).to(target)


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    """Inputs, labels and answer mask; where the batch has segments also position ids and the attention mask."""
    target = device()
    arguments = [torch.from_numpy(batch.inputs).to(target), *labels_of(batch)]
    if batch.segments is not None:
        segments = torch.from_numpy(batch.segments).to(target)
        indices = torch.arange(segments.shape[1], device=target)
        starts = torch.ones_like(segments, dtype=torch.bool)
        starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
        first = torch.where(starts, indices, 0).cummax(dim=1).values
        visible = (segments[:, :, None] == segments[:, None, :]) & (indices[:, None] >= indices[None, :])
        arguments += [indices - first, visible[:, None]]
    return tuple(arguments)


def make_outputs(model: PreTrainedModel, settings: TrainSettings, *, hidden: bool = False) -> Callable[..., Any]:
    """(inputs, [positions, mask]) -> the outputs of the model: ``logits`` of shape (size, length, vocabulary), and with
    ``hidden`` also ``hidden_states``, the embeddings and the output of each layer (size, length, width).
    """
    kind = compute_type(settings.precision)
    eager = attention(settings.max_length) == "eager"
    window, windowed = sliding_window_of(model), is_windowed(model)
    # Determined before tracing: a query of the hardware inside the step cannot be compiled.
    cast = partial(torch.autocast, device().type, dtype=torch.bfloat16, enabled=kind is torch.bfloat16)

    def prepared(mask: torch.Tensor) -> torch.Tensor:
        # Eager attention adds the mask to the scores; the fused kernels take a boolean mask.
        return additive_mask(mask, kind) if eager else mask

    if hidden:
        # transformers installs hooks in the layers at the first such call, which must happen outside of compilation.
        with torch.no_grad():
            token = torch.ones(1, 1, dtype=torch.long, device=device())
            model(input_ids=token, attention_mask=token, use_cache=False, output_hidden_states=True)

    def outputs(inputs: torch.Tensor, *context: torch.Tensor) -> Any:
        options: dict[str, Any] = {"output_hidden_states": True} if hidden else {}
        if context:
            positions, mask = context
            options |= {"position_ids": positions, "attention_mask": prepared(mask)}
            if window:
                in_window = window_visible(positions, window) if windowed else prepared(window_mask(mask, window))
                options["attention_mask"] = {"full_attention": prepared(mask), "sliding_attention": in_window}
        with cast():
            return model(input_ids=inputs, use_cache=False, **options)

    return outputs


def make_logits(model: PreTrainedModel, settings: TrainSettings) -> Forward:
    """(inputs, [positions, mask]) -> logits of shape (size, length, vocabulary)."""
    outputs = make_outputs(model, settings)

    def logits(inputs: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = outputs(inputs, *context).logits
        return result

    return logits


def make_selected_logits(model: PreTrainedModel, settings: TrainSettings) -> Forward:
    """(inputs, selected, [positions, mask]) -> logits of the tokens in ``selected``, shape (count, vocabulary).

    ``selected`` (bool) has the shape of ``inputs``.
    """
    logits = compiled(make_logits(model, settings), settings)
    if settings.compile:  # shapes that change from batch to batch stay outside of the compiled step
        return lambda inputs, selected, *context: logits(inputs, *context)[selected]

    def selected_logits(inputs: torch.Tensor, selected: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        return logits_at(model, (selected,), lambda: logits(inputs, *context))

    return selected_logits


def make_losses(model: PreTrainedModel, settings: TrainSettings) -> Forward:
    """(inputs, labels, [positions, mask]) -> cross-entropy of each token, see ``token_losses``."""
    if not settings.compile and has_large_vocabulary(model):
        return _make_selected_losses(model, settings)
    logits = make_logits(model, settings)

    def losses(inputs: torch.Tensor, labels: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        return token_losses(logits(inputs, *context), labels)

    return losses


def _make_selected_losses(model: PreTrainedModel, settings: TrainSettings) -> Forward:
    """``make_losses`` with logits of the tokens that have a label alone."""
    logits = make_selected_logits(model, settings)

    def losses(inputs: torch.Tensor, labels: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        predicted = labels != -100
        values = functional.cross_entropy(
            logits(inputs, predicted, *context).float(), labels[predicted], reduction="none"
        )
        return torch.zeros(labels.shape, device=values.device).masked_scatter(predicted, values)

    return losses


def compiled(function: Forward, settings: TrainSettings) -> Forward:
    """``function``, compiled when the settings require it; ``RecipeError`` without a C++ compiler."""
    if not settings.compile:
        return function
    if device().type == "cpu" and cpp_compiler() is None:
        raise RecipeError(
            "a compiled step needs a C++ compiler, and none is installed",
            where="train.compile",
            given="true",
            allowed="false, or true with g++ or clang++ on the PATH",
            hint="apt install g++, or --set train.compile=false",
        )
    result: Forward = torch.compile(function, dynamic=False)
    return result


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats per token, fp32, shape of ``labels``; 0 where the label is -100.

    ``logits``: (size, length, vocabulary).
    """
    flat = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=-100)
    return flat.view_as(labels)


def token_weights(labels: torch.Tensor, answer: torch.Tensor, prompt_loss_weight: float) -> torch.Tensor:
    """1 for tokens of an answer, ``prompt_loss_weight`` for all others, 0 where there is no prediction; fp32.

    ``next_token`` is ``prompt_loss_weight`` 1; ``answer_only`` is 0.
    """
    weights = torch.where(answer, 1.0, prompt_loss_weight)
    return torch.where(labels == -100, 0.0, weights)


def pair_sums(values: torch.Tensor, pairs: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
    """The sums of ``values`` over the first and the second answer of each pair, shape (count, 2), fp32.

    ``values``, ``pairs`` (number of the pair, -1 for none) and ``second`` (bool) have one shape.
    """
    inside = pairs >= 0
    index = 2 * pairs[inside] + second[inside].long()
    empty = torch.zeros(2 * count, dtype=torch.float32, device=values.device)
    return empty.index_add(0, index, values[inside].float()).view(count, 2)


def preference(margins: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    """-log sigmoid(margin - gamma) of each pair, in nats.

    With margin = beta x (log-ratio of the chosen answer - log-ratio of the rejected one), ratios to a reference model,
    this is DPO (arXiv 2305.18290, eq. 7). With mean log-probabilities per token in place of ratios, it is
    SimPO (arXiv 2405.14734, eq. 6).
    """
    return -functional.logsigmoid(margins - gamma)


def divergence(student: torch.Tensor, teacher: torch.Tensor, kind: str, beta: float) -> torch.Tensor:
    """Divergence between two next-token distributions in nats, shape (tokens,); 0 where they are equal.

    ``student``, ``teacher``: logits (tokens, vocabulary), q and p below; i = ``beta``. ``jsd``: i KL(p | m) +
    (1 - i) KL(q | m), m = i p + (1 - i) q (GKD, arXiv 2306.13649, eq. 1). ``skewed_forward``: KL(p | i p + (1 - i) q).
    ``skewed_reverse``: KL(q | (1 - i) p + i q). Both are DistiLLM's (arXiv 2402.03898).
    """
    q, p = (torch.log_softmax(logits.float(), dim=-1) for logits in (student, teacher))
    if kind == "skewed_forward":
        return _kl(p, _mixed(p, q, beta))
    if kind == "skewed_reverse":
        return _kl(q, _mixed(q, p, beta))
    middle = _mixed(p, q, beta)
    return beta * _kl(p, middle) + (1 - beta) * _kl(q, middle)


def summed_divergence(student: torch.Tensor, teacher: torch.Tensor, kind: str, beta: float) -> torch.Tensor:
    """The sum of ``divergence`` over the tokens, fp32, shape (1,).

    Of many values, tokens are computed in parts, and again in the backward pass, so that the memory does not grow with
    the number of tokens times the vocabulary.
    """
    tokens = max(1, PART // student.shape[-1])
    if len(student) <= tokens:
        return divergence(student, teacher, kind, beta).sum().reshape(1)

    def part_sum(student_part: torch.Tensor, teacher_part: torch.Tensor) -> torch.Tensor:
        return divergence(student_part, teacher_part, kind, beta).sum()

    parts = zip(student.split(tokens), teacher.split(tokens), strict=True)
    sums = [checkpoint(part_sum, *part, use_reentrant=False) for part in parts]
    return torch.stack(sums).sum().reshape(1)


PART = 1 << 24
"""The number of logits of which ``summed_divergence`` computes a part at once."""


def _mixed(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """log(``share`` exp(``first``) + (1 - ``share``) exp(``second``))."""
    if share == 0:
        return second
    return torch.logaddexp(first + math.log(share), second + math.log1p(-share))


def _kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(first | second) of log-probabilities, summed over the vocabulary."""
    return (first.exp() * (first - second)).sum(dim=-1)


REFERENCE = "reference.safetensors"
Sums = npt.NDArray[np.float32]


def stage_start(context: LossContext, log_probabilities: Callable[[Batch], torch.Tensor]) -> Sums:
    """Summed log-probabilities of both answers, fp32, shape (samples, 2); NaN for rows without a pair in the stage.

    ``log_probabilities`` computes them for the pairs of a batch, shape (pairs, 2), under the present weights of the
    model. Raises ``RunFolderError`` when the stored file is damaged or belongs to other rows.
    """
    batcher = context.batcher
    assert isinstance(batcher, Packed)
    assert batcher.second_answers is not None
    rows = np.unique(paired_rows(batcher.second_answers, batcher.stage.rows))
    path = context.folder / REFERENCE
    if not context.processes.broadcast(path.exists()):
        # Every pair once, without the stage's mixture or order.
        stage = replace(
            batcher.stage, spec=replace(batcher.stage.spec, order="sorted", mixture=None), rows=rows, mixture=None
        )
        values = _compute(context, replace(batcher, stage=stage, sampler=None), log_probabilities)
        if context.processes.is_main:
            write_atomically(path, save({"rows": rows, "log_probabilities": values[rows]}))
        context.processes.broadcast()  # the others read the file
    sums = np.full((context.samples, 2), np.nan, dtype=np.float32)
    sums[rows] = _read(path, rows)
    return sums


def _compute(context: LossContext, batcher: Packed, log_probabilities: Callable[[Batch], torch.Tensor]) -> Sums:
    """One forward pass over every pair of the stage, each of the processes over its batches."""
    task, processes = f"reference {batcher.stage.spec.name}", context.processes
    sums, done, total = np.zeros((context.samples, 2), dtype=np.float32), 0, len(batcher.stage.rows)
    context.events(Event("start", task, 0, total))
    context.model.eval()
    with torch.no_grad():
        batches = batcher.one_pass()
        if not context.sharded:
            batches = islice(batches, processes.rank, None, processes.size)
        for batch in batches:
            if batch.rows is not None and (len(batch.rows) or context.sharded):
                sums[batch.rows] = log_probabilities(batch).cpu().numpy()
                done += len(batch.rows)
                context.events(Event("advance", task, min(done * processes.size, total), total))
    context.model.train()
    context.events(Event("finish", task, total, total))
    return (
        sums
        if processes.size == 1 or context.sharded
        else processes.add_values(sums.astype(np.float64)).astype(np.float32)
    )


def _read(path: Path, rows: npt.NDArray[np.int64]) -> Sums:
    """The stored log-probabilities of ``rows``, shape (rows, 2)."""
    try:
        stored = load(path.read_bytes())
        if not np.array_equal(stored["rows"], rows) or stored["log_probabilities"].shape != (len(rows), 2):
            raise ValueError("the log-probabilities belong to other samples")
        return np.asarray(stored["log_probabilities"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(
            "the reference log-probabilities of this stage are damaged",
            where=path,
            given=error,
            hint="remove the stage's folder: it is trained again from its beginning",
        ) from error
