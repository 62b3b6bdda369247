"""The plan of a recipe: its stages, data, teacher requests and cost, without training.

``plan_run`` walks the schedule as ``run`` does, with the same seeds. The recipe alone determines the share of the bands
in each stage, its tokens, steps and disk; a corpus adds the samples and characters. Nothing stays on the disk, and no
torch is imported. An adaptive schedule is shown as it runs without any results. The teacher receives no request for
samples; one that designs the schedule receives that request with ``data=True``, and its cached reply serves the run.

``plan_cycles`` and ``plan_teacher`` count the questions, attempts and requests of a recipe with cycles or a teacher,
with an estimate of tokens and cost. They assume that all requested questions exist and all replies are usable, and take
the maximal length of a reply; a run may send further requests.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..corpus import Corpus, Part
from ..errors import RecipeError
from ..lazy import pc
from ..model.settings import PRESETS
from ..programs.grammar import characters
from ..random_streams import stage_seed
from ..schedule import Bands, is_designed, preview, select_rows, stage_table
from ..source import check_exists
from ..stage import Events, Schedule, Source, Stage, StageSpec, ignore_events
from ..table.rows import OUTPUT_LINE, rows_of
from .assemble import (
    Components,
    assemble,
    attempts_before_training,
    check,
    corpus_maker,
    difficulty_of,
    judges_of,
    schedules_of,
    source,
    student_of,
    teacher,
)
from .recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from ..teacher import Teacher
    from ..teacher.prompts import Lengths
    from ..training.examples import FormattedExample


KINDS = ("questions", "answers", "faults", "rubric", "designs")
"""Kinds of teacher requests: new questions, answers, rejected answers, points, the stages of a schedule."""
QUICK_BYTES = 16 << 20


@dataclass(frozen=True)
class PlannedCycle:
    """Counts of one cycle; None for a count that depends on the data.

    ``questions``: new ones; ``by_grade``: those by the grade of their parents; ``samples``: all training samples, those
    of earlier cycles included. ``feedback``: attempts after the cycle; ``attempts``: those before it, a source of
    rejected answers. ``requests``: of the teacher, by kind.
    """

    cycle: int
    questions: int | None
    samples: int | None
    by_grade: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0
    feedback: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)


def plan_cycles(recipe: Recipe, train: int | None = None) -> tuple[PlannedCycle, ...]:
    """The cycles of a recipe with several of them or a teacher; empty for others.

    ``train``: the number of training samples of the first cycle, if the data was read.
    """
    if recipe.cycles == 1 and recipe.teacher is None:
        return ()
    shared = teacher(recipe)
    samples_of = source(recipe, shared)
    first, later = samples_of.plan(0), samples_of.plan(1)
    # The number of duplicates that are dropped is only known from the data.
    if train is None and first.questions is not None and recipe.data.split.duplicates == "keep":
        held_out = (rows_of(part, first.questions) for part in (recipe.data.split.validation, recipe.data.split.test))
        train = max(0, first.questions - sum(held_out))
    new = train if later.questions is None else later.questions
    requests = partial(_requests, recipe, samples_of, shared)
    found, samples, every = [], train, train
    for number in range(recipe.cycles):
        if number:
            every = None if every is None or new is None else every + new
            samples = every if later.accumulates else new
        questions = new if number else first.questions
        draws = recipe.feedback.num_samples if recipe.feedback else 1
        most = recipe.feedback.questions if recipe.feedback else 500
        selected = most if samples is None else min(most, samples)
        own = recipe.rejected_answers is not None and recipe.rejected_answers.sources.get("student", 0) > 0
        plain = PlannedCycle(
            cycle=number,
            questions=questions,
            samples=samples,
            by_grade=later.by_grade if number else {},
            attempts=(samples or 0) * draws if own and (number or attempts_before_training(recipe)) else 0,
            feedback=selected * draws if number + 1 < recipe.cycles else 0,
        )
        found.append(PlannedCycle(**{**vars(plain), "requests": requests(plain)}))
    return tuple(found)


def plan_teacher(
    recipe: Recipe, cycles: tuple[PlannedCycle, ...], corpus: Corpus | None = None
) -> dict[str, Any] | None:
    """Totals of the teacher's requests; None without a teacher.

    ``name``, ``requests`` by kind, and for one that writes text also ``prompt_tokens`` (estimated),
    ``completion_tokens`` (at most), ``max_tokens`` of a reply, ``characters`` (mean lengths, ``measured`` or assumed),
    ``prices``, ``cost`` (None: the recipe names no prices) and the recipe's own limits ``budget_tokens`` and
    ``budget_money``.
    """
    if recipe.teacher is None:
        return None
    requests = {kind: sum(cycle.requests.get(kind, 0) for cycle in cycles) for kind in KINDS}
    totals: dict[str, Any] = {"name": recipe.teacher.name, "requests": {k: n for k, n in requests.items() if n}}
    options = _teacher_options(recipe)
    if "max_tokens" not in options:  # it writes no text: nothing is counted in tokens, nothing paid
        return {**totals, "prompt_tokens": None, "completion_tokens": None, "cost": 0.0}
    from ..teacher.prompts import estimate, load_prompts

    lengths, printed = _lengths(recipe, corpus)
    names = _prompt_names(recipe, cycles, printed)
    free = "prices" not in options  # a model in this process, or a script
    prices = (0.0, 0.0) if free else options["prices"]
    prices = None if prices is None else (float(prices[0]), float(prices[1]))
    found = estimate(
        names, load_prompts(options.get("prompts")), lengths, max_tokens=int(options["max_tokens"]), prices=prices
    )
    limits = ("model", "max_tokens", "budget_tokens", "budget_money")
    kept: dict[str, Any] = {name: options[name] for name in limits if name in options}
    return {
        **totals,
        **kept,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "characters": asdict(lengths),
        "prices": None if free else prices,
        "cost": found.cost,
    }


def _requests(recipe: Recipe, samples: Source, shared: Teacher | None, cycle: PlannedCycle) -> dict[str, int]:
    """Requests of each kind in a cycle. The questions of an exact teacher come with their answers."""
    if shared is None:
        return {}
    taught, own = samples.needs_teacher, shared.exact
    given = cycle.cycle == 0 and samples.data_file is not None
    fresh = 0 if not taught or given else cycle.questions or 0
    unanswered = min(cycle.questions or 0, _unanswered(recipe)) if taught and given else fresh
    shares = (
        {} if recipe.rejected_answers is None else {k: v for k, v in recipe.rejected_answers.sources.items() if v > 0}
    )
    if cycle.cycle == 0 and len(shares) > 1:
        shares.pop("student", None)
    share = shares.get("teacher", 0.0) / (sum(shares.values()) or 1.0)
    counts = {
        "questions": fresh,
        "answers": 0 if own and not given else unanswered,
        "faults": round(share * (cycle.samples or 0)),
        "rubric": round(_judged_by_teacher(recipe, shared) * (cycle.attempts + cycle.feedback)),
        "designs": int(schedules_of(recipe)[0].needs_teacher and (not cycle.cycle or revises(recipe))),
    }
    return {kind: number for kind, number in counts.items() if number}


def revises(recipe: Recipe) -> bool:
    """Whether a designed schedule is revised before each later cycle."""
    return recipe.cycles > 1 and bool(recipe.schedule.options.get("revise", True))


def _judged_by_teacher(recipe: Recipe, shared: Teacher) -> float:
    """The share of attempts that the teacher gives points to, summed over the judges."""
    return sum(judge.teacher_share for judge, _ in judges_of(recipe, shared).values()) if recipe.feedback else 0.0


def _teacher_options(recipe: Recipe) -> dict[str, Any]:
    """The teacher's options with their defaults."""
    from ..teacher import TEACHERS

    assert recipe.teacher is not None
    factory = TEACHERS.get(recipe.teacher.name, where="teacher.name")
    parameters = inspect.signature(factory).parameters.values()
    plain = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {**plain, **recipe.teacher.options}


