"""Data types of stages and results, and the Protocols of the components of a run.

A run is a table with a row per cycle and a column per stage. A stage is (data, objective, budget): a ``StageSpec`` has
the share of each difficulty band and the number of tokens, and ``schedule.select_rows`` selects the rows of the
``Stage``. The Protocols are the contract between the loop in ``run.py`` and its components. Behaviour here is limited
to checks of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


End = Literal["hardest", "easiest", "random"]
By = Literal["difficulty", "loss", "pass_rate"]
EvaluationSplit = Literal["test", "validation"]


@dataclass(frozen=True)
class StageSpec:
    """Specification of a stage: share and end of each band, order of the rows, token budget.

    ``fractions[i]`` in [0, 1]: the share of band i (easiest band first). ``ends[i]``: the end of the band it is taken
    from. ``tokens``: the budget of loss tokens. ``order`` with ``order_options``: the name of the row order.
    ``objective``: replaces the recipe's objective unless None.

    Continuous curricula restrict or sample the rows of the bands:

    * ``mixture``: the bands' shares of the tokens at the start and at the end of the stage, linearly interpolated in
      between. Each adds up to 1; only for bands whose fraction is not 0.
    * ``low``, ``high``: only rows between these two quantiles of ``by``: the table's difficulty, or the model's
      result in the probe after the previous stage (``loss``: nats per answer token; ``pass_rate``).
    * ``frontier``: rows are sampled in proportion to p(1 - p), p = the model's probability of the complete answer.
    * ``replay``: the share of the tokens for rows easier than those, uniformly: below ``low``, or with p > 1/2.
    """

    name: str
    fractions: tuple[float, ...]
    tokens: int
    ends: tuple[End, ...] = ()
    order: str = "shuffled"
    objective: str | None = None
    order_options: Mapping[str, Any] = field(default_factory=dict)
    mixture: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    low: float = 0.0
    high: float = 1.0
    by: By = "difficulty"
    frontier: bool = False
    replay: float = 0.0

    def __post_init__(self) -> None:
        if not self.fractions or any(not 0 <= share <= 1 for share in self.fractions):
            raise ValueError(f"stage {self.name!r}: fractions must lie in [0, 1], not {self.fractions}")
        if not any(self.fractions):
            raise ValueError(f"stage {self.name!r}: at least one band must be used")
        if self.tokens <= 0:
            raise ValueError(f"stage {self.name!r}: the budget must be positive, not {self.tokens}")
        if not self.ends:
            object.__setattr__(self, "ends", ("hardest",) * len(self.fractions))
        if len(self.ends) != len(self.fractions):
            raise ValueError(f"stage {self.name!r}: {len(self.ends)} ends for {len(self.fractions)} bands")
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"stage {self.name!r}: 0 <= low < high <= 1, not {self.low} and {self.high}")
        if not 0 <= self.replay < 1:
            raise ValueError(f"stage {self.name!r}: replay must lie in [0, 1), not {self.replay}")
        if self.draws and self.order != "shuffled":
            raise ValueError(f"stage {self.name!r}: sampled rows have no order, not {self.order!r}")
        if self.mixture is not None:
            self._check_mixture(self.mixture)

    def _check_mixture(self, mixture: tuple[tuple[float, ...], ...]) -> None:
        if self.frontier or self.replay or (self.low, self.high) != (0, 1):
            raise ValueError(f"stage {self.name!r}: a mixture excludes quantiles, frontier and replay")
        for weights in mixture:
            if len(weights) != len(self.fractions) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
                raise ValueError(f"stage {self.name!r}: a mixture is a share per band, adding up to 1, not {weights}")
            if any(weight and not share for weight, share in zip(weights, self.fractions, strict=True)):
                raise ValueError(f"stage {self.name!r}: a mixture of {weights} needs bands that are not used")

    @property
    def draws(self) -> bool:
        """Whether rows are sampled with weights instead of visited in passes."""
        return self.mixture is not None or self.frontier or self.replay > 0

    @property
    def probes(self) -> bool:
        """Whether the rows depend on the model's probe after the previous stage."""
        return self.frontier or self.by != "difficulty"


@dataclass(frozen=True)
class Mixture:
    """Sampling weights of the rows of a stage, aligned with ``Stage.rows``.

    Row i belongs to group ``groups[i]`` (int64). The share of group g in the tokens is ``start[g]`` at the beginning
    of the stage and ``end[g]`` at its end, linearly interpolated; each adds up to 1. Within a group rows are sampled
    in proportion to ``weights`` (float64, positive).
    """

    groups: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    start: tuple[float, ...]
    end: tuple[float, ...]


