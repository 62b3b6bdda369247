"""Recipes: YAML files that determine a run, checked by the models below.

``load`` reads a recipe by path or by the name of a shipped one, follows ``extends`` (``recipe_files``), applies
``--set a.b=c``, and reports all errors at once. A section that names a component (``data.source``,
``difficulty.metric``, ``schedule.name``) holds that component's options too. Only ``assemble`` and the modules above it
use a ``Recipe``; components take plain keyword arguments.
"""

from __future__ import annotations

import difflib
import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, ValidationError, model_validator

from ..errors import RecipeError, did_you_mean
from ..faults import SYNONYMS, fault_text, number, with_numbers
from ..model.settings import ModelSettings, TrainSettings
from ..options import override
from ..renamed_keys import earlier_keys, earlier_names, renamed, renamed_keys
from ..stage import EvaluationSplit, Event, Events, ignore_events
from .recipe_files import Layer, find, layers

MOST_CYCLES = 10_000
LARGEST_NUMBER = (1 << 63) - 1
"""What counts, seeds and rows are stored in."""


class Section(BaseModel):
    """A section of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(Section):
    """A section that names a component; further keys are the component's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the named part."""
        return dict(self.model_extra or {})


def _amount(value: Any) -> int | float:
    """A number of samples, or a share of them; ``ValueError`` for anything else."""
    given = number(value) if isinstance(value, str) else value
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int | float) or not (0 < given < 1 or isinstance(given, int)):
        raise ValueError("must be a number of samples, or a share of them between 0 and 1")
    if given <= 0:
        raise ValueError("must be at least 1, or a share of the samples between 0 and 1")
    return given


Amount = Annotated[int | float, PlainValidator(_amount)]


class SplitSection(Section):
    """The split of the samples into training, validation and test."""

    by: Annotated[
        Literal["slice", "canonical", "text", "random"],
        Field(
            description="Samples that are never on two sides: programs equal up to variable names and assignments "
            "without effect, of which one is held out (`slice`); equal up to variable names (`canonical`); equal "
            "(`text`, as in the paper); or none (`random`)."
        ),
    ] = "slice"
    validation: Amount = Field(500, description="Samples for the validation loss: their number, or their share.")
    test: Amount = Field(
        1000,
        description="Samples for the evaluation, the same in every run: their number, or their share, such as 0.1.",
    )
    levels: list[str] | None = Field(
        None, min_length=1, description="Levels of the validation and test samples; null: all."
    )
    duplicates: Annotated[
        Literal["keep", "drop"],
        Field(
            description="Training samples whose questions are equal by `by`: all of them (`keep`), or one of each "
            "(`drop`), so that frequent short programs do not displace rare ones; no other answer to a question stays. "
            "Levels outside `levels` keep all."
        ),
    ] = "keep"

    @model_validator(mode="after")
    def _has_a_criterion(self) -> Self:
        if self.by == "random" and self.duplicates == "drop":
            raise ValueError("by random no samples are equal, so none can be dropped: by slice, canonical or text")
        return self


class DataSection(OpenSection):
    """The samples; other keys are the source's options."""

    source: str = Field("tinypy", description="Source of the samples. Its options are keys of this section.")
    seed: int = Field(0, ge=0, description="Seed of the samples and of the split.")
    split: SplitSection = SplitSection()
    on_change: Annotated[
        Literal["refuse", "keep"],
        Field(
            description="When the data file changed after a run read it: refuse to resume, or `keep` the samples that "
            "were read. May differ on resume."
        ),
    ] = "refuse"


class BandsSection(Section):
    """The bands of difficulty: cut at ``thresholds`` or ``quantiles``; without either as equal as ties allow."""

    names: tuple[str, ...] = Field(
        ("easy", "medium", "hard"), min_length=1, description="Names of the bands, the easiest first."
    )
    thresholds: tuple[float, ...] | None = Field(
        None,
        description="Difficulties at which the bands are cut, one fewer than names; a threshold belongs to the "
        "harder band.",
    )
    quantiles: tuple[float, ...] | None = Field(
        None,
        description="Shares of the training samples at which the bands are cut, in place of `thresholds`. With "
        "neither, the bands are as equal as ties allow.",
    )


