"""The losses of the registry ``OBJECTIVES``: cross-entropy, preference losses, distillation and trace supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import DataError, RecipeError
from ..lazy import torch
from ..model import hardware, load, text_codec, window_attention
from ..model.settings import Dtype, Requirements, TraceSupervisionSettings, TrainSettings
from ..stage import Event
from . import batches, losses, trace_heads
from .objective import Loss, LossContext, Term

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .batches import Batch
    from .losses import Forward


def answer_weights(batch: Batch, prompt_weight: float) -> torch.Tensor:
    """The weight of each token, 0 in second answers; fp32 on the device, shape (size, length).

    Second answers of a batch (rejected answers, completions of the model) have no loss here.
    """
    weights = losses.token_weights(*losses.labels_of(batch), prompt_weight)
    if batch.second is None:
        return weights
    return weights.masked_fill(torch.from_numpy(batch.second).to(weights.device), 0.0)


class NextToken(Loss):
    """Cross-entropy of all tokens in nats; those outside the answer have the weight ``train.prompt_loss_weight``.

    With a weight above 0 the cross-entropy of the answers alone is logged too, as ``answer_loss``.
    """

    terms: tuple[Term, ...] = (Term(1.0),)

    def __init__(self, context: LossContext) -> None:
        self.prompt_weight = self._prompt_weight(context.train)
        if self.prompt_weight:
            self.terms = (Term(1.0), Term(0.0, "answer_loss", bounded=False))
        token_losses = losses.make_losses(context.model, context.train)

        def weighted(
            inputs: torch.Tensor,
            labels: torch.Tensor,
            weights: torch.Tensor,
            answers: torch.Tensor | None,
            *attention: torch.Tensor,
        ) -> torch.Tensor:
            values = token_losses(inputs, labels, *attention)
            total = (values * weights).sum().reshape(1)
            if answers is None:
                return total
            return torch.cat([total, (values.detach() * answers).sum().reshape(1)])

        self._weighted = losses.compiled(weighted, context.train)

    @staticmethod
    def _prompt_weight(train: TrainSettings) -> float:
        return train.prompt_loss_weight

    def counts(self, batch: Batch) -> torch.Tensor:
        weights = [answer_weights(batch, weight) for weight in (self.prompt_weight, 0.0)[: len(self.terms)]]
        return torch.stack([weight.sum() for weight in weights])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        weights = answer_weights(batch, self.prompt_weight)
        labels = labels.masked_fill(weights == 0, batches.IGNORE)
        answers = answer_weights(batch, 0.0) if self.prompt_weight else None
        return self._weighted(inputs, labels, weights, answers, *attention)


class AnswerOnly(NextToken):
    """Cross-entropy of the answer tokens in nats."""

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements(prompt_loss=False)

    @staticmethod
    def _prompt_weight(train: TrainSettings) -> float:
        return 0.0


class Distillation(Loss):
    """``weight`` x divergence from the teacher + (1 - ``weight``) x cross-entropy of the answers, nats per token.

    ``weight`` is ``train.distillation.weight``.

    Raises ``DataError`` when the teacher has another tokenizer, a context shorter than a line, or is no model.

    The teacher is a frozen model on disk with the student's tokenizer. Both read the same lines; the divergence
    (``losses.divergence``) is computed on answer tokens: of the table's answers, of the student's own completions
    where the table has them (on-policy, GKD, arXiv 2306.13649), or of both. A share of the loss may be
    cross-entropy of the answers.
    """

    def __init__(self, context: LossContext) -> None:
        train = context.train
        self.settings, self.prompt_weight = train.distillation, train.prompt_loss_weight
        if self.settings.answers != "teacher" and getattr(context.batcher, "second_answers", None) is None:
            note = "no sample has a completion of the student: the loss is computed on the table's answers alone"
            context.events(Event("note", "train", text=note))
        default = 0.5 if self.settings.divergence == "jsd" else 0.1
        self.beta = default if self.settings.beta is None else self.settings.beta
        supervised = 1.0 - self.settings.weight
        divergence = Term(self.settings.weight, "divergence", bounded=False)
        self.terms = (divergence, Term(supervised)) if supervised else (divergence,)
        self._student = losses.make_selected_logits(context.model, train)
        self._teacher = _teacher_logits(train, context)

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        on_policy = train.distillation.answers != "teacher"
        return Requirements(
            "attempt" if on_policy else None,
            # The table's answers are still needed where part of the loss is cross-entropy.
            replaces_first=train.distillation.answers == "student" and train.distillation.weight == 1,
            isolated_samples=on_policy,
            prompt_loss=train.distillation.weight < 1 and train.prompt_loss_weight > 0,
            right_answers=train.distillation.weight < 1,
        )

    @staticmethod
    def faults(train: TrainSettings) -> list[str]:
        faults = []
        if train.distillation.teacher_model is None:
            faults.append("train.distillation.teacher_model must name the folder of the teacher's model")
        if train.distillation.divergence == "jsd" and train.distillation.beta == 0:
            faults.append("train.distillation.beta must lie between 0 and 1 for jsd: at 0 it is 0 for every student")
        return faults

    def counts(self, batch: Batch) -> torch.Tensor:
        compared = torch.tensor([float(self._compared(batch).sum())], device=hardware.device())
        if len(self.terms) == 1:
            return compared
        return torch.cat([compared, answer_weights(batch, self.prompt_weight).sum().reshape(1)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        compared = torch.from_numpy(self._compared(batch)).to(inputs.device)
        weights = answer_weights(batch, self.prompt_weight) if len(self.terms) > 1 else None
        selected = compared if weights is None else compared | (weights > 0)
        logits = self._student(inputs, selected, *attention)
        with torch.no_grad():
            targets = self._teacher(inputs, compared, *attention)
        # Models of one tokenizer may have different numbers of unused embeddings at the end.
        width = min(logits.shape[-1], targets.shape[-1])
        student, teacher = (
            values[:, :width].float() / self.settings.temperature for values in (logits[compared[selected]], targets)
        )
        total = losses.summed_divergence(student, teacher, self.settings.divergence, self.beta)
        if weights is None:
            return total
        supervised = (losses.token_losses(logits[None], labels[selected][None])[0] * weights[selected]).sum()
        return torch.cat([total, supervised.reshape(1)])

    def _compared(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Tokens on which the models are compared; of a pair only the completion when ``answers`` is ``student``."""
        answers: npt.NDArray[np.bool_] = batch.answer & (batch.labels != batches.IGNORE)
        if self.settings.answers == "student" and batch.pairs is not None and batch.second is not None:
            answers = answers & ~((batch.pairs >= 0) & ~batch.second)
        return answers


