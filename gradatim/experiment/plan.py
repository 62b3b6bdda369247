"""What would this recipe do, and what would it cost?

``plan_run`` walks a recipe's schedule as ``run`` does, with the same seeds, but trains nothing. From the recipe alone
it knows each stage's share of the bands, its tokens, steps and the disk the models need; with the corpus also how many
samples and characters each stage has. It imports no torch and leaves nothing on the disk. For a schedule that looks
at results, it shows what happens while nothing is known. Of a recipe with several cycles it tells what each will ask of
the student and of the teacher (``forecast``), as if every question wanted can be had; no teacher is asked for samples.
One that designs the schedule is asked for that where the samples are looked at: its question is the one that the run
asks first, so whose replies are kept is asked once for both.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..corpus import Corpus
from ..difficulty import DIFFICULTIES
from ..errors import RecipeError
from ..model.hub import model_size
from ..model.presets import PRESETS
from ..options import option_names
from ..schedule import Bands, Designed, category_codes, preview, select_rows, stage_table
from ..source import check_exists
from ..stage import Events, Schedule, Stage, StageSpec, ignore_events
from .assemble import Components, assemble, check, corpus_maker, schedules_of, stage_seed
from .cost import PlannedCycle, plan_cycles, plan_teacher, revises
from .recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PlannedBand", "PlannedCycle", "PlannedStage", "RunPlan", "parameters", "plan_run"]

VOCABULARY = 100
"""About as many different characters as programs have; exact for a model's size but for a per cent or two."""


@dataclass(frozen=True)
class PlannedBand:
    """One slice of the difficulty: ``low <= difficulty < high`` (None: no end, or not known before the data is)."""

    name: str
    low: float | None
    high: float | None
    samples: int | None


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a cycle. ``tokens`` is its budget, ``steps`` that many full batches. What is said of samples needs
    the data, which is known beforehand for the first cycle only.

    ``fractions``: {band: share of it}; ``ends``: {band: which part, where a part is taken}; ``bands``: {band:
    samples}; ``passes``: how often the budget goes through the stage's samples (character tokenizers only).
    """

    stage: str
    order: str
    tokens: int
    steps: int
    fractions: Mapping[str, float]
    ends: Mapping[str, str]
    samples: int | None = None
    bands: Mapping[str, int] | None = None
    characters: int | None = None
    passes: float | None = None
    cycle: int = 0


@dataclass(frozen=True)
class RunPlan:
    """What a run of the recipe will do. ``disk`` is in bytes: {"models", "checkpoint", "data"}, about.

    ``data`` is None when the data was not looked at, else {"train", "validation", "test": rows, "unscored": rows
    without a difficulty, "facts": what the source kept and dropped}. ``cycles`` and ``teacher`` are told of recipes
    with a teacher or several cycles, see ``forecast``; empty and None for others.

    ``design`` is told of a schedule that a teacher designs: {"asked": whether it was, "reason": its own words,
    "requests": how many that took, "revises": whether it is asked again before each later cycle}. Where it was not
    asked there are no stages yet.
    """

    title: str
    schedule: str
    metric: str
    preset: str
    parameters: int | None
    tokens: int
    steps: int
    bands: tuple[PlannedBand, ...]
    stages: tuple[PlannedStage, ...]
    disk: Mapping[str, int | None]
    data: Mapping[str, Any] | None
    cycles: tuple[PlannedCycle, ...] = ()
    teacher: Mapping[str, Any] | None = None
    design: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """The plan as JSON values: the stable shape of ``gradatim plan --json``."""
        return asdict(self)


def plan_run(
    recipe: Recipe, *, data: bool | None = None, store: Path | None = None, events: Events = ignore_events
) -> RunPlan:
    """The plan of ``recipe``; the samples are those a run would have, row for row.

    ``data``: whether to draw and score the samples; None counts them only where ``store``, the folder in which a run
    keeps its corpora, already has them, and never where a model or a teacher is asked how hard they are. A teacher that
    designs the schedule is then asked for it. Raises ``RecipeError`` with every fault of the recipe or of the design,
    ``DataError`` when the data cannot be used, and what a teacher raises that does not answer.
    """
    check(recipe)
    _check_file(recipe)
    # Of a corpus so much as the name takes the packages that read tables, and a model that is asked for difficulties
    # may have to be fetched for it: neither happens where there is nothing to look up.
    stored = store is not None and store.is_dir() and not _asked_for_difficulty(recipe)
    if data is False or (data is None and not stored):
        return _without_data(recipe)
    maker = corpus_maker(recipe, events)
    made = store is not None and (store / maker.key / "facts.json").exists()
    if data and not made and _asks_a_teacher(recipe):
        raise RecipeError(
            "these samples are a teacher's, who is not asked for a plan",
            where="--data",
            given=f"teacher {recipe.teacher.name if recipe.teacher else None}",
            hint="--no-data; once a run has made them, they are counted where --out names its folder",
        )
    if data is None and not made:
        return _without_data(recipe)
    with contextlib.ExitStack() as stack:
        place = store if made and store is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return _with_data(recipe, maker.make(place, events), events)


def _check_file(recipe: Recipe) -> None:
    """Raise the reader's error for a missing data file, the only fault of data that is found without reading it."""
    if recipe.data.source == "file":
        check_exists(str(recipe.data.options.get("path", "")))


