"""What do runs of several cycles add: who teaches, who judges, and where do faulty answers come from?

A recipe's ``teacher``, ``delivery`` and ``feedback`` become objects here. One teacher serves all of a run, so that a
budget is one and a model is loaded once; what it receives over a network is kept by itself, outside the run. Judges
are made when a cycle ends, and once before, to see that they can be.

How does the recipe's teacher come to design its schedule?

Gathers what the teacher is told and within which bounds it may choose, and hands both to ``design``. ``Designing`` asks
for the cycles from some cycle on; when that is due, and where the answer is kept, is ``cycle``'s matter. The teacher is
the run's one teacher, so a design counts against the same budget as everything else that it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...corpus import key_of
from ...distillation import JUDGES
from ...errors import RecipeError, UserError
from ...model.settings import Requirements
from ...options import missing_options, option_names
from ...schedule import SCHEDULES, Designed, split_budget
from ...source import SOURCES, cycle_seed
from ...stage import Events, Feedback, Model, Schedule, Source, StageResult, StageSpec, ignore_events
from ...teacher import TEACHERS, Teacher
from ...teacher.teacher import used_since
from ...training.objective import OBJECTIVES, check_objective
from ..recipe import MAY_CHANGE, FeedbackSection, JudgeSection, Recipe

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ...corpus import Corpus
    from ...design import DesignOutcome, Terms
    from ...distillation import Judge, Probed, Right
    from ...distillation.judge import NeedsStudent
    from ...schedule import Bands


def teacher(recipe: Recipe, events: Events = ignore_events) -> Teacher | None:
    """The recipe's teacher, or None when it names none."""
    if recipe.teacher is None:
        return None
    name = recipe.teacher.name
    defaults = {"seed": recipe.data.seed, "events": events, "account": _account(recipe)}
    known = option_names(TEACHERS.get(name, where="teacher.name"))
    options = {**{key: value for key, value in defaults.items() if key in known}, **recipe.teacher.options}
    made: Teacher = TEACHERS.make(name, where="teacher", options=options)
    return made


def source(recipe: Recipe, shared: Teacher | None, events: Events = ignore_events) -> Source:
    """The source of the recipe; ``shared`` is its teacher. Nothing is read or requested for it."""
    name = recipe.data.source
    known = option_names(SOURCES.get(name, where="data.source"))
    defaults: dict[str, Any] = {"seed": recipe.data.seed, "workers": recipe.workers, "events": events}
    if shared is not None:
        defaults |= {"teacher": shared, "evaluation": partial(examined_with, recipe)}
        if recipe.delivery is not None and recipe.delivery.prove == "tests":
            defaults["right"] = right(recipe, events)
    elif "teacher" in missing_options(SOURCES.get(name), recipe.data.options):
        raise RecipeError(f"the source {name!r} needs a teacher", where="teacher", hint="teacher: {name: oracle}")
    options = {**recipe.data.options, **{key: value for key, value in defaults.items() if key in known}}
    made: Source = SOURCES.make(name, where="data", options=options)
    return made


def schedules_of(recipe: Recipe) -> tuple[Schedule, ...]:
    """One schedule per cycle, with its share of the budget."""
    options, bands = recipe.schedule.options, recipe.difficulty.bands.names
    budgets = split_budget(recipe.tokens, [1.0] * recipe.cycles)
    make = partial(SCHEDULES.make, recipe.schedule.name, where="schedule.name", options=options)
    return tuple(make(bands, tokens) for tokens in budgets)


def judges_of(
    recipe: Recipe, grader: Teacher | None, sections: Sequence[JudgeSection] | None = None
) -> dict[str, tuple[Judge | NeedsStudent, float]]:
    """The judges of ``sections``, by default those of the feedback, by name with their weights."""
    return {
        each.judge: (JUDGES.make(each.judge, grader, where="feedback.judges", options=each.options), each.weight)
        for each in (_feedback(recipe).judges if sections is None else sections)
    }


def _account(recipe: Recipe) -> str:
    """What a budget is counted against: one for each run, however often and with whatever allowance it is started."""
    content = recipe.model_dump(mode="json")
    if not content["train"]["objective_options"]:  # an option of later versions; earlier accounts keep their keys
        del content["train"]["objective_options"]
    for key in ("threads", *MAY_CHANGE):
        *sections, last = key.split(".")
        within = content
        for section in sections:
            within = within[section]
        within.pop(last, None)
    return key_of(content)