def _teacher_logits(train: TrainSettings, context: LossContext) -> Forward:
    """The logits of the teacher's model, whose weights have the type of the student's."""
    folder = str(train.distillation.teacher_model)
    dtype: Dtype = "bf16" if context.model.dtype is torch.bfloat16 else "fp32"
    teacher = load.load_model(folder, hardware.device(), dtype=dtype)
    _check_vocabulary(teacher.tokenizer, context.tokenizer, folder)
    length = getattr(teacher.model.config, "max_position_embeddings", None)
    if length is not None and length < train.max_length:
        raise DataError(
            "the teacher's context is shorter than a line of training",
            where="train.distillation.teacher_model",
            given=f"{length} tokens in {folder}",
            allowed=f"at least train.max_length = {train.max_length}",
        )
    teacher.model.requires_grad_(False)
    window_attention.select_attention(teacher.model, train.max_length)
    return losses.make_selected_logits(teacher.model, train)


def _check_vocabulary(teacher: Any, student: Any, folder: str) -> None:
    """Raise ``DataError`` that names both sides unless every token has the same id in both tokenizers."""
    student_ids, teacher_ids = (tokenizer.get_vocab() for tokenizer in (student, teacher))
    if student_ids == teacher_ids:
        return
    differing = min(set(student_ids.items()) ^ set(teacher_ids.items()), key=lambda item: (item[1], item[0]))
    raise DataError(
        "the teacher's tokenizer is not the student's, so their distributions cannot be compared",
        where="train.distillation.teacher_model",
        given=f"teacher {folder} with {len(teacher_ids)} tokens, student {student.name_or_path or 'in training'} with "
        f"{len(student_ids)}; the first difference is {differing[0]!r}, id {differing[1]}",
        hint="a teacher of the student's family, or teach by text: train.objective: next_token",
    )


