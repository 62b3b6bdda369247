"""Training objectives: the contract of a loss, the registry, and the check of a recipe's settings.

A loss is one class in one file. Its static methods state the data that it needs and the settings that it accepts; they
import no torch, so that recipes are checked and listed quickly. Its instance turns batches into sums and counts. A loss
of another package is registered under the entry point group ``gradatim.objectives`` and takes its own options from
``train.objective_options``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import renamed_keys
from ..errors import RecipeError
from ..model.settings import Requirements, TrainSettings
from ..options import missing_options, option_names
from ..processes import SINGLE, Processes
from ..registry import Registry
from ..stage import Events

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from .batches import Batch, Packed, Windows


@dataclass(frozen=True)
class Term:
    """One term of a loss: its weight (0: logged only) and its name in ``metrics.jsonl`` (None: not logged).

    ``bounded``: the mean is in nats per token, so a mean far above guessing means that training diverged.
    """

    weight: float
    name: str | None = None
    bounded: bool = True


@dataclass(frozen=True)
class LossContext:
    """The arguments of a loss: the model at the start of the stage, and the stage's data.

    ``samples``: number of rows of the encoded table. ``folder``: the stage's folder, for files that are computed once;
    ``previous``: the folder of the stage before. ``processes``: all of them make the loss, with the same arguments;
    ``sharded``: each forward pass of the model needs all of them.
    """

    model: PreTrainedModel
    tokenizer: Any
    train: TrainSettings
    batcher: Packed | Windows
    samples: int
    folder: Path
    events: Events
    previous: Path | None = None
    processes: Processes = SINGLE
    sharded: bool = False


class Loss(Protocol):
    """The loss of a batch as sums and counts, so that several batches add up to one mean exactly.

    The loss of a set of batches is the sum over ``terms`` of weight x sum / count, sums and counts over all batches.
    ``auxiliary`` holds modules that are trained with the model and are in no saved model, such as prediction heads; the
    next stage loads them. Subclasses implement ``__init__(context, **options)``, ``counts`` and ``sums``.
    """

    terms: tuple[Term, ...]
    auxiliary: nn.Module | None = None

    @staticmethod
    def requirements(train: TrainSettings) -> Requirements:
        """The data that this loss needs under ``train``."""
        return Requirements(prompt_loss=train.prompt_loss_weight > 0)

    @staticmethod
    def faults(train: TrainSettings) -> list[str]:
        """One line for each setting that this loss does not accept."""
        return []

    def counts(self, batch: Batch) -> torch.Tensor:
        """The denominator of each term, fp32, shape (terms,); needs no forward pass."""
        ...

    def sums(self, batch: Batch) -> torch.Tensor:
        """The numerator of each term over the batch, fp32, shape (terms,); differentiable where the weight is not 0."""
        ...


OBJECTIVES: Registry[type[Loss]] = Registry("objective", methods=("requirements", "faults", "counts", "sums"))
OBJECTIVES.lazy(
    "next_token",
    "gradatim.training.objectives:NextToken",
    "cross-entropy of all tokens; prompt tokens are weighted by train.prompt_loss_weight",
)
OBJECTIVES.lazy("answer_only", "gradatim.training.objectives:AnswerOnly", "cross-entropy of the answer tokens alone")
OBJECTIVES.lazy(
    "trace_supervision",
    "gradatim.training.objectives:TraceLoss",
    "next_token + train.trace_supervision.weight x auxiliary loss on the intermediate values of TinyPy programs",
)
OBJECTIVES.lazy(
    "preference",
    "gradatim.training.objectives:Preference",
    "preference loss of chosen and rejected answers: DPO (arXiv 2305.18290) or SimPO (arXiv 2405.14734)",
)
OBJECTIVES.lazy(
    "sft_dpo",
    "gradatim.training.objectives:SupervisedPreference",
    "cross-entropy of chosen answers + train.preference.weight x preference loss of pairs",
)
OBJECTIVES.lazy(
    "distillation",
    "gradatim.training.objectives:Distillation",
    "divergence from a teacher's distributions: GKD (arXiv 2306.13649), DistiLLM (arXiv 2402.03898)",
)
for _earlier, _present in renamed_keys.OBJECTIVES.items():  # in stored designs; `correct_and_fault` is the paper's name
    OBJECTIVES.alias(_earlier, _present)


def check_objective(objective: str, train: TrainSettings) -> None:
    """Check the settings against the loss. ``RecipeError`` holds every fault; ``UnknownPart`` for an unknown name."""
    where = "train.objective"
    loss = OBJECTIVES.get(objective, where=where)
    faults = loss.faults(train)
    if loss.requirements(train).isolated_samples and not (
        train.batching == "packed" and train.block_diagonal_attention
    ):
        faults = [
            "samples of one sequence must not attend to each other: train.batching: packed and "
            "train.block_diagonal_attention: true are needed "
            f"(given {train.batching}, {str(train.block_diagonal_attention).lower()})",
            *faults,
        ]
    faults += _option_faults(loss, train)
    if train.candidates > 1 and (train.batching != "packed" or loss.requirements(train).second_answer is not None):
        faults.append(
            "candidates are selected by the loss of their only answer: train.batching: packed and an objective without "
            f"second answers are needed (given {train.batching}, {objective}), or train.candidates: 1"
        )
    if faults:
        raise RecipeError("; ".join(faults), where=f"{where}: {objective}", faults=faults)


def _option_faults(loss: type[Loss], train: TrainSettings) -> list[str]:
    allowed, options = option_names(loss), train.objective_options
    unknown = [name for name in options if name not in allowed]
    faults = [
        f"train.objective_options: no option {name!r} (allowed: {', '.join(allowed) or 'none'})" for name in unknown
    ]
    return faults + [f"train.objective_options: {name} is missing" for name in missing_options(loss, options)]


def make_loss(objective: str, context: LossContext) -> Loss:
    """The loss of a stage, with the recipe's ``train.objective_options``."""
    factory: Callable[..., Loss] = OBJECTIVES.get(objective)
    return factory(context, **context.train.objective_options)
