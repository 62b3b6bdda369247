"""Static schedules as a matrix: rows are stages, columns are bands (easiest first), entries are fractions.

    baseline     1 1 1      sequential  1 . .      incremental  1 . .      hybrid  1 . .
                                        . 1 .                   1 1 .              r 1 .
                                        . . 1                   1 1 1              r r 1     r = the hardest part

The budget is split exactly: the stages' tokens add up to it. With three bands the shares are those of arXiv 2407.10194
(steps of 25/30/65 thousand for incremental, 20/30/70 for hybrid). A factory makes a schedule from the bands' names and
the budget alone, so that a plan needs no data. Rows are selected by ``select_rows``; the order of rows and the warm-up
stage are options common to all matrices (``fixed_schedule``).

Schedules that move continuously from easy to hard samples: ``fade`` by bands, ``pacing`` without them.

``fade``: mixtures of the bands are given at milestones of the budget; between two milestones, which is one stage, each
band's share of the tokens changes linearly.

``pacing``: competence-based curriculum learning (Platanios et al., arXiv 1903.09848). At the share t of the budget
the model is trained on the easiest c(t) of the samples, c rising from ``start`` to 1 at ``until``:

    c(t) = (t/until · (1 - start^p) + start^p) ^ (1/p)       p = 1 linear, 2 root, 1/2 convex

The helpers for stages with replay are shared with the adaptive schedules.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Annotated, Any, Literal, Protocol, get_type_hints

from pydantic import Field

from ..errors import RecipeError, did_you_mean
from ..options import strict
from ..registry import Contract, Registry
from ..stage import End, Needs, Schedule, StageResult, StageSpec
from .selection import make_order

Shares = Annotated[
    Sequence[float] | None,
    Field(
        description="Shares of the budget, one per stage; they need not add up to 1. Default: those of the schedule."
    ),
]
Replay = Annotated[float, Field(description="Fraction of a stage's tokens for easier or earlier samples.")]
Segments = Annotated[
    int,
    Field(
        description="Number of equal stages that the budget is divided into. Combine with "
        "`train.reset_optimizer: false`."
    ),
]
PacingStart = Annotated[float, Field(description="Fraction of the samples available at the beginning.")]
PacingEnd = Annotated[float, Field(description="Fraction of the budget after which all samples are available.")]
ProbeSize = Annotated[
    int, Field(description="Number of training samples that the model scores after each stage; 0: all.")
]


class ScheduleFactory(Protocol):
    """A function from bands (easiest first) and a budget in tokens to a schedule; options are keywords."""

    def __call__(self, bands: tuple[str, ...], tokens: int, **options: Any) -> Schedule: ...


SCHEDULES: Registry[ScheduleFactory] = Registry("schedule", contracts=(Contract(Schedule, ("next",)),), arguments=2)


NO_NEEDS = Needs()


@dataclass(frozen=True)
class Matrix(Schedule):
    """A schedule of fixed stages: the stage after n finished ones is row n.

    ``needs``: measurements after each stage for a caller; the matrix itself uses none.
    """

    rows: tuple[StageSpec, ...]
    needs: Needs = NO_NEEDS
    is_control: bool = False

    def next(self, history: Sequence[StageResult]) -> StageSpec | None:
        """Row ``len(history)``, or None past the last row."""
        return self.rows[len(history)] if len(history) < len(self.rows) else None


def fixed_schedule(name: str) -> Callable[[Callable[..., Matrix]], ScheduleFactory]:
    """Decorator: a factory of a ``Matrix`` as a schedule of this name, with the options that all fixed schedules share.

    The factory takes the names of the bands, the budget in tokens and options of its own. The schedule has ``order``,
    ``category`` and ``warmup_stage`` too, and an unknown or invalid option is a ``RecipeError``. With a warm-up stage
    every arm of a comparison, including the baseline, begins with the same prerequisites.
    """
    return partial(_with_shared_options, name)


def _with_shared_options(name: str, factory: Callable[..., Matrix]) -> ScheduleFactory:
    """``factory`` with the options of ``_shared_options``, and all options checked."""

    @wraps(factory)
    def ordered_factory(
        bands: tuple[str, ...],
        tokens: int,
        *,
        order: str | dict[str, Any] = "shuffled",
        category: str | None = None,
        warmup_stage: float = 0.0,
        **options: Any,
    ) -> Matrix:
        order_name, order_options = order_and_options(order, category)
        matrix = _with_warmup_stage(partial(factory, **options), bands, tokens, warmup_stage)
        rows = tuple(replace(row, order=order_name, order_options=order_options) for row in matrix.rows)
        return replace(matrix, rows=rows)

    base, common = inspect.signature(factory), inspect.signature(_shared_options).parameters.values()
    ordered_factory.__signature__ = base.replace(parameters=[*base.parameters.values(), *common])  # type: ignore[attr-defined]
    # As types, since names in annotations are looked up in the module of ``factory``.
    shared = get_type_hints(_shared_options, include_extras=True)
    ordered_factory.__annotations__ = {**shared, **factory.__annotations__}
    return strict(f"the schedule {name!r}")(ordered_factory)


def _with_warmup_stage(
    factory: Callable[[tuple[str, ...], int], Matrix], bands: tuple[str, ...], tokens: int, share: float
) -> Matrix:
    """The schedule of ``factory``, after a warm-up stage on the easiest band where it has a share of the budget."""
    if not share:
        return factory(bands, tokens)
    if not 0 < share < 1 or len(bands) < 2:
        raise RecipeError(
            "a warm-up stage takes the easiest band, and leaves bands and budget to the schedule",
            where="schedule.warmup_stage",
            given=f"{share} with {len(bands)} band(s)",
            allowed="between 0 and 1, with two bands or more",
        )
    warmup_tokens, remaining_tokens = split_budget(tokens, [share, 1 - share])
    first = StageSpec(bands[0], (1.0, *(0.0,) * (len(bands) - 1)), warmup_tokens)
    matrix = factory(bands[1:], remaining_tokens)
    later = (replace(row, fractions=(0.0, *row.fractions), ends=("hardest", *row.ends)) for row in matrix.rows)
    return replace(matrix, rows=(first, *later))


def _shared_options(
    *,
    order: Annotated[
        str | dict[str, Any],
        Field(
            description="Order of the samples of a stage: name of an [order](#orders), or `{name: …}` with its options."
        ),
    ] = "shuffled",
    category: Annotated[
        str | None, Field(description="Label column of an order by categories; equivalent to the option of the order.")
    ] = None,
    warmup_stage: Annotated[
        float,
        Field(
            description="Fraction of the budget for a warm-up stage on the easiest band; the schedule applies "
            "to the other bands and the remaining budget."
        ),
    ] = 0.0,
) -> None:
    """The signature of the options that all matrices have in common."""


def order_and_options(
    order: str | dict[str, Any], category: str | None, where: str = "schedule.order"
) -> tuple[str, dict[str, Any]]:
    """The name and options of an order, checked to fit together."""
    options = {"name": order} if isinstance(order, str) else dict(order)
    order_name = str(options.pop("name", ""))
    if category is not None:
        options["category"] = category
    make_order(order_name, options, where)
    return order_name, options


def _schedule(name: str) -> Callable[[Callable[..., Matrix]], ScheduleFactory]:
    """Decorator: register a factory of matrices as a schedule with the common options."""

    def add(factory: Callable[..., Matrix]) -> ScheduleFactory:
        return SCHEDULES.register(name)(fixed_schedule(name)(factory))

    return add


def split_budget(tokens: int, shares: Sequence[float]) -> list[int]:
    """``tokens`` divided in proportion to ``shares``; whole numbers that add up to ``tokens`` exactly.

    Raises ``RecipeError`` when a stage would get no tokens.
    """
    total = math.fsum(shares)
    ends = [round(cumulated / total * tokens) for cumulated in itertools.accumulate(shares)]
    ends[-1] = tokens
    budgets = [end - start for start, end in itertools.pairwise([0, *ends])]
    if min(budgets) < 1:
        raise RecipeError(
            "the budget is too small for the schedule: a stage would get no tokens",
            where="budget.tokens",
            given=f"{tokens} tokens in shares of {[float(share) for share in shares]}",
        )
    return budgets


def _matrix(
    names: Sequence[str], fractions: Sequence[Sequence[float]], budgets: Sequence[int], end: End = "hardest"
) -> Matrix:
    rows = zip(names, fractions, budgets, strict=True)
    return Matrix(
        tuple(StageSpec(name, tuple(map(float, row)), budget, (end,) * len(row)) for name, row, budget in rows)
    )


def _shares(option: Shares, default: Sequence[float]) -> list[float]:
    """The shares of the recipe, or the default; ``RecipeError`` when they do not fit the stages."""
    shares = [float(share) for share in (default if option is None else option)]
    if len(shares) != len(default) or not all(share > 0 and math.isfinite(share) for share in shares):
        raise RecipeError(
            "the shares of the budget do not fit the stages",
            where="schedule.shares",
            given=shares,
            allowed=f"{len(default)} positive number(s), one per stage; they need not add up to 1",
        )
    return shares


def _rising_shares(stages: int, paper: tuple[float, float, float]) -> Sequence[float]:
    """The paper's shares for three stages; else each stage in proportion to the number of its bands."""
    return paper if stages == 3 else range(1, stages + 1)


