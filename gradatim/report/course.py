"""What did a schedule choose over the run's tokens, and how did the student do on each band meanwhile?

For runs of many stages, where a bar for each says too little, and for schedules that look at what the student can do:
the share of each band over the tokens of one run, and where it was measured after each stage the validation loss and
the share of right answers by band. Choices differ from seed to seed, so one run of each arm is shown, never a mean.
Returns SVG text, or None when the study has nothing for it. Runs of few stages are ``figures.composition``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

from ..stage import StageResult
from .data import RunData, StudyData
from .ink import LIGHT, MARKERS, WIDTH, band_colours, canvas, dress, percent_axis, svg, token_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MANY", "course", "followed", "shares_of"]

MANY = 6
"""Stages of a run from which on bars would fill the page."""


def followed(study: StudyData) -> tuple[tuple[str, RunData], ...]:
    """(title, run) of the arms that are shown here: many stages, or progress by band."""
    found = []
    for arm in study.arms:
        run = next((run for run in study.of(arm.name) if any(stage.composition for stage in run.stages)), None)
        if run is not None and (len(run.stages) > MANY or any(stage.progress for stage in run.stages)):
            found.append((arm.title, run))
    return tuple(found)


def shares_of(stage: StageResult, names: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The share of each band at the start and at the end of a stage: of its tokens where its mixture says so, else of
    the samples it draws on."""
    if stage.spec.mixture is not None and len(stage.spec.fractions) == len(names):
        return stage.spec.mixture
    total = sum(stage.composition.values()) or 1
    held = tuple(stage.composition.get(name, 0) / total for name in names)
    return held, held


def course(study: StudyData) -> str | None:
    """A row for each arm that is ``followed``: shares of the bands, then the student's progress where it is known."""
    shown = followed(study)
    if not shown:
        return None
    names = _bands(study, shown)
    colours = band_colours(names)
    measured = any(stage.progress for _, run in shown for stage in run.stages)
    columns = 3 if measured else 1
    height = 0.85 + 2.35 * len(shown)
    with canvas(WIDTH, height) as figure:
        grid = figure.subplots(len(shown), columns, squeeze=False)
        for (title, run), line in zip(shown, grid, strict=True):
            _areas(line[0], run, names, colours)
            line[0].set_title(f"{title}, seed {run.seed}", loc="left", fontsize=10, color=LIGHT["ink"])
            if measured:
                _lines(line[1], run, names, colours, "loss", "validation loss")
                _lines(line[2], run, names, colours, "right", "answers right")
        for axes in grid[-1]:
            axes.set_xlabel("tokens learnt")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(names)), labelcolor=LIGHT["ink"])
        return svg(figure, "course")


def _bands(study: StudyData, shown: Sequence[tuple[str, RunData]]) -> list[str]:
    """The bands, easiest first."""
    known = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    met = dict.fromkeys(name for _, run in shown for stage in run.stages for name in stage.composition)
    return sorted(met, key=lambda name: known.index(name) if name in known else len(known))


def _places(run: RunData) -> list[int]:
    """Tokens at the start of each stage, and at the end of the last."""
    places = [0]
    for stage in run.stages:
        places.append(places[-1] + stage.fitted.tokens)
    return places


def _areas(axes: Axes, run: RunData, names: Sequence[str], colours: Mapping[str, str]) -> None:
    """The bands' shares, one above the other, with a gap between stages and a line between cycles."""
    places = _places(run)
    gap = 0.0015 * places[-1]
    for place, (stage, (low, high)) in enumerate(zip(run.stages, pairwise(places), strict=True)):
        below = [0.0, 0.0]
        for name, start, end in zip(names, *shares_of(stage, names), strict=True):
            above = [below[0] + 100 * start, below[1] + 100 * end]
            if above != below:
                axes.fill_between([low + gap, high - gap], below, above, color=colours[name], linewidth=0)
            below = above
        if place and stage.cycle != run.stages[place - 1].cycle:
            axes.axvline(low, color=LIGHT["ink"], linewidth=1.2)
    for name in names:
        axes.fill_between([], [], color=colours[name], label=name, linewidth=0)
    axes.set(xlim=(0, places[-1]), ylim=(0, 100), ylabel="share of the stage")
    percent_axis(axes)
    token_axis(axes)
    dress(axes)


def _lines(axes: Axes, run: RunData, names: Sequence[str], colours: Mapping[str, str], what: str, title: str) -> None:
    """How the student does on each band after each stage; marks differ too, as the easiest band's colour is pale."""
    ends = _places(run)[1:]
    scale = 100 if what == "right" else 1
    for name, marker in zip(names, cycle(MARKERS), strict=False):
        told = [
            (end, stage.progress[name]) for end, stage in zip(ends, run.stages, strict=True) if name in stage.progress
        ]
        axes.plot(
            [end for end, _ in told], [scale * getattr(each, what) for _, each in told],
            color=colours[name], linewidth=1.6, marker=marker, markersize=4.5, markeredgecolor=LIGHT["muted"],
            markeredgewidth=0.6, clip_on=False,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=9.5, color=LIGHT["muted"])
    axes.set_xlim(0, ends[-1])
    if what == "right":
        percent_axis(axes)
    token_axis(axes)
    dress(axes)