@dataclass(frozen=True)
class Probe:
    """The model's loss on rows of the cycle's training table after a stage.

    ``rows`` (int64, ascending), ``loss`` (float64: nats of the answer with its end token, summed) and ``tokens``
    (int64: of that answer) have one length. ``exp(-loss)`` is the probability that the model samples exactly the
    answer.
    """

    rows: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """A stage with selected data: ``rows`` are indices into the cycle's table, in training order.

    The batcher permutes ``shuffled`` stages anew in each pass (seeded by ``seed``); others keep the order of ``rows``
    in all passes or (``shuffled_in``) in the first only. With a ``mixture`` rows are sampled, without passes.
    ``first_token`` and ``run_tokens`` locate the stage in the run's token budget, for learning-rate schedules that
    span stages.
    """

    spec: StageSpec
    index: int
    rows: npt.NDArray[np.int64]
    seed: int
    first_token: int
    run_tokens: int
    cycle: int = 0
    mixture: Mixture | None = None

    @property
    def shuffled(self) -> bool:
        return self.spec.order == "shuffled"

    def shuffled_in(self, epoch: int) -> bool:
        """Whether the rows are permuted in pass ``epoch`` (from 0)."""
        return self.shuffled or (epoch > 0 and self.spec.order_options.get("passes") == "once")


@dataclass(frozen=True)
class Counts:
    """Number of passed samples of ``total``. Percentages and intervals are computed by the report.

    A suite whose items have scores in [0, 1] gives their sum as ``passed``, a float.
    """

    passed: int | float
    total: int