def _triangle(bands: int, below: float) -> list[list[float]]:
    """As many stages as bands: 1 on the diagonal, ``below`` under it, else 0."""
    return [[below] * stage + [1.0] + [0.0] * (bands - stage - 1) for stage in range(bands)]


def _stage_names(fractions: Sequence[Sequence[float]], bands: Sequence[str]) -> list[str]:
    """Names of rows of zeros and ones by their bands: "easy", "easy+medium", or "all"."""
    bands_by_stage = [[band for band, share in zip(bands, row, strict=True) if share] for row in fractions]
    return ["all" if len(names) == len(bands) > 1 else "+".join(names) for names in bands_by_stage]


@_schedule("baseline")
def baseline(
    bands: tuple[str, ...],
    tokens: int,
    *,
    restarts: Annotated[int, Field(description="Number of equal stages that the budget is divided into.")] = 1,
    shares: Shares = None,
) -> Matrix:
    """Every band from the first step: no curriculum.

    ``restarts`` divides the budget into that many equal stages, ``shares`` into unequal ones: the control with the same
    learning-rate restarts as a curriculum.
    """
    count = len(shares) if shares is not None and restarts == 1 else restarts
    if count < 1:
        raise RecipeError("a baseline has at least 1 stage", where="schedule.restarts", given=count)
    budgets = split_budget(tokens, _shares(shares, [1.0] * count))
    names = ["all"] if count == 1 else [f"all-{stage + 1}" for stage in range(count)]
    return replace(_matrix(names, [[1.0] * len(bands)] * count, budgets), is_control=True)


