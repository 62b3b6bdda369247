"""What do the results look like?

Each function draws one figure from ``StudyData`` and returns SVG text, or None when the study has nothing for it
(no losses, no bands, …). Arms keep their colour and marker in every figure. Intervals are never pooled over seeds:
under five seeds each run is a dot with Wilson's interval over its test items; from five on a dot is the mean, with
Student's interval over seeds. Nothing is computed here that ``summary`` has not; captions are the page's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from .data import RunData, StudyData
from .ink import LIGHT, Style, band_colours, canvas, dress, styles, svg
from .statistics import ENOUGH_SEEDS, Interval, t_interval
from .summary import Score, Summary, group_scores, groups, stage_scores
from .wording import count, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "after_stages",
    "by_group",
    "composition",
    "differences",
    "histogram",
    "learning_curves",
    "validation_curves",
]

WIDTH = 9.6


def differences(study: StudyData, summary: Summary) -> str | None:
    """The difference of each arm to the baseline: a dot per seed, the mean and its interval, in points."""
    rows = [row for row in summary.rows if row.difference and row.difference.mean is not None]
    if not rows:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    seen = [100 * value for row in rows for value in row.difference.differences] + [0.0]  # type: ignore[union-attr]
    left, right = _limits(seen, [row.difference.interval for row in rows if row.difference])
    with canvas(WIDTH, 0.9 + 0.5 * len(rows)) as figure:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            found, style = row.difference, look[row.arm]
            if found is None or found.mean is None:
                continue
            if found.interval:
                low, high = 100 * found.interval.low, 100 * found.interval.high
                axes.hlines(place, max(low, left), min(high, right), color=style.colour, linewidth=2.5, alpha=0.55)
                for end, mark, cut in ((left, "<", low < left), (right, ">", high > right)):
                    if cut:  # the interval goes on beyond the drawing
                        axes.plot(end, place, mark, color=style.colour, markersize=7, clip_on=False)
            values = [100 * value for value in found.differences]
            axes.plot(values, [place] * len(values), "o", color=style.colour, markersize=4.5, alpha=0.45)
            axes.plot(100 * found.mean, place, style.marker, color=style.colour, markersize=9)
            axes.annotate(
                f"{points(found.mean)}", (100 * found.mean, place), (0, 9), textcoords="offset points", ha="center"
            )
        axes.axvline(0, color=LIGHT["arm-0"], linewidth=1.5)
        axes.set_yticks(range(len(rows)), [row.title for row in rows], color=LIGHT["ink"])
        axes.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.6), xlabel="points above the baseline")
        dress(axes, "x")
        return svg(figure, "differences")


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
                tokens, losses = _mean_curve(found)
                axes.plot(
                    tokens, losses, color=look[arm].colour, marker=look[arm].marker, markersize=4.5, linewidth=2,
                    markevery=max(1, len(tokens) // 12), label=study.title_of(arm),
                )  # fmt: skip
        _loss_axes(axes)
        axes.set_ylabel("validation loss (nats per token)")
        axes.legend(loc="upper right", labelcolor=LIGHT["ink"])
        return svg(figure, "validation")


def learning_curves(study: StudyData) -> str | None:
    """One panel per arm: training loss of each seed, validation loss on top, stages parted and named."""
    arms = [arm for arm in study.arms if any(len(_curve(run, "loss")[0]) for run in study.of(arm.name))]
    if not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    with canvas(WIDTH, 0.4 + (2.5 if columns > 1 else 3.4) * rows) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(arms) :]:
            axes.set_visible(False)
        for axes, arm in zip(grid.flat, arms, strict=False):
            for run in study.of(arm.name):
                axes.plot(*_curve(run, "loss"), color=look[arm.name].colour, linewidth=0.9, alpha=0.45)
                axes.plot(
                    *_curve(run, "validation_loss"), color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 2))
                )
            _loss_axes(axes)
            axes.set_xlabel("")
            axes.set_title(arm.title, loc="left", fontsize=10.5, color=look[arm.name].colour, pad=18)
            _part_stages(axes, study.of(arm.name), letters=120 // columns)
        figure.supxlabel("tokens learnt", fontsize=9.5, color=LIGHT["muted"])
        figure.supylabel("loss (nats per token)", fontsize=9.5, color=LIGHT["muted"])
        return svg(figure, "curves")


def by_group(study: StudyData, summary: Summary, group: str) -> str | None:
    """Accuracy by the values of ``group`` (level, band): arms side by side, with intervals."""
    found = group_scores(study, summary.suite, summary.protocol, group)
    values = groups(study, summary.suite, summary.protocol).get(group, ())
    arms = [row.arm for row in summary.rows if any(found[row.arm].values())]
    if not values or not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        step = 0.8 / len(arms)
        for place in range(1, len(values), 2):
            axes.axvspan(place - 0.5, place + 0.5, color=LIGHT["grid"], alpha=0.4, linewidth=0)
        for index, arm in enumerate(arms):
            shift = (index - (len(arms) - 1) / 2) * step
            marks = [m for at, value in enumerate(values) for m in _marks(at + shift, step, found[arm][value])]
            _dots(axes, marks, look[arm])
            axes.plot([], [], look[arm].marker, color=look[arm].colour, label=study.title_of(arm))
        axes.set_xticks(range(len(values)), [_with_size(found, value) for value in values], color=LIGHT["ink"])
        axes.set(xlim=(-0.5, len(values) - 0.5), ylabel="test programs right", xlabel=group)
        _percent_axis(axes)
        dress(axes)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(arms)),
            labelcolor=LIGHT["ink"],
        )  # fmt: skip
        return svg(figure, f"by-{group}")


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
        _token_axis(axes)
        _percent_axis(axes)
        dress(axes)
        axes.legend(loc="lower right", labelcolor=LIGHT["ink"])
        return svg(figure, "stages")


def composition(study: StudyData) -> str | None:
    """How many samples of each band every stage of every arm draws on, from the first run that tells."""
    bars: list[tuple[str, str, Mapping[str, int]]] = []
    for arm in study.arms:
        stages = next((found for run in study.of(arm.name) if (found := _stages(run))), ())
        bars += [(arm.title if not index else "", *stage) for index, stage in enumerate(stages)]
    names = list(dict.fromkeys(name for *_, samples in bars for name in samples))
    if not names:
        return None
    known = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    names.sort(key=lambda name: known.index(name) if name in known else len(known))
    colours = band_colours(names)
    places = np.cumsum([1.45 if title else 1.0 for title, *_ in bars])
    with canvas(WIDTH, 0.9 + 0.29 * float(places[-1])) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(bars))
        for name in names:
            widths = np.array([samples.get(name, 0) for *_, samples in bars], float)
            axes.barh(places, widths, 0.78, left, color=colours[name], label=name)
            left += widths
        for place, end, (title, label, _) in zip(places, left, bars, strict=True):
            axes.annotate(label, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8.5)
            if title:
                axes.annotate(
                    title, (0, place), (-10, 0), textcoords="offset points", va="center", ha="right", fontsize=9.5
                )
        axes.set(yticks=(), ylim=(places[-1] + 0.7, places[0] - 0.7), xlim=(0, 1.3 * left.max()), xlabel="samples")
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        dress(axes, "x")
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(names),
            labelcolor=LIGHT["ink"],
        )
        return svg(figure, "composition")


def histogram(study: StudyData) -> str | None:
    """How the difficulty of the samples is spread, and where the bands are parted."""
    table = next((table for run in study.runs for table in run.tables if table.histogram), None)
    if table is None or table.histogram is None:
        return None
    edges, counts = np.array(table.histogram.edges), table.histogram.counts
    middles = (edges[:-1] + edges[1:]) / 2
    bands = table.bands
    inner = [edge for edge in bands.edges if edges[0] < edge < edges[-1]] if bands else []
    colours = list(band_colours(bands.names).values()) if bands else [LIGHT["band-2"]]
    with canvas(WIDTH, 3.3) as figure:
        axes = figure.add_subplot()
        of = np.searchsorted(bands.edges if bands else [], middles, side="right")
        shades = [colours[min(index, len(colours) - 1)] for index in of]
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.94, align="edge", color=shades)
        for edge in inner:
            axes.axvline(edge, color=LIGHT["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
        if bands:
            for name, total, (low, high) in zip(
                bands.names, bands.counts, pairwise([edges[0], *bands.edges, edges[-1]]), strict=False
            ):
                axes.text(
                    (max(low, edges[0]) + min(high, edges[-1])) / 2, 1.02, f"{name}\n{count(total)}",
                    transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9, linespacing=1.4,
                )  # fmt: skip
        axes.set(xlabel=f"difficulty ({table.histogram.metric})", ylabel="samples", xlim=(edges[0], edges[-1]))
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        dress(axes)
        return svg(figure, "histogram")


def _limits(seen: Sequence[float], intervals: Sequence[Interval | None]) -> tuple[float, float]:
    """An axis that holds the intervals, unless they are so wide that the seeds would be lost in them."""
    reach = 1.5 * max(max(seen) - min(seen), 0.5)
    ends = [100 * end for interval in intervals if interval for end in (interval.low, interval.high)]
    low, high = max(min([*seen, *ends]), min(seen) - reach), min(max([*seen, *ends]), max(seen) + reach)
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def _curve(run: RunData, what: str) -> tuple[list[int], list[float]]:
    rows = [(point.run_tokens, getattr(point, what)) for point in run.curve if getattr(point, what) is not None]
    return [tokens for tokens, _ in rows], [loss for _, loss in rows]


def _mean_curve(curves: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """The mean over seeds at every position that all of them have reached."""
    end = min(tokens[-1] for tokens, _ in curves)
    places = sorted({token for tokens, _ in curves for token in tokens if token <= end})
    lines = [np.interp(places, tokens, losses) for tokens, losses in curves]
    return places, [float(loss) for loss in np.mean(lines, axis=0)]


def _part_stages(axes: Axes, runs: Sequence[RunData], letters: int) -> None:
    """A line where each stage ends and above it the name, or the number where only that fits.

    Taken from the run that got furthest; ``letters`` is how many fit across the whole panel.
    """
    run = max(runs, key=lambda run: (len(run.stages), len(run.curve)))
    budgets = [(stage.name, stage.tokens) for stage in run.plan]
    budgets = budgets or [(stage.spec.name, stage.fitted.tokens) for stage in run.stages]
    start, whole = 0, sum(tokens for _, tokens in budgets) or 1
    for index, (name, tokens) in enumerate(budgets):
        if index:
            axes.axvline(start, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
        label = name if len(name) <= letters * tokens / whole else str(index + 1)
        axes.text(
            start + tokens / 2, 1.03, label, transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=8, color=LIGHT["muted"],
        )  # fmt: skip
        start += tokens


def _marks(middle: float, step: float, scores: Sequence[Score]) -> list[tuple[float, float, Interval | None]]:
    """(place, share, interval) of the dots of one arm at one value: a dot per run, from five seeds on one in all."""
    shares = [score.share for score in scores]
    if len(scores) >= ENOUGH_SEEDS:
        return [(middle, fmean(shares), t_interval(shares))]
    places = [middle + (i - (len(scores) - 1) / 2) * step * 0.8 / len(scores) for i in range(len(scores))]
    return list(zip(places, shares, [score.interval for score in scores], strict=True))


def _dots(axes: Axes, marks: Sequence[tuple[float, float, Interval | None]], style: Style) -> None:
    lines = [(place, 100 * max(0.0, i.low), 100 * min(1.0, i.high)) for place, _, i in marks if i]
    if lines:
        axes.vlines(*zip(*lines, strict=True), color=style.colour, linewidth=1.6, alpha=0.5)
    places, shares = [place for place, *_ in marks], [100 * share for _, share, _ in marks]
    axes.plot(places, shares, style.marker, color=style.colour, markersize=4.5)


def _with_size(found: Mapping[str, Mapping[str, Sequence[Score]]], value: str) -> str:
    totals = sorted({score.total for scores in found.values() for score in scores[value]})
    return f"{value}\n{' or '.join(map(count, totals))} programs"


def _stages(run: RunData) -> tuple[tuple[str, Mapping[str, int]], ...]:
    """(label, samples by band) of each stage: as done, else as planned."""
    done = [(s.spec.name, s.fitted.tokens, s.composition) for s in run.stages]
    rest = [(s.name, s.tokens, s.samples) for s in run.plan[len(done) :]]
    return tuple(
        (f"{name} · {count(tokens)} tokens", samples) for name, tokens, samples in (*done, *rest) if samples
    )


def _loss_axes(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", which="minor", labelsize=8, length=0, labelcolor=LIGHT["muted"])
    axes.set_xlabel("tokens learnt")
    axes.set_xlim(left=0)
    _token_axis(axes)
    dress(axes)
    axes.grid(axis="y", which="minor", color=LIGHT["grid"], linewidth=0.6)


def _token_axis(axes: Axes) -> None:
    """One unit along the whole axis, however far it reaches."""

    def label(value: float, _: float) -> str:
        end = axes.get_xlim()[1]
        size, sign = next(((s, sign) for s, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if end >= s), (1, ""))
        return f"{value / size:g}\u00a0{sign}".rstrip() if value else "0"

    axes.xaxis.set_major_formatter(label)


def _percent_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}\u00a0%")
    low, high = axes.get_ylim()
    axes.set_ylim(max(-1.5, low), min(101.5, high))
