"""Figures by cycle: accuracy, questions by grade, and sources of rejected answers.

Each function returns SVG text, or None without data. The values are those of ``cycles``; intervals are as in
``figures``: with fewer than five seeds each run is a dot with its Wilson interval, otherwise the dot is the mean with
Student's t interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from .cycles import GRADES, SOURCES, ArmCycle
from .data import StudyData
from .figures import dots, marks
from .style import LIGHT, WIDTH, canvas, dress, legend, percent_axis, styles, svg
from .summary import count

__all__ = ["accuracy_by_cycle", "feedback_by_cycle", "rejected_by_cycle"]


GRADE_COLOURS = {"easy": "band-0", "middle": "band-2", "hard": "band-4", "unjudged": "grid"}
SOURCE_COLOURS = {"student": "arm-1", "mutation": "arm-2", "teacher": "arm-3", "given": "arm-0", "none": "grid"}


def accuracy_by_cycle(study: StudyData, rows: Sequence[ArmCycle]) -> str | None:
    """Accuracy after each cycle, arms side by side; an arm with one cycle is a reference line."""
    arms = list(dict.fromkeys(row.arm for row in rows if row.scores))
    numbers = sorted({row.cycle for row in rows})
    if len(numbers) < 2 or not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    step = 0.7 / len(arms)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for index, arm in enumerate(arms):
            arm_rows = [row for row in rows if row.arm == arm and row.scores]
            means = [100 * fmean(score.share for score in row.scores) for row in arm_rows]
            style, shift = look[arm], (index - (len(arms) - 1) / 2) * step
            title = study.title_of(arm)
            if len(arm_rows) == 1 and arm_rows[0].cycle == 0:
                axes.axhline(means[0], color=style.colour, linewidth=1.6, linestyle=(0, (4, 3)))
                axes.plot([], [], color=style.colour, linestyle=(0, (4, 3)), label=f"{title} (one cycle)")
                continue
            dots(axes, [m for row in arm_rows for m in marks(row.cycle + shift, step, row.scores)], style)
            axes.plot([row.cycle + shift for row in arm_rows], means, color=style.colour, linewidth=1.4, alpha=0.6)
            axes.plot([], [], style.marker, color=style.colour, label=title)
        axes.set_xticks(numbers, [f"cycle {number}" for number in numbers], color=LIGHT["ink"])
        axes.set(xlim=(numbers[0] - 0.5, numbers[-1] + 0.5), ylabel="accuracy")
        percent_axis(axes)
        dress(axes)
        legend(axes, len(arms))
        return svg(figure, "cycles")


def feedback_by_cycle(rows: Sequence[ArmCycle]) -> str | None:
    """Questions after each cycle by grade."""
    counts = [(row, row.grades) for row in rows if sum(row.grades.values())]
    return _shares(counts, GRADES, GRADE_COLOURS, "questions", "feedback")


def rejected_by_cycle(rows: Sequence[ArmCycle]) -> str | None:
    """Samples of each cycle by the source of their rejected answer."""
    counts = [(row, row.rejected) for row in rows if sum(row.rejected.values())]
    return _shares(counts, SOURCES, SOURCE_COLOURS, "samples", "rejected")


def _shares(
    counts: Sequence[tuple[ArmCycle, Mapping[str, float]]],
    order: Sequence[str],
    colours: Mapping[str, str],
    unit: str,
    name: str,
) -> str | None:
    """A stacked bar of shares for each arm and cycle, labelled with the total in ``unit``."""
    names = [kind for kind in order if any(row.get(kind) for _, row in counts)]
    if not names:
        return None
    first = [not index or row.arm != counts[index - 1][0].arm for index, (row, _) in enumerate(counts)]
    several = len({row.arm for row, _ in counts}) > 1
    heights = np.cumsum([1.5 if new and several else 1.0 for new in first])
    totals = np.array([sum(row.values()) for _, row in counts])
    with canvas(WIDTH, 0.95 + 0.29 * float(heights[-1])) as figure:
        axes = figure.add_subplot()
        start = np.zeros(len(counts))
        for kind in names:
            widths = 100 * np.array([row.get(kind, 0.0) for _, row in counts]) / totals
            axes.barh(heights, widths, 0.78, start, color=LIGHT[colours[kind]], label=kind)
            start += widths
        for height, total, new, (row, _) in zip(heights, totals, first, counts, strict=True):
            label = f"cycle {row.cycle} · {count(float(total))} {unit}"
            axes.annotate(label, (100, height), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
            if new and several:
                axes.annotate(
                    row.title, (0, height), (-10, 0), textcoords="offset points", va="center", ha="right", fontsize=9.5
                )
        axes.set(yticks=(), ylim=(heights[-1] + 0.7, heights[0] - 0.7), xlim=(0, 135), xticks=range(0, 101, 20))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}\u00a0%")
        dress(axes, "x")
        legend(axes, max(2, len(names)))
        return svg(figure, name)
