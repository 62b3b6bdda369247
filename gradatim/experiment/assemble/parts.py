"""What is every run made of: samples, bands, schedules, a student, suites?

``assemble`` builds it all; ``check`` builds every part that needs no torch and tells all faults at once. What a teacher
and judges need is in ``teaching``.
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

__all__ = ["Parts", "assemble", "check", "corpus_maker", "drawn", "schedules_of", "stage_seed"]


LATER = ("new", "ratio", "grade", "rounds", "accumulate")
"""Options of the source ``taught`` that only later cycles know."""


@dataclass(frozen=True)
class NamedSuite:
    """A suite as the recipe asked for it; ``label`` is its name in the run folder."""

    label: str
    suite: Suite
    only_last: bool


@dataclass(frozen=True)
class Parts:
    """What one recipe is made of.

    ``metric`` is the difficulty column that bands are cut from; ``rest`` frees what a teacher holds in memory until
    it is asked again.
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
    student: Callable[[Corpus, Metrics], Trainer]
    load: Callable[[Path], Any]
    encoded: Callable[[Corpus], tuple[Encoded, Encoded]]
    questions: Callable[[pa.Table, int], pa.Table]
    probe: Callable[..., Probed]
    rest: Callable[[], None]

    @property
    def cycles(self) -> int:
        """How many rows the run's table has; each has a schedule of its own."""
        return len(self.schedules)


def assemble(recipe: Recipe, events: Events = ignore_events) -> Parts:
    """Every part of the recipe. Raises ``RecipeError`` or ``UnknownPart`` for the first part that cannot be built."""
    bands = recipe.difficulty.bands
    shared = teacher(recipe, events)
    return Parts(
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
        student=lambda corpus, metrics: _student(recipe, corpus, metrics, events),
        load=_load,
        encoded=lambda corpus: corpus.tokens(recipe.student, events)[1:],
        questions=partial(questions, recipe),
        probe=partial(judged, recipe, shared),
        rest=getattr(shared, "release", lambda: None),
    )


def check(recipe: Recipe, where: str = "recipe") -> None:
    """Build every part that costs nothing and tell all faults at once, as one ``RecipeError``."""
    faults: list[str] = []
    parts: tuple[Callable[[], Any], ...] = (
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
    for part in parts:
        try:
            part()
        except UserError as error:
            faults.append(str(error))
    faults = list(dict.fromkeys(faults))  # several parts may need the one that is at fault
    if faults:
        raise RecipeError("; ".join(faults), where=where, faults=faults)


def drawn(recipe: Recipe) -> dict[str, Any]:
    """The section ``data`` as far as it decides the first cycle's samples, and with them what is held out."""
    later = set(LATER) if recipe.data.source == "taught" else set()
    asked = recipe.data.model_dump(mode="json", exclude={*later, "on_change"})
    if asked["split"]["levels"] is None:  # named only where there are some: older corpora keep their names
        del asked["split"]["levels"]
    return asked


def corpus_maker(recipe: Recipe, events: Events = ignore_events, shared: Teacher | None = None) -> CorpusMaker:
    """What makes the recipe's samples. Workers, events, how later questions are had and what may be spent change none
    of the first cycle's: they are not part of its key. ``shared``: the run's teacher, made here when left out.
    """
    asking = shared or teacher(recipe, events)
    parts = recipe.data.split
    difficulty = _difficulty(recipe)
    asked: dict[str, Any] = {
        "data": drawn(recipe),
        "metric": [recipe.difficulty.metric, getattr(difficulty, "identity", recipe.difficulty.options)],
    }
    asker = None if only_designs(recipe) else recipe.teacher  # who only plans the stages changes no sample
    for section in (asker, recipe.delivery):  # named only where there is one: older corpora keep their names
        if section is not None:
            asked[type(section).__name__] = section.model_dump(mode="json", exclude=set(ALLOWANCE))
    return CorpusMaker(
        source=_source(recipe, events, asking),
        metrics={recipe.difficulty.metric: difficulty},
        split_settings=SplitSettings(
            parts.by,
            parts.validation,
            parts.test,
            recipe.data.seed,
            tuple(parts.levels) if parts.levels else None,
        ),
        key=key_of(asked),
        workers=recipe.workers,
        rejected_answers=delivery(recipe, asking),
        on_change=recipe.data.on_change,
    )


def _source(recipe: Recipe, events: Events, asking: Teacher | None) -> Source:
    factory = SOURCES.get(recipe.data.source, where="data.source")
    own: dict[str, Any] = {"seed": recipe.data.seed, "workers": recipe.workers, "events": events}
    known = option_names(factory)
    if "teacher" in known and asking is not None:
        own |= {"teacher": asking, "evaluation": partial(examined_with, recipe)}
        if recipe.delivery is not None and recipe.delivery.prove == "tests":
            own["right"] = right(recipe, events)
    given = {**recipe.data.options, **{name: own[name] for name in own if name in known}}
    if missing := missing_options(factory, given):
        raise RecipeError(
            f"the source {recipe.data.source!r} needs {', '.join(missing)}",
            where="data",
            given=", ".join(recipe.data.options) or "no options",
        )
    source: Source = factory(**given)
    return source


def _difficulty(recipe: Recipe) -> Difficulty:
    factory = DIFFICULTIES.get(recipe.difficulty.metric, where="difficulty.metric")
    options = dict(recipe.difficulty.options)
    if recipe.student.base is not None and "model" in option_names(factory):
        options.setdefault("model", recipe.student.base)  # the student itself, unless the recipe names another model
    return make_difficulty(recipe.difficulty.metric, options)


def schedules_of(recipe: Recipe) -> tuple[Schedule, ...]:
    """One for each cycle, with its share of the budget."""
    factory = SCHEDULES.get(recipe.schedule.name, where="schedule.name")
    budgets = split_budget(recipe.tokens, [1.0] * recipe.cycles)
    return tuple(factory(recipe.difficulty.bands.names, tokens, **recipe.schedule.options) for tokens in budgets)


def _suites(recipe: Recipe) -> Iterator[NamedSuite]:
    for section in recipe.evaluate.suites:
        factory = SUITES.get(section.suite, where="evaluate.suites")
        said = (str(value) if name == "protocol" else f"{name}{value}" for name, value in section.options.items())
        # The label names a file of the run folder, and an option may be a path.
        label = re.sub(r"[^\w.=+-]+", "_", "-".join([section.suite, *said]))
        yield NamedSuite(label, factory(**section.options), section.stages == "last")


def _chats(recipe: Recipe) -> Iterator[str]:
    """Where the recipe wants the student's chat form."""
    if recipe.feedback is not None and recipe.feedback.chat:
        yield "feedback.chat"
    yield from (f"evaluate.suites: {each.suite}.chat" for each in recipe.evaluate.suites if each.options.get("chat"))


def _lengths(recipe: Recipe) -> None:
    if recipe.train.length > recipe.student.context:
        raise RecipeError(
            "a line of training is longer than the student's context",
            where="train.length",
            given=recipe.train.length,
            allowed=f"at most student.context = {recipe.student.context}",
        )


def _base(recipe: Recipe) -> None:
    """What can be said of the student without opening anything."""
    student = recipe.student
    if student.base is None:
        shape = PRESETS.get(student.preset, where="student.preset")
        if shape.family == "gpt" and student.tokenizer == "bpe":
            raise RecipeError(
                "this preset is a model of characters",
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


def _student(recipe: Recipe, corpus: Corpus, metrics: Metrics, events: Events) -> Trainer:
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
