"""Figures of a study: differences, accuracy by group, training curves, stage composition, difficulty histogram.

Each function returns SVG text, or None without data. An arm keeps its colour and marker in all figures. Intervals are
never pooled over seeds: with fewer than five seeds each run is a dot with its Wilson interval over test items,
otherwise the dot is the mean with Student's t interval over seeds. Runs in progress are drawn as far as they are; a
mean over seeds ends with the shortest run. ``schedule_shares`` shows one run of each arm, since adaptive schedules
choose differently per seed. Values come from ``summary``; captions are in the page template.

One palette for figures and page. Figures are drawn in the light colours; inside the page ``for_page`` replaces each
colour by a CSS variable for light and dark mode, and the font by the page's. Output is deterministic: no dates, no
random ids. Uses matplotlib's object interface without pyplot, hence without global state or windows.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..evaluation.statistics import ENOUGH_SEEDS, Interval, t_interval
from ..stage import StageResult
from .curves import loss_quantity
from .data import RunData, StudyData
from .summary import Score, Summary, count, group_scores, groups, points, stage_scores
from .target import accuracy_curves
from .terms import Terms
from .units import metric_of, plural, terms_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LayoutName = Literal["constrained"] | None


LIGHT = {
    "ink": "#1b2130",
    "muted": "#667085",
    "grid": "#e4e7ec",
    "paper": "#fffffe",
    "arm-0": "#5d6778",
    "arm-1": "#2f66d0",
    "arm-2": "#d9700f",
    "arm-3": "#0c8f6f",
    "arm-4": "#b53d7f",
    "arm-5": "#7b55c7",
    "arm-6": "#96780e",
    "arm-7": "#1490b4",
    "arm-8": "#a8443a",
    "arm-9": "#5f7f1f",
    "arm-10": "#3d4f9e",
    "band-0": "#cfe0f8",
    "band-1": "#94b8ee",
    "band-2": "#5789dc",
    "band-3": "#2a5bb0",
    "band-4": "#173a78",
}
DARK = {
    "ink": "#e9ecf3",
    "muted": "#98a2b3",
    "grid": "#2d3443",
    "paper": "#161b26",
    "arm-0": "#a3adbd",
    "arm-1": "#78a5ff",
    "arm-2": "#ffa04d",
    "arm-3": "#3fcfa4",
    "arm-4": "#f07fbc",
    "arm-5": "#b394ff",
    "arm-6": "#dfbd4a",
    "arm-7": "#52c7ea",
    "arm-8": "#f2887c",
    "arm-9": "#a9cf5e",
    "arm-10": "#a2b1ff",
    "band-0": "#27406b",
    "band-1": "#355c9f",
    "band-2": "#4f82d6",
    "band-3": "#8ab2f5",
    "band-4": "#d3e3ff",
}
WIDTH = 9.6
"""Inches; the page scales figures to its width."""

MARKERS = "osD^vPXp"
COLOURS = 10
"""Colours of arms other than the baseline."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Style:
    """The colour and, for colour-blind readers, the marker of an arm."""

    colour: str
    marker: str
    variable: str