@dataclass(frozen=True)
class Delivery:
    """Lays a faulty answer, or the student's own attempt, beside each right one; see ``corpus.RejectedAnswers``."""

    recipe: Recipe
    shared: Teacher | None = None

    @property
    def needs_attempts(self) -> bool:
        """Whether the student's own attempts are wanted: as faulty answers, or to learn a teacher's view of them."""
        return self._shares.get("student", 0) > 0 or _learns_attempts(self.recipe)

    def __call__(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """See ``delivery.deliver``. A place that nothing can come from in this cycle has no share in it."""
        from ...distillation import deliver

        if _learns_attempts(self.recipe) and attempts.table is not None:
            samples = _with_attempts(samples, attempts.table)
        shares = self._shares
        if attempts.table is None:  # before the first cycle nobody has tried anything
            shares["student"] = 0.0
        if not sum(shares.values()):
            return samples, {"none": samples.num_rows}
        asked = self.shared if shares.get("teacher") else None
        before = {} if asked is None else deepcopy(dict(asked.facts))
        done = deliver(
            samples,
            attempts,
            shares=shares,
            teacher=asked,
            right=right(self.recipe, events),
            seed=cycle_seed(self.recipe.data.seed, cycle),
            events=events,
        )
        return done.table, done.facts if asked is None else {**done.facts, "teacher": used_since(before, asked.facts)}

    @property
    def _shares(self) -> dict[str, float]:
        section = self.recipe.delivery
        return {} if section is None else {str(place): share for place, share in section.faulty.items()}


def delivery(recipe: Recipe, shared: Teacher | None = None) -> Delivery | None:
    """What lays other answers beside the right ones, or None where the recipe wants none."""
    return Delivery(recipe, shared) if recipe.delivery is not None or _learns_attempts(recipe) else None


def _learns_attempts(recipe: Recipe) -> bool:
    return recipe.cycles > 1 and any(
        _requirements(recipe, name).second_answer == "attempt" for name in objectives(recipe)
    )


def _requirements(recipe: Recipe, objective: str) -> Requirements:
    return OBJECTIVES.get(objective, where="train.objective").requirements(recipe.train)


def objectives(recipe: Recipe) -> tuple[str, ...]:
    """What the stages may learn by, the recipe's own objective first; more than that only where a teacher chooses."""
    return tuple(dict.fromkeys([recipe.train.objective, *schedules_of(recipe)[0].objectives]))


def _with_attempts(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """The samples with a column ``attempt``: the student's first, null where it was not asked."""
    import pyarrow as pa

    first: dict[str, str] = {}
    for name, attempt in zip(attempts["id"].to_pylist(), attempts["attempt"].to_pylist(), strict=True):
        first.setdefault(name, attempt)
    written = [first.get(name) or None for name in samples["id"].to_pylist()]
    return samples.append_column("attempt", pa.array(written, pa.large_string()))


def right(recipe: Recipe, events: Events = ignore_events) -> Right:
    """How an answer proves right: by its text, and where the recipe says so by its sample's tests."""
    from ...distillation.judges import by_output, by_tests, first_decision

    prove = recipe.delivery.prove if recipe.delivery is not None else "output"
    if prove == "tests":
        return first_decision(by_output(), by_tests(workers=recipe.workers, events=events))
    return by_output() if prove == "output" else lambda samples, texts: [None] * len(texts)


def questions(recipe: Recipe, samples: pa.Table, cycle: int) -> pa.Table:
    """The samples that a cycle's feedback asks about: a part of what was learnt, drawn by the data's seed."""
    import numpy as np

    chance = np.random.default_rng([recipe.data.seed, cycle, 1 << 22])
    return samples.take(np.sort(chance.permutation(samples.num_rows)[: _feedback(recipe).questions]))


def judged(
    recipe: Recipe,
    grader: Teacher | None,
    student: Model,
    samples: pa.Table,
    seed: int,
    events: Events,
    *,
    proved: bool = False,
) -> Probed:
    """The student's attempts at ``samples`` under every judge, and the counts; see ``feedback.probe``.

    ``proved``: only whether they are right is wanted, so only what proves that is asked, and no teacher.
    """
    from ...distillation.attempts import probe
    from ...distillation.judge import Thresholds

    section = _feedback(recipe)
    before = {} if grader is None else deepcopy(dict(grader.facts))
    asked = section.judges
    if proved:
        by_tests = recipe.delivery is not None and recipe.delivery.prove == "tests"
        asked = (JudgeSection(judge="output"), *([JudgeSection(judge="tests")] if by_tests else []))
    judges = judges_of(recipe, grader, asked)
    found = probe(
        student,
        samples,
        judges,
        draws=section.draws,
        temperature=section.temperature,
        new_tokens=section.new_tokens,
        thresholds=Thresholds(section.easy, section.hard),
        chat=section.chat,
        stop=section.stop,
        seed=seed,
        events=events,
    )
    if grader is None:
        return found
    return replace(found, facts={**found.facts, "teacher": used_since(before, grader.facts)})


def check_teaching(recipe: Recipe) -> None:
    """Raises for a recipe whose cycles cannot be: judges that cannot be made, no teacher where one is needed."""
    section = _feedback(recipe)
    names = [each.judge for each in section.judges]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError("a judge is named twice", where="feedback.judges", given=", ".join(twice))
    _check_judges(recipe)
    if section.draws > 1 and not section.temperature:
        raise RecipeError(
            "at temperature 0 all draws are one text",
            where="feedback.draws",
            given=section.draws,
            allowed="1, or a feedback.temperature above 0",
        )
    if recipe.cycles > 1 and not source(recipe, teacher(recipe)).changes:
        raise RecipeError(
            f"the source {recipe.data.source!r} has the same samples in every cycle",
            where="cycles",
            given=recipe.cycles,
            hint="data.source: taught with seeds: PATH, and new: 0 for the same questions again",
        )
    if recipe.delivery is not None and recipe.delivery.faulty.get("teacher") and recipe.teacher is None:
        raise RecipeError("faulty answers of a teacher need one", where="delivery.faulty", hint="name a teacher")
    check_faulty(recipe, recipe.train.objective, "train.objective")


def check_faulty(recipe: Recipe, objective: str, where: str) -> None:
    """Raise ``RecipeError`` when ``objective`` needs rejected answers and the recipe has no source of them."""
    needs_rejected = _requirements(recipe, objective).second_answer == "rejected"
    if needs_rejected and recipe.delivery is None and not source(recipe, teacher(recipe)).has_rejected:
        raise RecipeError(
            "this objective needs rejected answers, and the recipe has no source of them",
            where=where,
            given=objective,
            hint="delivery: {faulty: {mutation: 1}}",
        )


def examined_with(recipe: Recipe) -> list[str]:
    """The texts of the problems that the recipe's suites examine the student with: nothing taught may hold them."""
    from ...distillation import problem_texts
    from ...evaluation.problems import read_problems

    texts: list[str] = []
    for section in recipe.evaluate.suites:
        path = section.options.get("problems")
        if path is not None:
            texts += problem_texts(read_problems(path).problems.values())
    return texts


def _feedback(recipe: Recipe) -> FeedbackSection:
    return recipe.feedback or FeedbackSection()


def _check_judges(recipe: Recipe) -> None:
    """Make every judge once, before a cycle is trained; what one needs of this machine is asked when it judges."""
    grader = teacher(recipe)
    for name, (judge, _) in judges_of(recipe, grader).items():
        if judge.teacher_share and grader is not None and not grader.can_judge:
            raise RecipeError(
                f"the judge {name!r} asks for points, and the teacher {_teacher_name(recipe)!r} has no opinion",
                where="feedback.judges",
                hint="the judge output, or a teacher that is a language model",
            )


def _teacher_name(recipe: Recipe) -> str | None:
    return None if recipe.teacher is None else recipe.teacher.name


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
    schedule = schedules_of(recipe)[0]
    if not schedule.needs_teacher:
        return
    faults, designer, name = [], teacher(recipe), recipe.schedule.name
    if designer is None:
        faults.append(f"the schedule {name!r} needs a teacher; try: teacher: {{name: api, …}}")
    elif not designer.can_judge:
        faults.append(
            f"the teacher {_teacher_name(recipe)!r} knows what is right and has no opinion of a curriculum; try: a "
            "teacher that is a language model"
        )
    for objective in objectives(recipe)[1:]:
        try:
            check_objective(objective, recipe.train)
            check_faulty(recipe, objective, "schedule.objectives")
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("; ".join(faults), where=f"schedule.name: {name}", faults=faults)


def only_designs(recipe: Recipe) -> bool:
    """Whether the teacher is there for the schedule alone, so that no sample and no grade hangs on it."""
    if not schedules_of(recipe)[0].needs_teacher:
        return False
    shared = teacher(recipe)
    teaches = source(recipe, shared).needs_teacher
    errs = recipe.delivery is not None and bool(recipe.delivery.faulty.get("teacher"))
    grades = recipe.feedback is not None and any(judge.teacher_share for judge, _ in judges_of(recipe, shared).values())
    return not (teaches or errs or grades)
