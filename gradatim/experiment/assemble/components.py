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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...corpus import Corpus, CorpusMaker, SplitSettings, key_of
from ...difficulty import DIFFICULTIES
from ...difficulty.model_based import ChatReply, Messages, Quantity, ScoringRequest
from ...difficulty.score import digest_of
from ...errors import RecipeError, UserError
from ...evaluation import SUITES
from ...inference import loglikelihood
from ...model import hardware, load
from ...model.hub import check_chat, check_model, is_hub_name, weight_paths
from ...model.settings import PRESETS
from ...options import missing_options, option_names
from ...record import Metrics
from ...schedule import (
    SCHEDULES,
    Bands,
    Designed,
    check_cuts,
    make_bands,
    needs_whole_samples,
    split_budget,
    stage_seed,
)
from ...source import SOURCES
from ...stage import Difficulty, Events, Schedule, Source, Suite, Trainer, ignore_events
from ...teacher import TEACHERS, Chat, Request
from ...training import trainer
from ...training.objective import check_objective
from ..recipe import ALLOWANCE, Recipe
from .teaching import (
    Designing,
    check_designing,
    check_teaching,
    delivery,
    examined_with,
    judged,
    only_designs,
    questions,
    right,
    teacher,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ...distillation import Probed
    from ...model.tokenizer import Encoded
    from ...teacher import Teacher


TOKENIZATION = "tokens 2"
"""Part of a scorer's identity; a change of the tokens that a text is read as takes a new value."""


def make_difficulty(
    name: str, options: Mapping[str, Any] | None = None, *, where: str = "difficulty.metric"
) -> Difficulty:
    """The registered difficulty ``name`` with ``options`` and the services that its factory requires.

    Raises ``UnknownPart`` for a name that is not registered and ``RecipeError`` for options that do not fit.
    """
    factory = DIFFICULTIES.get(name, where=where)
    difficulty: Difficulty = factory(*_services(name, factory, where), **dict(options or {}))
    return difficulty


def _services(name: str, factory: Callable[..., Any], where: str) -> list[Any]:
    parameters = inspect.signature(factory).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional]
    if unknown := [service for service in names if service not in SERVICES]:
        raise RecipeError(
            f"the difficulty {name!r} requires a service that does not exist",
            where=where,
            given=", ".join(unknown),
            allowed=", ".join(SERVICES),
            hint="an option of a difficulty is a keyword-only parameter of its factory",
        )
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
        getattr(self.chat, "release", lambda: None)()


def open_chat(teacher: str, options: Mapping[str, Any], *, where: str) -> TeacherChat:
    """The chat of the teacher ``teacher``; ``RecipeError`` when it has none."""
    built = TEACHERS.get(teacher, where=f"{where}: teacher")(**dict(options))
    chat = getattr(built, "chat", None)
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


LATER = ("new", "ratio", "grade", "rounds", "accumulate")
"""Options of the source ``taught`` that affect later cycles only."""


@dataclass(frozen=True)
class NamedSuite:
    """A configured suite; ``label`` is its name in the run folder."""

    label: str
    suite: Suite
    only_last: bool


@dataclass(frozen=True)
class Components:
    """The components of one recipe.

    ``metric``: the difficulty column that ``cut`` divides into bands. ``trainer``: the trainer of a dataset. ``load``:
    the model of a folder. ``encoded``: the tokens of the training and validation samples. ``questions``: the samples
    of a cycle's feedback. ``judge``: completions of questions, judged and graded. ``offload_teacher``: free the
    teacher's memory until its next call.
    """

    seed: int
    evaluation_seed: int
    tokens: int
    metric: str
    corpus: CorpusMaker
    cut: Callable[[Corpus], Bands]
    schedules: tuple[Schedule, ...]
    design: Designing
    suites: tuple[NamedSuite, ...]
    trainer: Callable[[Corpus, Metrics], Trainer]
    load: Callable[[Path], Any]
    encoded: Callable[[Corpus], tuple[Encoded, Encoded]]
    questions: Callable[[pa.Table, int], pa.Table]
    judge: Callable[..., Probed]
    offload_teacher: Callable[[], None]

    @property
    def cycles(self) -> int:
        """The number of cycles; each has its own schedule."""
        return len(self.schedules)


