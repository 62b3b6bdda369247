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
AnswerFormat = Literal["fenced", "reply", "code"]
Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (LoRA, arXiv 2106.09685) on a frozen base model."""

    rank: Annotated[
        Count,
        Field(description="Rank of the LoRA adapters (extra `lora`). Without the section all weights are trained."),
    ] = 16
    alpha: Annotated[Rate, Field(description="The adapter's output is scaled by alpha / rank.")] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout on the input of the adapters.")] = 0.0
    targets: Annotated[
        tuple[str, ...],
        Field(
            description="Layers with an adapter, by the last component of their names, such as `q_proj`; `all-linear` "
            "is every linear layer except the head."
        ),
    ] = ("all-linear",)


@dataclass(frozen=True)
class ModelSettings:
    """The model to train: a preset with new weights, or a pretrained base."""

    kind: Annotated[
        Literal["language"],
        Field(description="Kind of student. The other keys are those of a language model."),
    ] = "language"
    preset: Annotated[str, Field(description="Architecture and dimensions of a new model.")] = "gpt2-tied"
    tokenizer: Annotated[
        Literal["character", "word_level", "bpe"],
        Field(
            description="Tokens: single characters; digits, one-letter names and the phrases between them "
            "(`word_level`, for TinyPy); or byte-level BPE. The vocabulary comes from the training samples."
        ),
    ] = "character"
    vocab_size: Annotated[
        int, Field(ge=258, description="Maximum vocabulary size of `word_level` and `bpe`. Not used by `character`.")
    ] = 512
    context_length: Annotated[Count, Field(description="Maximum number of tokens in the model's context.")] = 256
    base: Annotated[
        str | None,
        Field(
            description="Pretrained model in place of a preset: a folder, a name on the Hugging Face hub, or a .gguf "
            "file. `preset`, `tokenizer` and `vocab_size` are then not used."
        ),
    ] = None
    lora: Annotated[LoraSettings | None, Field(description="LoRA adapters; without the section, full fine-tuning.")] = (
        None
    )
    chat_template: Annotated[
        Literal["auto", "chat", "plain"],
        Field(
            description="Prompt format of a base: its tokenizer's chat template, plain text, or the template if there "
            "is one (`auto`)."
        ),
    ] = "auto"
    separator: Annotated[
        str | None,
        Field(
            description="Text between prompt and answer without a chat template, after prompts that do not end in "
            "white space. null: a blank line if most prompts would run into their answers, else none."
        ),
    ] = None
    system_prompt: Annotated[
        str | None, Field(description="System message of conversations that have none of their own.")
    ] = None
    answer_format: Annotated[
        Literal["auto", "fenced", "reply", "code"],
        Field(
            description="Form of programs as answers of the sources `taught` and `rejection_sampling`: in a fenced "
            "block, the whole reply as generated, or the program alone. `auto`: `fenced` with a chat template, else "
            "`code`. A rejected answer has the form of the right one."
        ),
    ] = "auto"
    start: Annotated[
        Literal["continue", "base"],
        Field(description="Initial model of a later cycle: the model of the previous cycle, or the base."),
    ] = "continue"
    dtype: Annotated[
        Dtype,
        Field(
            description="Type of the weights in training. bf16 halves the memory and rounds the optimizer's updates; "
            "LoRA adapters are always fp32."
        ),
    ] = "fp32"
    evaluation_dtype: Annotated[
        Dtype | None,
        Field(
            description="Type of the weights in evaluations and attempts. Null: `fp32` on a CPU, `dtype` elsewhere. "
            "`bf16` is several times faster on a CPU with bf16 products, and more tokens have equal probability."
        ),
    ] = None
    gradient_checkpointing: Annotated[
        bool, Field(description="Recompute activations in the backward pass: slower, less memory.")
    ] = False
    shard: Annotated[
        bool,
        Field(
            description="Divide weights, gradients and optimizer state among the processes of a run (FSDP2), for "
            "models larger than a device. Needs AdamW and full fine-tuning; no effect in one process."
        ),
    ] = False


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer. Muon's update RMS is matched to that of AdamW."""

    name: Annotated[
        Literal["adamw", "muon"],
        Field(description="AdamW for all parameters, or Muon for hidden matrices and AdamW for the others."),
    ] = "adamw"
    learning_rate: Annotated[Rate, Field(description="Peak learning rate of AdamW.")] = 1e-3
    muon_learning_rate: Annotated[Rate, Field(description="Peak learning rate of Muon, on its own scale.")] = 5e-3
    weight_decay: Annotated[
        NotNegative, Field(description="Decoupled weight decay of the parameters of `weight_decay_on`.")
    ] = 0.1
    betas: Annotated[tuple[Share, Share], Field(description="AdamW's decay rates of the first and second moment.")] = (
        0.9,
        0.99,
    )
    weight_decay_on: Annotated[
        Literal["matrices", "all"],
        Field(description="Matrices and embeddings alone, or all parameters of AdamW, which is torch's default."),
    ] = "matrices"


