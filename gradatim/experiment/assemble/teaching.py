"""Components of iterative distillation: teacher, judges, rejected answers; and the LLM-designed schedule.

A recipe's ``teacher``, ``rejected_answers`` and ``feedback`` become objects here. A run has one teacher, so that it
has one budget and its model is loaded once; its replies are stored outside the run folder. Judges are built when a
cycle ends, and once before the run for their errors.

``CurriculumDesign`` has all that only the schedule ``designed`` needs: the facts and bounds of a request, the time of
the request, and the stored design of each cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ... import design
from ...corpus import key_of
from ...distillation import attempts, judges
from ...errors import RecipeError, RunFolderError, TeacherFailed, UserError
from ...evaluation.problems import TRUNCATED
from ...files import read_input
from ...lazy import np, pa
from ...model import hardware, load
from ...model.hub import answer_format
from ...model.settings import Requirements
from ...options import missing_options, option_names, parse_json
from ...random_streams import attempts_seed, cycle_seed, questions_stream
from ...record import DECODE_ERRORS, Record, fault_of, read_json, write_json
from ...renamed_keys import earlier_names
from ...results import cycle_folder, decode_design, encode_design
from ...schedule import SCHEDULES, Designed, split_budget
from ...source import SOURCES
from ...stage import Event, Events, Feedback, Model, Needs, Schedule, Source, StageResult, StageSpec, ignore_events
from ...teacher import TEACHERS, Teacher
from ...teacher.teacher import used_since
from ...training.objective import OBJECTIVES, check_objective
from ..recipe import MAY_CHANGE, FeedbackSection, JudgeSection, Recipe
from .student import Student, student_of

if TYPE_CHECKING:
    from ...corpus import Corpus
    from ...design import Design, DesignOutcome
    from ...distillation import Judge, Right
    from ...distillation.attempts import GradedAttempts
    from ...distillation.judge import NeedsStudent
    from ...schedule import Bands


def teacher(recipe: Recipe, events: Events = ignore_events) -> Teacher | None:
    """The recipe's teacher, or None when it names none."""
    if recipe.teacher is None:
        return None
    name = recipe.teacher.name
    defaults = {
        "seed": recipe.data.seed,
        "events": events,
        "account": _account(recipe),
        "keep_replies": _answer_format(recipe) == "reply",
    }
    known = option_names(TEACHERS.get(name, where="teacher.name"))
    options = {**{key: value for key, value in defaults.items() if key in known}, **recipe.teacher.options}
    made: Teacher = TEACHERS.make(name, where="teacher", options=options)
    return made


def source(recipe: Recipe, shared: Teacher | None, events: Events = ignore_events) -> Source:
    """The source of the recipe; ``shared`` is its teacher. Nothing is read or requested for it."""
    name = recipe.data.source
    known = option_names(SOURCES.get(name, where="data.source"))
    defaults: dict[str, Any] = {
        "seed": recipe.data.seed,
        "workers": recipe.workers,
        "events": events,
        "answer_format": _answer_format(recipe),
        "student": recipe.student,
        "evaluation": partial(examined_with, recipe),
    }
    if shared is not None:
        defaults["teacher"] = shared
        if recipe.rejected_answers is not None and recipe.rejected_answers.verify == "tests":
            defaults["right"] = right(recipe, events)
    elif "teacher" in missing_options(SOURCES.get(name), recipe.data.options):
        raise RecipeError(f"the source {name!r} needs a teacher", where="teacher", hint="teacher: {name: oracle}")
    options = {**recipe.data.options, **{key: value for key, value in defaults.items() if key in known}}
    made: Source = SOURCES.make(name, where="data", options=options)
    return made


def _answer_format(recipe: Recipe) -> str:
    """The form of programs as answers; of a student that writes none, the program alone."""
    return answer_format(recipe.model) if recipe.is_language else "code"


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
    from ...distillation import JUDGES  # here, so that a plan of one cycle loads no judges

    return {
        each.judge: (JUDGES.make(each.judge, grader, where="feedback.judges", options=each.options), each.weight)
        for each in (_feedback(recipe).judges if sections is None else sections)
    }


