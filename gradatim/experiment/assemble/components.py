"""The components of a run: dataset, bands, schedules, trainer, evaluation suites.

``assemble`` builds them; ``check`` builds those that need no torch and reports all errors at once. ``teaching`` has the
teacher, the judges and the rejected answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...corpus import Corpus, CorpusMaker, SplitSettings, key_of
from ...difficulty import DIFFICULTIES
from ...errors import RecipeError, UserError
from ...evaluation import SUITES
from ...model.hub import check_chat, is_hub_name
from ...model.presets import PRESETS
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
from ...training.objective import check_objective
from ..recipe import ALLOWANCE, Recipe
from .designing import Designing, check_designing, only_designs
from .difficulties import make_difficulty
from .teaching import check_teaching, delivery, examined_with, judged, questions, right, teacher

if TYPE_CHECKING:
    import pyarrow as pa

    from ...distillation import Probed
    from ...model.tokenizer import Encoded
    from ...teacher import Teacher

__all__ = ["Components", "assemble", "check", "corpus_maker", "drawn", "schedules_of", "stage_seed"]


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
    from ...model.hardware import use_threads
    from ...training.trainer import StageTrainer

    use_threads(recipe.threads)
    tokenizer, samples, validation = corpus.tokens(recipe.student, events)
    return StageTrainer(
        tokenizer, samples, validation, metrics, stage_seed(recipe.seed, 0, 1 << 20), recipe.student, recipe.train
    )


def _load(folder: Path) -> Any:
    from ...model.hardware import device
    from ...model.load import load_student

    return load_student(folder, device())