@dataclass(frozen=True)
class Verdicts:
    """The verdict on every item of an evaluation: the samples of a table, or the problems of a file.

    All sequences are aligned. ``ids``: ids of the samples or problems; ``rows``: rows of the table, or positions among
    the problems; ``outcomes``: ``passed``, ``failed``, ``timeout``, ``too_long`` or ``invalid``; ``passed`` and
    ``total``: the number of units, 1 of 1 unless an item has several (characters, lines, completions), where the
    outcome is ``passed`` only if all units passed. ``passed`` is the score in [0, 1] of an item that has one.
    ``labels``: the groups of the counts, one label per item.
    """

    ids: tuple[str, ...]
    rows: tuple[int, ...]
    outcomes: tuple[str, ...]
    passed: tuple[int | float, ...]
    total: tuple[int, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteResult:
    """Result of one suite.

    ``counts["all"]["all"]``: the complete set; further groups are columns of the table (``level``, ``band``, ``twin``)
    with one ``Counts`` per value. ``scores``: metrics that are not counts (edit similarity), as (sum, total).
    ``examples``: a few attempts as plain dicts: id, prompt, expected, attempt, passed, level, band. ``verdicts``: that
    on every item, None for a result read from a run folder, where they are a Parquet file beside it
    (``reporting.read_verdicts``), and for a suite that gives none. ``split``: the samples of the run that a suite
    without problems of its own evaluates on. ``texts``: a function that yields every attempt as the examples have it,
    with ``row`` after ``id``; None for a result read from a run folder, and for a suite without texts.
    """

    suite: str
    protocol: str
    counts: Mapping[str, Mapping[str, Counts]]
    scores: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    verdicts: Verdicts | None = field(default=None, repr=False)
    split: EvaluationSplit = "test"
    texts: Callable[[], Iterator[Mapping[str, Any]]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Fitted:
    """Result of training a stage.

    ``tokens``: loss tokens in ``steps`` optimizer steps; ``dropped``: samples longer than the context; ``loss``: the
    last logged mean (nats per weighted token); ``weights``: SHA-256 of the final weights; ``resumed_at``: step of the
    checkpoint that the last process resumed from, 0 without one; ``auxiliary_parameters``: those of modules that are
    trained beside the model and are no part of it (trace supervision), not counted in ``parameters``, which are the
    trainable ones of the model; ``total_parameters``: with those that are not trained, such as the base of an adapter.
    None in results of earlier versions.
    """

    steps: int
    tokens: int
    parameters: int
    dropped: int
    loss: float
    seconds: float
    weights: str
    resumed_at: int = 0
    auxiliary_parameters: int = 0
    total_parameters: int | None = None


@dataclass(frozen=True)
class BandProgress:
    """The model's results on one band of the fixed validation samples.

    ``loss``: nats per answer token; ``right``: the share of samples whose complete answer is its greedy completion;
    ``samples``: their number.
    """

    loss: float
    right: float
    samples: int


@dataclass(frozen=True)
class AnswerLoss:
    """Loss of answers of one kind under the model before training, by part: (sum of nats, number of tokens).

    ``first``: the first tokens of each answer, ``end`` its end token, ``body`` the tokens between.
    """

    samples: int
    first: tuple[float, int]
    body: tuple[float, int]
    end: tuple[float, int]

    @property
    def means(self) -> dict[str, float]:
        """Nats per token by part, without parts that have no token."""
        parts = {"first": self.first, "body": self.body, "end": self.end}
        return {name: nats / tokens for name, (nats, tokens) in parts.items() if tokens}


@dataclass(frozen=True)
class StageResult:
    """Result of a finished stage; written last, so that its presence marks the stage as done.

    ``composition``: number of samples per band. ``progress`` (by band, bands without validation samples omitted) and
    ``probed`` (number of rows in the stage's ``Probe``) are set when the schedule needs them.
    """

    cycle: int
    index: int
    spec: StageSpec
    samples: int
    composition: Mapping[str, int]
    fitted: Fitted
    evaluations: Sequence[SuiteResult] = ()
    progress: Mapping[str, BandProgress] = field(default_factory=dict)
    probed: int = 0


@dataclass(frozen=True)
class Feedback:
    """Judged attempts of the model in a cycle; empty before the first.

    ``table``: one row per attempt in the schema ``FEEDBACK`` of ``distillation``. ``known``: all samples of the cycles
    so far, including those held out, which new questions must differ from; ``learnt``: the training samples among them.
    """

    cycle: int = -1
    table: pa.Table | None = None
    known: pa.Table | None = None
    learnt: pa.Table | None = None


@dataclass(frozen=True)
class Event:
    """Progress of a long task. ``kind``: start, advance, finish or note. The CLI displays it.

    ``done`` of ``total``, counted in ``unit`` (``tokens`` in training, else items). ``loss``: nats per weighted token,
    the mean since the last logged row. ``stage``: position in the run of the stage that the task belongs to.
    ``text``: of a note.
    """

    kind: Literal["start", "advance", "finish", "note"]
    task: str
    done: float = 0
    total: float | None = None
    text: str = ""
    unit: str = ""
    loss: float | None = None
    stage: str = ""


Events = Callable[[Event], None]


def ignore_events(event: Event) -> None:
    """Ignore all events; the default listener."""


class UnusedRows(Protocol):
    """The rows of a data file that are not used: ``table.ReadReport``."""

    def notes(self) -> list[str]:
        """Lines for the user on these rows and their causes."""
        ...

    def write_rejected(self, output: Path) -> Path | None:
        """Write the rows beside ``output`` as NAME.rejected.jsonl; None without any."""
        ...


@dataclass(frozen=True)
class Drawn:
    """The samples of one cycle, as a source returns them.

    ``table``: the samples in the schema ``table.SCHEMA``. ``facts``: counts of the rows kept and dropped, plain JSON.
    ``rejected``: the rows of a data file that are not used, None without such a file. ``origin``: the fingerprint of
    the data file as it was read (``source.fingerprint``), empty without one.
    """

    table: pa.Table
    facts: Mapping[str, Any] = field(default_factory=dict)
    rejected: UnusedRows | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CyclePlan:
    """The samples that a source makes in a cycle, as far as its options determine them.

    ``questions``: new samples. None is unknown in the first cycle, and later as many as the first has for training.
    ``accumulates``: the samples of earlier cycles are kept. ``by_grade``: the new samples by the grade (``easy``,
    ``middle``, ``hard``, ``random``) of the questions that they are written after.
    """

    questions: int | None = None
    accumulates: bool = False
    by_grade: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """Source of samples.

    A subclass defines ``draw``; the other members have defaults, those of a generator that needs nothing.

    ``changes``: later cycles have other samples than the first; a recipe of several cycles needs such a source.
    ``rereads``: every cycle reads ``data_file`` again, which must not change in between. ``needs_teacher``: the teacher
    of the recipe writes samples, so the factory has an option ``teacher``. ``later_options``: names of options that
    affect later cycles only; they are no part of the first dataset's key. ``has_rejected``: samples may have a rejected
    answer, which preference losses need. ``has_wrong_answers``: answers may be wrong, so the objective must not learn
    them (``Requirements.right_answers``).

    The options ``seed``, ``workers`` and ``events`` of a factory default to the recipe's.
    """

    changes: bool = True
    rereads: bool = False
    needs_teacher: bool = False
    later_options: tuple[str, ...] = ()

    @property
    def has_rejected(self) -> bool:
        return False

    @property
    def has_wrong_answers(self) -> bool:
        return False

    @property
    def data_file(self) -> str | None:
        """Path of the data file, or ``hub:NAME``; None without one. It is not read for this."""
        return None

    def plan(self, cycle: int) -> CyclePlan:
        """Number of samples of ``cycle`` before any is made; nothing is read or requested for it."""
        return CyclePlan()

    def draw(self, cycle: int, feedback: Feedback) -> Drawn:
        """Samples of one cycle; deterministic, and without effect on this object."""
        ...


class Difficulty(Protocol):
    """Difficulty metric: one column of scores, higher is harder.

    A subclass defines ``__call__``; the other members have defaults, those of a function of the sample alone.

    ``scored_by``: ``program`` for a computation, ``model`` or ``teacher`` for a metric that loads a model or requests
    completions; a plan makes neither. ``causes``: the number of samples without a score by cause, of the last call.
    ``usage``: requests, tokens and cost of a teacher so far, in the form of its facts; empty without requests.
    """

    scored_by: Literal["program", "model", "teacher"] = "program"
    causes: Mapping[str, int] = MappingProxyType({})
    usage: Mapping[str, Any] = MappingProxyType({})

    @property
    def identity(self) -> str | None:
        """The state that the scores depend on besides the samples, part of a dataset's key; None: the options are."""
        return None

    @property
    def reads_programs(self) -> bool:
        """Whether a sample must contain a Python program to have a score."""
        return False

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per row; NaN for a sample that cannot be scored (counted and reported, never dropped)."""
        ...


@dataclass(frozen=True)
class Needs:
    """Measurements that a schedule needs after each stage.

    ``band_loss``: ``StageResult.progress``. ``sample_loss``: a ``Probe`` of ``probe`` rows sampled from the cycle's
    training table, 0 for all rows; ``StageResult.probed`` is their number.
    """

    band_loss: bool = False
    sample_loss: bool = False
    probe: int = 0

    def __bool__(self) -> bool:
        """Whether anything is measured."""
        return self.band_loss or self.sample_loss


class Schedule(Protocol):
    """Choice of the next stage: a pure function of the cycle's results so far.

    A subclass defines ``next``; the other members have defaults, those of a curriculum fixed in advance.

    ``needs``: measurements after each stage, for a schedule that depends on the model's results. The results hold all
    of its input, so that a resumed run makes the same choice. ``needs_teacher``: the teacher of the recipe designs the
    stages; the schedule is then a ``schedule.Designed``. ``objectives``: objectives that a stage may name beside the
    recipe's own. ``is_control``: every band from the first step; a study compares the other arms with it.
    """

    needs: Needs = Needs()
    needs_teacher: bool = False
    objectives: tuple[str, ...] = ()
    is_control: bool = False

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The next stage, or None when the cycle's stages are done."""
        ...


@dataclass(frozen=True)
class Examination:
    """Evaluation of the model during a stage.

    ``every``: loss tokens of the run between two evaluations. ``evaluate``: the counts of every suite that is due, as
    plain JSON, of the Hugging Face folder of a model; a pure function, so that a resumed run records the same.
    """

    every: int
    evaluate: Callable[[Path], Sequence[Mapping[str, Any]]]


class Trainer(Protocol):
    """Trains a model on stages."""

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """Train on the stage, starting from the model in the stage folder ``previous`` (None: from initialization).

        Checkpoints and the finished ``model/`` are written to ``folder``; a checkpoint in it is resumed. When
        ``events`` raises ``Stopped``, the state is saved before the error propagates.
        """
        ...


class Model(Protocol):
    """A loaded model: a Hugging Face causal model with its tokenizer."""

    @property
    def model(self) -> Any:
        """The causal model, a ``transformers.PreTrainedModel``."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of its training, with an end token."""
        ...


class Suite(Protocol):
    """An evaluation of a model on a fixed table.

    A subclass defines ``__call__``. ``accepts_endpoint``: completions suffice, so the model may also be a
    ``evaluation.generation.Endpoint``, a model behind a server. ``students``: the kinds of students that it evaluates.
    """

    accepts_endpoint: bool = False
    students: tuple[str, ...] = ("language",)

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """Counts of passed samples; deterministic for the same model, samples and seed."""
        ...