class Preference(Loss):
    """The preference loss alone: -log sigmoid(beta x (chosen - rejected) - gamma).

    Two further values are logged: the mean margin in nats x beta, and the share of pairs with a positive margin.

    DPO (arXiv 2305.18290) uses log-ratios to the model at the stage's start (the reference model), SimPO (arXiv
    2405.14734) mean log-probabilities without a reference. ``sft_dpo`` (SFT + DPO, arXiv 2408.03680) adds the
    cross-entropy of chosen answers from the same forward pass; rows without a rejected answer contribute only that
    term.
    """

    def __init__(self, context: LossContext) -> None:
        self.settings = context.train.preference
        with_reference = not self.settings.reference_free
        beta, length_normalized = self.settings.beta, self.settings.length_normalized
        self.beta = beta if beta is not None else 0.1 if with_reference else 2.0
        self.length_normalized = length_normalized if length_normalized is not None else not with_reference
        self.terms = self._terms(context.train)
        self._losses = losses.compiled(losses.make_losses(context.model, context.train), context.train)
        self._reference: torch.Tensor | None = None
        if with_reference and getattr(context.batcher, "second_answers", None) is not None:
            self._reference = torch.from_numpy(losses.stage_start(context, self._log_probabilities))

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements("rejected", pairs_only=True, isolated_samples=True, prompt_loss=False)

    @staticmethod
    def _terms(train: TrainSettings) -> tuple[Term, ...]:
        return _preference_terms(1.0)

    def counts(self, batch: Batch) -> torch.Tensor:
        return torch.full((3,), float(_pairs(batch)), device=hardware.device())

    def sums(self, batch: Batch) -> torch.Tensor:
        return self._preference_sums(batch, self._token_losses(batch))

    def _token_losses(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        return self._losses(inputs, labels, *attention)

    def _preference_sums(self, batch: Batch, token_losses: torch.Tensor) -> torch.Tensor:
        """Summed loss, summed margin, and the number of pairs with a positive margin; shape (3,)."""
        if not _pairs(batch):
            return token_losses.new_zeros(3)
        margins = self.beta * self._log_ratios(batch, token_losses)
        loss = losses.preference(margins, self.settings.gamma).sum()
        detached = margins.detach()
        return torch.stack([loss, detached.sum(), (detached > 0).float().sum()])

    def _log_ratios(self, batch: Batch, token_losses: torch.Tensor) -> torch.Tensor:
        """Log-ratio of the chosen answer minus that of the rejected one, nats, shape (pairs,)."""
        ratios = self._pair_sums(batch, -token_losses)
        if self._reference is not None:
            ratios = ratios - self._reference[batch.rows].to(ratios.device)
        if self.length_normalized:
            predicted = torch.from_numpy(batch.labels != batches.IGNORE).to(token_losses.device)
            ratios = ratios / self._pair_sums(batch, predicted.float()).clamp(min=1)
        return ratios[:, 0] - ratios[:, 1]

    def _pair_sums(self, batch: Batch, values: torch.Tensor) -> torch.Tensor:
        assert batch.pairs is not None
        assert batch.second is not None
        pairs, second = (torch.from_numpy(array).to(values.device) for array in (batch.pairs, batch.second))
        return losses.pair_sums(values, pairs, second, _pairs(batch))

    def _log_probabilities(self, batch: Batch) -> torch.Tensor:
        return self._pair_sums(batch, -self._token_losses(batch))


class SupervisedPreference(Preference):
    """Cross-entropy of chosen answers + ``train.preference.weight`` x the preference loss of the pairs."""

    def __init__(self, context: LossContext) -> None:
        self.prompt_weight = context.train.prompt_loss_weight
        if getattr(context.batcher, "second_answers", None) is None:
            note = "no sample has a rejected answer: the loss is cross-entropy of the chosen answers alone"
            context.events(Event("note", "train", text=note))
        super().__init__(context)

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements("rejected", isolated_samples=True, prompt_loss=train.prompt_loss_weight > 0)

    @staticmethod
    def _terms(train: TrainSettings) -> tuple[Term, ...]:
        return Term(1.0), *_preference_terms(train.preference.weight)

    def counts(self, batch: Batch) -> torch.Tensor:
        chosen_weight = answer_weights(batch, self.prompt_weight).sum()
        return torch.cat(
            [chosen_weight.reshape(1), torch.full((3,), float(_pairs(batch)), device=chosen_weight.device)]
        )

    def sums(self, batch: Batch) -> torch.Tensor:
        token_losses = self._token_losses(batch)
        chosen_loss = (token_losses * answer_weights(batch, self.prompt_weight)).sum()
        return torch.cat([chosen_loss.reshape(1), self._preference_sums(batch, token_losses)])


def _preference_terms(weight: float) -> tuple[Term, ...]:
    named = (("contrast_loss", weight), ("margin", 0.0), ("accuracy_of_preference", 0.0))
    return tuple(Term(share, name, bounded=False) for name, share in named)


def _pairs(batch: Batch) -> int:
    """The number of pairs in a batch."""
    return 0 if batch.rows is None else len(batch.rows)


class TraceLoss(Loss):
    """Cross-entropy of the tokens + ``train.trace_supervision.weight`` x (operand loss + result loss), all in nats.

    The heads continue from the stage before where it has some. ``RecipeError`` when no sample is a TinyPy program, or
    the model lacks a layer that the recipe names.

    The tokens of an answer give only the result of a program's execution. The auxiliary loss supervises the steps
    before it: while the model reads a TinyPy prompt, linear heads on inner layers predict the value of each name
    that is read (operands) and the result of each operation and condition (results), in a loop for each of the first
    ``train.trace_supervision.turns`` turns; ``trace_heads`` computes the labels. The loss is that of ``next_token``
    plus ``train.trace_supervision.weight`` x the mean cross-entropy of each. Text that is not TinyPy has no auxiliary
    labels.
    """

    def __init__(self, context: LossContext) -> None:
        settings, train = context.train.trace_supervision, context.train
        self.prompt_weight = train.prompt_loss_weight
        self.auxiliary, self.trace_labels = _heads(context)
        self.terms = (
            Term(1.0),
            Term(settings.weight, "operand_loss", bounded=False),
            Term(settings.weight, "result_loss", bounded=False),
        )
        self._labels_by_batch: WeakKeyDictionary[Batch, torch.Tensor] = WeakKeyDictionary()
        variable_layer, result_layers = _layers(settings, int(context.model.config.num_hidden_layers))
        outputs, kind = losses.make_outputs(context.model, train, hidden=True), hardware.compute_type(train.precision)
        self._sums = losses.compiled(
            trace_heads.trace_sums(outputs, self.auxiliary, kind, variable_layer, result_layers), train
        )

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        return Requirements(isolated_samples=True, prompt_loss=train.prompt_loss_weight > 0)

    def counts(self, batch: Batch) -> torch.Tensor:
        labels = self._trace_labels(batch)
        weights = answer_weights(batch, self.prompt_weight).sum().reshape(1)
        return torch.cat([weights, (labels[:, :, 0] != batches.IGNORE).sum(dim=(1, 2, 3)).to(weights.dtype)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *attention = losses.tensors(batch)
        return self._sums(
            inputs, labels, answer_weights(batch, self.prompt_weight), self._trace_labels(batch), *attention
        )

    def _trace_labels(self, batch: Batch) -> torch.Tensor:
        """The labels of the heads; ``counts`` and ``sums`` of one batch share them."""
        if batch not in self._labels_by_batch:
            self._labels_by_batch[batch] = torch.from_numpy(self.trace_labels.labels(batch)).to(hardware.device())
        return self._labels_by_batch[batch]


def _heads(context: LossContext) -> tuple[trace_heads.TraceHeads, trace_heads.TraceLabels]:
    """The heads as saved by the stage before, or new ones for the values of the samples; and their labels."""
    assert isinstance(context.batcher, batches.Packed)  # Requirements.isolated_samples
    pieces = text_codec.codec_of(context.tokenizer).pieces
    saved = None if context.previous is None else context.previous / "auxiliary.safetensors"
    if saved is not None and saved.exists():
        heads = trace_heads.TraceHeads.load(saved)
    else:
        settings = context.train.trace_supervision
        count = settings.num_fractions if settings.labels == "digits" else settings.num_classes
        parts = trace_heads.parts_of(context.batcher.encoded, pieces, settings.labels, count)
        if parts is None:
            raise RecipeError(
                "the objective trace_supervision needs TinyPy programs, and no sample is one",
                where="train.objective",
                given="trace_supervision",
                hint="train.objective: next_token",
            )
        heads = trace_heads.TraceHeads(context.model.config.hidden_size, parts, settings.turns)
    return heads.to(hardware.device()), trace_heads.TraceLabels(pieces, heads.parts, heads.turns)


def _layers(settings: TraceSupervisionSettings, layers: int) -> tuple[int, tuple[int, ...]]:
    """The layer of the operand head and those of the result head, from 1; by default at 1/4, and at 1/2 and 3/4."""
    variable_layer = settings.variable_layer or max(1, round(layers / 4))
    result_layers = settings.result_layers or tuple(sorted({max(1, round(layers * quarter / 4)) for quarter in (2, 3)}))
    if max(variable_layer, *result_layers) > layers:
        raise RecipeError(
            "the model has no such layer",
            where="train.trace_supervision",
            given=f"variable_layer {variable_layer}, result_layers {', '.join(map(str, result_layers))}",
            allowed=f"1 to {layers}",
        )
    return variable_layer, result_layers
