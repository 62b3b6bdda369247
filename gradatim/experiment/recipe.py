"""What did the user ask for?

A recipe is a YAML file checked by the models below. ``load`` reads one by path or by the name of a recipe that
ships with Gradatim, follows ``extends`` (``recipe_files``), applies ``--set a.b=c``, and tells all faults at once. A
section that names a part (``data.source``, ``difficulty.metric``, ``schedule.name``) takes that part's own options
beside its name. A ``Recipe`` does not go below ``assemble``: parts take plain keyword arguments.
"""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import RecipeError, did_you_mean
from ..model.settings import ModelSettings, TrainSettings
from ..options import override
from .recipe_files import Layer, find, layers

MOST_CYCLES = 10_000
LARGEST_NUMBER = (1 << 63) - 1
"""What counts, seeds and rows are stored in."""


class Section(BaseModel):
    """A part of a recipe; keys it does not know are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(Section):
    """A section that names a part; keys it does not know are that part's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the named part."""
        return dict(self.model_extra or {})


class SplitSection(Section):
    """The split of the samples. ``slice`` keeps programs in one set that are equal up to variable names and assignments
    without effect, and holds out one of each; ``canonical`` regards names only; ``text`` is the paper's split.

    ``levels``: those that validation and test come from; others are only learnt from.
    """

    by: Literal["slice", "canonical", "text", "random"] = "slice"
    validation: int = Field(500, ge=1)
    test: int = Field(1000, ge=1)
    levels: list[str] | None = Field(None, min_length=1)


class DataSection(OpenSection):
    """What there is to learn. ``seed`` fixes it; ``split`` parts it; other keys are the source's options.

    ``on_change``: whether a run goes on with the samples it has when their data file has been changed since.
    """

    source: str = "tinypy"
    seed: int = Field(0, ge=0)
    split: SplitSection = SplitSection()
    on_change: Literal["refuse", "keep"] = "refuse"


class BandsSection(Section):
    """Where the difficulty is cut: ``thresholds`` or ``quantiles``; neither makes bands as equal as ties allow."""

    names: tuple[str, ...] = Field(("easy", "medium", "hard"), min_length=1)
    thresholds: tuple[float, ...] | None = None
    quantiles: tuple[float, ...] | None = None


class DifficultySection(OpenSection):
    """How hard a sample is: a metric with its options, and the bands it is cut into."""

    metric: str = "om"
    bands: BandsSection = BandsSection()


class ScheduleSection(OpenSection):
    """Which stages there are, in what order; other keys are the schedule's options."""

    name: str = "baseline"


class BudgetSection(Section):
    """How long: predictions that receive a gradient, or optimizer steps of full batches. Exactly one is given."""

    tokens: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> BudgetSection:
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("give exactly one of tokens and steps")
        return self


class SuiteSection(OpenSection):
    """One evaluation; other keys are the suite's options. ``stages`` says after which stages it runs."""

    suite: str
    stages: Literal["all", "last"] = "all"


class TeacherSection(OpenSection):
    """Who answers, errs and asks where a recipe needs one; other keys are the teacher's options."""

    name: str = "oracle"


class DeliverySection(Section):
    """Where faulty answers come from: shares by place. ``prove`` says how one that is right after all is found out."""

    faulty: dict[Literal["student", "mutation", "teacher"], Annotated[float, Field(ge=0)]]
    prove: Literal["output", "tests", "text"] = "output"

    @model_validator(mode="after")
    def _some(self) -> DeliverySection:
        if not sum(self.faulty.values()):
            raise ValueError("give at least one place of faulty answers a share above 0")
        return self


class JudgeSection(OpenSection):
    """One view of an attempt and its weight among the views; other keys are the judge's options."""

    judge: str
    weight: float = Field(1.0, gt=0)


class FeedbackSection(Section):
    """What is asked after each cycle but the last, how, and from which score on a question is easy or hard.

    A score lies in 0..1; below ``hard`` a question is hard, from ``easy`` on it is easy. ``questions`` are drawn from
    the cycle's training samples; each is answered ``draws`` times with at most ``new_tokens`` tokens (by default what
    the longest right answer needs), through the tokenizer's ``chat`` template or as plain text, up to one of ``stop``.
    """

    questions: int = Field(500, ge=1)
    draws: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0)
    new_tokens: int | None = Field(None, ge=1)
    chat: bool = False
    stop: tuple[str, ...] = ()
    judges: tuple[JudgeSection, ...] = (JudgeSection(judge="output"),)
    hard: float = Field(0.5, ge=0, le=1)
    easy: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _apart(self) -> FeedbackSection:
        if self.hard > self.easy:
            raise ValueError("hard must not lie above easy")
        if not self.judges:
            raise ValueError("give at least one judge")
        return self


