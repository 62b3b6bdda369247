"""Distillation loss: divergence between the next-token distributions of the student and of a teacher model.

The teacher is a frozen model on disk with the student's tokenizer. Both read the same lines; the divergence
(``losses.divergence``) is computed on answer tokens: of the table's answers, of the student's own completions where the
table has them (on-policy, GKD, arXiv 2306.13649), or of both. A share of the loss may be cross-entropy of the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..lazy import torch
from ..model import hardware, load
from ..model.settings import Requirements, TrainSettings
from ..stage import Event
from . import batches, losses
from .cross_entropy import answer_weights
from .objective import Loss, LossContext, Term

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .batches import Batch
    from .losses import Forward


class Distillation(Loss):
    """``weight`` x divergence from the teacher + (1 - ``weight``) x cross-entropy of the answers, nats per token.

    ``weight`` is ``train.distillation.weight``.

    Raises ``DataError`` when the teacher has another tokenizer, a context shorter than a line, or is no model.
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
        self._student = losses.compiled(losses.make_logits(context.model, train), train)
        self._teacher = _teacher_logits(train, context.tokenizer)

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        on_policy = train.distillation.answers != "teacher"
        return Requirements(
            "attempt" if on_policy else None,
            # The table's answers are still needed where part of the loss is cross-entropy.
            replaces_first=train.distillation.answers == "student" and train.distillation.weight == 1,
            isolated_samples=on_policy,
            prompt_loss=train.distillation.weight < 1 and train.prompt_loss_weight > 0,
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
        logits = self._student(inputs, *attention)
        with torch.no_grad():
            targets = self._teacher(inputs, *attention)
        compared = torch.from_numpy(self._compared(batch)).to(logits.device)
        # Models of one tokenizer may have different numbers of unused embeddings at the end.
        width = min(logits.shape[-1], targets.shape[-1])
        student, teacher = (
            values[compared][:, :width].float() / self.settings.temperature for values in (logits, targets)
        )
        total = losses.divergence(student, teacher, self.settings.divergence, self.beta).sum().reshape(1)
        if len(self.terms) == 1:
            return total
        supervised = (losses.token_losses(logits, labels) * answer_weights(batch, self.prompt_weight)).sum()
        return torch.cat([total, supervised.reshape(1)])

    def _compared(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Tokens on which the models are compared; of a pair only the completion when ``answers`` is ``student``."""
        answers: npt.NDArray[np.bool_] = batch.answer & (batch.labels != batches.IGNORE)
        if self.settings.answers == "student" and batch.pairs is not None and batch.second is not None:
            answers = answers & ~((batch.pairs >= 0) & ~batch.second)
        return answers


def _teacher_logits(train: TrainSettings, tokenizer: Any) -> Forward:
    folder = str(train.distillation.teacher_model)
    teacher = load.load_student(folder, hardware.device())
    _check_vocabulary(teacher.tokenizer, tokenizer, folder)
    context = getattr(teacher.model.config, "max_position_embeddings", None)
    if context is not None and context < train.max_length:
        raise DataError(
            "the teacher's context is shorter than a line of training",
            where="train.distillation.teacher_model",
            given=f"{context} tokens in {folder}",
            allowed=f"at least train.max_length = {train.max_length}",
        )
    teacher.model.requires_grad_(False)
    teacher.model.set_attn_implementation(hardware.attention(train.max_length))
    return losses.make_logits(teacher.model, train)


def _check_vocabulary(teacher: Any, student: Any, folder: str) -> None:
    """Raise ``DataError`` that names both sides unless every token has the same id in both."""
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
