"""The components of a run: dataset, bands, schedules, trainer, evaluation suites.

``assemble`` builds them; ``check`` builds those that need no torch and reports all errors at once. ``teaching`` has the
teacher, the judges and the rejected answers.

Difficulties by name, with the scorers and chats that some of them need.

The positional parameters of a difficulty's factory are services, filled by their names; its keyword-only parameters
are the options of a recipe. Models and teachers belong to later layers than ``difficulty``, so their services are
injected here, for recipes, ``api.score`` and ``gradatim score`` alike:

    open_scorer   ``difficulty.model_based.OpenScorer``: the scorer of a model by its name
    open_chat     ``difficulty.teacher_rating.OpenChat``: the chat of a teacher by its name and options

No torch is imported before a scorer reads.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from ...corpus import Corpus, CorpusMaker, SplitSettings, key_of
from ...difficulty import DIFFICULTIES
from ...difficulty.model_based import ChatReply, Messages, Quantity, ScoringRequest
from ...difficulty.score import digest_of
from ...errors import RecipeError, UserError
from ...evaluation import SUITES
from ...evaluation.model_server import ModelServer, ServedModel
from ...inference import loglikelihood
from ...lazy import np, pa
from ...model import load
from ...model.hub import answer_format, check_chat, check_model, is_hub_name, weight_paths
from ...model.settings import PRESETS, TrainSettings
from ...options import option_names
from ...processes import SINGLE, Processes
from ...record import Metrics, Record
from ...renamed_keys import SAMPLING_SUITES, earlier_names, earlier_suite_options, earlier_value
from ...schedule import (
    Bands,
    check_cuts,
    is_designed,
    make_bands,
    needs_whole_samples,
    next_stage,
)
from ...source import SOURCES
from ...stage import (
    AnswerLoss,
    Difficulty,
    EvaluationSplit,
    Event,
    Events,
    Examination,
    Model,
    Needs,
    Probe,
    Schedule,
    Source,
    StageResult,
    Suite,
    SuiteResult,
    Trainer,
    ignore_events,
)
from ...teacher import TEACHERS, Chat, Request
from ...teacher.teacher import used_since
from ...training.objective import check_objective
from ..recipe import ALLOWANCE, Recipe
from .student import Student, student_of
from .tasks import LoadModel, SharedTrainer
from .teaching import (
    CurriculumDesign,
    attempts_before_training,
    check_designing,
    check_new_samples,
    check_teaching,
    delivery,
    judge_attempts,
    only_designs,
    questions,
    schedules_of,
    source,
    teacher,
)

if TYPE_CHECKING:
    from ...distillation.attempts import GradedAttempts
    from ...teacher import Teacher
    from ...training.examples import FormattedExample


TOKENIZATION = "tokens 2"
"""Part of a scorer's identity; a change of the tokens that a text is read as takes a new value."""


def make_difficulty(
    name: str, options: Mapping[str, Any] | None = None, *, where: str = "difficulty.metric"
) -> Difficulty:
    """The registered difficulty ``name`` with ``options`` and the services that its factory requires.

    Raises ``UnknownPart`` for a name that is not registered and ``RecipeError`` for options that do not fit.
    """
    factory = DIFFICULTIES.get(name, where=where)
    difficulty: Difficulty = DIFFICULTIES.make(name, *_services(factory), where=where, options=options or {})
    return difficulty


def _services(factory: Callable[..., Any]) -> list[Any]:
    """The services that a factory requires, by the names of its positional parameters."""
    parameters = inspect.signature(factory).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional]
    return [SERVICES[service] for service in names]