@_schedule("sequential")
def sequential(bands: tuple[str, ...], tokens: int, *, shares: Shares = None) -> Matrix:
    """One band after the other, easiest first; equal shares of the budget."""
    rows = _triangle(len(bands), below=0.0)
    return _matrix(bands, rows, split_budget(tokens, _shares(shares, [1.0] * len(bands))))


@_schedule("reverse")
def reverse(bands: tuple[str, ...], tokens: int, *, shares: Shares = None) -> Matrix:
    """One band after the other, hardest first: the control for the direction of a curriculum."""
    rows = _triangle(len(bands), below=0.0)[::-1]
    return _matrix(bands[::-1], rows, split_budget(tokens, _shares(shares, [1.0] * len(bands))))


@_schedule("incremental")
def incremental(bands: tuple[str, ...], tokens: int, *, shares: Shares = None) -> Matrix:
    """Each stage adds the next harder band: easy, easy+medium, all.

    Shares: 25/30/65 for three bands (arXiv 2407.10194), else in proportion to the bands in each stage.
    """
    rows = _triangle(len(bands), below=1.0)
    budgets = split_budget(tokens, _shares(shares, _rising_shares(len(bands), (25, 30, 65))))
    return _matrix(_stage_names(rows, bands), rows, budgets)


@_schedule("hybrid")
def hybrid(
    bands: tuple[str, ...],
    tokens: int,
    *,
    replay: Annotated[float, Field(description="Fraction of each easier band that is repeated.")] = 0.5,
    end: Annotated[End, Field(description="Part of an easier band that is repeated.")] = "hardest",
    shares: Shares = None,
) -> Matrix:
    """Each stage takes the next band whole and replays the hardest part of the bands before it.

    The paper gives no number for ``replay``; an ``end`` other than "hardest" is a control. Shares: 20/30/70 for three
    bands (arXiv 2407.10194), else as for incremental.
    """
    if not 0 <= replay <= 1:
        raise RecipeError("a share out of range", where="schedule.replay", given=replay, allowed="[0, 1]")
    rows = _triangle(len(bands), below=replay)
    budgets = split_budget(tokens, _shares(shares, _rising_shares(len(bands), (20, 30, 70))))
    names = [f"{band}+replay" if stage and replay else band for stage, band in enumerate(bands)]
    return _matrix(names, rows, budgets, end)


