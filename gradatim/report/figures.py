"""What do the results look like, apart from the curves?

Each function draws one figure from ``StudyData`` and returns SVG text, or None when the study has nothing for it
(no bands, no baseline, …). Arms keep their colour and marker in every figure. Intervals are never pooled over seeds:
under five seeds each run is a dot with Wilson's interval over its test items; from five on a dot is the mean, with
Student's interval over seeds. Nothing is computed here that ``summary`` has not; captions are the page's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from .course import MANY
from .data import RunData, StudyData
from .ink import LIGHT, WIDTH, Style, band_colours, canvas, dress, legend, percent_axis, styles, svg
from .statistics import ENOUGH_SEEDS, Interval, t_interval
from .summary import Score, Summary, group_scores, groups
from .wording import count, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_group", "composition", "differences", "dots", "histogram", "marks"]


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
                inset = 0.008 * (right - left)
                for end, mark, cut in ((left + inset, "<", low < left), (right - inset, ">", high > right)):
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
            seen = [m for at, value in enumerate(values) for m in marks(at + shift, step, found[arm][value])]
            dots(axes, seen, look[arm])
            axes.plot([], [], look[arm].marker, color=look[arm].colour, label=study.title_of(arm))
        axes.set_xticks(range(len(values)), [_with_size(found, value) for value in values], color=LIGHT["ink"])
        axes.set(xlim=(-0.5, len(values) - 0.5), ylabel="test programs right", xlabel=group)
        percent_axis(axes)
        dress(axes)
        legend(axes, len(arms))
        return svg(figure, f"by-{group}")


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
        room = 1.45 if study.several_cycles else 1.3  # for the labels
        axes.set(yticks=(), ylim=(places[-1] + 0.7, places[0] - 0.7), xlim=(0, room * left.max()), xlabel="samples")
        axes.xaxis.set_major_formatter(lambda value, _: count(value))
        dress(axes, "x")
        legend(axes, len(names))
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
    margin = max(0.08 * (high - low), 0.5)
    return low - margin, high + margin


def marks(middle: float, step: float, scores: Sequence[Score]) -> list[tuple[float, float, Interval | None]]:
    """(place, share, interval) of the dots of one arm at one value: a dot per run, from five seeds on one."""
    shares = [score.share for score in scores]
    if len(scores) >= ENOUGH_SEEDS:
        return [(middle, fmean(shares), t_interval(shares))]
    places = [middle + (i - (len(scores) - 1) / 2) * step * 0.8 / len(scores) for i in range(len(scores))]
    return list(zip(places, shares, [score.interval for score in scores], strict=True))


def dots(axes: Axes, seen: Sequence[tuple[float, float, Interval | None]], style: Style) -> None:
    """Marks as dots with their intervals as lines."""
    lines = [(place, 100 * max(0.0, i.low), 100 * min(1.0, i.high)) for place, _, i in seen if i]
    if lines:
        axes.vlines(*zip(*lines, strict=True), color=style.colour, linewidth=1.6, alpha=0.5)
    places, shares = [place for place, *_ in seen], [100 * share for _, share, _ in seen]
    axes.plot(places, shares, style.marker, color=style.colour, markersize=4.5)


def _with_size(found: Mapping[str, Mapping[str, Sequence[Score]]], value: str) -> str:
    totals = sorted({score.total for scores in found.values() for score in scores[value]})
    return f"{value}\n{' or '.join(map(count, totals))} programs"


def _stages(run: RunData) -> tuple[tuple[str, Mapping[str, int]], ...]:
    """(label, samples by band) of each stage that is done; none of a run whose ``course`` is drawn instead."""
    if len(run.stages) > MANY:
        return ()
    several = len(run.last_stages) > 1
    return tuple(
        (
            f"{f'cycle {stage.cycle} · ' if several else ''}{stage.spec.name} · {count(stage.fitted.tokens)} tokens",
            stage.composition,
        )
        for stage in run.stages
        if stage.composition
    )