@dataclass(frozen=True)
class NamedScorer:
    """The scorer of a model by its name. The model is loaded for a reading and released after it."""

    name: str
    batch: int | None = None
    chat: bool = False

    @property
    def identity(self) -> str:
        """A digest of the weights, configuration and tokenizer, of an adapter's base too; a model on the hub is
        fetched for it. The batch size is no part of it: it changes last bits only.
        """
        digests = [digest_of(path, template=self.chat) for path in weight_paths(self.name)]
        return "\0".join([TOKENIZATION, *digests, *(["chat"] if self.chat else [])])

    def read(self, quantity: Quantity, requests: Sequence[ScoringRequest]) -> Iterator[Mapping[int, float | str]]:
        """See ``difficulty.model_based.Scorer``."""
        return loglikelihood.read_model(self.name, quantity, requests, batch=self.batch, chat=self.chat)


def open_scorer(model: str, *, batch: int | None = None, chat: bool = False) -> NamedScorer:
    """The scorer of ``model``; ``DataError`` when it is neither a file or folder nor a possible name on the hub."""
    check_model(model)
    return NamedScorer(model, batch, chat)


@dataclass(frozen=True)
class TeacherChat:
    """A teacher's chat as ``difficulty.teacher_rating`` uses one: messages in, completions out, at temperature 0."""

    chat: Chat

    @property
    def identity(self) -> str:
        """That of the chat."""
        return self.chat.identity

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the chat."""
        return self.chat.facts

    def complete(
        self,
        messages: Sequence[Messages],
        *,
        max_tokens: int,
        events: Events = ignore_events,
        received: Callable[[int, ChatReply], None],
    ) -> None:
        """See ``difficulty.teacher_rating.RatingChat``. A model in this process releases its memory afterwards."""
        requests = [Request(messages=conversation, max_tokens=max_tokens) for conversation in messages]
        self.chat.ask(requests, events, received)
        self.chat.release()


def open_chat(teacher: str, options: Mapping[str, Any], *, where: str) -> TeacherChat:
    """The chat of the teacher ``teacher``; ``RecipeError`` when it has none."""
    chat = TEACHERS.make(teacher, where=f"{where}: teacher", options=options).chat
    if chat is None:
        raise RecipeError(
            "this teacher cannot rate a sample: it is no language model",
            where=where,
            given=teacher,
            allowed="a teacher with a chat, such as api or local",
        )
    return TeacherChat(chat)


SERVICES: Mapping[str, Any] = {"open_scorer": open_scorer, "open_chat": open_chat}
"""What a difficulty's factory may require, by the name of the positional parameter."""


@dataclass(frozen=True)
class CheckedSuite(Suite):
    """The suite ``name`` with a check of its results."""

    name: str
    suite: Suite

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """Raises ``RecipeError`` for a suite that returns something else than a ``SuiteResult``."""
        result = self.suite(student, samples, seed=seed, events=events)
        if not isinstance(result, SuiteResult) or "all" not in result.counts.get("all", {}):
            raise RecipeError(
                f"the suite {self.name!r} returned no result",
                where="evaluate.suites",
                given=type(result).__name__,
                allowed='a gradatim.stage.SuiteResult with counts["all"]["all"]',
            )
        if not result.counts["all"]["all"].total:
            text = f"the suite {self.name!r} has no item in the {samples.num_rows:,} test samples: it evaluated nothing"
            events(Event("note", self.name, text=text))
        return result


@dataclass(frozen=True)
class NamedSuite:
    """A configured suite; ``label`` is its name in the run folder, ``split`` the samples that it evaluates on."""

    label: str
    suite: Suite
    only_last: bool
    split: EvaluationSplit = "test"


