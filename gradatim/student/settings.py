"""What can be said about how a student learns? (Plain values, their bounds and defaults; no torch.)

These dataclasses are what ``fit`` takes as keywords. ``recipe`` checks and fills them; the names are those of the
recipe's sections ``student`` and ``train``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]

__all__ = ["ModelSettings", "OptimizerSettings", "ShapeSettings", "TrainSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """What the student is. ``context`` is in tokens; ``vocabulary`` is the most tokens of ``bpe`` and ``lexical``.

    ``lexical``: one token for each digit, one-letter name and phrase between them (``student.lexical``).
    """

    preset: str = "paper"
    tokenizer: Literal["character", "lexical", "bpe"] = "character"
    vocabulary: Annotated[int, Field(ge=258)] = 512
    context: Count = 256


@dataclass(frozen=True)
class OptimizerSettings:
    """``learning_rate`` is AdamW's; ``matrix_rate`` is Muon's, on its own scale (update RMS matched to AdamW's)."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate = 1e-3
    matrix_rate: Rate = 5e-3
    weight_decay: NotNegative = 0.1
    betas: tuple[Share, Share] = (0.9, 0.99)


@dataclass(frozen=True)
class ShapeSettings:
    """The learning-rate shape; ``warmup`` and ``decay`` are shares of the stage (or run), ``floor`` a factor."""

    name: Literal["constant", "paper_steps", "warmup_decay", "cosine"] = "paper_steps"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    decay: Share = 0.3
    floor: Share = 0.0


@dataclass(frozen=True)
class TrainSettings:
    """How the student learns.

    ``size`` lines of ``length`` predictions make a batch. ``other_weight`` is the loss weight of tokens outside the
    answer (answers weigh 1; 0 is ``objective: answer_only``); tokens of weight 0 do not count for the budget.
    ``restart``: optimizer and learning-rate shape begin anew at each stage (the paper) or continue over the run's
    budget. ``precision: auto`` takes bf16 where the processor multiplies it natively.
    """

    batching: Literal["windows", "packed"] = "windows"
    size: Count = 64
    length: Count = 256
    isolate: bool = False
    objective: Literal["next_token", "answer_only"] = "next_token"
    other_weight: NotNegative = 1.0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    restart: bool = True
    clip: NotNegative = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    log_every: Count = 10
    validate: Annotated[int, Field(ge=0)] = 8
    checkpoint_seconds: NotNegative = 30.0
