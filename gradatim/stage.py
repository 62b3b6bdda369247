"""What is a stage, and what do the parts of a run owe each other?

A run is a table whose rows are cycles and whose columns are stages. A stage is (data, objective, budget):
a ``StageSpec`` says which share of which difficulty band it takes and for how many tokens, and
``schedule.realise`` turns it into a ``Stage``, whose rows are fixed. The Protocols below are the whole contract
between the loop in ``run.py`` and its parts. This module holds no behaviour beyond checks of its own values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = [
    "BandProgress",
    "By",
    "Counts",
    "Difficulty",
    "End",
    "Event",
    "Events",
    "Feedback",
    "Fitted",
    "Mixture",
    "Model",
    "Needs",
    "Probe",
    "Schedule",
    "Source",
    "Stage",
    "StageResult",
    "StageSpec",
    "Student",
    "Suite",
    "SuiteResult",
    "ignore_events",
]

End = Literal["hardest", "easiest", "random"]
By = Literal["difficulty", "loss", "pass_rate"]


@dataclass(frozen=True)
class StageSpec:
    """One column of the run: how much of each band, from which end, in what order, for how long.

    ``fractions[i]`` in [0, 1] is the share of band i (easiest band first) that the stage uses; ``ends[i]`` says
    which part of the band that is. ``tokens`` is the budget: predictions that receive a gradient. ``order`` names
    how the rows follow each other, with ``order_options``; ``objective`` replaces the recipe's objective when it is
    not None.

    Continuous curricula narrow or draw what the bands hold:

    * ``mixture``: the bands' shares of the stage's tokens at its start and at its end, each adding up to 1; between
      the two they move in a straight line. Only for bands whose fraction is not 0.
    * ``low``, ``high``: only rows between these two quantiles of ``by``: the table's difficulty, or what the student
      itself found hard when it was probed after the stage before (``loss``: nats per answer token; ``pass_rate``).
    * ``frontier``: rows are drawn in proportion to p(1 - p), p = the student's chance of the whole answer, as probed.
    * ``replay``: the share of the tokens that goes, evenly, to rows easier than those: below ``low``, or with p > 1/2.
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
            raise ValueError(f"stage {self.name!r}: rows that are drawn have no order, not {self.order!r}")
        if self.mixture is not None:
            self._check_mixture(self.mixture)

    def _check_mixture(self, mixture: tuple[tuple[float, ...], ...]) -> None:
        if self.frontier or self.replay or (self.low, self.high) != (0, 1):
            raise ValueError(f"stage {self.name!r}: a mixture goes with no quantiles, frontier or replay")
        for weights in mixture:
            if len(weights) != len(self.fractions) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
                raise ValueError(f"stage {self.name!r}: a mixture is a share per band, adding up to 1, not {weights}")
            if any(weight and not share for weight, share in zip(weights, self.fractions, strict=True)):
                raise ValueError(f"stage {self.name!r}: a mixture of {weights} needs bands that are not used")

    @property
    def draws(self) -> bool:
        """Whether rows are drawn with weights instead of being gone through in passes."""
        return self.mixture is not None or self.frontier or self.replay > 0

    @property
    def probes(self) -> bool:
        """Whether its rows depend on what the student was probed on after the stage before."""
        return self.frontier or self.by != "difficulty"


@dataclass(frozen=True)
class Mixture:
    """How often each row of a stage comes up, aligned with ``Stage.rows``.

    Row i belongs to group ``groups[i]`` (int64). A group gets the share ``start[g]`` of the tokens at the beginning of
    the stage and ``end[g]`` at its end, moving in a straight line; each adds up to 1. Within a group rows come up in
    proportion to ``weights`` (float64, positive).
    """

    groups: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    start: tuple[float, ...]
    end: tuple[float, ...]


@dataclass(frozen=True)
class Probe:
    """How hard the student found some rows of the cycle's training table, after a stage.

    ``rows`` (int64, rising), ``loss`` (float64: nats of the whole answer with its end, a sum) and ``tokens`` (int64: of
    that answer) have one length. ``exp(-loss)`` is the chance that the student, sampling, writes exactly the answer.
    """

    rows: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """A stage with its data fixed: ``rows`` are indices into the cycle's table, in the order they are learnt.

    ``shuffled`` stages are permuted anew at each pass by the batcher (seeded by ``seed``); others keep ``rows``, at
    every pass or (``shuffled_in``) at the first alone. With a ``mixture`` rows are drawn, and there are no passes.
    ``first_token`` and ``run_tokens`` place the stage inside the run's whole budget, for learning-rate shapes that
    continue over stages.
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
    """How many of ``total`` samples passed. Results hold counts; percentages and intervals are the report's."""

    passed: int
    total: int