@dataclass(frozen=True)
class LRSchedulerSettings:
    """The learning-rate schedule over a stage, or over the run without ``train.reset_optimizer``."""

    name: Annotated[
        Literal["constant", "paper_steps", "warmup_decay", "cosine"],
        Field(
            description="`paper_steps`: x 0.1 at 70, 80 and 90 %. `warmup_decay`: linear warm-up, constant, linear "
            "decay. `cosine`: linear warm-up, cosine decay."
        ),
    ] = "paper_steps"
    warmup_ratio: Annotated[
        float,
        Field(ge=0, lt=1, description="Fraction of the steps for warm-up. Not used by `constant` and `paper_steps`."),
    ] = 0.02
    decay_ratio: Annotated[Share, Field(description="Fraction of the steps for the decay of `warmup_decay`.")] = 0.3
    min_lr_ratio: Annotated[
        Share, Field(description="Final learning rate / peak learning rate, for `warmup_decay` and `cosine`.")
    ] = 0.0


@dataclass(frozen=True)
class PreferenceSettings:
    """The preference loss -log sigmoid(``beta`` x margin - ``gamma``), margin = log p(chosen) - log p(rejected)."""

    weight: Annotated[Rate, Field(description="Weight of the preference loss in `objective: sft_dpo`.")] = 1.0
    beta: Annotated[
        Rate | None, Field(description="Factor on the margin; null: 0.1 with a reference model, 2 without.")
    ] = None
    reference_free: Annotated[
        bool,
        Field(
            description="No reference model (SimPO, CPO). By default the margin is relative to the model at the "
            "stage's start (DPO)."
        ),
    ] = False
    length_normalized: Annotated[
        bool | None,
        Field(
            description="Mean log-probability per token in place of the sum; null: as published, the sum with a "
            "reference model and the mean without."
        ),
    ] = None
    gamma: Annotated[NotNegative, Field(description="Target margin (gamma of SimPO).")] = 0.0


@dataclass(frozen=True)
class DistillationSettings:
    """The distillation loss: a divergence between the next-token distributions of the model and a teacher model."""

    teacher_model: Annotated[
        str | None, Field(description="Folder of the teacher model; it has the same tokenizer as the trained model.")
    ] = None
    divergence: Annotated[
        Literal["jsd", "skewed_forward", "skewed_reverse"],
        Field(description="Generalised Jensen-Shannon divergence (GKD) or skewed KL divergence (DistiLLM)."),
    ] = "jsd"
    beta: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | None,
        Field(
            description="Interpolation: beta of GKD (null: 0.5), alpha of DistiLLM's skewed KL (null: 0.1; 0 is plain "
            "KL)."
        ),
    ] = None
    weight: Annotated[
        float, Field(gt=0, le=1, description="Share of the divergence in the loss; the remainder is cross-entropy.")
    ] = 1.0
    temperature: Annotated[Rate, Field(description="Divisor of the logits of both models.")] = 1.0
    answers: Annotated[
        Literal["teacher", "student", "both"],
        Field(
            description="Answers on which the distributions are compared: those of the dataset, the model's own "
            "completions (the dataset's if there is none), or both."
        ),
    ] = "teacher"


@dataclass(frozen=True)
class TraceSupervisionSettings:
    """The auxiliary loss of ``objective: trace_supervision``: inner layers predict intermediate values of a TinyPy
    program."""

    weight: Annotated[Rate, Field(description="Weight of each auxiliary loss relative to the loss of the tokens.")] = (
        0.3
    )
    variable_layer: Annotated[
        Count | None,
        Field(description="Layer whose output predicts the values of variables; null: at a quarter of the depth."),
    ] = None
    result_layers: Annotated[
        Annotated[tuple[Count, ...], Field(min_length=1)] | None,
        Field(
            description="Layers whose outputs predict the results of operations and conditions; null: at half and "
            "three quarters of the depth."
        ),
    ] = None
    labels: Annotated[
        Literal["digits", "values"],
        Field(
            description="The classes of a value: its kind with the sign, the ones, tens and hundreds of its integer "
            "part below 1000, and its fraction, each predicted separately (`digits`); or the whole value (`values`)."
        ),
    ] = "values"
    num_fractions: Annotated[
        int, Field(ge=1, description="Number of most frequent fractions that are classes of `digits`.")
    ] = 100
    num_classes: Annotated[
        int, Field(ge=2, description="Number of most frequent values that are classes of `values`.")
    ] = 500
    turns: Annotated[
        int, Field(ge=1, le=16, description="Number of turns of a loop whose values are predicted, by a head each.")
    ] = 1