@dataclass(frozen=True)
class Components:
    """The components of one recipe, with a method for each step that needs them.

    ``teacher``: the only one of a run, so that it has one budget and is loaded once; None without one. ``corpus``: the
    maker of the datasets. ``schedules``: one per cycle. ``processes``: those that train and evaluate together.
    ``server``: of the trained model, for texts; None: texts are decoded here.
    """

    recipe: Recipe
    teacher: Teacher | None
    corpus: CorpusMaker
    schedules: tuple[Schedule, ...]
    suites: tuple[NamedSuite, ...]
    events: Events = ignore_events
    processes: Processes = SINGLE
    server: ModelServer | None = None

    @cached_property
    def student(self) -> Student:
        """The kind of student with its settings."""
        return student_of(self.recipe, self.events, self.processes)

    @property
    def cycles(self) -> int:
        """The number of cycles."""
        return len(self.schedules)

    @property
    def seed(self) -> int:
        """The seed of the run: initialization, stages and attempts."""
        return self.recipe.seed

    @property
    def tokens(self) -> int:
        """The budget of the run in loss tokens."""
        return self.recipe.tokens

    @property
    def metric(self) -> str:
        """The difficulty column that ``cut`` divides into bands."""
        return self.recipe.difficulty.metric

    @property
    def design(self) -> CurriculumDesign:
        """The requests for the stages of an LLM-designed schedule."""
        return CurriculumDesign(self.recipe, self.teacher, self.student)

    @property
    def has_chat(self) -> bool:
        """Whether the teacher is a language model, to which requests are sent."""
        return self.teacher is not None and self.teacher.chat is not None

    def check_teacher(self) -> dict[str, Any]:
        """Verify that the teacher can be used, by one request; return the usage. Raises the errors of a request."""
        assert self.teacher is not None
        before = deepcopy(dict(self.teacher.facts))
        self.teacher.check()
        return used_since(before, self.teacher.facts)

    def first_dataset(self, store: Path) -> Corpus:
        """The first cycle's dataset under ``store``, created if missing: samples are drawn, scored and split."""
        return self.corpus.make(store, self.events)

    def with_budget(self, dataset: Corpus) -> Components:
        """These components with a budget in tokens: epochs are counted on the scored samples of the first dataset."""
        recipe, epochs = self.recipe, self.recipe.budget.epochs
        if epochs is None:
            return self
        rows = np.flatnonzero(np.isfinite(dataset.difficulty("train", self.metric)))
        epoch = self.student.epoch(dataset, rows)
        tokens = max(1, round(epochs * epoch))
        text = f"budget: {epochs:g} epochs of {epoch:,} loss tokens are {tokens:,} tokens"
        self.events(Event("note", "budget", text=text))
        counted = recipe.with_tokens(tokens)
        return replace(self, recipe=counted, schedules=schedules_of(counted))

    def cut(self, dataset: Corpus) -> Bands:
        """The difficulty bands of the training samples."""
        bands = self.recipe.difficulty.bands
        difficulty = dataset.difficulty("train", self.metric)
        return make_bands(difficulty, thresholds=bands.thresholds, quantiles=bands.quantiles, names=bands.names)

    def schedule(
        self, cycle: int, dataset: Corpus, bands: Bands, results: Sequence[StageResult], record: Record
    ) -> Schedule:
        """The schedule of a cycle after ``results``. A teacher designs its stages here, if the recipe has one do so."""
        schedule = self.schedules[cycle]
        if is_designed(schedule):
            return self.design.schedule(schedule, cycle, dataset, bands, results, record)
        return schedule

    def trainer(self, dataset: Corpus, metrics: Metrics, bands: Bands | None = None) -> Trainer:
        """The trainer of the model on a dataset, on all processes.

        With ``bands`` and ``evaluate.every`` it evaluates during stages, in this process.
        """
        here = self.stage_trainer(dataset, metrics, bands)
        return here if self.processes.size == 1 else SharedTrainer(here, dataset, self.processes)

    def stage_trainer(self, dataset: Corpus, metrics: Metrics, bands: Bands | None = None) -> Trainer:
        """The part of the trainer in this process."""
        examination = None if bands is None else self.examination(dataset, bands)
        return self.student.trainer(dataset, metrics, examination)

    def examination(self, dataset: Corpus, bands: Bands) -> Examination | None:
        """The evaluation during stages by the suites that every stage has; None without ``evaluate.every``."""
        suites = [suite for suite in self.suites if not suite.only_last]
        every = self.recipe.evaluate.every
        if every is None or not suites:
            return None

        def evaluate(folder: Path) -> list[dict[str, Any]]:
            model = self.student.open_model(folder)
            rows = []
            for suite in suites:
                # A listener may end the work, and a row of metrics is whole or missing.
                result = self.evaluate(suite, model, self.samples(suite.split, dataset, bands), ignore_events)
                overall = result.counts["all"]["all"]
                counts = {"passed": overall.passed, "total": overall.total}
                rows.append({"suite": result.suite, "protocol": result.protocol, "split": result.split, **counts})
            return rows

        return Examination(every, evaluate)

    def examples(self, dataset: Corpus) -> Sequence[FormattedExample]:
        """The first training samples of a dataset, formatted, with their loss mask; none where they are no texts."""
        return self.student.examples(dataset)

    @property
    def evaluates_on_start(self) -> bool:
        """Whether the model is evaluated before training."""
        on_start = self.recipe.evaluate.on_start
        return self.student.pretrained if on_start is None else on_start

    def initial_model(self, dataset: Corpus, metrics: Metrics) -> Model:
        """The model before training, for evaluation."""
        return self.student.initial_model(dataset, metrics)

    def answer_losses(self, dataset: Corpus) -> dict[str, AnswerLoss]:
        """The loss of the dataset's answers under a pretrained model, by kind of answer; empty without one."""
        self.offload_teacher()
        return self.student.answer_losses(dataset)

    def load(self, folder: Path) -> Model:
        """The model in a stage folder, for evaluation; all processes load it, and divide the rows."""
        with self.processes.shared(LoadModel(folder)):
            model = self.open_model(folder)
            self.student.share(model)
            return model

    def load_for_texts(self, folder: Path) -> Model:
        """The model in a stage folder, for suites and attempts: behind the server, where there is one."""
        if self.server is None:
            return self.load(folder)
        path = folder / "model"
        tokenizer = load.open_tokenizer_of(path, local_files_only=True)
        return ServedModel(path, self.server, tokenizer, lambda: self.open_model(folder))

    def open_model(self, folder: Path) -> Model:
        """The model in a stage folder, in this process."""
        return self.student.open_model(folder / "model")

    def measure(self, needs: Needs, folder: Path, dataset: Corpus, bands: Bands, seed: int) -> dict[str, Any]:
        """The measurements ``needs`` of the model in a stage folder, as JSON values; a probe is written to the folder.

        On validation samples, by ``bands``, and on a probe of training samples, chosen by ``seed``.
        """
        indices = bands.assign(dataset.difficulty("validation", self.metric))
        return self.student.measure(needs, self.load(folder), dataset, bands, indices, seed, folder / "probe.npz")

    def probe(self, folder: Path) -> Probe:
        """The probe in a stage folder: the model's loss on training samples after that stage."""
        return loglikelihood.load_probe(folder / "probe.npz")

    def evaluate(self, suite: NamedSuite, model: Model, samples: pa.Table, events: Events | None = None) -> SuiteResult:
        """The result of a suite on the samples of its split. ``events``: the run's by default."""
        listener = self.events if events is None else events
        return replace(suite.suite(model, samples, seed=self.recipe.evaluate.seed, events=listener), split=suite.split)

    def samples(self, split: EvaluationSplit, dataset: Corpus, bands: Bands) -> pa.Table:
        """The fixed samples of a split with a column ``band``, null for a sample without a difficulty."""
        indices = bands.assign(dataset.difficulty(split, self.metric))
        names = [bands.names[band] if band >= 0 else None for band in indices]
        return dataset.table(split).append_column("band", pa.array(names, pa.string()))

    def questions(self, samples: pa.Table, cycle: int) -> pa.Table:
        """The questions of a cycle: a part of its training samples, drawn by the data's seed."""
        return questions(self.recipe, samples, cycle)

    def judge_attempts(self, model: Model, questions: pa.Table, seed: int, *, verify: bool = False) -> GradedAttempts:
        """The model's attempts at questions, judged and graded; with ``verify`` by judges that verify answers only."""
        own = self.student.attempts(model, questions, seed)
        if own is not None:
            return own
        return judge_attempts(self.recipe, self.teacher, model, questions, seed, self.events, verify=verify)

    def offload_teacher(self) -> None:
        """Free the memory of a teacher in this process, and of the model's server, until the next call."""
        if self.server is not None:
            self.server.stop()
        if self.teacher is not None:
            self.teacher.release()