def _asks_a_teacher(recipe: Recipe) -> bool:
    """Whether drawing the first cycle's samples would ask somebody else than the interpreter."""
    if "teacher" in _asked_for_difficulty(recipe):
        return True
    wants = recipe.data.source == "taught" or bool(recipe.delivery and recipe.delivery.faulty.get("teacher"))
    return wants and recipe.teacher is not None and recipe.teacher.name != "oracle"


def _asked_for_difficulty(recipe: Recipe) -> set[str]:
    """Who is asked how hard a sample is: a ``model``, a ``teacher``, or nobody."""
    metric = DIFFICULTIES.get(recipe.difficulty.metric, where="difficulty.metric")
    return {"model", "teacher"} & set(option_names(metric))


def parameters(recipe: Recipe) -> int | None:
    """How many numbers the student learns, tied embeddings counted once; see ``student.architecture``.

    None for a pretrained model that is not on this disk.
    """
    if recipe.student.base is not None:
        size = model_size(recipe.student.base, recipe.student.lora)
        return None if size is None else size.trainable
    shape = PRESETS.get(recipe.student.preset, where="student.preset")
    vocabulary = VOCABULARY if recipe.student.tokenizer == "character" else recipe.student.vocabulary
    square, inner = 4 * shape.width**2, shape.width * shape.mlp
    if shape.family == "gpt":  # a bias after attention and of the head, which is a matrix of its own
        layer = square + 2 * inner + 3 * shape.width
        return (2 * vocabulary + recipe.student.context + 1) * shape.width + vocabulary + shape.layers * layer
    if shape.family == "gpt2":
        layer = square + 2 * inner + 2 * shape.width
        return (vocabulary + recipe.student.context + 1) * shape.width + shape.layers * layer
    norms = 2 * (shape.width // shape.heads) if shape.family == "qwen3" else 0  # of queries and keys
    layer = square + 3 * inner + 2 * shape.width + norms
    return ((1 if shape.tied else 2) * vocabulary + 1) * shape.width + shape.layers * layer


def _without_data(recipe: Recipe) -> RunPlan:
    names = recipe.difficulty.bands.names
    cuts = recipe.difficulty.bands.thresholds
    edges = [None, *cuts, None] if cuts is not None else [None] * (len(names) + 1)
    bands = [PlannedBand(name, edges[i], edges[i + 1], None) for i, name in enumerate(names)]
    schedules = schedules_of(recipe)
    if any(isinstance(schedule, Designed) for schedule in schedules):
        told = {"asked": False, "reason": None, "requests": None, "revises": revises(recipe)}
        return _plan(recipe, bands, [], None, None, None, told)
    stages = [
        _stage(recipe, cycle, spec) for cycle, schedule in enumerate(schedules) for spec in preview(schedule, names)
    ]
    return _plan(recipe, bands, stages, None, None, None)


def _with_data(recipe: Recipe, corpus: Corpus, events: Events) -> RunPlan:
    parts = assemble(recipe, events)
    bands, difficulty, lengths = parts.cut(corpus), corpus.difficulty("train", parts.metric), corpus.lengths()
    categories = partial(category_codes, corpus.table("train"))
    schedules, design = _designed(recipe, parts, corpus, bands, difficulty)
    stages = []
    for index, spec in enumerate(preview(schedules[0], bands)):
        seed = stage_seed(recipe.seed, 0, index)
        stage = select_rows(spec, bands, difficulty, seed=seed, index=index, categories=categories)
        stages.append(_counted(recipe, stage, bands, lengths))
    for cycle, schedule in enumerate(schedules[1:], 1):  # their samples depend on what the student gets wrong
        stages += [_stage(recipe, cycle, spec) for spec in preview(schedule, bands)]
    edges = [None, *bands.edges, None]
    planned = [
        PlannedBand(name, edges[i], edges[i + 1], size)
        for i, (name, size) in enumerate(zip(bands.names, bands.sizes, strict=True))
    ]
    size = sum(file.stat().st_size for file in corpus.folder.glob("*.parquet"))
    # The samples are kept once more as tokens: a byte for each character, and two numbers for each sample.
    size += int(lengths.sum()) + 16 * len(lengths)
    rows = {part: corpus.table(part).num_rows for part in ("train", "validation", "test")}  # type: ignore[arg-type]
    facts = {**rows, "unscored": bands.unscored, "facts": dict(corpus.facts)}
    return _plan(recipe, planned, stages, size, facts, corpus, design)


def _designed(
    recipe: Recipe, parts: Components, corpus: Corpus, bands: Bands, difficulty: np.ndarray[Any, np.dtype[np.float64]]
) -> tuple[Sequence[Schedule], dict[str, Any] | None]:
    """The schedule of each cycle; where a teacher designs them, as it would begin, and what it says to that."""
    waiting = parts.schedules
    if not isinstance(waiting[0], Designed):
        return waiting, None
    asked = parts.design(waiting[0], corpus, bands, difficulty)
    design = asked.require_design()
    told = {"asked": True, "reason": design.reason, "requests": len(asked.replies)}
    return [waiting[0].with_stages(stages) for stages in design.cycles], {**told, "revises": revises(recipe)}


def _stage(recipe: Recipe, cycle: int, spec: StageSpec) -> PlannedStage:
    fractions = dict(zip(recipe.difficulty.bands.names, spec.fractions, strict=True))
    ends = zip(fractions, spec.ends, strict=True)
    return PlannedStage(
        stage=spec.name,
        order=spec.order,
        tokens=spec.tokens,
        steps=_steps(recipe, spec.tokens),
        fractions=fractions,
        ends={name: end for name, end in ends if 0 < fractions[name] < 1},
        cycle=cycle,
    )


def _counted(recipe: Recipe, stage: Stage, bands: Bands, lengths: np.ndarray[Any, np.dtype[np.int64]]) -> PlannedStage:
    row = stage_table([stage], bands, lengths)[0]
    # One prediction for each character and one for the end of the sample.
    learnt = row["characters"] + row["samples"]
    by_character = recipe.student.tokenizer == "character" and recipe.student.base is None
    passes = row["tokens"] / learnt if by_character and learnt else None
    return PlannedStage(**row, steps=_steps(recipe, row["tokens"]), passes=passes)


def _steps(recipe: Recipe, tokens: int) -> int:
    return math.ceil(tokens / (recipe.train.size * recipe.train.length * recipe.train.accumulate))


def _plan(
    recipe: Recipe,
    bands: Sequence[PlannedBand],
    stages: Sequence[PlannedStage],
    data_bytes: int | None,
    data: Mapping[str, Any] | None,
    corpus: Corpus | None,
    design: Mapping[str, Any] | None = None,
) -> RunPlan:
    learnt = parameters(recipe)
    cycles = plan_cycles(recipe, None if data is None else data["train"])
    halved = recipe.student.dtype == "bf16" and recipe.student.lora is None
    weights = None if learnt is None else learnt * (2 if halved else 4)
    return RunPlan(
        title=recipe.title,
        schedule=recipe.schedule.name,
        metric=recipe.difficulty.metric,
        preset=recipe.student.base or recipe.student.preset,
        parameters=learnt,
        tokens=recipe.tokens,
        steps=sum(stage.steps for stage in stages) or _steps(recipe, recipe.tokens),
        bands=tuple(bands),
        stages=tuple(stages),
        # A checkpoint holds the weights and AdamW's two moments; only the running stage has one.
        disk={
            "models": None if weights is None or not stages else len(stages) * weights,
            "checkpoint": None if weights is None else 3 * weights,
            "data": data_bytes,
        },
        data=data,
        cycles=cycles,
        teacher=plan_teacher(recipe, cycles, corpus),
        design=design,
    )
