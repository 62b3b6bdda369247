"""Kinds of students: the steps of a run that depend on the type of the model.

The loop over cycles, schedules, studies, designs and reports are the same for all kinds. A kind trains the model on the
rows of a stage, opens and measures it, and counts its budget. ``language`` is the default; ``policy`` acts in mobile
networks. A recipe names the kind in ``student.kind``; its options are the other keys of ``student``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import RecipeError
from ...processes import SINGLE, Processes
from ...registry import Contract, Registry
from ...stage import AnswerLoss, Events, Examination, Model, Needs, Source, Trainer, ignore_events
from ..recipe import LANGUAGE, FeedbackSection, Recipe, StudentSection

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ...corpus import Corpus
    from ...distillation.attempts import GradedAttempts
    from ...record import Metrics
    from ...schedule import Bands


@dataclass(frozen=True)
class StudentContext:
    """What a run passes to its kind of student.

    ``seed``: of the run; ``data_seed``: of the samples; ``threads``: of the training, 0 for all.
    ``easy`` and ``hard``: thresholds of the grades of attempts. ``data``: the options of the source.
    """

    seed: int = 0
    data_seed: int = 0
    threads: int = 0
    easy: float = 0.5
    hard: float = 0.5
    data: Mapping[str, Any] = field(default_factory=dict)
    processes: Processes = SINGLE
    events: Events = ignore_events


class Student(Protocol):
    """A kind of student with its settings.

    A subclass defines the members without a default: ``objective``, ``objectives``, ``check_objective``, ``trainer``,
    ``initial_model``, ``open_model``, ``measure``. ``unit``: the noun of the budget. ``step``: units of the budget in
    an optimizer step. ``name``: of the model in a plan. ``pretrained``: evaluated before training by default.
    ``restarts``: whether the optimizer starts anew at each stage. ``several_processes``: whether several processes may
    train it. ``parameter_bytes``: of a stored parameter.
    """

    unit: str = "token"
    several_processes: bool = False

    @property
    def step(self) -> int:
        return 1

    @property
    def name(self) -> str:
        return ""

    @property
    def pretrained(self) -> bool:
        return False

    @property
    def restarts(self) -> bool:
        return False

    @property
    def parameter_bytes(self) -> int:
        return 4

    @property
    def objective(self) -> str:
        """The objective of stages that name no other."""
        ...

    @property
    def objectives(self) -> Mapping[str, str]:
        """Names of all objectives, with summaries."""
        ...

    @property
    def design_facts(self) -> Mapping[str, Any]:
        """Facts for a teacher that designs the stages, plain JSON."""
        return {}

    @property
    def design_prompt(self) -> str:
        """The name of the prompt of a teacher that designs the stages."""
        return "design"

    def check(self, source: Source) -> None:
        """Raise ``UserError`` for settings that cannot be used, alone or with the samples of ``source``; light."""
        return

    def check_objective(self, name: str, where: str) -> None:
        """Raise ``UserError`` unless stages may have the objective ``name``, which stands at the key ``where``."""
        ...

    def parameters(self) -> int | None:
        """The number of trainable parameters; None when it is not known before the samples are."""
        return None

    def epoch(self, dataset: Corpus, rows: npt.NDArray[Any]) -> int:
        """Units of the budget in one pass through ``rows`` of the training samples."""
        raise RecipeError(
            f"the budget of this student is counted in {self.unit}s, not in epochs",
            where="budget.epochs",
            hint="budget: {steps: …}",
        )

    def trainer(self, dataset: Corpus, metrics: Metrics, examination: Examination | None = None) -> Trainer:
        """The trainer on a dataset, in this process."""
        ...

    def initial_model(self, dataset: Corpus, metrics: Metrics) -> Model:
        """The model before training, for evaluation."""
        ...

    def open_model(self, folder: Path) -> Model:
        """The model in a folder ``model/`` of a stage, in this process."""
        ...

    def share(self, model: Model) -> None:
        """Divide the rows of evaluations of ``model`` among the processes of the run."""
        return

    def measure(
        self,
        needs: Needs,
        model: Model,
        dataset: Corpus,
        bands: Bands,
        band_indices: npt.NDArray[Any],
        seed: int,
        probe: Path,
    ) -> dict[str, Any]:
        """The measurements that a schedule needs, as JSON values: ``progress`` and ``probed`` of a ``StageResult``.

        ``band_indices``: the band of each validation sample. A probe (``stage.Probe``) is written to ``probe``.
        """
        ...

    def attempts(self, model: Model, questions: pa.Table, seed: int) -> GradedAttempts | None:
        """The model's graded attempts at ``questions``; None: completions that judges grade."""
        return None

    def examples(self, dataset: Corpus) -> Sequence[Any]:
        """Formatted training samples (``training.examples.FormattedExample``); empty where samples are no texts."""
        return ()

    def answer_losses(self, dataset: Corpus) -> dict[str, AnswerLoss]:
        """The loss of the dataset's answers before training, by kind of answer; empty without a pretrained model."""
        return {}


STUDENTS: Registry[Callable[..., Student]] = Registry(
    "kind of student",
    "students",
    contracts=(
        Contract(
            Student, ("objective", "objectives", "check_objective", "trainer", "initial_model", "open_model", "measure")
        ),
    ),
    arguments=1,
)
STUDENTS.lazy("language", "gradatim.experiment.assemble.language:language", "A language model (the default).")
STUDENTS.lazy(
    "policy",
    "gradatim.experiment.assemble.policy:policy",
    "A policy that acts in mobile networks, trained with PPO (extra mobile).",
)


def student_of(recipe: Recipe, events: Events = ignore_events, processes: Processes = SINGLE) -> Student:
    """The recipe's kind of student with its settings. ``RecipeError`` for options that do not fit."""
    feedback = recipe.feedback or FeedbackSection()
    context = StudentContext(
        seed=recipe.seed,
        data_seed=recipe.data.seed,
        threads=recipe.threads,
        easy=feedback.easy,
        hard=feedback.hard,
        data=recipe.data.options,
        processes=processes,
        events=events,
    )
    if isinstance(recipe.student, StudentSection):
        kind, options = recipe.student.kind, recipe.student.options
    else:
        kind, options = LANGUAGE, {"settings": recipe.student, "train": recipe.train}
    made: Student = STUDENTS.make(kind, context, where="student.kind", options=options)
    return made