class EvaluateSection(Section):
    """What is measured, on the fixed test set. ``seed`` is the suites' own, never the run's."""

    seed: int = Field(0, ge=0)
    suites: tuple[SuiteSection, ...] = (SuiteSection(suite="output"),)


class Recipe(Section):
    """Everything that decides what a run does. ``seed`` is the run's; ``threads`` 0 takes all processors.

    ``budget`` is the whole run's, parted evenly over ``cycles``.
    """

    title: str = ""
    seed: int = Field(1, ge=0)
    threads: int = Field(0, ge=0)
    workers: int = Field(1, ge=1)
    cycles: int = Field(1, ge=1, le=MOST_CYCLES)
    data: DataSection = DataSection()
    teacher: TeacherSection | None = None
    delivery: DeliverySection | None = None
    feedback: FeedbackSection | None = None
    difficulty: DifficultySection = DifficultySection()
    schedule: ScheduleSection = ScheduleSection()
    budget: BudgetSection = BudgetSection(tokens=2_000_000)
    student: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSection = EvaluateSection()

    @property
    def tokens(self) -> int:
        """The run's budget in tokens."""
        if self.budget.tokens is not None:
            return self.budget.tokens
        return (self.budget.steps or 0) * self.train.size * self.train.length * self.train.accumulate


ALLOWANCE = (
    "budget_tokens",
    "budget_money",
    "concurrency",
    "seconds",
    "retries",
    "requests_per_minute",
    "tokens_per_minute",
)
"""Options of a teacher that say how much and how fast it may be asked; no reply hangs on them."""

MAY_CHANGE = (
    "title",
    "workers",
    "train.checkpoint_seconds",
    "train.log_every",
    "train.validate",
    "data.on_change",
    *(f"teacher.{name}" for name in ALLOWANCE),
)
"""What a resumed run may say differently: nothing here changes a weight or a count. A study may also get more seeds
and more arms."""


def load(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe at a path or of a name, with ``changes`` such as ``"schedule.replay=0.25"`` applied."""
    content: dict[str, Any] = {}
    for layer in reversed(layers(find(name))):
        _check_is_recipe(layer)
        content = _merged(content, layer.content)
    for change in changes:
        content = _merged(content, _change(change))
    return parse(content, str(name))


def parse(content: Any, where: str = "recipe") -> Recipe:
    """Check a recipe given as plain values. ``RecipeError`` holds every fault."""
    faults = [
        f"{key}: a number is too large (allowed up to {LARGEST_NUMBER:,})"
        for key, value in _numbers(content)
        if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    ]
    try:
        if not faults:
            return Recipe.model_validate(content)
    except ValidationError as error:
        faults = [_fault(each) for each in error.errors()]
        raise RecipeError("; ".join(faults), where=where, faults=faults) from error
    raise RecipeError("; ".join(faults), where=where, faults=faults)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every value written out; ``load`` of it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Lines ``key: old -> new`` for what differs and may not change when a run is resumed."""
    before, after = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (old, new))
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and key not in MAY_CHANGE]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys]


def _check_is_recipe(layer: Layer) -> None:
    """``RecipeError`` for a mapping without any key of a recipe, such as another program's settings."""
    known = ("extends", *Recipe.model_fields)
    if layer.content and not any(key in known or did_you_mean(str(key), known) for key in layer.content):
        raise RecipeError("this is no recipe: it has no key of one", where=layer.where, allowed=", ".join(known))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` wins; mappings merge key by key, except that naming another part drops the old part's options."""
    merged = {key: value for key, value in below.items() if _ALTERNATIVES.get(key) not in above}
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            named = next((part for part in ("source", "metric", "name") if part in value), None)
            other = named is not None and key in _PARTS and old.get(named) != value[named]
            kept = {name: old[name] for name in _PARTS[key] if name in old} if other else old
            merged[key] = _merged(kept, value)
        else:
            merged[key] = value
    return merged


_ALTERNATIVES = {"thresholds": "quantiles", "quantiles": "thresholds", "tokens": "steps", "steps": "tokens"}
"""Keys of which one replaces the other: a recipe that says ``quantiles`` does not mean its parent's ``thresholds``."""

_PARTS: dict[str, tuple[str, ...]] = {
    "data": ("seed", "split"),
    "difficulty": ("bands",),
    "schedule": (),
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
        hint = did_you_mean(str(error["loc"][-1]), known) or f"known keys: {', '.join(known)}"
        return f"{key}: unknown key ({hint})"
    given = error["input"] if not isinstance(error["input"], Mapping) else "a mapping"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (given {_REPR.repr(given)})"


def _known_keys(location: Sequence[Any]) -> list[str]:
    """The keys of the section at ``location``."""
    kind: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        kind = typing.get_type_hints(kind).get(part, kind)
        inner = [each for each in typing.get_args(kind) if isinstance(each, type)]
        kind = inner[0] if inner else kind
    return [name for name in typing.get_type_hints(kind) if not name.startswith(("_", "model_"))]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