@dataclass(frozen=True)
class SuiteResult:
    """What one suite found.

    ``counts["all"]["all"]`` is the whole set; further groups are columns of the table (``level``, ``band``, ``twin``),
    each with one ``Counts`` per value. ``scores`` holds means that are not counts (edit similarity), as (sum, total).
    ``examples`` are a few attempts as plain dicts: id, prompt, expected, attempt, passed, level, band.
    """

    suite: str
    protocol: str
    counts: Mapping[str, Mapping[str, Counts]]
    scores: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """What training a stage gave.

    ``tokens`` received a gradient in ``steps`` optimizer steps; ``dropped`` samples were longer than the context;
    ``loss`` is the last logged mean (nats per weighted token); ``weights`` is the SHA-256 of the final weights;
    ``resumed_at`` is the step of the checkpoint that the last process went on from, 0 when there was none.
    """

    steps: int
    tokens: int
    parameters: int
    dropped: int
    loss: float
    seconds: float
    weights: str
    resumed_at: int = 0


@dataclass(frozen=True)
class BandProgress:
    """How the student does on one band of the fixed validation samples.

    ``loss``: nats per token of their answers; ``right``: the share whose whole answer it would write, greedily;
    ``samples``: how many there are.
    """

    loss: float
    right: float
    samples: int


@dataclass(frozen=True)
class StageResult:
    """What a finished stage leaves behind; written last, so that its presence means the stage is done.

    ``composition`` is the number of samples per band. ``progress`` ({band: how the student does on it}) and ``probed``
    (rows in the stage's ``Probe``) are there when the schedule needs them; a band without validation samples is not.
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
    """What the student got wrong in a cycle; empty before the first.

    ``table`` has one row per attempt in the schema ``feedback.FEEDBACK``. ``known`` holds what is not new any more:
    every sample of the cycles so far, those held out included; ``learnt`` is the part that was there to learn.
    """

    cycle: int = -1
    table: pa.Table | None = None
    known: pa.Table | None = None
    learnt: pa.Table | None = None


@dataclass(frozen=True)
class Event:
    """Something a long job wants to tell: ``kind`` is start, advance, finish or note; the CLI draws it."""

    kind: Literal["start", "advance", "finish", "note"]
    task: str
    done: float = 0
    total: float | None = None
    text: str = ""


Events = Callable[[Event], None]


def ignore_events(event: Event) -> None:
    """The default listener: hears nothing."""


class Source(Protocol):
    """Where samples come from."""

    def draw(self, cycle: int, feedback: Feedback) -> pa.Table:
        """The samples of one cycle, in the schema of ``table.SCHEMA``; the same call gives the same table."""
        ...


class Difficulty(Protocol):
    """One column: how hard each sample is. Higher is harder."""

    def __call__(self, samples: pa.Table, *, workers: int = 1) -> npt.NDArray[np.float64]:
        """One float per row; NaN where a sample cannot be scored (it is counted and reported, never dropped)."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a schedule wants to know after each stage.

    ``band_loss``: ``StageResult.progress``. ``sample_loss``: a ``Probe`` of ``probe`` rows drawn from the cycle's
    training table, 0 for all of them; ``StageResult.probed`` says how many it has.
    """

    band_loss: bool = False
    sample_loss: bool = False
    probe: int = 0


class Schedule(Protocol):
    """Which stage comes next: a pure function of what has happened in this cycle.

    A schedule that looks at what the student can do says so in an attribute ``needs``, see ``Needs``; where it has
    none, nothing is measured. All that it may look at is recorded in the results, so that a resumed run decides alike.
    """

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """The next stage, or None when the cycle's stages are done."""
        ...


class Student(Protocol):
    """A model that learns a stage and answers questions."""

    def fit(self, stage: Stage, folder: Path, previous: Path | None, events: Events = ignore_events) -> Fitted:
        """Train on the stage from the model in the stage folder ``previous`` (None: from the beginning).

        Checkpoints and the finished ``model/`` go under ``folder``; a checkpoint found there is continued. When
        ``events`` raises ``Stopped`` the state is saved before the error passes on.
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
    """An evaluation: a student and a fixed table in, counts out."""

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """Deterministic for the same student, samples and seed."""
        ...
