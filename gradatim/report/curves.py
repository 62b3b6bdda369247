"""How did the arms learn, token by token and stage by stage?

The figures whose horizontal axis is the tokens learnt: validation loss of all arms, training loss arm by arm with
the stages parted, accuracy after each stage. Each returns SVG text, or None when the study has nothing for it. Runs
that are still at work are drawn as far as they got; a mean over seeds ends where the first of them ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from .data import RunData, StudyData
from .ink import LIGHT, WIDTH, canvas, dress, legend, percent_axis, styles, svg, token_axis
from .summary import Summary, stage_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["after_stages", "learning_curves", "validation_curves"]


def validation_curves(study: StudyData) -> str | None:
    """Validation loss over the run's tokens, all arms in one picture: the mean over seeds, each seed thin."""
    curves = {arm.name: [_curve(run, "validation_loss") for run in study.of(arm.name)] for arm in study.arms}
    curves = {arm: [curve for curve in found if len(curve[0])] for arm, found in curves.items()}
    if not any(curves.values()):
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for arm, found in curves.items():
            for tokens, losses in found:
                axes.plot(tokens, losses, color=look[arm].colour, linewidth=0.8, alpha=0.3)
            if found:
                places, means = _mean_curve(found)
                axes.plot(
                    places, means, color=look[arm].colour, marker=look[arm].marker, markersize=4.5, linewidth=2,
                    markevery=max(1, len(places) // 12), label=study.title_of(arm),
                )  # fmt: skip
        _loss_axes(axes)
        axes.set_xlabel("tokens learnt")
        axes.set_ylabel("validation loss (nats per token)")
        legend(axes, len(study.arms))
        return svg(figure, "validation")


def learning_curves(study: StudyData) -> str | None:
    """One panel per arm: training loss of each seed, validation loss on top, stages parted and named."""
    arms = [arm for arm in study.arms if any(len(_curve(run, "loss")[0]) for run in study.of(arm.name))]
    if not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    height = 0.95 + (2.5 if columns > 1 else 3.4) * rows
    with canvas(WIDTH, height, layout=None) as figure:
        figure.subplots_adjust(0.07, 0.55 / height, 0.99, 1 - 0.5 / height, wspace=0.06, hspace=0.32)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(arms) :]:
            axes.set_visible(False)
        for axes, arm in zip(grid.flat, arms, strict=False):
            for run in study.of(arm.name):
                axes.plot(*_curve(run, "loss"), color=look[arm.name].colour, linewidth=0.9, alpha=0.45)
                axes.plot(*_curve(run, "validation_loss"), color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
            axes.set_title(arm.title, loc="left", fontsize=10.5, color=look[arm.name].colour, pad=18)
            _part_stages(axes, study.of(arm.name), letters=120 // columns)
        for axes in grid.flat[: len(arms)]:
            _loss_axes(axes)
        figure.text(0.53, 0.1 / height, "tokens learnt", ha="center", color=LIGHT["muted"])
        figure.text(0.005, 0.5, "loss (nats per token)", va="center", rotation=90, color=LIGHT["muted"])
        return svg(figure, "curves")


def after_stages(study: StudyData, summary: Summary) -> str | None:
    """Accuracy after each stage: the mean over seeds, each seed as a small dot."""
    found = {
        arm.name: [stage_scores(run, summary.suite, summary.protocol) for run in study.of(arm.name)]
        for arm in study.arms
    }
    if not any(scores for runs in found.values() for scores in runs):
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for arm, runs in found.items():
            steps = [[stage for scores in runs for stage in scores[index : index + 1]] for index in range(
                max((len(scores) for scores in runs), default=0))]  # fmt: skip
            tokens = [fmean(token for token, _ in step) for step in steps]
            shares = [100 * fmean(score.share for _, score in step) for step in steps]
            for step in steps:
                for token, score in step:
                    axes.plot(token, 100 * score.share, "o", color=look[arm].colour, markersize=3.5, alpha=0.4)
            if steps:
                axes.plot(
                    tokens, shares, color=look[arm].colour, marker=look[arm].marker, markersize=7, linewidth=1.8,
                    label=study.title_of(arm),
                )  # fmt: skip
        axes.set(xlim=(0, None), xlabel="tokens learnt at the end of the stage", ylabel="test programs right")
        token_axis(axes)
        percent_axis(axes)
        dress(axes)
        legend(axes, len(study.arms))
        return svg(figure, "stages")


def _curve(run: RunData, what: str) -> tuple[list[int], list[float]]:
    rows = [(point.run_tokens, getattr(point, what)) for point in run.curve if getattr(point, what) is not None]
    return [tokens for tokens, _ in rows], [loss for _, loss in rows]


def _mean_curve(curves: Sequence[tuple[list[int], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean over seeds, row by row: seeds log at the same steps, whose tokens differ by parts of a batch."""
    places = [fmean(row) for row in zip(*(tokens for tokens, _ in curves), strict=False)]
    return places, [fmean(row) for row in zip(*(losses for _, losses in curves), strict=False)]


def _part_stages(axes: Axes, runs: Sequence[RunData], letters: int) -> None:
    """A line where each stage ends and above it the name, or the number where only that fits.

    Of several cycles the cycles are named, and a drawn-through line parts them. Taken from the run that got furthest;
    ``letters`` is how many fit across the whole panel.
    """
    run = max(runs, key=lambda run: (len(run.stages), len(run.curve)))
    budgets = [(stage.spec.name, stage.fitted.tokens, stage.cycle) for stage in run.stages]
    if len(run.last_stages) > 1:
        _part_cycles(axes, budgets, letters)
        return
    start, whole = 0, sum(tokens for _, tokens, _ in budgets) or 1
    for index, (name, tokens, _) in enumerate(budgets):
        if index:
            axes.axvline(start, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
        label = name if len(name) <= letters * tokens / whole else str(index + 1)
        axes.text(
            start + tokens / 2, 1.03, label, transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=8, color=LIGHT["muted"],
        )  # fmt: skip
        start += tokens


def _part_cycles(axes: Axes, budgets: Sequence[tuple[str, int, int]], letters: int) -> None:
    """Dotted lines between stages, drawn-through ones between cycles, whose names (or numbers) stand above."""
    end, starts, ends = 0, dict[int, int](), dict[int, int]()
    for _, tokens, cycle in budgets:
        if end:
            inside = cycle in starts
            axes.axvline(
                end, color=LIGHT["muted" if inside else "ink"], linewidth=0.9, linestyle=(0, (2, 2)) if inside else "-"
            )
        starts.setdefault(cycle, end)
        end += tokens
        ends[cycle] = end
    for cycle, start in starts.items():
        name = f"cycle {cycle}"
        axes.text(
            (start + ends[cycle]) / 2, 1.03, name if len(name) <= letters * (ends[cycle] - start) / end else str(cycle),
            transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8, color=LIGHT["muted"],
        )  # fmt: skip


def _loss_axes(axes: Axes) -> None:
    """A logarithmic loss over tokens; ticks once both are known."""
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_yticks([], minor=True)
    ticks = _loss_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    token_axis(axes)
    dress(axes)


def _loss_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, as many as can be told apart on a logarithmic axis."""
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), np.arange(1, 10, 0.5), np.arange(1, 10, 0.1)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [round(float(digit) * 10.0**power, 6) for power in powers for digit in digits]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) > 8 and len(ticks) > 1:
            break
        ticks = found
    return ticks
