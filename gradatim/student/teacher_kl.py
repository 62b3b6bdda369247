"""How far is the student from a teacher, token by token?

The teacher is a model on disk with the student's tokenizer. Both read the same lines; on the tokens of answers their
next-token distributions are compared (``losses.divergence``): on the table's answers, on the student's own attempts
where the table has them (GKD, arXiv 2306.13649, calls it on-policy), or on both. A share of the loss may be
cross-entropy on right answers. The teacher is frozen; nothing here asks a teacher in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import DataError
from ..stage import Event
from .batches import IGNORE, Batch, Packed
from .forward import Forward, compiled, make_logits, tensors
from .hardware import attention, device
from .load import load_student
from .losses import divergence, token_losses
from .objective import Column, Lesson
from .settings import TrainSettings
from .supervised import right_weights

__all__ = ["TeacherKL", "teacher_kl"]


def teacher_kl(lesson: Lesson) -> TeacherKL:
    """The measure, with its teacher loaded. ``DataError`` when the teacher has another tokenizer or is no model."""
    alone = not isinstance(lesson.batcher, Packed) or lesson.batcher.beside is None
    if lesson.train.kl.on != "teacher" and alone:
        text = "no sample has an attempt of the student: the teacher is compared on the table's answers alone"
        lesson.events(Event("note", "train", text=text))
    return TeacherKL(lesson)


class TeacherKL:
    """One column for the divergence, and one for cross-entropy where it has a share."""

    auxiliary = None

    def __init__(self, lesson: Lesson) -> None:
        self.settings, self.other_weight = lesson.train.kl, lesson.train.other_weight
        own = self.settings.interpolation
        self.interpolation = own if own is not None else 0.5 if self.settings.divergence == "jsd" else 0.1
        rest = 1.0 - self.settings.weight
        apart = Column(self.settings.weight, "divergence", bounded=False)
        self.columns = (apart, Column(rest)) if rest else (apart,)
        self._student = compiled(make_logits(lesson.model, lesson.train), lesson.train)
        self._teacher = _teacher(lesson.train, lesson.tokenizer)

    def learnt(self, batch: Batch) -> int:
        learnt = self._compared(batch)
        if len(self.columns) == 2:
            right = batch.labels != IGNORE if self.other_weight else (batch.labels != IGNORE) & batch.answer
            learnt = learnt | (right if batch.second is None else right & ~batch.second)
        return int(np.count_nonzero(learnt))

    def counts(self, batch: Batch) -> torch.Tensor:
        compared = torch.tensor([float(np.count_nonzero(self._compared(batch)))], device=device())
        if len(self.columns) == 1:
            return compared
        return torch.cat([compared, right_weights(batch, self.other_weight).sum().reshape(1)])

    def sums(self, batch: Batch) -> torch.Tensor:
        inputs, labels, _, *context = tensors(batch)
        logits = self._student(inputs, *context)
        with torch.no_grad():
            asked = self._teacher(inputs, *context)
        places = torch.from_numpy(self._compared(batch)).to(logits.device)
        # Models of one tokenizer may have different numbers of unused embeddings at the end.
        width = min(logits.shape[-1], asked.shape[-1])
        own, other = (each[places][:, :width].float() / self.settings.temperature for each in (logits, asked))
        apart = divergence(own, other, self.settings.divergence, self.interpolation).sum().reshape(1)
        if len(self.columns) == 1:
            return apart
        right = (token_losses(logits, labels) * right_weights(batch, self.other_weight)).sum()
        return torch.cat([apart, right.reshape(1)])

    def _compared(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Where the two models are compared; of a pair only the attempt when ``on`` is ``student``."""
        answers = np.asarray(batch.answer & (batch.labels != IGNORE))
        if self.settings.on == "student" and batch.pairs is not None and batch.second is not None:
            answers = answers & ~((batch.pairs >= 0) & ~batch.second)
        return answers


def _teacher(train: TrainSettings, tokenizer: Any) -> Forward:
    folder = str(train.kl.folder)
    teacher = load_student(folder, device())
    _check_vocabulary(teacher.tokenizer, tokenizer, folder)
    places = getattr(teacher.model.config, "max_position_embeddings", None)
    if places is not None and places < train.length:
        raise DataError(
            "the teacher's context is shorter than a line of training",
            where="train.kl.folder",
            given=f"{places} tokens in {folder}",
            allowed=f"at least train.length = {train.length}",
        )
    teacher.model.requires_grad_(False)
    teacher.model.set_attn_implementation(attention(train.length))
    return make_logits(teacher.model, train)


def _check_vocabulary(teacher: Any, student: Any, folder: str) -> None:
    """Raises ``DataError`` that names both sides unless every token has one number in both."""
    own, other = (tokenizer.get_vocab() for tokenizer in (student, teacher))
    if own == other:
        return
    differing = min(set(own.items()) ^ set(other.items()), key=lambda item: (item[1], item[0]))
    raise DataError(
        "the teacher's tokenizer is not the student's, so their distributions cannot be compared",
        where="train.kl.folder",
        given=f"teacher {folder} with {len(other)} tokens, student {student.name_or_path or 'in training'} with "
        f"{len(own)}; the first to differ is {differing[0]!r}, number {differing[1]}",
        hint="a teacher of the student's family, or teach by text: train.objective: next_token",
    )