class DifficultySection(OpenSection):
    """The difficulty of a sample: a metric with its options, and the bands."""

    metric: str = Field("om", description="Measure of difficulty. Its options are keys of this section.")
    bands: BandsSection = BandsSection()


class ScheduleSection(OpenSection):
    """The stages and their order; other keys are the schedule's options."""

    name: str = Field("baseline", description="Curriculum schedule. Its options are keys of this section.")


class BudgetSection(Section):
    """The length of the run, in tokens, optimizer steps of full batches, or epochs. Exactly one is given."""

    tokens: int | None = Field(None, ge=1, description="Number of predicted tokens with a loss, over all stages.")
    steps: int | None = Field(
        None,
        ge=1,
        description="The same in optimizer steps of full batches (`train.batch_size` x `train.max_length` x "
        "`train.gradient_accumulation_steps`).",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="The same in passes through the training samples of the first cycle, counted once they are drawn. "
        "Exactly one of the three is given.",
    )

    @model_validator(mode="after")
    def _one(self) -> BudgetSection:
        if sum(amount is not None for amount in (self.tokens, self.steps, self.epochs)) != 1:
            raise ValueError("give exactly one of tokens, steps and epochs")
        return self


class SuiteSection(OpenSection):
    """One evaluation; other keys are the suite's options."""

    suite: str = Field(description="Evaluation suite. Its options are keys of this entry.")
    stages: Literal["all", "last"] = Field("all", description="Stages after which the suite is run.")
    split: EvaluationSplit | None = Field(
        None, description="Samples of this suite: `test` or `validation`; null: those of `evaluate.split`."
    )


class TeacherSection(OpenSection):
    """The teacher; other keys are its options."""

    name: str = Field(
        "oracle",
        description="Teacher that writes answers and questions and rates. Its options are keys of this "
        "section. Without the section there is no teacher.",
    )


class RejectedAnswersSection(Section):
    """Rejected answers beside the chosen ones."""

    sources: dict[Literal["student", "mutation", "teacher"], Annotated[float, Field(ge=0)]] = Field(
        description="Weights of the sources of rejected answers: `student`, `mutation`, `teacher`. Without the section "
        "there are none."
    )
    verify: Literal["output", "tests", "text"] = Field(
        "output",
        description="Check that a rejected answer is wrong: by its output, by its sample's tests too, or "
        "only by a text that differs (`text`).",
    )

    @model_validator(mode="after")
    def _some(self) -> RejectedAnswersSection:
        if not sum(self.sources.values()):
            raise ValueError("give at least one source of rejected answers a weight above 0")
        return self


class JudgeSection(OpenSection):
    """One judge of completions; other keys are its options."""

    judge: str = Field(description="Judge of the completions. Its options are keys of this entry.")
    weight: float = Field(1.0, gt=0, description="Weight of the judge in the score.")


class FeedbackSection(Section):
    """The model's completions of training questions after each cycle but the last, and their scores in 0..1."""

    questions: int = Field(
        500, ge=1, description="Number of training samples that the model completes after each cycle but the last."
    )
    num_samples: int = Field(1, ge=1, description="Completions per question.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy decoding.")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Maximum length of a completion; null: the length of the longest correct answer."
    )
    chat_template: bool = Field(False, description="Put the questions through the tokenizer's chat template.")
    stop: tuple[str, ...] = Field((), description="Texts that end a completion.")
    before_training: bool = Field(
        False,
        description="Let a pretrained model complete the samples of the first cycle too, where completions are a "
        "source of rejected answers or of texts to distil on. They are part of the dataset, which seeds share.",
    )
    judges: tuple[JudgeSection, ...] = Field(
        (JudgeSection(judge="output"),), description="Judges whose scores are averaged, each with its options."
    )
    hard: float = Field(0.5, ge=0, le=1, description="Score below which a question is hard.")
    easy: float = Field(0.5, ge=0, le=1, description="Score from which a question is easy.")

    @model_validator(mode="after")
    def _apart(self) -> FeedbackSection:
        if self.hard > self.easy:
            raise ValueError("hard must not lie above easy")
        if not self.judges:
            raise ValueError("give at least one judge")
        return self