def _prompt_names(recipe: Recipe, cycles: tuple[PlannedCycle, ...], printed: bool) -> dict[str, int]:
    """Requests by the name of their prompt. ``printed``: the questions are output questions of programs."""
    found: dict[str, int] = {}
    kind = "-output" if printed else ""
    for cycle in cycles:
        requests = dict(cycle.requests)
        grades = cycle.by_grade if requests.pop("questions", 0) and cycle.cycle else {}
        numbers = {f"answer{kind}": requests.get("answers", 0), f"fault{kind}": requests.get("faults", 0)}
        numbers |= {
            "rubric": requests.get("rubric", 0),
            "question": cycle.requests.get("questions", 0) * (not cycle.cycle),
            "design": requests.get("designs", 0),
        }
        for grade, number in grades.items():
            name = "new-output" if printed else f"new-{'middle' if grade == 'random' else grade}"
            numbers[name] = numbers.get(name, 0) + number
        for name, number in numbers.items():
            found[name] = found.get(name, 0) + number
    return {name: number for name, number in found.items() if number}


def _lengths(recipe: Recipe, corpus: Corpus | None) -> tuple[Lengths, bool]:
    """Mean lengths of the questions, from the samples or a small seed file, and whether all are output questions."""
    from ..teacher.prompts import Lengths

    table = _seeds(recipe) if corpus is None else corpus.table("train")
    if table is None:
        return Lengths(), False

    def mean(name: str) -> float:
        found = pc.mean(pc.utf8_length(pc.fill_null(table[name].cast("large_string"), ""))).as_py()
        return round(float(found or 0.0), 1)

    printed = bool(pc.all(pc.ends_with(table["prompt"].cast("large_string"), OUTPUT_LINE)).as_py())
    made = Lengths(mean("prompt"), mean("answer"), mean("tests"), measured=True)
    # Where the seeds have no answers yet, what a model will answer is not known.
    return (made if made.answer else Lengths(made.question, Lengths().answer, made.tests, True)), printed