@_schedule("only")
def only(
    bands: tuple[str, ...],
    tokens: int,
    *,
    band: Annotated[str | None, Field(description="Name of the band. Default: the hardest.")] = None,
    shares: Shares = None,
) -> Matrix:
    """One band alone for the whole budget.

    ``shares`` divides the budget into stages: the control with the same restarts as a curriculum.
    """
    target = bands[-1] if band is None else band
    if target not in bands:
        raise RecipeError(
            f"there is no band called {target!r}",
            where="schedule.band",
            allowed=", ".join(bands),
            hint=did_you_mean(target, bands),
        )
    budgets = split_budget(tokens, _shares(shares, [1.0] * (1 if shares is None else len(shares))))
    names = [target] if len(budgets) == 1 else [f"{target}-{stage + 1}" for stage in range(len(budgets))]
    stages = _matrix(names, [[float(name == target) for name in bands]] * len(budgets), budgets)
    return replace(stages, is_control=len(budgets) > 1)


@_schedule("warmup")
def warmup(
    bands: tuple[str, ...],
    tokens: int,
    *,
    share: Annotated[float, Field(description="Fraction of the budget for the curriculum, between 0 and 1.")] = 0.5,
    shares: Shares = None,
) -> Matrix:
    """An incremental curriculum for a share of the budget, then every band shuffled (arXiv 2506.11300).

    The curriculum consists of the stages without the hardest band; ``shares`` divides ``share`` among them (default: as
    incremental does). With one band there is no curriculum: one stage.
    """
    if not 0 < share < 1:
        raise RecipeError("a share out of range", where="schedule.share", given=share, allowed="between 0 and 1")
    rows = _triangle(len(bands), below=1.0)
    first = _shares(shares, list(_rising_shares(len(bands), (25, 30, 65)))[:-1])
    stage_shares = [*(weight / sum(first) * share for weight in first), 1 - share] if first else [1.0]
    return _matrix(_stage_names(rows, bands), rows, split_budget(tokens, stage_shares))


def check_range(name: str, value: float, low: float, high: float, *, open_at_high: bool = False) -> None:
    """Raise ``RecipeError`` unless ``low <= value <= high`` (``< high`` when the interval is open there)."""
    if not low <= value <= high or (open_at_high and value == high):
        allowed = f"from {low:g} to {'below ' if open_at_high else ''}{high:g}"
        raise RecipeError("an option out of range", where=f"schedule.{name}", given=value, allowed=allowed)


def stage_name(index: int, count: int, label: str) -> str:
    """The name of a stage: its number, so that names are unique and sort, and a label."""
    return f"{index + 1:0{len(str(count))}d}-{label}"


def bands_used(history: Sequence[StageResult], bands: int) -> set[int]:
    """The bands that earlier stages have used."""
    return {band for result in history for band in range(bands) if result.spec.fractions[band]}


def with_replay(weights: Sequence[float], earlier: set[int], replay: float) -> tuple[float, ...]:
    """The mixture ``weights`` with a share ``replay`` distributed evenly over ``earlier`` bands, if there are any."""
    if not replay or not earlier:
        return tuple(map(float, weights))
    share = replay / len(earlier)
    return tuple((1 - replay) * weight + (share if band in earlier else 0.0) for band, weight in enumerate(weights))


def band_stage(name: str, band: int, bands: int, tokens: int, earlier: set[int], replay: float) -> StageSpec:
    """A stage on one band, with a share ``replay`` for the ``earlier`` bands."""
    single = [float(index == band) for index in range(bands)]
    weights = with_replay(single, earlier - {band}, replay)
    if weights == tuple(single):
        return StageSpec(name, weights, tokens)
    return StageSpec(name, tuple(float(weight > 0) for weight in weights), tokens, mixture=(weights, weights))


