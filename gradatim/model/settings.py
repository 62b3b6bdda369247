"""What can be said about how a student learns? (Plain values, their bounds and defaults; no torch.)

These dataclasses are what ``fit`` takes as keywords. ``recipe`` checks and fills them; the names are those of the
recipe's sections ``student`` and ``train``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

__all__ = [
    "ContrastSettings",
    "LoraSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Requirements",
    "ShapeSettings",
    "TeacherKLSettings",
    "TraceSettings",
    "TrainSettings",
]


Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (arXiv 2106.09685): beside each of the ``targets`` a product of two matrices of
    that rank, scaled by ``alpha / rank``; nothing else is learnt.

    ``targets`` are the last parts of layers' names, such as ``q_proj``; ``all-linear`` is every one but the head.
    """

    rank: Count = 16
    alpha: Rate = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ("all-linear",)


@dataclass(frozen=True)
class ModelSettings:
    """What the student is. ``context`` is in tokens; ``vocabulary`` is the most tokens of ``bpe`` and ``lexical``.

    ``lexical``: one token for each digit, one-letter name and phrase between them (``student.lexical``).

    With ``base``, a pretrained model (a folder, a name on the hub, or a .gguf file), ``preset``, ``tokenizer`` and
    ``vocabulary`` are not used: it is fine-tuned as a whole or by ``lora``. Its prompts are put through its tokenizer's
    chat ``template``, with the ``system`` message, or stay plain; ``auto`` takes the template where there is one.
    ``start``: a cycle's first stage goes on from the model of the cycle before, or begins from the base again.
    ``dtype`` is that of the weights at work: bf16 halves the memory, and rounds what an optimizer adds to them; those
    of an adapter are always fp32. ``gradient_checkpointing`` computes more and keeps less.
    """

    preset: str = "gpt2-tied"
    tokenizer: Literal["character", "lexical", "bpe"] = "character"
    vocabulary: Annotated[int, Field(ge=258)] = 512
    context: Count = 256
    base: str | None = None
    lora: LoraSettings | None = None
    template: Literal["auto", "chat", "plain"] = "auto"
    system: str | None = None
    start: Literal["continue", "base"] = "continue"
    dtype: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class OptimizerSettings:
    """``learning_rate`` is AdamW's; ``matrix_rate`` is Muon's, on its own scale (update RMS matched to AdamW's).

    ``weight_decay_on``: matrices and embeddings alone, or ``all`` parameters that AdamW learns, as torch's default is.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate = 1e-3
    matrix_rate: Rate = 5e-3
    weight_decay: NotNegative = 0.1
    betas: tuple[Share, Share] = (0.9, 0.99)
    weight_decay_on: Literal["matrices", "all"] = "matrices"


@dataclass(frozen=True)
class ShapeSettings:
    """The learning-rate shape; ``warmup`` and ``decay`` are shares of the stage (or run), ``floor`` a factor."""

    name: Literal["constant", "paper_steps", "warmup_decay", "cosine"] = "paper_steps"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    decay: Share = 0.3
    floor: Share = 0.0


@dataclass(frozen=True)
class ContrastSettings:
    """How right and faulty answers are told apart: -log sigmoid(``beta`` x lead - ``target``), lead = right - faulty.

    ``reference``: the lead is measured from the student at the stage's start (DPO) or from nothing (SimPO, CPO).
    ``normalise``: log-probabilities per token instead of summed; None is as published, summed for DPO and per token
    for SimPO. ``beta`` None is 0.1 with a reference and 2 without. ``target`` is SimPO's gamma, the margin that is
    asked for. ``weight`` is that of the contrast beside the supervised loss in ``objective: correct_and_fault``.
    """

    weight: Rate = 1.0
    beta: Rate | None = None
    reference: Literal["stage_start", "none"] = "stage_start"
    normalise: bool | None = None
    target: NotNegative = 0.0


@dataclass(frozen=True)
class TeacherKLSettings:
    """How near the student's next-token distributions must come to those of the model in ``folder``.

    ``interpolation`` is beta of the generalised Jensen-Shannon divergence (None: 0.5) or alpha of the skewed KL
    divergences (None: 0.1; 0 is plain KL). ``weight`` is the divergence's share of the loss, the rest is
    cross-entropy on right answers. ``temperature`` divides both models' logits. ``on``: whose answers are compared,
    the table's (``teacher``), the student's own attempts (``student``; the table's where there is none), or both.
    """

    folder: str | None = None
    divergence: Literal["jsd", "skewed_forward", "skewed_reverse"] = "jsd"
    interpolation: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    temperature: Rate = 1.0
    on: Literal["teacher", "student", "both"] = "teacher"


@dataclass(frozen=True)
class TraceSettings:
    """What ``objective: traced`` asks inner layers for while a TinyPy program is read: the values of the names that
    are read after ``operands`` layers, and those of what is computed after each of ``results``; None is a quarter of
    the student's layers, and half and three quarters of them. ``weight`` is that of each time it is asked, beside the
    loss of the tokens. ``values``: how many of the commonest values are told apart, the others are not asked for.
    """

    weight: Rate = 0.3
    operands: Count | None = None
    results: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    values: Annotated[int, Field(ge=2)] = 500


@dataclass(frozen=True)
class Requirements:
    """The data that a loss needs.

    ``second_answer``: the column with a second answer to the prompt, laid out in the same line as the first.
    ``replaces_first``: rows that have a second answer are learnt from that one alone. ``pairs_only``: rows without a
    second answer are left out, and a table without any is an error. ``isolated_samples``: batches must be packed, with
    attention inside a sample only. ``prompt_loss``: prompt tokens have a loss, so they count for the budget.
    """

    second_answer: Literal["rejected", "attempt"] | None = None
    replaces_first: bool = False
    pairs_only: bool = False
    isolated_samples: bool = False
    prompt_loss: bool = True


@dataclass(frozen=True)
class TrainSettings:
    """How the student learns.

    ``size`` lines of ``length`` predictions make a batch, ``accumulate`` batches an optimizer step. ``other_weight``
    is the loss weight of tokens outside the answer (answers weigh 1; 0 is ``objective: answer_only``); tokens of
    weight 0 do not count for the budget. ``trace``, ``contrast`` and ``kl`` belong to the objectives that need them;
    ``objective_options`` are those of an objective from another package.
    ``restart``: optimizer and learning-rate shape begin anew at each stage (the paper) or continue over the run's
    budget. ``precision: auto`` takes bf16 where the processor multiplies it natively.
    """

    batching: Literal["windows", "packed"] = "windows"
    size: Count = 64
    length: Count = 256
    isolate: bool = False
    objective: str = "next_token"
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    other_weight: NotNegative = 1.0
    trace: TraceSettings = field(default_factory=TraceSettings)
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    kl: TeacherKLSettings = field(default_factory=TeacherKLSettings)
    accumulate: Count = 1
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    restart: bool = True
    clip: NotNegative = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    log_every: Count = 10
    validate: Annotated[int, Field(ge=0)] = 8
    checkpoint_seconds: NotNegative = 30.0