LATER_KEYS: Mapping[str, Any] = {
    "student.kind": "language",
    "train.objective_options": {},
    "train.candidates": 1,
    "train.swa_start": None,
    "student.evaluation_dtype": None,
    "train.trace_supervision.turns": 1,
    "train.trace_supervision.labels": "values",
    "train.trace_supervision.num_fractions": 100,
    "data.split.duplicates": "keep",
    "budget.epochs": None,
    "student.separator": None,
    "student.answer_format": "auto",
    "student.shard": False,
    "feedback.before_training": False,
    "evaluate.on_start": None,
    "evaluate.every": None,
    "evaluate.split": "test",
}
"""Keys of recipes that later versions added, with their defaults."""


def _account(recipe: Recipe) -> str:
    """The key of a run's budget, the same after a restart and with another allowance."""
    content = recipe.model_dump(mode="json")
    for path, default in LATER_KEYS.items():  # at their defaults they leave the keys of earlier accounts as they were
        *sections, last = path.split(".")
        within: Any = content
        for section in sections:
            within = within[section] or {}
        if last in within and within[last] == default:
            del within[last]
    for suite in content["evaluate"]["suites"]:
        if suite["split"] is None:
            del suite["split"]
    for key in ("threads", *MAY_CHANGE):
        *sections, last = key.split(".")
        within = content
        for section in sections:
            within = within[section] or {}
        within.pop(last, None)
    return key_of(earlier_names(content))


@dataclass(frozen=True)
class Delivery:
    """The source of rejected answers, or of the model's own attempts, beside each correct one; see
    ``corpus.RejectedAnswers``."""

    recipe: Recipe
    shared: Teacher | None = None

    @property
    def needs_attempts(self) -> bool:
        """Whether attempts of the model are needed: as rejected answers, or for distillation on its own texts."""
        return self._shares.get("student", 0) > 0 or _learns_attempts(self.recipe)

    def __call__(
        self, samples: pa.Table, cycle: int, attempts: Feedback, events: Events
    ) -> tuple[pa.Table, dict[str, Any]]:
        """See ``distillation.deliver``. A source that has nothing in this cycle has no share in it."""
        from ...distillation import deliver

        initial: dict[str, Any] = {}
        if cycle == 0 and attempts.table is None and attempts_before_training(self.recipe):
            base_attempts = _initial_attempts(self.recipe, samples, events)
            attempts, initial = Feedback(0, base_attempts.table), {"attempts": base_attempts.facts}
        if _learns_attempts(self.recipe) and attempts.table is not None:
            samples = _with_attempts(samples, attempts.table)
        shares = self._shares
        if attempts.table is None:  # before the first cycle there are no attempts
            shares["student"] = 0.0
        if not sum(shares.values()):
            return samples, {"none": samples.num_rows, **initial}
        used = self.shared if shares.get("teacher") else None
        before = {} if used is None else deepcopy(dict(used.facts))
        done = deliver(
            samples,
            attempts,
            shares=shares,
            teacher=used,
            right=right(self.recipe, events),
            seed=cycle_seed(self.recipe.data.seed, cycle),
            events=events,
        )
        facts = {**done.facts, **initial}
        return done.table, facts if used is None else {**facts, "teacher": used_since(before, used.facts)}

    @property
    def _shares(self) -> dict[str, float]:
        section = self.recipe.rejected_answers
        return {} if section is None else {str(place): share for place, share in section.sources.items()}


def delivery(recipe: Recipe, shared: Teacher | None = None) -> Delivery | None:
    """The source of other answers beside the correct ones, None for a recipe without them."""
    return Delivery(recipe, shared) if recipe.rejected_answers is not None or _learns_attempts(recipe) else None


