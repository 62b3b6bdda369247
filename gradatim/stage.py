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
    "Counts",
    "Difficulty",
    "End",
    "Event",
    "Events",
    "Feedback",
    "Fitted",
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


@dataclass(frozen=True)
class StageSpec:
    """One column of the run: how much of each band, from which end, in what order, for how long.

    ``fractions[i]`` in [0, 1] is the share of band i (easiest band first) that the stage uses; ``ends[i]`` says
    which part of the band that is. ``tokens`` is the budget: predictions that receive a gradient. ``order`` names
    how the rows follow each other; ``objective`` replaces the recipe's objective when it is not None.
    """

    name: str
    fractions: tuple[float, ...]
    tokens: int
    ends: tuple[End, ...] = ()
    order: str = "shuffled"
    objective: str | None = None

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


@dataclass(frozen=True)
class Stage:
    """A stage with its data fixed: ``rows`` are indices into the cycle's table, in the order they are learnt.

    ``shuffled`` stages are permuted anew at each pass by the batcher (seeded by ``seed``); others keep ``rows``.
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

    @property
    def shuffled(self) -> bool:
        return self.spec.order == "shuffled"


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
class StageResult:
    """What a finished stage leaves behind; written last, so that its presence means the stage is done.

    ``composition`` is the number of samples per band.
    """

    cycle: int
    index: int
    spec: StageSpec
    samples: int
    composition: Mapping[str, int]
    fitted: Fitted
    evaluations: Sequence[SuiteResult] = ()


@dataclass(frozen=True)
class Feedback:
    """What the student got wrong in a cycle; empty before the first. Rows follow ``table``'s ids."""

    cycle: int = -1
    table: pa.Table | None = None


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


class Schedule(Protocol):
    """Which stage comes next: a pure function of what has happened in this cycle."""

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


class Suite(Protocol):
    """An evaluation: a student and a fixed table in, counts out."""

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """Deterministic for the same student, samples and seed."""
        ...