def _seeds(recipe: Recipe) -> Any:
    """The seed questions where the recipe names a small file of them, else None."""
    seeds = recipe.data.options.get("seeds")
    if seeds is None or not Path(str(seeds)).is_file() or Path(str(seeds)).stat().st_size > QUICK_BYTES:
        return None
    from ..table import read_table

    return read_table(str(seeds), **{name: recipe.data.options.get(name) for name in ("columns", "language")})


def _unanswered(recipe: Recipe) -> int:
    """The number of seed questions without an answer."""
    table = _seeds(recipe)
    return 0 if table is None else sum(not answer for answer in table["answer"].to_pylist())


VOCABULARY = 100
"""Assumed number of different characters of samples that are not known without reading them."""
SPECIAL_TOKENS = 2
"""Tokens of a character vocabulary that stand for no character: padding and the end of a sample."""


@dataclass(frozen=True)
class PlannedBand:
    """A band of the difficulty: ``low <= difficulty < high`` (None: no bound, or one that depends on the data)."""

    name: str
    low: float | None
    high: float | None
    samples: int | None


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a cycle. ``tokens`` is its budget, ``steps`` that many full batches. Counts of samples need
    the data, which is available beforehand for the first cycle only.

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
    """The plan of a run. ``disk``: approximate bytes, {"models", "checkpoint", "data"}.

    ``data`` is None when the data was not looked at, else {"train", "validation", "test": rows, "unscored": rows
    without a difficulty, "facts": counts of the source}. ``cycles`` and ``teacher``: see ``plan_cycles`` and
    ``plan_teacher``; empty and None for recipes without a teacher and with one cycle.

    ``design``, of an LLM-designed schedule: {"asked": whether the request was sent, "reason": the teacher's text,
    "requests": their number, "revises": whether each later cycle has a new request}. Without a request there are no
    stages. ``examples``: training samples as the model reads them, if they were requested. ``unit``: the noun of the
    budget, whose numbers are ``tokens``.
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
    examples: tuple[FormattedExample, ...] = ()
    unit: str = "token"

    def plain(self) -> dict[str, Any]:
        """The plan as JSON values: the stable shape of ``gradatim plan --json``."""
        return asdict(self)


def plan_run(
    recipe: Recipe,
    *,
    data: bool | None = None,
    examples: bool = False,
    store: Path | None = None,
    events: Events = ignore_events,
) -> RunPlan:
    """The plan of ``recipe``; the samples are those a run would have, row for row.

    ``data``: whether to draw and score the samples; None counts them only where ``store``, the folder in which a run
    keeps its corpora, already has them, and never for a difficulty by a model or a teacher. With the samples, a teacher
    that designs the schedule receives that request. ``examples``: also encode the samples, and format the first of
    them with their loss mask; this draws the samples and opens the tokenizer. Raises ``RecipeError`` with all errors of
    the recipe or the design, ``DataError`` for unusable data, and the errors of a teacher that does not reply.
    """
    check(recipe)
    _check_file(recipe)
    if data is False and recipe.budget.epochs is not None:
        raise RecipeError(
            "a budget in epochs is counted on the samples", where="budget.epochs", hint="--data, or budget.tokens"
        )
    data = True if examples or recipe.budget.epochs is not None else data
    # The key of a corpus takes the packages that read tables, and perhaps the download of a model that scores samples:
    # neither is loaded unless a stored corpus may exist.
    stored = store is not None and store.is_dir() and difficulty_of(recipe).scored_by == "program"
    if data is False or (data is None and not stored):
        return _without_data(recipe)
    maker = corpus_maker(recipe, events)
    made = store is not None and (store / maker.key / "facts.json").exists()
    if data and not made and needs_requests(recipe):
        raise RecipeError(
            "these samples come from a teacher, and a plan sends it no requests",
            where="--data",
            given=f"teacher {recipe.teacher.name if recipe.teacher else None}",
            hint="--no-data; once a run has made them, they are counted where --out names its folder",
        )
    if data is None and not made:
        return _without_data(recipe)
    with contextlib.ExitStack() as stack:
        place = store if made and store is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return _with_data(recipe, maker.make(place, events), events, examples=examples)


def _check_file(recipe: Recipe) -> None:
    """Raise the reader's error for a missing data file, the only fault of data that is found without reading it."""
    path = source(recipe, teacher(recipe)).data_file
    if path is not None:
        check_exists(path)