@dataclass(frozen=True)
class Requirements:
    """The data that a loss needs.

    ``second_answer``: the column with a second answer to the prompt, in the same line of the batch as the first.
    ``replaces_first``: rows with a second answer train on that answer alone. ``pairs_only``: rows without a second
    answer are omitted, and a table without any is an error. ``isolated_samples``: batches must be packed, with
    block-diagonal attention. ``prompt_loss``: prompt tokens have a loss, so they count for the budget.
    ``right_answers``: the loss raises the probability of the answers, so wrong ones would be learnt.
    """

    second_answer: Literal["rejected", "attempt"] | None = None
    replaces_first: bool = False
    pairs_only: bool = False
    isolated_samples: bool = False
    prompt_loss: bool = True
    right_answers: bool = True


@dataclass(frozen=True)
class TrainSettings:
    """Training settings. Tokens of loss weight 0 do not count for the budget."""

    batching: Annotated[
        Literal["random_crops", "packed"],
        Field(
            description="`random_crops`: random crops of the concatenated text (the paper). `packed`: whole samples, "
            "several in a sequence; those longer than `max_length` are dropped and counted."
        ),
    ] = "random_crops"
    batch_size: Annotated[Count, Field(description="Sequences in a batch.")] = 64
    max_length: Annotated[
        Count, Field(description="Predicted tokens in a sequence; at most `student.context_length`.")
    ] = 256
    block_diagonal_attention: Annotated[
        bool, Field(description="`packed` only: samples of one sequence do not attend to each other.")
    ] = False
    objective: Annotated[str, Field(description="The loss: `gradatim list objectives`.")] = "next_token"
    objective_options: Annotated[
        Mapping[str, Any], Field(description="Options of an objective from another package.")
    ] = field(default_factory=dict)
    prompt_loss_weight: Annotated[
        NotNegative,
        Field(description="Loss weight of tokens outside the answer; answer tokens have 1. 0 is `answer_only`."),
    ] = 1.0
    trace_supervision: TraceSupervisionSettings = field(default_factory=TraceSupervisionSettings)
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    gradient_accumulation_steps: Annotated[Count, Field(description="Batches in an optimizer step.")] = 1
    candidates: Annotated[
        Count,
        Field(
            description="Batches that the model scores for each one that it trains on: the sequences with the highest "
            "loss of their answers (online batch selection). `packed` only; 1: no selection."
        ),
    ] = 1
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lr_scheduler: LRSchedulerSettings = field(default_factory=LRSchedulerSettings)
    reset_optimizer: Annotated[
        bool,
        Field(
            description="Optimizer and learning-rate schedule restart at each stage (the paper), or continue over the "
            "run."
        ),
    ] = True
    swa_start: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Stochastic weight averaging: fraction of the learning-rate schedule after which the weights "
            "of each step are averaged; the finished model has their mean. Of a schedule over the run only the steps "
            "of the last stage are averaged. With a constant rate it replaces a decay: `lr_scheduler: {name: "
            "warmup_decay, decay_ratio: 0}`. Null: no averaging.",
        ),
    ] = None
    max_grad_norm: Annotated[NotNegative, Field(description="Gradient clipping by norm; 0: none.")] = 1.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(description="Type of the computation. `auto` is bf16 where the processor multiplies it natively."),
    ] = "auto"
    compile: Annotated[bool, Field(description="Compile the training step with `torch.compile`; see the log.")] = False
    logging_steps: Annotated[Count, Field(description="Steps between two rows of `metrics.jsonl`.")] = 10
    evaluations_per_stage: Annotated[
        int, Field(ge=0, description="Measurements of the validation loss in a stage; 0: none.")
    ] = 8
    checkpoint_seconds: Annotated[NotNegative, Field(description="Seconds between checkpoints within a stage.")] = 30.0

    @property
    def tokens_per_step(self) -> int:
        """Predicted tokens in an optimizer step of full batches."""
        return self.batch_size * self.max_length * self.gradient_accumulation_steps


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
