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
from typing import TYPE_CHECKING, Any

from ...corpus import key_of
from ...distillation import JUDGES
from ...errors import RecipeError, UserError
from ...lazy import np, pa
from ...model.settings import Requirements
from ...options import missing_options, option_names
from ...schedule import Designed
from ...source import SOURCES, cycle_seed
from ...stage import Events, Feedback, StageResult, StageSpec, ignore_events
from ...teacher import TEACHERS, Teacher
from ...teacher.teacher import used_since
from ...training.objective import OBJECTIVES, check_objective
from ..recipe import MAY_CHANGE, FeedbackSection, JudgeSection, Recipe

if TYPE_CHECKING:
    import numpy.typing as npt

    from ...corpus import Corpus
    from ...design import DesignOutcome, Terms
    from ...distillation import Probed, Right
    from ...schedule import Bands


OPINIONS = ("rubric", "scoring")
"""Judges that ask the teacher for points."""


def teacher(recipe: Recipe, events: Events = ignore_events) -> Teacher | None:
    """The recipe's teacher, or None when it names none."""
    if recipe.teacher is None:
        return None
    factory = TEACHERS.get(recipe.teacher.name, where="teacher.name")
    own = {"seed": recipe.data.seed, "events": events, "account": _account(recipe)}
    known = option_names(factory)
    given = {**{name: own[name] for name in own if name in known}, **recipe.teacher.options}
    if missing := missing_options(factory, given):
        raise RecipeError(f"the teacher {recipe.teacher.name!r} needs {', '.join(missing)}", where="teacher")
    made: Teacher = factory(**given)
    return made


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
    more = recipe.schedule.options.get("objectives") if recipe.schedule.name == "designed" else None
    named = [each for each in more if isinstance(each, str)] if isinstance(more, list | tuple) else []
    return tuple(dict.fromkeys([recipe.train.objective, *named]))


def _with_attempts(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """The samples with a column ``attempt``: the student's first, null where it was not asked."""
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
    chance = np.random.default_rng([recipe.data.seed, cycle, 1 << 22])
    return samples.take(np.sort(chance.permutation(samples.num_rows)[: _feedback(recipe).questions]))


def judged(
    recipe: Recipe,
    grader: Teacher | None,
    student: Any,
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
    judges = {
        each.judge: (JUDGES.get(each.judge, where="feedback.judges")(grader, **each.options), each.weight)
        for each in asked
    }
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
    _check_judges(recipe, section)
    if section.draws > 1 and not section.temperature:
        raise RecipeError(
            "at temperature 0 all draws are one text",
            where="feedback.draws",
            given=section.draws,
            allowed="1, or a feedback.temperature above 0",
        )
    if recipe.data.source == "taught" and recipe.teacher is None:
        raise RecipeError("the source 'taught' needs a teacher", where="teacher", hint="teacher: {name: oracle}")
    if recipe.cycles > 1 and recipe.data.source == "file":
        raise RecipeError(
            "a file has the same samples in every cycle",
            where="cycles",
            given=recipe.cycles,
            hint="data.source: taught with seeds: PATH, and new: 0 for the same questions again",
        )
    if recipe.delivery is not None and recipe.delivery.faulty.get("teacher") and recipe.teacher is None:
        raise RecipeError("faulty answers of a teacher need one", where="delivery.faulty", hint="name a teacher")
    check_faulty(recipe, recipe.train.objective, "train.objective")


def check_faulty(recipe: Recipe, objective: str, where: str) -> None:
    """Raise ``RecipeError`` when ``objective`` needs rejected answers and the recipe has no source of them."""
    if _requirements(recipe, objective).second_answer == "rejected" and recipe.delivery is None:
        gives = recipe.data.source == "file" or "seeds" in recipe.data.options
        if not gives:
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


def _check_judges(recipe: Recipe, section: FeedbackSection) -> None:
    """Make every judge once, before a cycle is trained; what one needs of this machine is asked when it judges."""
    grader = teacher(recipe)
    for each in section.judges:
        JUDGES.get(each.judge, where="feedback.judges")(grader, **each.options)
        if each.judge in OPINIONS and recipe.teacher is not None and recipe.teacher.name == "oracle":
            raise RecipeError(
                f"the judge {each.judge!r} asks for points, and the teacher 'oracle' has no opinion",
                where="feedback.judges",
                hint="the judge output, or a teacher that is a language model",
            )


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