class EvaluateSection(Section):
    """The evaluation on fixed held-out samples."""

    seed: int = Field(0, ge=0, description="Seed of the suites: the samples of a `limit`, and sampled completions.")
    split: EvaluationSplit = Field(
        "test",
        description="Samples of the suites: the test set, or `validation` to choose between recipes without it. "
        "A report keeps the two apart.",
    )
    every: int | None = Field(
        None,
        ge=1,
        description="Tokens of the run after which the suites of `stages: all` are also run during a stage, for "
        "accuracy over tokens and the tokens to a target (`report --target`). Changes no weight. Null: after stages "
        "only.",
    )
    on_start: bool | None = Field(
        None,
        description="Evaluate the model before training too (step 0), with every suite; null: a pretrained model only.",
    )
    suites: tuple[SuiteSection, ...] = Field(
        (SuiteSection(suite="output"),),
        description="Evaluations, a list. Each entry has `suite`, `stages` and the suite's options.",
    )


LANGUAGE = "language"
"""The kind of student that is a language model."""


class StudentSection(OpenSection):
    """A student of another kind than a language model; other keys are the options of its kind."""

    kind: str = Field(description="Kind of student. Its options are keys of this section.")


def _kind_of(student: Any) -> str:
    """The member of the union of sections: ``language`` where the section names that kind or none."""
    kind = student.get("kind", LANGUAGE) if isinstance(student, Mapping) else getattr(student, "kind", LANGUAGE)
    return LANGUAGE if kind == LANGUAGE or not isinstance(kind, str) else OTHER_KIND


OTHER_KIND = "other kind"

StudentSettings = Annotated[
    Annotated[ModelSettings, Tag(LANGUAGE)] | Annotated[StudentSection, Tag(OTHER_KIND)], Discriminator(_kind_of)
]


class Recipe(Section):
    """The settings of a run. ``budget`` is divided evenly over ``cycles``."""

    title: str = Field("", description="Title of the run in reports.")
    seed: int = Field(
        1,
        ge=0,
        description="Seed of the run: initial weights, samples of each stage, their order. The seeds of a study "
        "count up from it.",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads; 0: all processors. The number affects the last bits of the weights."
    )
    workers: int = Field(1, ge=1, description="Processes that draw and score samples. Affects no result.")
    cycles: int = Field(
        1,
        ge=1,
        le=MOST_CYCLES,
        description="Number of training cycles; the data of a later one depends on the "
        "feedback on the cycle before. The budget is divided evenly.",
    )
    data: DataSection = DataSection()
    teacher: TeacherSection | None = None
    rejected_answers: RejectedAnswersSection | None = None
    feedback: FeedbackSection | None = None
    difficulty: DifficultySection = DifficultySection()
    schedule: ScheduleSection = ScheduleSection()
    budget: BudgetSection = BudgetSection(tokens=2_000_000)
    student: StudentSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSection = EvaluateSection()

    @property
    def is_language(self) -> bool:
        """Whether the student is a language model."""
        return isinstance(self.student, ModelSettings)

    @property
    def model(self) -> ModelSettings:
        """The settings of a language model. ``TypeError`` for a student of another kind."""
        if not isinstance(self.student, ModelSettings):
            raise TypeError(f"a student of the kind {self.student.kind!r} has no settings of a language model")
        return self.student

    @property
    def base(self) -> str | None:
        """The pretrained base of a language model; None for any other student."""
        return self.student.base if isinstance(self.student, ModelSettings) else None

    @property
    def tokens(self) -> int:
        """The run's budget in tokens; of a budget in epochs ``UNCOUNTED`` until it is counted (``with_tokens``).

        Of a student that is no language model: the budget in steps of its kind.
        """
        if self.budget.tokens is not None:
            return self.budget.tokens
        step = self.train.tokens_per_step if self.is_language else 1
        return UNCOUNTED if self.budget.steps is None else self.budget.steps * step

    def with_tokens(self, tokens: int) -> Recipe:
        """This recipe with a budget of ``tokens``."""
        return self.model_copy(update={"budget": BudgetSection(tokens=tokens)})


UNCOUNTED = 1_000_000
"""Tokens with which a recipe is checked whose budget in epochs needs the samples to be counted."""


ALLOWANCE = (
    "budget_tokens",
    "budget_money",
    "concurrency",
    "seconds",
    "retries",
    "requests_per_minute",
    "tokens_per_minute",
)
"""Options of a teacher that limit the amount and rate of requests; no reply depends on them."""