def assemble(recipe: Recipe, events: Events = ignore_events) -> Components:
    """Build the components. Raises ``RecipeError`` or ``UnknownPart`` for the first one that cannot be built."""
    bands = recipe.difficulty.bands
    shared = teacher(recipe, events)
    return Components(
        seed=recipe.seed,
        evaluation_seed=recipe.evaluate.seed,
        tokens=recipe.tokens,
        metric=recipe.difficulty.metric,
        corpus=corpus_maker(recipe, events, shared),
        cut=lambda corpus: make_bands(
            corpus.difficulty("train", recipe.difficulty.metric),
            thresholds=bands.thresholds,
            quantiles=bands.quantiles,
            names=bands.names,
        ),
        schedules=schedules_of(recipe),
        design=Designing(recipe, shared),
        suites=tuple(_suites(recipe)),
        trainer=lambda corpus, metrics: _trainer(recipe, corpus, metrics, events),
        load=_load,
        encoded=lambda corpus: corpus.tokens(recipe.student, events)[1:],
        questions=partial(questions, recipe),
        judge=partial(judged, recipe, shared),
        offload_teacher=getattr(shared, "release", lambda: None),
    )


def check(recipe: Recipe, where: str = "recipe") -> None:
    """Build all cheap components and raise one ``RecipeError`` with all errors."""
    faults: list[str] = []
    builders: tuple[Callable[[], Any], ...] = (
        lambda: _source(recipe, ignore_events, teacher(recipe)),
        lambda: _difficulty(recipe),
        lambda: schedules_of(recipe),
        lambda: _base(recipe),
        lambda: list(_suites(recipe)),
        lambda: _lengths(recipe),
        lambda: _whole_samples(recipe),
        lambda: _cuts(recipe),
        lambda: check_objective(recipe.train.objective, recipe.train),
        lambda: check_teaching(recipe),
        lambda: check_designing(recipe),
        lambda: check_chat(recipe.student, _chats(recipe)),
    )
    for build in builders:
        try:
            build()
        except UserError as error:
            faults.append(str(error))
    faults = list(dict.fromkeys(faults))  # several components may need the faulty one
    if faults:
        raise RecipeError("; ".join(faults), where=where, faults=faults)


def drawn(recipe: Recipe) -> dict[str, Any]:
    """The options of ``data`` that determine the first cycle's samples and the held-out splits."""
    later = set(LATER) if recipe.data.source == "taught" else set()
    options = recipe.data.model_dump(mode="json", exclude={*later, "on_change"})
    if options["split"]["levels"] is None:  # omitted when unset: keys of older corpora stay valid
        del options["split"]["levels"]
    return options


def corpus_maker(recipe: Recipe, events: Events = ignore_events, shared: Teacher | None = None) -> CorpusMaker:
    """The maker of the recipe's dataset. Its key covers all options that affect the first cycle's samples, hence not
    workers, options of later questions or budgets. ``shared``: the run's teacher, built here by default.
    """
    dataset_teacher = shared or teacher(recipe, events)
    split = recipe.data.split
    difficulty = _difficulty(recipe)
    content: dict[str, Any] = {
        "data": drawn(recipe),
        "metric": [recipe.difficulty.metric, getattr(difficulty, "identity", recipe.difficulty.options)],
    }
    section_teacher = None if only_designs(recipe) else recipe.teacher  # a teacher that only designs changes no sample
    for section in (section_teacher, recipe.delivery):  # omitted when unset: keys of older corpora stay valid
        if section is not None:
            content[type(section).__name__] = section.model_dump(mode="json", exclude=set(ALLOWANCE))
    return CorpusMaker(
        source=_source(recipe, events, dataset_teacher),
        metrics={recipe.difficulty.metric: difficulty},
        split_settings=SplitSettings(
            split.by,
            split.validation,
            split.test,
            recipe.data.seed,
            tuple(split.levels) if split.levels else None,
        ),
        key=key_of(content),
        workers=recipe.workers,
        rejected_answers=delivery(recipe, dataset_teacher),
        on_change=recipe.data.on_change,
    )