def attempts_before_training(recipe: Recipe) -> bool:
    """Whether the base completes the samples of the first cycle, for rejected answers or for distillation."""
    enabled = recipe.feedback is not None and recipe.feedback.before_training
    own = recipe.rejected_answers is not None and recipe.rejected_answers.sources.get("student", 0) > 0
    return enabled and recipe.base is not None and (own or _learns_attempts(recipe))


def _initial_attempts(recipe: Recipe, samples: pa.Table, events: Events) -> GradedAttempts:
    """The attempts of the base at the samples, judged without a teacher; the seed is that of the data."""
    model = load.load_model(recipe.base or "", hardware.device(), dtype=recipe.model.dtype)
    tokenizer = load.open_tokenizer(recipe.model, ignore_events)
    seed = attempts_seed(recipe.data.seed, 0, new_samples=True)
    return judge_attempts(recipe, None, load.LoadedModel(model.model, tokenizer), samples, seed, events, verify=True)


def _learns_attempts(recipe: Recipe) -> bool:
    if not recipe.is_language:
        return False
    before = recipe.feedback is not None and recipe.feedback.before_training
    return (recipe.cycles > 1 or before) and any(
        _requirements(recipe, name).second_answer == "attempt" for name in objectives(recipe)
    )


def _requirements(recipe: Recipe, objective: str) -> Requirements:
    return OBJECTIVES.get(objective, where="train.objective").requirements(recipe.train)


def objectives(recipe: Recipe) -> tuple[str, ...]:
    """The objectives of the stages, the recipe's own first; others only where a teacher chooses."""
    return tuple(dict.fromkeys([recipe.train.objective, *schedules_of(recipe)[0].objectives]))


def _with_attempts(samples: pa.Table, attempts: pa.Table) -> pa.Table:
    """The samples with a column ``attempt``: the model's first that was not cut off, null without one."""
    first: dict[str, str] = {}
    names = [name for name in ("id", "attempt", "finish") if name in attempts.column_names]
    for row in attempts.select(names).to_pylist():
        if row.get("finish") not in TRUNCATED:
            first.setdefault(row["id"], row["attempt"])
    written = [first.get(name) or None for name in samples["id"].to_pylist()]
    return samples.append_column("attempt", pa.array(written, pa.large_string()))


def right(recipe: Recipe, events: Events = ignore_events) -> Right:
    """The verification of an answer: by its text, and with ``prove: tests`` also by its sample's tests."""
    prove = recipe.rejected_answers.verify if recipe.rejected_answers is not None else "output"
    if prove == "tests":
        return judges.first_decision(judges.by_output(), judges.by_tests(workers=recipe.workers, events=events))
    return judges.by_output() if prove == "output" else lambda samples, texts: [None] * len(texts)


def questions(recipe: Recipe, samples: pa.Table, cycle: int) -> pa.Table:
    """The questions of a cycle's feedback: a random part of its training samples, drawn by the data's seed."""
    order = questions_stream(recipe.data.seed, cycle).permutation(samples.num_rows)
    return samples.take(np.sort(order[: _feedback(recipe).questions]))


def judge_attempts(
    recipe: Recipe,
    grader: Teacher | None,
    student: Model,
    samples: pa.Table,
    seed: int,
    events: Events,
    *,
    verify: bool = False,
) -> GradedAttempts:
    """The student's attempts at ``samples`` under every judge, and the counts; see ``distillation.attempts.probe``.

    ``verify``: only judges that verify an answer, without a teacher.
    """
    from ...distillation.judge import Thresholds

    section = _feedback(recipe)
    before = {} if grader is None else deepcopy(dict(grader.facts))
    sections = section.judges
    if verify:
        by_tests = recipe.rejected_answers is not None and recipe.rejected_answers.verify == "tests"
        sections = (JudgeSection(judge="output"), *([JudgeSection(judge="tests")] if by_tests else []))
    judges = judges_of(recipe, grader, sections)
    judged = attempts.probe(
        student,
        samples,
        judges,
        draws=section.num_samples,
        temperature=section.temperature,
        new_tokens=section.max_new_tokens,
        thresholds=Thresholds(section.easy, section.hard),
        chat=section.chat_template,
        stop=section.stop,
        seed=seed,
        events=events,
    )
    if grader is None:
        return judged
    usage = used_since(before, grader.facts)
    _check_grades(judged.facts, usage, events)
    return replace(judged, facts={**judged.facts, "teacher": usage})