def assemble(
    recipe: Recipe, events: Events = ignore_events, processes: Processes = SINGLE, server: ModelServer | None = None
) -> Components:
    """Build the components. Raises ``RecipeError`` or ``UnknownPart`` for the first one that cannot be built."""
    shared = teacher(recipe, events)
    corpus = corpus_maker(recipe, events, shared)
    return Components(recipe, shared, corpus, schedules_of(recipe), tuple(_suites(recipe)), events, processes, server)


def check(recipe: Recipe, where: str = "recipe") -> None:
    """Build all cheap components and raise one ``RecipeError`` with all errors."""
    faults: list[str] = []
    builders: tuple[Callable[[], Any], ...] = (
        lambda: source(recipe, teacher(recipe)),
        lambda: difficulty_of(recipe),
        lambda: schedules_of(recipe),
        lambda: list(_suites(recipe)),
        lambda: _first_stage(recipe),
        lambda: _cuts(recipe),
        *(_language_checks(recipe) if recipe.is_language else _other_checks(recipe)),
        lambda: check_designing(recipe),
    )
    for build in builders:
        try:
            build()
        except UserError as error:
            faults.append(str(error))
    faults = list(dict.fromkeys(faults))  # several components may need the faulty one
    if faults:
        raise RecipeError("; ".join(faults), where=where, faults=faults)