def needs_requests(recipe: Recipe) -> bool:
    """Whether drawing and scoring the first cycle's samples would send requests to a teacher."""
    if difficulty_of(recipe).scored_by == "teacher":
        return True
    shared = teacher(recipe)
    errs = recipe.rejected_answers is not None and bool(recipe.rejected_answers.sources.get("teacher"))
    wants = source(recipe, shared).needs_teacher or errs
    return wants and shared is not None and not shared.exact


def character_count(recipe: Recipe, corpus: Corpus | None = None) -> int:
    """The number of different characters of the samples.

    Without ``corpus``: of TinyPy programs those of the grammar, all of which a large sample has, else ``VOCABULARY``.
    """
    if corpus is not None:
        return len(corpus.characters())
    if recipe.data.source == "tinypy":
        levels = recipe.data.options.get("levels", ["all"])
        names = [levels] if isinstance(levels, str | int | float) else levels
        return len(characters(map(str, names)))
    return VOCABULARY


def parameters(recipe: Recipe, corpus: Corpus | None = None) -> int | None:
    """The number of trainable parameters of the student, tied embeddings counted once; exact with ``corpus``.

    None for a pretrained model that is not on this disk.
    """
    if not recipe.is_language or recipe.base is not None:
        return student_of(recipe).parameters()
    student = recipe.model
    shape = PRESETS.get(student.preset, where="student.preset")
    by_character = student.tokenizer == "character"
    vocabulary = character_count(recipe, corpus) + SPECIAL_TOKENS if by_character else student.vocab_size
    square, inner = 4 * shape.width**2, shape.width * shape.mlp
    if shape.family == "gpt":  # a bias after attention and of the head, which is a matrix of its own
        layer = square + 2 * inner + 3 * shape.width
        return (2 * vocabulary + student.context_length + 1) * shape.width + vocabulary + shape.layers * layer
    if shape.family == "gpt2":
        layer = square + 2 * inner + 2 * shape.width
        return (vocabulary + student.context_length + 1) * shape.width + shape.layers * layer
    norms = 2 * (shape.width // shape.heads) if shape.family == "qwen3" else 0  # of queries and keys
    layer = square + 3 * inner + 2 * shape.width + norms
    return ((1 if shape.tied else 2) * vocabulary + 1) * shape.width + shape.layers * layer


def _without_data(recipe: Recipe) -> RunPlan:
    names = recipe.difficulty.bands.names
    cuts = recipe.difficulty.bands.thresholds
    edges = [None, *cuts, None] if cuts is not None else [None] * (len(names) + 1)
    bands = [PlannedBand(name, edges[i], edges[i + 1], None) for i, name in enumerate(names)]
    schedules = schedules_of(recipe)
    if any(schedule.needs_teacher for schedule in schedules):
        design = {"asked": False, "reason": None, "requests": None, "revises": revises(recipe)}
        return _plan(recipe, bands, [], None, None, None, design)
    stages = [
        _stage(recipe, cycle, spec) for cycle, schedule in enumerate(schedules) for spec in preview(schedule, names)
    ]
    return _plan(recipe, bands, stages, None, None, None)


def _with_data(recipe: Recipe, corpus: Corpus, events: Events, *, examples: bool = False) -> RunPlan:
    parts = assemble(recipe, events).with_budget(corpus)
    recipe = parts.recipe
    bands, difficulty, lengths = parts.cut(corpus), corpus.difficulty("train", parts.metric), corpus.lengths()
    schedules, design = _designed(recipe, parts, corpus, bands)
    stages = []
    for index, spec in enumerate(preview(schedules[0], bands)):
        seed = stage_seed(recipe.seed, 0, index)
        stage = select_rows(spec, bands, difficulty, seed=seed, index=index, categories=corpus.categories)
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
    rows = {part: corpus.rows(part) for part in get_args(Part)}
    facts = {**rows, "unscored": bands.unscored, "facts": dict(corpus.facts)}
    plan = _plan(recipe, planned, stages, size, facts, corpus, design)
    return replace(plan, examples=tuple(parts.examples(corpus))) if examples else plan


def _designed(
    recipe: Recipe, parts: Components, corpus: Corpus, bands: Bands
) -> tuple[Sequence[Schedule], dict[str, Any] | None]:
    """The schedule of each cycle; of an LLM-designed one the first design, and the facts about it."""
    waiting = parts.schedules
    schedule = waiting[0]
    if not is_designed(schedule):
        return waiting, None
    outcome = parts.design.request(schedule, corpus, bands)
    design = outcome.require_design()
    facts = {"asked": True, "reason": design.reason, "requests": len(outcome.replies)}
    return [schedule.with_stages(stages) for stages in design.cycles], {**facts, "revises": revises(recipe)}


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
    by_character = recipe.is_language and recipe.model.tokenizer == "character" and recipe.base is None
    passes = row["tokens"] / learnt if by_character and learnt else None
    return PlannedStage(**row, steps=_steps(recipe, row["tokens"]), passes=passes)


def _steps(recipe: Recipe, tokens: int) -> int:
    return math.ceil(tokens / student_of(recipe).step)


def _plan(
    recipe: Recipe,
    bands: Sequence[PlannedBand],
    stages: Sequence[PlannedStage],
    data_bytes: int | None,
    data: Mapping[str, Any] | None,
    corpus: Corpus | None,
    design: Mapping[str, Any] | None = None,
) -> RunPlan:
    learnt = parameters(recipe, corpus)
    cycles = plan_cycles(recipe, None if data is None else data["train"])
    student = student_of(recipe)
    weights = None if learnt is None else learnt * student.parameter_bytes
    return RunPlan(
        title=recipe.title,
        schedule=recipe.schedule.name,
        metric=recipe.difficulty.metric,
        preset=student.name,
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
        unit=student.unit,
    )