MAY_CHANGE = (
    "title",
    "workers",
    "student.shard",
    "student.checkpoint_seconds",
    "train.checkpoint_seconds",
    "train.logging_steps",
    "train.evaluations_per_stage",
    "data.on_change",
    *(f"teacher.{name}" for name in ALLOWANCE),
)
"""What a resumed run may say differently: nothing here changes a weight or a count. A study may also get more seeds
and more arms."""


def load(name: str | Path, changes: Sequence[str] = (), *, events: Events = ignore_events) -> Recipe:
    """The recipe at a path or of a name, with ``changes`` such as ``"schedule.replay=0.25"`` applied.

    Keys of version 0.1 have their present names in the result; one event, a note, names them.
    """
    content: dict[str, Any] = {}
    pairs: list[str] = []
    for layer in reversed(layers(find(name))):
        _check_is_recipe(layer)
        content = _merged(content, _present(layer.content, layer.where, pairs))
    for change in changes:
        content = _merged(content, _present(_change(change), "--set", pairs))
    recipe = parse(content, str(name))
    if pairs:  # only an error is reported for a recipe with errors
        events(Event("note", "recipe", text=f"{name}: {'; '.join(dict.fromkeys(pairs))}"))
    return recipe


def _present(content: Mapping[str, Any], where: object, pairs: list[str]) -> dict[str, Any]:
    """``content`` with present names; a text for each renamed key or value is appended to ``pairs``."""
    renaming = renamed(content, where)
    pairs += renaming.pairs
    return typing.cast(dict[str, Any], renaming.content)


def parse(content: Any, where: str = "recipe") -> Recipe:
    """Check a recipe given as plain values, also with keys of version 0.1. ``RecipeError`` holds every fault."""
    content = renamed(content, where).content
    faults = [
        f"{_short(key, 100)}: a number is too large (allowed up to {LARGEST_NUMBER:,})"
        for key, value in _numbers(content)
        if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    ]
    try:
        if not faults:
            return _validated(content)
    except ValidationError as error:
        faults = [_fault(each) for each in _errors(error)]
        raise RecipeError("; ".join(faults), where=where, faults=faults) from error
    raise RecipeError("; ".join(faults), where=where, faults=faults)


