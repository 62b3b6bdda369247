"""What do the cycles of a run look like?

Accuracy cycle by cycle, and two pictures of counts: what the student was found to know after each cycle, and where its
faulty answers came from. Each function returns SVG text, or None when the study has nothing for it. The numbers are
those of ``cycles``; intervals follow the house rule (``figures``): under five seeds each run is a dot with Wilson's
interval, from five on a dot is the mean with Student's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from .cycles import GRADES, PLACES, ArmCycle
from .data import StudyData
from .figures import dots, marks
from .style import LIGHT, WIDTH, canvas, dress, legend, percent_axis, styles, svg
from .summary import count

__all__ = ["accuracy_by_cycle", "faulty_by_cycle", "feedback_by_cycle"]


GRADE_COLOURS = {"easy": "band-0", "middle": "band-2", "hard": "band-4", "unjudged": "grid"}
PLACE_COLOURS = {"student": "arm-1", "mutation": "arm-2", "teacher": "arm-3", "given": "arm-0", "none": "grid"}


def accuracy_by_cycle(study: StudyData, rows: Sequence[ArmCycle]) -> str | None:
    """Accuracy after each cycle, arms side by side; an arm of one cycle is a line to compare with."""
    arms = list(dict.fromkeys(row.arm for row in rows if row.scores))
    numbers = sorted({row.cycle for row in rows})
    if len(numbers) < 2 or not arms:
        return None
    look = styles([arm.name for arm in study.arms], study.baseline)
    step = 0.7 / len(arms)
    with canvas(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for index, arm in enumerate(arms):
            own = [row for row in rows if row.arm == arm and row.scores]
            means = [100 * fmean(score.share for score in row.scores) for row in own]
            style, shift = look[arm], (index - (len(arms) - 1) / 2) * step
            title = study.title_of(arm)
            if len(own) == 1 and own[0].cycle == 0:
                axes.axhline(means[0], color=style.colour, linewidth=1.6, linestyle=(0, (4, 3)))
                axes.plot([], [], color=style.colour, linestyle=(0, (4, 3)), label=f"{title} (one cycle)")
                continue
            dots(axes, [m for row in own for m in marks(row.cycle + shift, step, row.scores)], style)
            axes.plot([row.cycle + shift for row in own], means, color=style.colour, linewidth=1.4, alpha=0.6)
            axes.plot([], [], style.marker, color=style.colour, label=title)
        axes.set_xticks(numbers, [f"cycle {number}" for number in numbers], color=LIGHT["ink"])
        axes.set(xlim=(numbers[0] - 0.5, numbers[-1] + 0.5), ylabel="test programs right")
        percent_axis(axes)
        dress(axes)
        legend(axes, len(arms))
        return svg(figure, "cycles")


def feedback_by_cycle(rows: Sequence[ArmCycle]) -> str | None:
    """Questions asked after each cycle: how many the student was found to know, half know, not know."""
    told = [(row, row.grades) for row in rows if sum(row.grades.values())]
    return _shares(told, GRADES, GRADE_COLOURS, "questions", "feedback")


def faulty_by_cycle(rows: Sequence[ArmCycle]) -> str | None:
    """Samples of each cycle by where the faulty answer beside the right one came from."""
    told = [(row, row.faulty) for row in rows if sum(row.faulty.values())]
    return _shares(told, PLACES, PLACE_COLOURS, "samples", "faulty")


def _shares(
    told: Sequence[tuple[ArmCycle, Mapping[str, float]]],
    order: Sequence[str],
    colours: Mapping[str, str],
    of: str,
    name: str,
) -> str | None:
    """A bar for each arm and cycle, parted by what the counts tell; at its end how many there are."""
    names = [each for each in order if any(counts.get(each) for _, counts in told)]
    if not names:
        return None
    first = [not index or row.arm != told[index - 1][0].arm for index, (row, _) in enumerate(told)]
    several = len({row.arm for row, _ in told}) > 1
    places = np.cumsum([1.5 if new and several else 1.0 for new in first])
    totals = np.array([sum(counts.values()) for _, counts in told])
    with canvas(WIDTH, 0.95 + 0.29 * float(places[-1])) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(told))
        for each in names:
            widths = 100 * np.array([counts.get(each, 0.0) for _, counts in told]) / totals
            axes.barh(places, widths, 0.78, left, color=LIGHT[colours[each]], label=each)
            left += widths
        for place, total, new, (row, _) in zip(places, totals, first, told, strict=True):
            said = f"cycle {row.cycle} · {count(float(total))} {of}"
            axes.annotate(said, (100, place), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
            if new and several:
                axes.annotate(
                    row.title, (0, place), (-10, 0), textcoords="offset points", va="center", ha="right", fontsize=9.5
                )
        axes.set(yticks=(), ylim=(places[-1] + 0.7, places[0] - 0.7), xlim=(0, 135), xticks=range(0, 101, 20))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}\u00a0%")
        dress(axes, "x")
        legend(axes, max(2, len(names)))
        return svg(figure, name)