def _language_checks(recipe: Recipe) -> tuple[Callable[[], Any], ...]:
    """The checks of the sections that only language models have."""
    return (
        lambda: _base(recipe),
        lambda: _lengths(recipe),
        lambda: _whole_samples(recipe),
        lambda: check_objective(recipe.train.objective, recipe.train),
        lambda: _check_sharding(recipe),
        lambda: check_teaching(recipe),
        lambda: _check_scratchpad(recipe),
        lambda: check_chat(recipe.model, _chats(recipe)),
    )


def _other_checks(recipe: Recipe) -> tuple[Callable[[], Any], ...]:
    """The checks of a student of another kind."""
    return (
        lambda: student_of(recipe).check(source(recipe, teacher(recipe))),
        lambda: _no_language_settings(recipe),
        lambda: _budget_in_steps(recipe),
        lambda: check_new_samples(recipe),
    )


def _no_language_settings(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for sections that only a language model has."""
    adapter = TypeAdapter(TrainSettings)
    settings, defaults = (adapter.dump_python(train, mode="json") for train in (recipe.train, TrainSettings()))
    given = [f"train.{name}" for name, value in settings.items() if value != defaults[name]]
    given += ["rejected_answers"] if recipe.rejected_answers is not None else []
    if given:
        raise RecipeError(
            "these settings are those of a language model",
            where=given[0],
            given=f"{', '.join(given)} with student.kind: {student_of(recipe).name}",
            hint="remove them; the options of this kind of student are keys of student",
        )


def _budget_in_steps(recipe: Recipe) -> None:
    if recipe.budget.steps is None:
        unit = student_of(recipe).unit
        raise RecipeError(
            f"the budget of this student is counted in {unit}s",
            where="budget",
            given="tokens" if recipe.budget.tokens is not None else "epochs",
            hint="budget: {steps: …}",
        )


def _check_scratchpad(recipe: Recipe) -> None:
    """Raise ``RecipeError`` where answers with a scratchpad would be compared with outputs alone."""
    scratchpad = getattr(source(recipe, teacher(recipe)), "scratchpad", False)
    if not scratchpad:
        return
    for section in ("rejected_answers", "feedback"):
        if getattr(recipe, section) is not None:
            raise RecipeError(
                "answers with a scratchpad are not compared with other answers",
                where=section,
                given=f"{section} with data.scratchpad: {'true' if scratchpad is True else scratchpad}",
                hint=f"data.scratchpad: false, or no {section}",
            )


def _check_sharding(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for settings that sharded training excludes."""
    train = recipe.train
    excluded = (
        (train.optimizer.name == "muon", "train.optimizer.name: muon", "adamw"),
        (recipe.model.lora is not None, "student.lora", "full fine-tuning"),
        (train.objective == "trace_supervision", "train.objective: trace_supervision", "an objective without heads"),
        (train.compile, "train.compile: true", "false"),
        (recipe.evaluate.every is not None, f"evaluate.every: {recipe.evaluate.every}", "null"),
    )
    for fault, given, allowed in excluded:
        if fault and recipe.model.shard:
            raise RecipeError("sharded training excludes this", where="student.shard", given=given, allowed=allowed)


def drawn(recipe: Recipe, samples: Source | None = None) -> dict[str, Any]:
    """The options of ``data`` that determine the first cycle's samples and the held-out splits.

    ``samples``: the source of the recipe, made here by default.
    """
    later = (samples or source(recipe, teacher(recipe))).later_options
    options = recipe.data.model_dump(mode="json", exclude={*later, "on_change"})
    if options["split"]["levels"] is None:  # omitted when unset: keys of older corpora stay valid
        del options["split"]["levels"]
    if options["split"]["duplicates"] == "keep":
        del options["split"]["duplicates"]
    return options


def difficulty_column(recipe: Recipe) -> str:
    """The column of the difficulty in the dataset: the metric's name in version 0.1, for datasets stored by it."""
    return str(earlier_value("difficulty.metric", recipe.difficulty.metric))


def corpus_maker(recipe: Recipe, events: Events = ignore_events, shared: Teacher | None = None) -> CorpusMaker:
    """The maker of the recipe's dataset. Its key covers all options that affect the first cycle's samples, hence not
    workers, options of later questions or budgets. ``shared``: the run's teacher, built here by default.
    """
    dataset_teacher = shared or teacher(recipe, events)
    split = recipe.data.split
    difficulty, samples = difficulty_of(recipe), source(recipe, dataset_teacher, events)
    column, identity = difficulty_column(recipe), difficulty.identity
    content: dict[str, Any] = {
        "data": drawn(recipe, samples),
        "metric": [column, recipe.difficulty.options if identity is None else identity],
    }
    section_teacher = None if only_designs(recipe) else recipe.teacher  # a teacher that only designs changes no sample
    # Keys of older datasets stay valid: unset sections are omitted, and names are those of version 0.1.
    if section_teacher is not None:
        content["TeacherSection"] = section_teacher.model_dump(mode="json", exclude=set(ALLOWANCE))
    has_format = "answer_format" in option_names(SOURCES.get(recipe.data.source))
    if recipe.is_language and has_format and (form := answer_format(recipe.model)) != "code":
        content["answer_format"] = form
    if attempts_before_training(recipe) and recipe.feedback is not None:
        content["attempts"] = [recipe.base, recipe.model.dtype, recipe.feedback.model_dump(mode="json")]
    if recipe.rejected_answers is not None:
        rejected_answers = recipe.rejected_answers.model_dump(mode="json")
        content["DeliverySection"] = earlier_names(rejected_answers, "rejected_answers")
    return CorpusMaker(
        source=samples,
        metrics={column: difficulty},
        split_settings=SplitSettings(
            split.by,
            split.validation,
            split.test,
            recipe.data.seed,
            tuple(split.levels) if split.levels else None,
            split.duplicates,
        ),
        key=key_of(content),
        workers=recipe.workers,
        rejected_answers=delivery(recipe, dataset_teacher),
        on_change=recipe.data.on_change,
    )


def difficulty_of(recipe: Recipe) -> Difficulty:
    """The difficulty of the recipe; the student is its model unless the recipe names another."""
    factory = DIFFICULTIES.get(recipe.difficulty.metric, where="difficulty.metric")
    options = dict(recipe.difficulty.options)
    if recipe.base is not None and "model" in option_names(factory) and "model" not in options:
        _check_base(recipe.base)  # a missing base is one fault, whatever asks it
        options["model"] = recipe.base  # the student itself, unless the recipe names another model
    return make_difficulty(recipe.difficulty.metric, options)


def _suites(recipe: Recipe) -> Iterator[NamedSuite]:
    for section in recipe.evaluate.suites:
        suite: Suite = SUITES.make(section.suite, where="evaluate.suites", options=section.options)
        if recipe.student.kind not in suite.students:
            raise RecipeError(
                f"the suite {section.suite!r} does not evaluate this kind of student",
                where="evaluate.suites",
                given=f"student.kind: {recipe.student.kind}",
                allowed=f"student.kind: {' or '.join(suite.students)}",
            )
        options = section.options
        if section.suite in SAMPLING_SUITES:  # stored evaluations keep their file
            options = earlier_suite_options(options)
        words = (str(value) if name == "protocol" else f"{name}{value}" for name, value in options.items())
        # The label names a file of the run folder, and an option may be a path.
        split = section.split or recipe.evaluate.split
        marks = ["validation"] if split == "validation" else []
        label = re.sub(r"[^\w.=+-]+", "_", "-".join([section.suite, *words, *marks]))
        yield NamedSuite(label, CheckedSuite(section.suite, suite), section.stages == "last", split)


def _chats(recipe: Recipe) -> Iterator[str]:
    """The keys of the recipe that request the chat template."""
    if recipe.feedback is not None and recipe.feedback.chat_template:
        yield "feedback.chat_template"
    yield from (f"evaluate.suites: {suite.suite}.chat" for suite in recipe.evaluate.suites if suite.options.get("chat"))


def _lengths(recipe: Recipe) -> None:
    if recipe.train.max_length > recipe.model.context_length:
        raise RecipeError(
            "a training sequence is longer than the context",
            where="train.max_length",
            given=recipe.train.max_length,
            allowed=f"at most student.context_length = {recipe.model.context_length}",
        )


def _base(recipe: Recipe) -> None:
    """Check the model settings without opening a model."""
    student = recipe.model
    if student.base is None:
        shape = PRESETS.get(student.preset, where="student.preset")
        if shape.family == "gpt" and student.tokenizer == "bpe":
            raise RecipeError(
                "this preset needs a character tokenizer",
                where="student.tokenizer",
                given=f"bpe with the preset {student.preset}",
                hint="student.tokenizer: character, or student.preset: gpt2-tied",
            )
        if student.lora is not None:
            raise RecipeError("an adapter needs a pretrained model", where="student.lora", hint="student.base: FOLDER")
    else:
        _check_base(student.base)


def _check_base(base: str) -> None:
    """Raise ``RecipeError`` when ``student.base`` is neither an existing path nor a possible name on the hub."""
    if not (Path(base).exists() or is_hub_name(base)):
        raise RecipeError(
            "there is no such model",
            where="student.base",
            given=base,
            allowed="a folder with config.json, a .gguf file, or a name on the hub such as OWNER/NAME",
        )


def _first_stage(recipe: Recipe) -> None:
    """Check that the schedule names a first stage, unless it has yet to be designed."""
    schedule = schedules_of(recipe)[0]
    if not is_designed(schedule) and next_stage(schedule, []) is None:
        raise RecipeError("the schedule has no stages", where="schedule.name", given=recipe.schedule.name)


def _whole_samples(recipe: Recipe) -> None:
    if recipe.train.batching != "random_crops":
        return
    schedule = schedules_of(recipe)[0]
    if is_designed(schedule):
        why = schedule.needs_whole_samples
    else:
        why = needs_whole_samples(schedule, recipe.difficulty.bands.names)
    if why is not None:
        raise RecipeError(why, where="train.batching", given="random_crops", allowed="packed")


def _cuts(recipe: Recipe) -> None:
    bands = recipe.difficulty.bands
    check_cuts(bands.thresholds, bands.quantiles, bands.names)