def styles(arms: Sequence[str], baseline: str | None) -> dict[str, Style]:
    """A style per arm; the baseline is grey. Colours repeat from the twelfth arm on."""
    result, count = {}, 0
    for arm in arms:
        index = 0 if arm == baseline else 1 + count % COLOURS
        marker = MARKERS[(index + (0 if arm == baseline else count // COLOURS)) % len(MARKERS)]
        count += arm != baseline
        result[arm] = Style(LIGHT[f"arm-{index}"], marker, f"--arm-{index}")
    return result


def band_colours(names: Sequence[str]) -> dict[str, str]:
    """Colours of one hue, from light (easy) to dark (hard)."""
    return {
        name: LIGHT[variable.removeprefix("--")] for name, variable in zip(names, band_variables(names), strict=True)
    }


def band_variables(names: Sequence[str]) -> list[str]:
    """The CSS variables of the colours of ``band_colours``."""
    last = max(1, len(names) - 1)
    return [f"--band-{min(4, round(4 * i / last) if last > 1 else 1 + 2 * i)}" for i in range(len(names))]


@contextmanager
def canvas(width: float, height: float, layout: LayoutName = "constrained") -> Iterator[Figure]:
    """An empty figure, sizes in inches, within the common matplotlib settings.

    ``layout``: "constrained" (slow with many panels), or None for a layout by the caller.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",  # text stays text: searchable, accessible, styled by the page
        "svg.hashsalt": "gradatim",
        "text.parse_math": False,  # titles come from users and are no formulas
        "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same layout on every machine
        "font.size": 9.5,
        "text.color": LIGHT["ink"],
        "axes.labelcolor": LIGHT["muted"],
        "xtick.color": LIGHT["muted"],
        "ytick.color": LIGHT["muted"],
        "axes.edgecolor": LIGHT["muted"],
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with rc_context(settings):  # type: ignore[arg-type]
        yield Figure(figsize=(width, height), layout=layout)


def dress(axes: Axes, grid: str = "y") -> None:
    """Remove the frame and draw a light grid along ``grid``: 'x', 'y' or 'both'."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.grid(axis=grid, color=LIGHT["grid"], linewidth=1)  # type: ignore[arg-type]


LEGEND_LETTERS = 118
"""Characters of a legend's line across ``WIDTH``, markers included."""


def legend(axes: Axes, entries: int) -> None:
    """A legend above the axes, in as many columns as fit the width."""
    if entries < 2:
        return
    figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    labels = [label if len(label) <= 60 else f"{label[:59]}…" for label in labels]
    longest = max(map(len, labels), default=0) + 7
    columns = max(1, min(6, entries, LEGEND_LETTERS // longest))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, labelcolor=LIGHT["ink"])


def percent_axis(axes: Axes) -> None:
    """A vertical axis in percent within 0 to 100, with a span of at least 3 points."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}\u00a0%")
    low, high = axes.get_ylim()
    margin = max(0.0, 3 - (high - low)) / 2
    axes.set_ylim(max(0.0, low - margin), min(100.0, max(high + margin, 3.0)))
    for line in axes.lines:
        line.set_clip_on(False)  # a marker at the end of the axis is whole


def token_axis(axes: Axes) -> None:
    """A horizontal axis in tokens with one unit (k, M, G) for all labels."""

    def label(value: float, _: float) -> str:
        end = axes.get_xlim()[1]
        size, sign = next(((s, sign) for s, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if end >= s), (1, ""))
        return f"{value / size:g}\u00a0{sign}".rstrip() if value else "0"

    axes.xaxis.set_major_formatter(label)


def svg(figure: Figure, name: str) -> str:
    """The figure as standalone SVG text; ``name`` prefixes its ids."""
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    content = text.getvalue()
    content = content[content.index("<svg") :]
    content = re.sub(r"<metadata>.*?</metadata>\s*", "", content, count=1, flags=re.DOTALL)
    content = re.sub(r"<!--.*?-->\s*", "", content, flags=re.DOTALL)
    content = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", content)
    return re.sub(r"font-family: [^;\"]*'DejaVu Sans'[^;\"]*", f"font-family: {FONT}", content)


def for_page(drawing: str, label: str) -> str:
    """``drawing`` for the page: colours as CSS variables, the page's font, ``label`` for screen readers."""
    from markupsafe import escape

    content = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", drawing)
    content = re.sub(r"<style.*?</style>", "", content, count=1, flags=re.DOTALL)  # it would apply to the whole page
    content = content.replace(FONT, "inherit")
    content = re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", content, count=1)
    for name, colour in LIGHT.items():
        content = content.replace(colour, f"var(--{name})")
    return content.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


MANY = 6
"""Stages of a run above which ``schedule_shares`` replaces the bars of ``composition``."""


def _scheduled_arms(study: StudyData) -> tuple[tuple[str, RunData], ...]:
    """(title, run) of the arms of ``schedule_shares``: many stages, or progress by band."""
    arms = []
    for arm in study.arms:
        run = next((run for run in study.of(arm.name) if any(stage.composition for stage in run.stages)), None)
        if run is not None and (len(run.stages) > MANY or any(stage.progress for stage in run.stages)):
            arms.append((arm.title, run))
    return tuple(arms)


def shares_of(stage: StageResult, names: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The share of each band at the start and end of a stage: of the tokens of a mixture, else of the samples."""
    if stage.spec.mixture is not None and len(stage.spec.fractions) == len(names):
        return stage.spec.mixture
    total = sum(stage.composition.values()) or 1
    shares = tuple(stage.composition.get(name, 0) / total for name in names)
    return shares, shares


def schedule_shares(study: StudyData) -> str | None:
    """A row for each arm: shares of the bands over tokens, then loss and accuracy by band where measured."""
    arms = _scheduled_arms(study)
    if not arms:
        return None
    names = _bands(study, arms)
    colours = band_colours(names)
    measured = any(stage.progress for _, run in arms for stage in run.stages)
    terms = terms_of(study)
    right = "accuracy" if terms == Terms() else "episodes that reach the rule"
    columns = 3 if measured else 1
    height = 0.85 + 2.35 * len(arms)
    with canvas(WIDTH, height) as figure:
        grid = figure.subplots(len(arms), columns, squeeze=False)
        for (title, run), row in zip(arms, grid, strict=True):
            _areas(row[0], run, names, colours)
            row[0].set_title(f"{title}, seed {run.seed}", loc="left", fontsize=10, color=LIGHT["ink"])
            if measured:
                _lines(row[1], run, names, colours, "loss", "validation loss")
                _lines(row[2], run, names, colours, "right", right)
        for axes in grid[-1]:
            axes.set_xlabel(terms.budget)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(names)), labelcolor=LIGHT["ink"])
        return svg(figure, "schedule")


def _bands(study: StudyData, arms: Sequence[tuple[str, RunData]]) -> list[str]:
    """The bands, easiest first."""
    order = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    names = dict.fromkeys(name for _, run in arms for stage in run.stages for name in stage.composition)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _boundaries(run: RunData) -> list[int]:
    """Tokens at the start of each stage and at the end of the last."""
    tokens = [0]
    for stage in run.stages:
        tokens.append(tokens[-1] + stage.fitted.tokens)
    return tokens


def _areas(axes: Axes, run: RunData, names: Sequence[str], colours: Mapping[str, str]) -> None:
    """The stacked shares of the bands, with a gap between stages and a line between cycles."""
    boundaries = _boundaries(run)
    gap = 0.0015 * boundaries[-1]
    for index, (stage, (low, high)) in enumerate(zip(run.stages, pairwise(boundaries), strict=True)):
        below = [0.0, 0.0]
        for name, start, end in zip(names, *shares_of(stage, names), strict=True):
            above = [below[0] + 100 * start, below[1] + 100 * end]
            if above != below:
                axes.fill_between([low + gap, high - gap], below, above, color=colours[name], linewidth=0)
            below = above
        if index and stage.cycle != run.stages[index - 1].cycle:
            axes.axvline(low, color=LIGHT["ink"], linewidth=1.2)
    for name in names:
        axes.fill_between([], [], color=colours[name], label=name, linewidth=0)
    axes.set(xlim=(0, boundaries[-1]), ylim=(0, 100), ylabel="share of the stage")
    percent_axis(axes)
    token_axis(axes)
    dress(axes)


def _lines(axes: Axes, run: RunData, names: Sequence[str], colours: Mapping[str, str], value: str, title: str) -> None:
    """Loss or accuracy by band after each stage; markers differ too, as the colour of the easiest band is pale."""
    ends = _boundaries(run)[1:]
    scale = 100 if value == "right" else 1
    for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
        series = [
            (end, stage.progress[name]) for end, stage in zip(ends, run.stages, strict=True) if name in stage.progress
        ]
        axes.plot(
            [end for end, _ in series], [scale * getattr(progress, value) for _, progress in series],
            color=colours[name], linewidth=1.6, marker=marker, markersize=4.5, markeredgecolor=LIGHT["muted"],
            markeredgewidth=0.6, clip_on=False,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=9.5, color=LIGHT["muted"])
    axes.set_xlim(0, ends[-1])
    if value == "right":
        percent_axis(axes)
    token_axis(axes)
    dress(axes)


def validation_curves(study: StudyData) -> str | None:
    """Validation loss of the answers over training tokens: mean over seeds, and individual seeds as thin lines.

    Runs of earlier versions have the loss of all tokens alone, which is then drawn for all runs.
    """
    recorded = {name for run in study.runs for name in VALIDATION if len(_curve(run, name)[0])}
    name = next((name for name in VALIDATION if name in recorded), None)
    if name is None or (len(recorded) > 1 and not all(len(_curve(run, name)[0]) for run in study.runs if run.curve)):
        name = VALIDATION[-1]
    curves = {arm.name: [_curve(run, name) for run in study.of(arm.name)] for arm in study.arms}
    curves = {arm: [curve for curve in seeds if len(curve[0])] for arm, seeds in curves.items()}
    if not any(curves.values()):
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for arm, seeds in curves.items():
            for tokens, losses in seeds:
                axes.plot(tokens, losses, color=look[arm].colour, linewidth=0.8, alpha=0.3)
            if seeds:
                mean_tokens, means = _mean_curve(seeds)
                axes.plot(
                    mean_tokens, means, color=look[arm].colour, marker=look[arm].marker, markersize=4.5, linewidth=2,
                    markevery=max(1, len(mean_tokens) // 12), label=study.title_of(arm),
                )  # fmt: skip
        _loss_axes(axes)
        axes.set_xlabel("training tokens")
        of = " of the answers" if name == VALIDATION[0] else ""
        axes.set_ylabel(f"validation loss{of} (nats per token)")
        legend(axes, len(study.arms))
        return svg(figure, "validation")


VALIDATION = ("validation_answer_loss", "validation_loss")
"""Validation losses of the metrics, the preferred one first."""


def learning_curves(study: StudyData) -> str | None:
    """One panel per arm: training loss of each seed, the boundaries of named stages, and the validation loss where it
    is the same quantity (``curves``)."""
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
                training, validation = _same_quantity(run)
                _line(axes, *_curve(run, training), colour=look[arm.name].colour, width=0.9, alpha=0.45)
                if validation is not None:
                    _line(axes, *_curve(run, validation), colour=LIGHT["ink"], width=1.2, dashes=(0, (4, 2)))
            axes.set_title(arm.title[:46], loc="left", fontsize=10.5, color=look[arm.name].colour, pad=18)
            _mark_stages(axes, study.of(arm.name), letters=120 // columns)
        for axes in grid.flat[: len(arms)]:
            _loss_axes(axes)
        figure.text(0.53, 0.1 / height, "training tokens", ha="center", color=LIGHT["muted"])
        figure.text(0.005, 0.5, "loss (nats per token)", va="center", rotation=90, color=LIGHT["muted"])
        return svg(figure, "curves")


def reward_curves(study: StudyData) -> str | None:
    """The mean reward per step of every run of policies over agent steps; None without any."""
    runs = [run for run in study.runs if len(_curve(run, "reward")[0])]
    if not runs:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for run in runs:
            _line(axes, *_curve(run, "reward"), colour=look[run.arm].colour, width=1.2, alpha=0.7)
        named = [arm for arm in study.arms if any(run.arm == arm.name for run in runs)]
        for arm in named:
            axes.plot([], [], color=look[arm.name].colour, label=arm.title)
        axes.set(xlim=(0, None), xlabel=terms_of(study).budget, ylabel="mean reward per step")
        token_axis(axes)
        dress(axes)
        legend(axes, len(named))
        return svg(figure, "rewards")


def _same_quantity(run: RunData) -> tuple[str, str | None]:
    """The names of the training loss and of the validation loss of that quantity; None where there is none."""
    if len(_curve(run, "answer_loss")[0]):
        return "answer_loss", "validation_answer_loss"
    kinds = {loss_quantity(run, point.stage) for point in run.curve if point.loss is not None}
    validation = {"answer": "validation_answer_loss", "all": "validation_loss"}
    return "loss", validation.get(kinds.pop()) if len(kinds) == 1 else None


def _line(
    axes: Axes,
    tokens: Sequence[float],
    losses: Sequence[float],
    *,
    colour: str,
    width: float,
    alpha: float = 1.0,
    dashes: Any = "-",
) -> None:
    """A line, with markers where it has too few points to be seen."""
    marker = "o" if len(tokens) < 3 else ""
    axes.plot(tokens, losses, color=colour, linewidth=width, alpha=alpha, linestyle=dashes, marker=marker, markersize=4)


def after_stages(study: StudyData, summary: Summary) -> str | None:
    """Accuracy after each stage: mean over seeds, and individual seeds as small dots."""
    scores_by_arm = {
        arm.name: [stage_scores(run, summary.suite, summary.protocol) for run in study.of(arm.name)]
        for arm in study.arms
    }
    if not any(len(scores) > 1 for runs in scores_by_arm.values() for scores in runs):
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for arm, runs in scores_by_arm.items():
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
        terms = terms_of(study)
        axes.set(xlim=(0, None), xlabel=f"{terms.budget} at the end of the stage", ylabel=terms.metric)
        token_axis(axes)
        percent_axis(axes)
        dress(axes)
        legend(axes, len(study.arms))
        return svg(figure, "stages")


def accuracy_over_tokens(study: StudyData, summary: Summary) -> str | None:
    """Accuracy over training tokens, examined during the stages: mean over seeds with a band of its t interval.

    None without a run that was examined during its stages. Horizontal lines: the targets of the study.
    """
    if not any(run.examinations for run in study.runs):
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for arm, points in accuracy_curves(study, summary.suite, summary.protocol).items():
            tokens, colour = [point.tokens for point in points], look[arm].colour
            means = [100 * point.mean for point in points]
            ends = [point.interval or Interval(point.mean, point.mean) for point in points]
            low, high = [100 * end.low for end in ends], [100 * end.high for end in ends]
            axes.fill_between(tokens, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(
                tokens, means, color=colour, marker=look[arm].marker, markersize=4.5, linewidth=1.8,
                markevery=max(1, len(tokens) // 12), label=study.title_of(arm),
            )  # fmt: skip
        for target in study.targets:
            axes.axhline(100 * target, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set(xlim=(0, None), xlabel=terms_of(study).budget, ylabel=terms_of(study).metric)
        token_axis(axes)
        percent_axis(axes)
        dress(axes)
        legend(axes, len(study.arms))
        return svg(figure, "accuracy")


def _curve(run: RunData, name: str) -> tuple[list[int], list[float]]:
    rows = [(point.run_tokens, getattr(point, name)) for point in run.curve if getattr(point, name) is not None]
    return [tokens for tokens, _ in rows], [loss for _, loss in rows]


def _mean_curve(curves: Sequence[tuple[list[int], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean over seeds by row: seeds log at the same steps, with slightly different token counts."""
    mean_tokens = [fmean(row) for row in zip(*(tokens for tokens, _ in curves), strict=False)]
    return mean_tokens, [fmean(row) for row in zip(*(losses for _, losses in curves), strict=False)]


def _mark_stages(axes: Axes, runs: Sequence[RunData], letters: int) -> None:
    """A line at each stage boundary, with the stage's name above, or its number if the name does not fit.

    With several cycles the cycles are named and separated by solid lines. The stages are those of the most advanced
    run; ``letters`` is the number of characters across the panel.
    """
    run = max(runs, key=lambda run: (len(run.stages), len(run.curve)))
    budgets = [(stage.spec.name, stage.fitted.tokens, stage.cycle) for stage in run.stages]
    if len(run.last_stages) > 1:
        _mark_cycles(axes, budgets, letters)
        return
    start, total = 0, sum(tokens for _, tokens, _ in budgets) or 1
    for index, (name, tokens, _) in enumerate(budgets):
        if index:
            axes.axvline(start, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
        label = name if len(name) <= letters * tokens / total else str(index + 1)
        axes.text(
            start + tokens / 2, 1.03, label, transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=8, color=LIGHT["muted"],
        )  # fmt: skip
        start += tokens


def _mark_cycles(axes: Axes, budgets: Sequence[tuple[str, int, int]], letters: int) -> None:
    """Dotted lines between stages, solid lines between cycles, with the cycles' names or numbers above."""
    end, starts, ends = 0, dict[int, int](), dict[int, int]()
    for _, tokens, cycle in budgets:
        if end:
            same_cycle = cycle in starts
            axes.axvline(
                end,
                color=LIGHT["muted" if same_cycle else "ink"],
                linewidth=0.9,
                linestyle=(0, (2, 2)) if same_cycle else "-",
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
    """A logarithmic loss axis over tokens, with ticks for its final limits."""
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_yticks([], minor=True)
    ticks = _loss_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    token_axis(axes)
    dress(axes)


def _loss_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about eight."""
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), np.arange(1, 10, 0.5), np.arange(1, 10, 0.1)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        numbers = [round(float(digit) * 10.0**power, 6) for power in powers for digit in digits]
        numbers = [number for number in numbers if low <= number <= high]
        if len(numbers) > 8 and len(ticks) > 1:
            break
        ticks = numbers
    return ticks


def differences(study: StudyData, summary: Summary) -> str | None:
    """The difference of each arm to the baseline in points: a dot per seed, the mean and its interval."""
    rows = [row for row in summary.rows if row.difference and row.difference.mean is not None]
    if not rows:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    values = [100 * value for row in rows for value in row.difference.differences] + [0.0]  # type: ignore[union-attr]
    left, right = _limits(values, [row.difference.interval for row in rows if row.difference])
    with canvas(WIDTH, 0.9 + 0.5 * len(rows)) as figure:
        axes = figure.add_subplot()
        for height, row in enumerate(rows):
            difference, style = row.difference, look[row.arm]
            if difference is None or difference.mean is None:
                continue
            if difference.interval:
                low, high = 100 * difference.interval.low, 100 * difference.interval.high
                axes.hlines(height, max(low, left), min(high, right), color=style.colour, linewidth=2.5, alpha=0.55)
                inset = 0.008 * (right - left)
                for end, mark, cut in ((left + inset, "<", low < left), (right - inset, ">", high > right)):
                    if cut:  # the interval extends beyond the axis
                        axes.plot(end, height, mark, color=style.colour, markersize=7, clip_on=False)
            seeds = [100 * value for value in difference.differences]
            axes.plot(seeds, [height] * len(seeds), "o", color=style.colour, markersize=4.5, alpha=0.45)
            axes.plot(100 * difference.mean, height, style.marker, color=style.colour, markersize=9)
            axes.annotate(
                f"{points(difference.mean)}",
                (100 * difference.mean, height),
                (0, 9),
                textcoords="offset points",
                ha="center",
            )
        axes.axvline(0, color=LIGHT["arm-0"], linewidth=1.5)
        axes.set_yticks(range(len(rows)), [row.title for row in rows], color=LIGHT["ink"])
        axes.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.6), xlabel="difference to the baseline (points)")
        dress(axes, "x")
        return svg(figure, "differences")


def by_group(study: StudyData, summary: Summary, group: str) -> str | None:
    """Accuracy by the values of ``group`` (level, band): arms side by side, with intervals."""
    scores = group_scores(study, summary.suite, summary.protocol, group)
    values = groups(study, summary.suite, summary.protocol).get(group, ())
    arms = [row.arm for row in summary.rows if any(scores[row.arm].values())]
    if len(values) < 2 or not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        step = 0.8 / len(arms)
        for index in range(1, len(values), 2):
            axes.axvspan(index - 0.5, index + 0.5, color=LIGHT["grid"], alpha=0.4, linewidth=0)
        for index, arm in enumerate(arms):
            shift = (index - (len(arms) - 1) / 2) * step
            positions = [m for x, value in enumerate(values) for m in marks(x + shift, step, scores[arm][value])]
            dots(axes, positions, look[arm])
            axes.plot([], [], look[arm].marker, color=look[arm].colour, label=study.title_of(arm))
        names = [_with_size(scores, value, summary.unit) for value in values]
        axes.set_xticks(range(len(values)), names, color=LIGHT["ink"])
        axes.set(xlim=(-0.5, len(values) - 0.5), ylabel=metric_of(summary.suite), xlabel=group)
        percent_axis(axes)
        dress(axes)
        legend(axes, len(arms))
        return svg(figure, f"by-{group}")


def _limits(values: Sequence[float], intervals: Sequence[Interval | None]) -> tuple[float, float]:
    """Axis limits that contain the intervals, unless these are much wider than the spread of the seeds."""
    reach = 1.5 * max(max(values) - min(values), 0.5)
    ends = [100 * end for interval in intervals if interval for end in (interval.low, interval.high)]
    low, high = max(min([*values, *ends]), min(values) - reach), min(max([*values, *ends]), max(values) + reach)
    margin = max(0.08 * (high - low), 0.5)
    return low - margin, high + margin


def marks(middle: float, step: float, scores: Sequence[Score]) -> list[tuple[float, float, Interval | None]]:
    """(x, share, interval) of the dots of one arm at one value: one per run, or one mean from five seeds on."""
    shares = [score.share for score in scores]
    if len(scores) >= ENOUGH_SEEDS:
        return [(middle, fmean(shares), t_interval(shares))]
    positions = [middle + (i - (len(scores) - 1) / 2) * step * 0.8 / len(scores) for i in range(len(scores))]
    return list(zip(positions, shares, [score.interval for score in scores], strict=True))


def dots(axes: Axes, positions: Sequence[tuple[float, float, Interval | None]], style: Style) -> None:
    """Dots with their intervals as vertical lines."""
    lines = [(x, 100 * max(0.0, i.low), 100 * min(1.0, i.high)) for x, _, i in positions if i]
    if lines:
        axes.vlines(*zip(*lines, strict=True), color=style.colour, linewidth=1.6, alpha=0.5)
    xs, shares = [x for x, *_ in positions], [100 * share for _, share, _ in positions]
    axes.plot(xs, shares, style.marker, color=style.colour, markersize=4.5)


def _with_size(scores: Mapping[str, Mapping[str, Sequence[Score]]], value: str, unit: str) -> str:
    totals = sorted({score.total for groups in scores.values() for score in groups[value]})
    return f"{value}\n{' or '.join(map(count, totals[:-1]))}{' or ' if totals[1:] else ''}{plural(totals[-1], unit)}"
