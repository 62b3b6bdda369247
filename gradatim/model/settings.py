"""Settings of model and training: the recipe sections ``student`` and ``train`` with their bounds and defaults.

``recipe`` validates and fills these dataclasses; their field names are the recipe keys. No torch.

Model presets: the dimensions of the built-in architectures.

``architecture.create`` builds a Hugging Face causal model from a preset. This module imports no torch, so that recipes
and `gradatim list presets` stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from ..registry import Registry

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (arXiv 2106.09685): for each target layer a product of two trainable matrices of rank ``rank``,
    scaled by ``alpha / rank``; all other parameters are frozen.

    ``targets`` are the last components of layer names, such as ``q_proj``; ``all-linear`` is all but the head.
    """

    rank: Count = 16
    alpha: Rate = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ("all-linear",)


@dataclass(frozen=True)
class ModelSettings:
    """The student model. ``context`` is in tokens; ``vocabulary`` is the maximal vocabulary size of ``bpe`` and
    ``lexical``.

    ``lexical``: one token for each digit, one-letter name and phrase between them (``tokenizer.lexical_tokenizer``).

    With ``base``, a pretrained model (a folder, a name on the hub, or a .gguf file), ``preset``, ``tokenizer`` and
    ``vocabulary`` do not apply: all parameters of the base are fine-tuned, or only ``lora``. Prompts use its chat
    ``template``, with the ``system`` message, or are plain; ``auto`` is the template if there is one.
    ``start``: a cycle's first stage continues from the model of the previous cycle, or restarts from the base.
    ``dtype`` is that of the weights in training: bf16 halves the memory, and rounds the optimizer's updates; adapter
    weights are always fp32. ``gradient_checkpointing`` saves activation memory at the price of recomputation.
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
    """``learning_rate`` is that of AdamW; ``matrix_rate`` that of Muon (update RMS matched to AdamW's).

    ``weight_decay_on``: matrices and embeddings only, or ``all`` parameters of AdamW, which is torch's default.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate = 1e-3
    matrix_rate: Rate = 5e-3
    weight_decay: NotNegative = 0.1
    betas: tuple[Share, Share] = (0.9, 0.99)
    weight_decay_on: Literal["matrices", "all"] = "matrices"


@dataclass(frozen=True)
class ShapeSettings:
    """The learning-rate schedule; ``warmup`` and ``decay`` are fractions of the stage (or run), ``floor`` is the ratio
    of the minimal to the peak rate.
    """

    name: Literal["constant", "paper_steps", "warmup_decay", "cosine"] = "paper_steps"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    decay: Share = 0.3
    floor: Share = 0.0


@dataclass(frozen=True)
class ContrastSettings:
    """The preference loss: -log sigmoid(``beta`` x margin - ``target``), margin = log p(correct) - log p(rejected).

    ``reference``: the margin is relative to the student at the stage's start (DPO), or without reference (SimPO, CPO).
    ``normalise``: log-probabilities per token instead of summed; None is as published, summed for DPO and per token
    for SimPO. ``beta`` None is 0.1 with a reference and 2 without. ``target`` is SimPO's gamma, the target margin.
    ``weight`` is the weight of the preference loss beside the supervised loss in ``objective: correct_and_fault``.
    """

    weight: Rate = 1.0
    beta: Rate | None = None
    reference: Literal["stage_start", "none"] = "stage_start"
    normalise: bool | None = None
    target: NotNegative = 0.0


@dataclass(frozen=True)
class TeacherKLSettings:
    """The distillation loss between the next-token distributions of the student and the teacher model in ``folder``.

    ``interpolation`` is beta of the generalised Jensen-Shannon divergence (None: 0.5) or alpha of the skewed KL
    divergences (None: 0.1; 0 is plain KL). ``weight`` is the share of the divergence in the loss, the remainder being
    cross-entropy on correct answers. ``temperature`` divides the logits of both models. ``on``: the answers compared:
    those of the table (``teacher``), the student's completions (``student``; the table's if there is none), or both.
    """

    folder: str | None = None
    divergence: Literal["jsd", "skewed_forward", "skewed_reverse"] = "jsd"
    interpolation: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    temperature: Rate = 1.0
    on: Literal["teacher", "student", "both"] = "teacher"


@dataclass(frozen=True)
class TraceSettings:
    """The auxiliary trace loss of ``objective: traced``: hidden layers predict intermediate values of a TinyPy program.

    The values of variables are predicted after ``operands`` layers, computed values after each of the ``results``
    layers; None is a quarter of the layers, and half and three quarters. ``weight`` is the weight of each of these
    losses relative to the token loss. ``values``: the number of most frequent values that are classes; other values
    have no loss.
    """

    weight: Rate = 0.3
    operands: Count | None = None
    results: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    values: Annotated[int, Field(ge=2)] = 500


@dataclass(frozen=True)
class Requirements:
    """The data that a loss needs.

    ``second_answer``: the column with a second answer to the prompt, in the same line of the batch as the first.
    ``replaces_first``: rows with a second answer train on that answer alone. ``pairs_only``: rows without a second
    answer are omitted, and a table without any is an error. ``isolated_samples``: batches must be packed, with
    block-diagonal attention. ``prompt_loss``: prompt tokens have a loss, so they count for the budget.
    """

    second_answer: Literal["rejected", "attempt"] | None = None
    replaces_first: bool = False
    pairs_only: bool = False
    isolated_samples: bool = False
    prompt_loss: bool = True


@dataclass(frozen=True)
class TrainSettings:
    """Training settings.

    A batch has ``size`` lines of ``length`` predictions, an optimizer step ``accumulate`` batches. ``other_weight``
    is the loss weight of tokens outside the answer (answer tokens have 1; 0 is ``objective: answer_only``); tokens of
    weight 0 do not count for the budget. ``trace``, ``contrast`` and ``kl`` belong to the objectives that need them;
    ``objective_options`` are those of an objective from another package.
    ``restart``: optimizer and learning-rate schedule restart at each stage (the paper) or continue over the run's
    budget. ``precision: auto`` is bf16 if the processor multiplies it natively.
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


@dataclass(frozen=True)
class Preset:
    """Dimensions of one architecture. ``family`` is gpt (the published model), gpt2, llama or qwen3; ``mlp`` is the
    width of the feed-forward block.

    ``window``: every other layer, from the first, attends only to that many tokens, the current one included. ``tied``
    shares input and output embeddings: the loss on unpredictable tokens then also moves the input embeddings, and
    variable binding is learned later (docs/log.md).
    """

    family: str
    width: int
    layers: int
    heads: int
    mlp: int
    window: int = 0
    tied: bool = True


PRESETS: Registry[Preset] = Registry("preset", instance=Preset)
PRESETS.constant(
    "paper",
    Preset("gpt", 120, 6, 6, 480, tied=False),
    "1.08M: the published character-level GPT; untied head with a bias, torch's initial weights (arXiv 2407.10194)",
)
PRESETS.constant(
    "gpt2-tied",
    Preset("gpt2", 120, 6, 6, 480),
    "1.08M: GPT-2 of the same size as paper: tied embeddings, no bias, weights from N(0, 0.02); formerly called paper",
)
PRESETS.constant(
    "modern",
    Preset("qwen3", 96, 8, 3, 256, 3, tied=False),
    "0.9M: RoPE, SwiGLU, QK norm, untied head; every other layer attends to three tokens",
)
PRESETS.constant(
    "modern-small",
    Preset("qwen3", 64, 6, 2, 192, 3, tied=False),
    "0.3M: modern, narrower and shallower, for comparisons over many runs",
)
PRESETS.constant(
    "llama",
    Preset("llama", 96, 4, 3, 256),
    "0.5M: four layers without windows or QK norm; the model of the published studies of cycles",
)
PRESETS.constant("small", Preset("gpt2", 64, 3, 2, 256), "0.16M: gpt2-tied, smaller, for laptops and demonstrations")
PRESETS.constant("tiny", Preset("llama", 32, 2, 2, 64), "0.02M: two layers of 32, for tests")
