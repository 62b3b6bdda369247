"""What counts as a wrong prediction?

An objective turns a batch into sums of losses and the numbers to divide them by. ``OBJECTIVES`` names the ways there
are; each is a maker that takes a ``Lesson`` and gives a ``Measure``, in a module of its own, imported at first use.
This module imports no torch, so that recipes are checked and listed quickly. Nothing here knows of optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import RecipeError
from ..registry import Registry
from ..stage import Events
from .settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .batches import Batch, Packed, Windows

__all__ = ["OBJECTIVES", "Column", "Lesson", "Measure", "check_objective"]


@dataclass(frozen=True)
class Column:
    """One sum of a measure: its share of the loss (0: only told) and its name in ``metrics.jsonl`` (None: not told).

    ``bounded``: the mean is in nats per token, so one far above guessing means that training exploded.
    """

    factor: float
    name: str | None = None
    bounded: bool = True


class Measure(Protocol):
    """The loss of one batch as sums and counts, so that several batches add up to one mean, exactly.

    The loss of some batches is the sum over ``columns`` of factor x sum / count, sums and counts over all batches.
    ``auxiliary`` is what is learnt beside the student and does not belong to it, such as heads; stages hand it on.
    """

    columns: tuple[Column, ...]
    auxiliary: nn.Module | None

    def learnt(self, batch: Batch) -> int:
        """How many predictions of the batch receive a gradient: what a budget counts."""
        ...

    def counts(self, batch: Batch) -> torch.Tensor:
        """What each column's sum is divided by, fp32, shape (columns,); asks no model."""
        ...

    def sums(self, batch: Batch) -> torch.Tensor:
        """Each column's sum over the batch, fp32, shape (columns,); with a gradient where the factor is not 0."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What a measure is made of: the student as the stage found it, and what it is about to learn.

    ``samples``: how many the encoded table has. ``folder``: the stage's, where what must not be made twice is kept;
    ``previous``: that of the stage before.
    """

    model: Any
    tokenizer: Any
    train: TrainSettings
    batcher: Packed | Windows
    samples: int
    folder: Path
    events: Events
    previous: Path | None = None


OBJECTIVES: Registry[Callable[[Lesson], Measure]] = Registry("objective")
OBJECTIVES.lazy(
    "next_token",
    "gradatim.student.supervised:next_token",
    "cross-entropy of every token; those outside the answer weigh train.other_weight",
)
OBJECTIVES.lazy("answer_only", "gradatim.student.supervised:answer_only", "cross-entropy of the answers alone")
OBJECTIVES.lazy(
    "traced",
    "gradatim.student.traced:traced",
    "next_token + train.trace.weight x what a TinyPy program computes on its way, asked of inner layers",
)
OBJECTIVES.lazy(
    "contrast",
    "gradatim.student.contrast:contrast",
    "right against faulty answers: DPO (arXiv 2305.18290), or SimPO without a reference (arXiv 2405.14734)",
)
OBJECTIVES.lazy(
    "correct_and_fault",
    "gradatim.student.contrast:correct_and_fault",
    "cross-entropy of right answers + train.contrast.weight x contrast where there is a faulty one",
)
OBJECTIVES.lazy(
    "teacher_kl",
    "gradatim.student.teacher_kl:teacher_kl",
    "near a teacher's distributions: JSD of GKD (arXiv 2306.13649), skewed KL of DistiLLM (arXiv 2402.03898)",
)


def check_objective(objective: str, train: TrainSettings) -> None:
    """Whether the settings fit the objective. ``RecipeError`` holds every fault; ``UnknownPart`` for another name."""
    where = "train.objective"
    if objective not in OBJECTIVES:
        OBJECTIVES.get(objective, where=where)
    kl, faults = train.kl, []
    pairs = objective in ("contrast", "correct_and_fault") or (objective == "teacher_kl" and kl.on != "teacher")
    alone = train.batching == "packed" and train.isolate
    needed = (
        "train.batching: packed and train.isolate: true are needed "
        f"(given {train.batching}, {str(train.isolate).lower()})"
    )
    if pairs and not alone:
        faults.append(f"two answers to one prompt must not see each other: {needed}")
    if objective == "traced" and not alone:
        faults.append(f"a program is read from its beginning: {needed}")
    if objective == "teacher_kl" and kl.folder is None:
        faults.append("train.kl.folder must name the folder of the teacher's model")
    if objective == "teacher_kl" and kl.divergence == "jsd" and kl.interpolation == 0:
        faults.append("train.kl.interpolation must lie between 0 and 1 for jsd: at 0 it is 0 for every student")
    if faults:
        raise RecipeError("; ".join(faults), where=f"{where}: {objective}", faults=faults)