def _check_grades(facts: Mapping[str, Any], usage: Mapping[str, Any], events: Events) -> None:
    """Raise ``TeacherFailed`` if no grade of the teacher can be read and no question has another one.

    A note if other judges graded questions. ``usage``: the counts of the teacher's requests for these attempts.
    """
    requested, unreadable = (sum(usage.get(name, {}).values()) for name in ("asked", "unreadable"))
    if not requested or unreadable < requested:
        return
    text = f"no grade of the teacher can be read, of {requested:,} completions"
    if facts["grades"]["unjudged"] == facts["questions"]:
        causes = (cause for judge in facts["judges"].values() for cause in judge["unjudged"])
        raise TeacherFailed(
            text,
            where="feedback.judges",
            given=next(causes, None),
            hint="a larger teacher.max_tokens, prompts of your own (teacher.prompts) or another model, with --out",
        )
    events(Event("note", "feedback", text=f"{text}; the questions have the grades of other judges only"))


def check_teaching(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for cycles that cannot run: unusable judges, a missing teacher, the same samples again."""
    section = _feedback(recipe)
    names = [each.judge for each in section.judges]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError("a judge is named twice", where="feedback.judges", given=", ".join(twice))
    if recipe.feedback is not None or recipe.cycles > 1:
        _check_judges(recipe)
    if section.num_samples > 1 and not section.temperature:
        raise RecipeError(
            "at temperature 0 all completions of a question are equal",
            where="feedback.num_samples",
            given=section.num_samples,
            allowed="1, or a feedback.temperature above 0",
        )
    check_new_samples(recipe)
    if (
        recipe.rejected_answers is not None
        and recipe.rejected_answers.sources.get("teacher")
        and recipe.teacher is None
    ):
        raise RecipeError(
            "faulty answers of a teacher need one", where="rejected_answers.sources", hint="name a teacher"
        )
    if section.before_training and recipe.base is None:
        raise RecipeError(
            "a model with random weights has no attempts before training",
            where="feedback.before_training",
            hint="student.base: FOLDER, or leave it out",
        )
    check_answers(recipe, recipe.train.objective, "train.objective")


def check_new_samples(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for several cycles of a source that has the same samples in all of them."""
    if recipe.cycles > 1 and not source(recipe, teacher(recipe)).changes:
        raise RecipeError(
            f"the source {recipe.data.source!r} has the same samples in every cycle",
            where="cycles",
            given=recipe.cycles,
            hint="data.source: taught with seeds: PATH, and new: 0 for the same questions again",
        )


def check_answers(recipe: Recipe, objective: str, where: str) -> None:
    """Raise ``RecipeError`` when the recipe's answers or rejected answers do not fit ``objective``."""
    requirements, samples = _requirements(recipe, objective), source(recipe, teacher(recipe))
    if requirements.right_answers and samples.has_wrong_answers:
        raise RecipeError(
            "this objective would learn wrong answers, which the source has among its samples",
            where=where,
            given=objective,
            allowed="distillation with distillation.weight: 1",
            hint="or replies that pass the tests alone: data.replies: passing",
        )
    needs_rejected = requirements.second_answer == "rejected"
    if needs_rejected and recipe.rejected_answers is None and not samples.has_rejected:
        raise RecipeError(
            "this objective needs rejected answers, and the recipe has no source of them",
            where=where,
            given=objective,
            hint="rejected_answers: {sources: {mutation: 1}}",
        )


def examined_with(recipe: Recipe) -> list[str]:
    """The texts of the evaluation problems of the recipe's suites, which no training sample may contain."""
    from ...distillation import problem_texts
    from ...evaluation.problems import read_problems

    texts: list[str] = []
    for section in recipe.evaluate.suites:
        path = section.options.get("problems")
        if path is not None:
            folds, fold = section.options.get("folds", 1), section.options.get("fold", 0)
            problems = read_problems(path).part({fold}.__contains__, folds)
            texts += problem_texts(problems.problems.values())
    return texts


def _feedback(recipe: Recipe) -> FeedbackSection:
    return recipe.feedback or FeedbackSection()


def _check_judges(recipe: Recipe) -> None:
    """Build every judge once; toolchains and other needs of a judge are checked when it judges."""
    grader = teacher(recipe)
    for name, (judge, _) in judges_of(recipe, grader).items():
        if judge.teacher_share and grader is not None and not grader.can_judge:
            raise RecipeError(
                f"the judge {name!r} needs points from the teacher, and {_teacher_name(recipe)!r} gives none",
                where="feedback.judges",
                hint="the judge output, or a teacher that is a language model",
            )


def _teacher_name(recipe: Recipe) -> str | None:
    return None if recipe.teacher is None else recipe.teacher.name


@dataclass(frozen=True)
class CurriculumDesign:
    """The stages of an LLM-designed schedule: requests to the teacher, and their results in the run folder.

    A design is requested before the first cycle, and with ``revise`` again before each later one. It names the stages
    of all cycles from then on.
    """

    recipe: Recipe
    teacher: Teacher | None
    student: Student

    def schedule(
        self,
        schedule: Designed,
        cycle: int,
        dataset: Corpus,
        bands: Bands,
        results: Sequence[StageResult],
        record: Record,
    ) -> Schedule:
        """The schedule of a cycle with its stages. The design is requested once and read back later."""
        if cycle + 1 == self.recipe.cycles:  # no later design needs measurements
            schedule = replace(schedule, needs=Needs())
        if cycle and not schedule.revise:
            return schedule.with_stages(self._stored(record, 0).cycles[cycle])

        def make() -> dict[str, Any]:
            return encode_design(self._request(schedule, cycle, dataset, bands, results, record))

        record.once(f"{cycle_folder(cycle)}/design.json", make)
        return schedule.with_stages(self._stored(record, cycle).cycles[0])

    def request(
        self,
        schedule: Designed,
        dataset: Corpus,
        bands: Bands,
        *,
        cycle: int = 0,
        results: Sequence[StageResult] = (),
        feedback: Mapping[str, Any] | None = None,
        plan: Sequence[Sequence[StageSpec]] | None = None,
        draw: int = 0,
    ) -> DesignOutcome:
        """Request the stages of ``cycle`` and all later ones from the teacher; nothing is stored.

        ``dataset`` and ``bands`` are the cycle's. ``results``: those of all earlier stages. ``feedback``: counts of the
        attempts after the previous cycle. ``plan``: the stages so far of these cycles, None before the first design.
        ``draw``: see ``design.request_design``.
        """
        assert self.teacher is not None  # ``check_designing`` has verified it
        metric = self.recipe.difficulty.metric
        difficulty = dataset.difficulty("train", metric)
        samples = design.describe_samples(dataset.table("train"), bands, difficulty, dataset.lengths(), metric)
        terms = self._terms(schedule, cycle, sum(result.spec.tokens for result in results), plan)
        facts = design.design_facts(
            terms,
            cycle=cycle,
            samples=samples,
            setting=self.student.design_facts,
            so_far=results,
            feedback=feedback,
            summaries=self.student.objectives,
        )
        return design.request_design(self.teacher, facts, terms, prompt=self.student.design_prompt, draw=draw)

    def _request(
        self,
        schedule: Designed,
        cycle: int,
        dataset: Corpus,
        bands: Bands,
        results: Sequence[StageResult],
        record: Record,
    ) -> DesignOutcome:
        """A request with the results of the run so far. Unusable replies are stored, so that a repeated run requests
        another sample."""
        path = record.folder / cycle_folder(cycle) / "design-unusable.json"
        unusable = read_json(path, _list) if path.exists() else []
        feedback = record.folder / cycle_folder(cycle - 1) / "feedback.json"
        outcome = self.request(
            schedule,
            dataset,
            bands,
            cycle=cycle,
            results=results,
            feedback=read_json(feedback) if feedback.exists() else None,
            plan=self._stored(record, cycle - 1).cycles[1:] if cycle else None,
            draw=len(unusable),
        )
        if outcome.design is None:
            replies = {"replies": outcome.replies, "faults": outcome.faults, "teacher": dict(outcome.used)}
            write_json(path, [*unusable, replies])
        return outcome

    def _stored(self, record: Record, cycle: int) -> Design:
        """The design made before ``cycle``, for it and all later ones."""
        path = record.folder / cycle_folder(cycle) / "design.json"
        try:
            design = decode_design(parse_json(read_input(path)))
            if len(design.cycles) != self.recipe.cycles - cycle:
                raise ValueError(f"{len(design.cycles)} cycles")
            return design
        except (*DECODE_ERRORS, OSError) as error:
            raise RunFolderError(
                "the design of this run is damaged",
                where=path,
                given=error.strerror if isinstance(error, OSError) else fault_of(error),
                hint="remove it to request the design again",
            ) from error

    def _terms(
        self, schedule: Designed, cycle: int, spent: int, plan: Sequence[Sequence[StageSpec]] | None
    ) -> design.Terms:
        return design.Terms(
            bands=schedule.bands,
            cycles=self.recipe.cycles - cycle,
            tokens=self.recipe.tokens - spent,
            stages=schedule.stages,
            orders=schedule.orders,
            objectives=self._objectives,
            least=self.student.step,
            plan=None if plan is None else tuple(map(tuple, plan)),
        )

    @property
    def _objectives(self) -> tuple[str, ...]:
        """The objectives of the stages, the student's own first."""
        return tuple(dict.fromkeys([self.student.objective, *schedules_of(self.recipe)[0].objectives]))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def check_designing(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for a designed schedule without a language model, or with unusable objectives."""
    schedule = schedules_of(recipe)[0]
    if not schedule.needs_teacher:
        return
    faults, designer, name = [], teacher(recipe), recipe.schedule.name
    if designer is None:
        faults.append(f"the schedule {name!r} needs a teacher; try: teacher: {{name: api, …}}")
    elif not designer.can_judge:
        faults.append(
            f"the teacher {_teacher_name(recipe)!r} designs no curricula; try: a teacher that is a language model"
        )
    for objective in schedule.objectives:
        try:
            _check_stage_objective(recipe, objective)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("; ".join(faults), where=f"schedule.name: {name}", faults=faults)


def _check_stage_objective(recipe: Recipe, objective: str) -> None:
    """Raise ``UserError`` unless a stage of a designed schedule may have ``objective``."""
    if recipe.is_language:
        check_objective(objective, recipe.train)
        check_answers(recipe, objective, "schedule.objectives")
        return
    student_of(recipe).check_objective(objective, "schedule.objectives")


def only_designs(recipe: Recipe) -> bool:
    """Whether the teacher serves the schedule alone, so that no sample and no grade depends on it."""
    if not schedules_of(recipe)[0].needs_teacher:
        return False
    shared = teacher(recipe)
    teaches = source(recipe, shared).needs_teacher
    errs = recipe.rejected_answers is not None and bool(recipe.rejected_answers.sources.get("teacher"))
    grades = recipe.feedback is not None and any(judge.teacher_share for judge, _ in judges_of(recipe, shared).values())
    return not (teaches or errs or grades)
