"""How does the recipe's teacher come to design its schedule?

Gathers what the teacher is told and within which bounds it may choose, and hands both to ``design``. ``Designing`` asks
for the cycles from some cycle on; when that is due, and where the answer is kept, is ``cycle``'s matter. The teacher is
the run's one teacher, so a design counts against the same budget as everything else that it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import RecipeError, UserError
from ...options import option_names
from ...schedule import Designed
from ...source import SOURCES
from ...stage import StageResult, StageSpec
from ...teacher import Teacher
from ...training.objective import check_objective
from ..recipe import Recipe
from .teaching import OPINIONS, check_faulty, objectives

if TYPE_CHECKING:
    import numpy.typing as npt

    from ...corpus import Corpus
    from ...design import DesignOutcome, Terms
    from ...schedule import Bands

__all__ = ["Designing", "check_designing", "only_designs"]


@dataclass(frozen=True)
class Designing:
    """Asks the teacher for the stages of the cycles from ``cycle`` on; nobody is asked before it is called."""

    recipe: Recipe
    shared: Teacher | None

    def __call__(
        self,
        schedule: Designed,
        corpus: Corpus,
        bands: Bands,
        difficulty: npt.NDArray[Any],
        *,
        cycle: int = 0,
        so_far: Sequence[StageResult] = (),
        feedback: Mapping[str, Any] | None = None,
        plan: Sequence[Sequence[StageSpec]] | None = None,
        draw: int = 0,
    ) -> DesignOutcome:
        """``corpus``, ``bands`` and ``difficulty`` are the cycle's; ``plan`` holds the stages that stood for the cycles
        that are left, None before the first. See ``design.request_design``."""
        from ...design import describe_samples, design_facts, request_design

        assert self.shared is not None  # ``check_designing`` has seen to it
        samples = describe_samples(
            corpus.table("train"), bands, difficulty, corpus.lengths(), self.recipe.difficulty.metric
        )
        terms = self._terms(schedule, cycle, sum(done.spec.tokens for done in so_far), plan)
        facts = design_facts(
            terms, cycle=cycle, samples=samples, setting=self._setting(), so_far=so_far, feedback=feedback
        )
        return request_design(self.shared, facts, terms, draw=draw)

    def _terms(self, schedule: Designed, cycle: int, spent: int, plan: Sequence[Sequence[StageSpec]] | None) -> Terms:
        from ...design import Terms

        return Terms(
            bands=schedule.bands,
            cycles=self.recipe.cycles - cycle,
            tokens=self.recipe.tokens - spent,
            stages=schedule.stages,
            orders=schedule.orders,
            objectives=objectives(self.recipe),
            least=self._setting()["tokens_in_a_step"],
            plan=None if plan is None else tuple(map(tuple, plan)),
        )

    def _setting(self) -> dict[str, Any]:
        """What else bears on a plan: how long a step is, what a token is, whether each stage begins slowly."""
        train, student = self.recipe.train, self.recipe.student
        return {
            "tokens_in_a_step": train.size * train.length * train.accumulate,
            "a_token_is": "of the pretrained student's own" if student.base is not None else student.tokenizer,
            "optimizer_and_learning_rate_begin_anew_at_each_stage": train.restart,
        }


def check_designing(recipe: Recipe) -> None:
    """Raises for a designed schedule that nobody can design, or whose objectives do not fit; all faults at once."""
    if recipe.schedule.name != "designed":
        return
    faults = []
    if recipe.teacher is None:
        faults.append("the schedule 'designed' needs a teacher; try: teacher: {name: api, …}")
    elif recipe.teacher.name == "oracle":
        faults.append(
            "the teacher 'oracle' knows what is right and has no opinion of a curriculum; try: a teacher that is a "
            "language model"
        )
    for objective in objectives(recipe)[1:]:
        try:
            check_objective(objective, recipe.train)
            check_faulty(recipe, objective, "schedule.objectives")
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("; ".join(faults), where="schedule.name: designed", faults=faults)


def only_designs(recipe: Recipe) -> bool:
    """Whether the teacher is there for the schedule alone, so that no sample and no grade hangs on it."""
    teaches = "teacher" in option_names(SOURCES.get(recipe.data.source, where="data.source"))
    errs = recipe.delivery is not None and bool(recipe.delivery.faulty.get("teacher"))
    grades = any(each.judge in OPINIONS for each in (recipe.feedback.judges if recipe.feedback else ()))
    return recipe.schedule.name == "designed" and not (teaches or errs or grades)