def _source(recipe: Recipe, events: Events, shared: Teacher | None) -> Source:
    factory = SOURCES.get(recipe.data.source, where="data.source")
    defaults: dict[str, Any] = {"seed": recipe.data.seed, "workers": recipe.workers, "events": events}
    names = option_names(factory)
    if "teacher" in names and shared is not None:
        defaults |= {"teacher": shared, "evaluation": partial(examined_with, recipe)}
        if recipe.delivery is not None and recipe.delivery.prove == "tests":
            defaults["right"] = right(recipe, events)
    options = {**recipe.data.options, **{name: defaults[name] for name in defaults if name in names}}
    if missing := missing_options(factory, options):
        raise RecipeError(
            f"the source {recipe.data.source!r} needs {', '.join(missing)}",
            where="data",
            given=", ".join(recipe.data.options) or "no options",
        )
    source: Source = factory(**options)
    return source


def _difficulty(recipe: Recipe) -> Difficulty:
    factory = DIFFICULTIES.get(recipe.difficulty.metric, where="difficulty.metric")
    options = dict(recipe.difficulty.options)
    if recipe.student.base is not None and "model" in option_names(factory):
        options.setdefault("model", recipe.student.base)  # the student itself, unless the recipe names another model
    return make_difficulty(recipe.difficulty.metric, options)


def schedules_of(recipe: Recipe) -> tuple[Schedule, ...]:
    """One schedule per cycle, with its share of the budget."""
    factory = SCHEDULES.get(recipe.schedule.name, where="schedule.name")
    budgets = split_budget(recipe.tokens, [1.0] * recipe.cycles)
    return tuple(factory(recipe.difficulty.bands.names, tokens, **recipe.schedule.options) for tokens in budgets)


def _suites(recipe: Recipe) -> Iterator[NamedSuite]:
    for section in recipe.evaluate.suites:
        factory = SUITES.get(section.suite, where="evaluate.suites")
        words = (str(value) if name == "protocol" else f"{name}{value}" for name, value in section.options.items())
        # The label names a file of the run folder, and an option may be a path.
        label = re.sub(r"[^\w.=+-]+", "_", "-".join([section.suite, *words]))
        yield NamedSuite(label, factory(**section.options), section.stages == "last")


def _chats(recipe: Recipe) -> Iterator[str]:
    """The keys of the recipe that request the chat template."""
    if recipe.feedback is not None and recipe.feedback.chat:
        yield "feedback.chat"
    yield from (f"evaluate.suites: {suite.suite}.chat" for suite in recipe.evaluate.suites if suite.options.get("chat"))


def _lengths(recipe: Recipe) -> None:
    if recipe.train.length > recipe.student.context:
        raise RecipeError(
            "a training sequence is longer than the context",
            where="train.length",
            given=recipe.train.length,
            allowed=f"at most student.context = {recipe.student.context}",
        )


def _base(recipe: Recipe) -> None:
    """Check the model settings without opening a model."""
    student = recipe.student
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
    elif not (Path(student.base).exists() or is_hub_name(student.base)):
        raise RecipeError(
            "there is no such model",
            where="student.base",
            given=student.base,
            allowed="a folder with config.json, a .gguf file, or a name on the hub such as OWNER/NAME",
        )


def _whole_samples(recipe: Recipe) -> None:
    if recipe.train.batching != "windows":
        return
    schedule = schedules_of(recipe)[0]
    if isinstance(schedule, Designed):
        why = schedule.needs_whole_samples
    else:
        why = needs_whole_samples(schedule, recipe.difficulty.bands.names)
    if why is not None:
        raise RecipeError(why, where="train.batching", given="windows: random crops of the text", allowed="packed")


def _cuts(recipe: Recipe) -> None:
    bands = recipe.difficulty.bands
    check_cuts(bands.thresholds, bands.quantiles, bands.names)


def _trainer(recipe: Recipe, corpus: Corpus, metrics: Metrics, events: Events) -> Trainer:
    hardware.use_threads(recipe.threads)
    tokenizer, samples, validation = corpus.tokens(recipe.student, events)
    return trainer.StageTrainer(
        tokenizer, samples, validation, metrics, stage_seed(recipe.seed, 0, 1 << 20), recipe.student, recipe.train
    )


def _load(folder: Path) -> Any:
    return load.load_student(folder, hardware.device())
