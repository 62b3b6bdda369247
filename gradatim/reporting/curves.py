"""Curves over training tokens: losses of one quantity, learning rate, gradient norm, throughput.

A training loss and a validation loss are drawn together only where both are the same quantity. The validation rows of
the metrics have the loss of the answer tokens and that of all tokens. The training loss is the first of them without
loss on prompts, the second with ``prompt_loss_weight`` 1, and otherwise a quantity of its own: the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from .data import Point, RunData, StudyData
from .units import terms_of

MOST_POINTS = 240
"""Points of a series; longer ones are means of as many spans of rows."""


@dataclass(frozen=True)
class Series:
    """One line: ``values`` at ``tokens``, both of one length. ``part``: training or validation."""

    arm: str
    seed: int
    part: str
    tokens: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Quantity:
    """One quantity over training tokens, with the lines of all runs."""

    name: str
    title: str
    unit: str
    logarithmic: bool
    series: tuple[Series, ...]


def loss_quantity(run: RunData, stage: int) -> str:
    """The quantity of the training loss in a stage: ``answer``, ``all`` (tokens) or ``objective``."""
    train = run.settings.get("train")
    train = train if isinstance(train, Mapping) else {}
    objective = next((entry.spec.objective for entry in run.stages if entry.index == stage), None)
    match objective or train.get("objective"), train.get("prompt_loss_weight"):
        case ("answer_only", _) | ("next_token", 0):
            return "answer"
        case "next_token", 1:
            return "all"
    return "objective"


def quantities(study: StudyData) -> tuple[Quantity, ...]:
    """The quantities for which any run has at least one value."""
    kinds = (
        Quantity("answer", "Loss on answers", "nats per token", True, _losses(study, "answer")),
        Quantity("all", "Loss on all tokens", "nats per token", True, _losses(study, "all")),
        Quantity("objective", "Training objective", "nats per token", True, _losses(study, "objective")),
        Quantity("reward", "Mean reward per step", "", False, _rows(study, "reward")),
        Quantity("learning_rate", "Learning rate", "", False, _rows(study, "learning_rate")),
        Quantity("gradient_norm", "Gradient norm", "", True, _rows(study, "gradient_norm")),
        Quantity("throughput", "Throughput", terms_of(study).rate, False, tuple(_throughput(study))),
    )
    return tuple(kind for kind in kinds if kind.series)


def _losses(study: StudyData, quantity: str) -> tuple[Series, ...]:
    def training(run: RunData, point: Point) -> float | None:
        if quantity == "answer" and point.answer_loss is not None:
            return point.answer_loss
        return point.loss if loss_quantity(run, point.stage) == quantity else None

    lines = [_series(study, "training", training)]
    validation = {"answer": "validation_answer_loss", "all": "validation_loss"}.get(quantity)
    if validation is not None:
        lines.append(_series(study, "validation", lambda _, point: getattr(point, validation)))
    return tuple(series for part in lines for series in part)


def _rows(study: StudyData, name: str) -> tuple[Series, ...]:
    return tuple(_series(study, "training", lambda _, point: getattr(point, name)))


def _series(study: StudyData, part: str, value: Callable[[RunData, Point], float | None]) -> Iterator[Series]:
    for run in study.runs:
        rows = [(point.run_tokens, number) for point in run.curve if (number := value(run, point)) is not None]
        if rows:
            tokens, values = _thinned(rows)
            yield Series(run.arm, run.seed, part, tokens, values)


def _thinned(rows: Sequence[tuple[int, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """At most ``MOST_POINTS`` rows: the last tokens and the mean value of spans of equal length."""
    span = -(-len(rows) // MOST_POINTS)
    groups = [rows[start : start + span] for start in range(0, len(rows), span)]
    return tuple(group[-1][0] for group in groups), tuple(fmean(value for _, value in group) for group in groups)


def _throughput(study: StudyData) -> Iterator[Series]:
    """Loss tokens per second of each finished stage, at its start and end."""
    for run in study.runs:
        ends = [0]
        for stage in run.stages:
            ends.append(ends[-1] + stage.fitted.tokens)
        spans = [
            (start, end, stage.fitted.tokens / stage.fitted.seconds)
            for stage, (start, end) in zip(run.stages, pairwise(ends), strict=True)
            if stage.fitted.seconds > 0
        ]
        if spans:
            tokens = tuple(float(token) for start, end, _ in spans for token in (start, end))
            yield Series(run.arm, run.seed, "training", tokens, tuple(rate for *_, rate in spans for _ in range(2)))