def _validated(content: Any) -> Recipe:
    """The recipe of ``content``; numbers may be written as in ``faults.number``. Raises ``ValidationError``."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        repaired = with_numbers(content, _errors(error))
        if repaired is None:
            raise
    return Recipe.model_validate(repaired)


def _errors(error: ValidationError) -> list[Any]:
    """The errors with locations that are keys: without the tag of the union in ``student``."""
    tags = (LANGUAGE, OTHER_KIND)
    return [
        {**entry, "loc": (*entry["loc"][:1], *entry["loc"][2:])}
        if entry["loc"][1:2] and entry["loc"][1] in tags
        else entry
        for entry in error.errors()
    ]


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every value written out; ``load`` of it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)


def dump_earlier(recipe: Recipe) -> str:
    """``dump`` with the keys and values of version 0.1."""
    content = earlier_names(recipe.model_dump(mode="json"))
    return yaml.safe_dump(content, sort_keys=False, width=100)


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Lines ``key: old -> new`` for what differs and may not change when a run is resumed."""
    before, after = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (old, new))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and key not in MAY_CHANGE]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def _check_is_recipe(layer: Layer) -> None:
    """``RecipeError`` for a mapping without any key of a recipe, such as another program's settings."""
    keys = ("extends", *Recipe.model_fields)
    known = (*keys, *earlier_keys(""))
    if layer.content and not any(key in known or did_you_mean(str(key), known) for key in layer.content):
        raise RecipeError("this is no recipe: it has no key of one", where=layer.where, allowed=", ".join(keys))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` wins; mappings merge key by key, except that naming another part drops the old part's options."""
    merged = {key: value for key, value in below.items() if not _ALTERNATIVES.get(key, frozenset()) & above.keys()}
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            named = _SECTION_KEYS.get(key, "")
            other = named in value and old.get(named, LANGUAGE if named == "kind" else None) != value[named]
            kept = {name: old[name] for name in _PARTS[key] if name in old} if other else old
            merged[key] = _merged(kept, value)
        else:
            merged[key] = value
    return merged


_ALTERNATIVES: dict[str, frozenset[str]] = {
    key: frozenset(group) - {key}
    for group in (("thresholds", "quantiles"), ("tokens", "steps", "epochs"))
    for key in group
}
"""Keys of which one replaces the others: ``quantiles`` in a recipe replace the ``thresholds`` of its parent."""

_PARTS: dict[str, tuple[str, ...]] = {
    "data": ("seed", "split"),
    "difficulty": ("bands",),
    "schedule": (),
    "student": (),
    "teacher": (),
}
"""Sections that name a part, and the keys in them that are not the part's options."""


def _change(text: str) -> dict[str, Any]:
    keys, nested = override(text, hint="--set schedule.replay=0.25")
    for key in reversed(keys):
        nested = {key: nested}
    return typing.cast(dict[str, Any], nested)


def _short(value: Any, most: int = 60) -> str:
    """``value`` in few characters: text as it is, everything else as its repr."""
    text = value if isinstance(value, str) else _REPR.repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number with the key that it stands under."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int):
        yield key, value


def _fault(error: Any) -> str:
    """One fault as a line: key, what is wrong, what was given, and the nearest key when it is unknown."""
    key = _short(".".join(str(part) for part in error["loc"]), 100) or "recipe"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(error["loc"][:-1])
        hint = _key_hint(error["loc"], known) or f"known keys: {', '.join(known)}"
        return f"{key}: unknown key ({hint})"
    given = error["input"]
    shown = "a mapping" if isinstance(given, Mapping) else _REPR.repr(given)
    value_hint = _value_hint(error["loc"], given)
    return f"{key}: {fault_text(error)} (given {shown})" + (f"; {value_hint}" if value_hint else "")


_SECTION_KEYS = {"data": "source", "difficulty": "metric", "schedule": "name", "student": "kind", "teacher": "name"}
"""Sections that name a component, and the key that does."""


def _value_hint(location: Sequence[Any], given: Any) -> str | None:
    """The notation for a frequent slip: a list of seeds, and a component's name in place of its section."""
    if tuple(location) == ("seed",) and isinstance(given, list | tuple):
        return f"several seeds are a study: gradatim study RECIPE --seeds {len(given)}"
    key = _SECTION_KEYS.get(str(location[0])) if len(location) == 1 else None
    return f"write {location[0]}: {{{key}: {given}}}" if key is not None and isinstance(given, str) else None


def _key_hint(location: Sequence[Any], known: Sequence[str]) -> str | None:
    """The key that an unknown one resembles, or means in other tools, in another section or in version 0.1."""
    key, section = str(location[-1]), ".".join(map(str, location[:-1]))
    earlier = earlier_keys(section)
    synonym = SYNONYMS.get(key)
    if synonym == "seed":
        return "seed is that of one run; several seeds are a study: gradatim study RECIPE --seeds NUMBER"
    elsewhere = [] if synonym is None else [synonym]
    elsewhere += [path for path in _key_paths() if path.rpartition(".")[2] == key]
    if elsewhere and key not in earlier:
        return f"did you mean {elsewhere[0]}?"
    similar = difflib.get_close_matches(key, [*known, *earlier], n=1, cutoff=0.6)
    if similar:
        return f"did you mean {earlier.get(similar[0], similar[0])!r}?"
    elsewhere += [present for old, present in renamed_keys() if old.rpartition(".")[2] == key]
    return f"did you mean {elsewhere[0]}?" if elsewhere else None


def _key_paths(location: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted paths of all keys of a recipe, sections included."""
    for key in _known_keys(location):
        path = (*location, key)
        yield ".".join(path)
        if _section_of(path) is not _section_of(location):
            yield from _key_paths(path)


def _section_of(location: Sequence[Any]) -> Any:
    """The class of the section at ``location``; that of the section around it for the key of a value."""
    kind: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        inner = typing.get_type_hints(kind).get(part, kind)
        classes = [each for each in (inner, *typing.get_args(inner)) if isinstance(each, type)]
        kind = next((each for each in classes if each.__module__.startswith("gradatim.")), kind)
    return kind


def _known_keys(location: Sequence[Any]) -> list[str]:
    """The keys of the section at ``location``."""
    kind = _section_of(location)
    return [name for name in typing.get_type_hints(kind) if not name.startswith(("_", "model_"))]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