@SCHEDULES.register("fade")
@strict("the schedule 'fade'")
def fade(
    bands: tuple[str, ...],
    tokens: int,
    *,
    milestones: Annotated[
        Mapping[float, tuple[float, ...]] | None,
        Field(description="{fraction of the budget: weight of each band}, from 0 to 1; weights need not add up to 1."),
    ] = None,
    replay: Replay = 0.0,
) -> Matrix:
    """A mixture of the bands that changes linearly between milestones.

    Default milestones: the easiest band alone at first, one band more at each of equal steps, all with equal weight at
    the end. ``replay`` distributes that share at each milestone evenly over the bands used by then.
    """
    check_range("replay", replay, 0, 1, open_at_high=True)
    mixture_at = dict(sorted((milestones or _default(len(bands))).items()))
    _check(mixture_at, len(bands))
    times, mixtures = list(mixture_at), []
    earlier: set[int] = set()
    for weights in mixture_at.values():
        total = sum(weights)
        mixtures.append(with_replay([weight / total for weight in weights], earlier, replay))
        earlier |= {band for band, weight in enumerate(weights) if weight}
    budgets = split_budget(tokens, [end - start for start, end in itertools.pairwise(times)])
    rows = []
    for index, ((start, end), budget) in enumerate(zip(itertools.pairwise(mixtures), budgets, strict=True)):
        used = tuple(float(first > 0 or last > 0) for first, last in zip(start, end, strict=True))
        name = stage_name(index, len(budgets), f"to-{100 * times[index + 1]:.0f}")
        rows.append(StageSpec(name, used, budget, mixture=(start, end)))
    return Matrix(tuple(rows))


def _default(bands: int) -> dict[float, tuple[float, ...]]:
    if bands == 1:
        return {0.0: (1.0,), 1.0: (1.0,)}
    return {step / (bands - 1): (1.0,) * (step + 1) + (0.0,) * (bands - step - 1) for step in range(bands)}


def _check(mixture_at: Mapping[float, tuple[float, ...]], bands: int) -> None:
    times = list(mixture_at)
    if len(times) < 2 or (times[0], times[-1]) != (0, 1):
        raise RecipeError(
            "milestones go from 0 to 1", where="schedule.milestones", given=times, allowed="shares of the budget"
        )
    for time, weights in mixture_at.items():
        if len(weights) != bands or not sum(weights) > 0 or not all(0 <= weight < float("inf") for weight in weights):
            raise RecipeError(
                "a milestone gives every band a weight",
                where=f"schedule.milestones.{time:g}",
                given=list(weights),
                allowed=f"{bands} numbers from 0 up, not all 0",
            )


Pace = Annotated[
    Literal["linear", "root", "convex"], Field(description="Growth of the available fraction of the samples.")
]
_POWERS = {"linear": 1.0, "root": 2.0, "convex": 0.5}


def competence(time: float, pace: Pace, start: float, until: float) -> float:
    """The share of the samples, easiest first, that is available at the share ``time`` of the budget."""
    power = _POWERS[pace]
    progress = min(time / until, 1.0) * (1 - start**power) + start**power
    return min(float(progress ** (1 / power)), 1.0)


def check_pace(start: float, until: float, parts: int) -> None:
    """Raise ``RecipeError`` for values outside the domain of ``competence``."""
    check_range("start", start, 1e-6, 1)
    check_range("until", until, 1e-6, 1)
    check_range("parts", parts, 1, 1000)


@SCHEDULES.register("pacing")
@strict("the schedule 'pacing'")
def pacing(
    bands: tuple[str, ...],
    tokens: int,
    *,
    pace: Pace = "root",
    start: PacingStart = 0.1,
    until: PacingEnd = 0.5,
    parts: Segments = 20,
    replay: Replay = 0.0,
) -> Matrix:
    """The easiest samples first, and more as a competence grows: linear, root, convex (1903.09848).

    The budget is cut into ``parts``; each trains on the samples available at its beginning. Without ``replay`` these
    are drawn evenly, as published; with it, a part trains on the newly available samples, and the share ``replay`` of
    its tokens goes to the earlier ones. From ``until`` on all samples are available.
    """
    check_pace(start, until, parts)
    check_range("replay", replay, 0, 1, open_at_high=True)
    rows, low = [], 0.0
    for index, budget in enumerate(split_budget(tokens, [1.0] * parts)):
        high = competence(index / parts, pace, start, until)
        with_earlier = bool(replay) and 0 < low < high
        rows.append(
            StageSpec(
                stage_name(index, parts, f"upto-{100 * high:.0f}"),
                (1.0,) * len(bands),
                budget,
                low=low if with_earlier else 0.0,
                high=high,
                replay=replay if with_earlier else 0.0,
            )
        )
        low = high
    return Matrix(tuple(rows))
