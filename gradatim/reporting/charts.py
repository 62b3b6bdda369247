"""Data of the interactive charts, as JSON for the script of the page.

Each chart has the values of a figure of ``figures`` or ``cycles``, which stays on the page for readers without script.
The script draws a chart at the width of the window, with hover values and a legend that shows and hides arms. Arms are
indices into ``arms``; accuracies and differences are percentages here, since they are axis values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from ..evaluation.statistics import ENOUGH_SEEDS, Interval, t_interval
from .curves import quantities
from .cycles import GRADE_COLOURS, GRADES, SOURCE_COLOURS, SOURCES, ArmCycle
from .data import RunData, StudyData
from .figures import MANY, band_variables, styles
from .summary import Score, Summary, count, figure_groups, group_scores, groups, stage_scores
from .units import metric_of, plural, terms_of

Chart = dict[str, Any]


def charts(study: StudyData, summary: Summary, cycles: Sequence[ArmCycle]) -> Chart:
    """``{"arms": …, "charts": {name: chart}}``; charts without data are left out."""
    look = styles([arm.name for arm in study.arms], study.baseline)
    index = {arm.name: number for number, arm in enumerate(study.arms)}
    drawn = {
        "curves": _curves(study, index),
        "differences": _differences(summary, index),
        "stages": _after_stages(study, summary, index),
        "accuracy": _during_stages(study, summary, index),
        "composition": _composition(study),
        "histogram": _histogram(study),
        "cycles": _cycles(cycles, index, metric_of(summary.suite)),
        "feedback": _shares([(row, row.grades) for row in cycles], GRADES, "questions"),
        "rejected": _shares([(row, row.rejected) for row in cycles], SOURCES, "samples"),
        **{
            group: _groups(study, summary, group, index)
            for group in figure_groups(study, summary.suite, summary.protocol)
        },
    }
    return {
        "arms": [
            {"title": arm.title, "colour": look[arm.name].variable, "marker": look[arm.name].marker}
            for arm in study.arms
        ],
        "charts": {name: chart for name, chart in drawn.items() if chart is not None},
    }


def _curves(study: StudyData, index: Mapping[str, int]) -> Chart | None:
    panels = []
    for quantity in quantities(study):
        content = asdict(quantity)
        for series in content["series"]:
            series |= {
                "arm": index[series["arm"]],
                "tokens": _rounded(series["tokens"]),
                "values": _rounded(series["values"]),
            }
        panels.append(content)
    if not panels:
        return None
    names = {}
    for arm in study.arms:
        run = max(study.of(arm.name), key=lambda run: len(run.stages), default=None)
        names[index[arm.name]] = [] if run is None else _stage_names(run)
    return {"kind": "lines", "x": terms_of(study).budget, "panels": panels, "stages": names}


def _stage_names(run: RunData) -> list[tuple[int, str]]:
    """(last token, name) of each finished stage."""
    tokens, names, several = 0, [], len(run.last_stages) > 1
    for stage in run.stages:
        tokens += stage.fitted.tokens
        names.append((tokens, f"cycle {stage.cycle}, {stage.spec.name}" if several else stage.spec.name))
    return names


def _rounded(values: Sequence[float]) -> list[float]:
    """Five significant digits, more than any pixel has."""
    return [float(f"{value:.5g}") if value % 1 else int(value) for value in values]


def _differences(summary: Summary, index: Mapping[str, int]) -> Chart | None:
    rows = [
        {
            "arm": index[row.arm],
            "value": 100 * difference.mean,
            **_interval(difference.interval),
            "seeds": [
                (seed, 100 * value) for seed, value in zip(difference.seeds, difference.differences, strict=True)
            ],
        }
        for row in summary.rows
        if (difference := row.difference) is not None and difference.mean is not None
    ]
    return {"kind": "differences", "x": "difference to the baseline (points)", "rows": rows} if rows else None


def _interval(interval: Interval | None) -> Chart:
    return {
        "low": None if interval is None else 100 * interval.low,
        "high": None if interval is None else 100 * interval.high,
    }


def _dots(scores: Sequence[Score], arm: int, category: int) -> list[Chart]:
    """The dots of an arm at a category: one per run, or one mean from ``ENOUGH_SEEDS`` seeds on."""
    shares = [score.share for score in scores]
    if len(scores) >= ENOUGH_SEEDS:
        return [
            {"arm": arm, "category": category, "seed": None, "value": 100 * fmean(shares),
             **_interval(t_interval(shares))}
        ]  # fmt: skip
    return [
        {"arm": arm, "category": category, "seed": score.seed, "value": 100 * score.share, **_interval(score.interval)}
        for score in scores
    ]


def _groups(study: StudyData, summary: Summary, group: str, index: Mapping[str, int]) -> Chart | None:
    scores = group_scores(study, summary.suite, summary.protocol, group)
    values = groups(study, summary.suite, summary.protocol)[group]
    dots = [
        dot
        for row in summary.rows
        for category, value in enumerate(values)
        for dot in _dots(scores[row.arm][value], index[row.arm], category)
    ]
    if not dots:
        return None
    totals = [max((score.total for arm in scores.values() for score in arm[value]), default=0) for value in values]
    names = [(value, plural(total, summary.unit)) for value, total in zip(values, totals, strict=True)]
    return {
        "kind": "dots",
        "x": group,
        "y": metric_of(summary.suite),
        "categories": names,
        "dots": dots,
        "lines": False,
    }


def _cycles(cycles: Sequence[ArmCycle], index: Mapping[str, int], metric: str) -> Chart | None:
    numbers = sorted({row.cycle for row in cycles})
    dots = [dot for row in cycles for dot in _dots(row.scores, index[row.arm], numbers.index(row.cycle))]
    if len(numbers) < 2 or not dots:
        return None
    names = [(f"cycle {number}", "") for number in numbers]
    return {"kind": "dots", "x": "", "y": metric, "categories": names, "dots": dots, "lines": True}


def _after_stages(study: StudyData, summary: Summary, index: Mapping[str, int]) -> Chart | None:
    points = [
        [(tokens, score.share) for tokens, score in stage_scores(run, summary.suite, summary.protocol)]
        for run in study.runs
    ]
    return _accuracies(study, points, index, f"{terms_of(study).budget} at the end of the stage")


def _during_stages(study: StudyData, summary: Summary, index: Mapping[str, int]) -> Chart | None:
    """Accuracy at the examinations of the runs; None without any during a stage."""
    if not any(run.examinations for run in study.runs):
        return None
    points = [
        [(point.tokens, point.share) for point in run.accuracies(summary.suite, summary.protocol)] for run in study.runs
    ]
    return _accuracies(study, points, index, terms_of(study).budget)


def _accuracies(
    study: StudyData, points: Sequence[Sequence[tuple[int, float]]], index: Mapping[str, int], axis: str
) -> Chart | None:
    """``points[i]``: (tokens, share) of run i. None unless a run has several."""
    if all(len(row) < 2 for row in points):
        return None
    series = [
        {
            "arm": index[run.arm],
            "seed": run.seed,
            "part": "test",
            "tokens": [tokens for tokens, _ in row],
            "values": _rounded([100 * share for _, share in row]),
        }
        for run, row in zip(study.runs, points, strict=True)
        if row
    ]
    panel = {"name": terms_of(study).metric, "title": "", "unit": "%", "logarithmic": False, "series": series}
    return {"kind": "lines", "x": axis, "panels": [panel], "stages": {}}


def _composition(study: StudyData) -> Chart | None:
    names = next((table.bands.names for run in study.runs for table in run.tables if table.bands), ())
    rows, unit = [], terms_of(study).budget.removeprefix("training ")
    for arm in study.arms:
        run = next((run for run in study.of(arm.name) if any(stage.composition for stage in run.stages)), None)
        if run is None or len(run.stages) > MANY:
            continue
        several = len(run.last_stages) > 1
        for stage in run.stages:
            label = f"{f'cycle {stage.cycle} · ' if several else ''}{stage.spec.name}"
            rows.append(
                {
                    "group": arm.title,
                    "label": f"{label} · {count(stage.fitted.tokens)} {unit}",
                    "values": [stage.composition.get(name, 0) for name in names],
                }
            )
    if not rows or not names:
        return None
    return {"kind": "bars", "unit": "samples", "share": False, "names": names, "colours": band_variables(names),
            "rows": rows}  # fmt: skip


def _shares(counts: Sequence[tuple[ArmCycle, Mapping[str, float]]], order: Sequence[str], unit: str) -> Chart | None:
    names = [name for name in order if any(row.get(name) for _, row in counts)]
    rows = [
        {
            "group": cycle.title,
            "label": f"cycle {cycle.cycle} · {count(sum(row.values()))} {unit}",
            "values": [row.get(name, 0) for name in names],
        }
        for cycle, row in counts
        if sum(row.values())
    ]
    if not rows:
        return None
    colours = GRADE_COLOURS if order is GRADES else SOURCE_COLOURS
    return {"kind": "bars", "unit": unit, "share": True, "names": names,
            "colours": [f"--{colours[name]}" for name in names], "rows": rows}  # fmt: skip


def _histogram(study: StudyData) -> Chart | None:
    table = next((table for run in study.runs for table in run.tables if table.histogram), None)
    if table is None or table.histogram is None:
        return None
    bands = table.bands
    return {
        "kind": "histogram",
        "x": f"difficulty ({table.histogram.metric})",
        "edges": _rounded(table.histogram.edges),
        "counts": table.histogram.counts,
        "bands": [] if bands is None else bands.names,
        "sizes": [] if bands is None else bands.counts,
        "thresholds": [] if bands is None else _rounded(bands.edges),
        "colours": [] if bands is None else band_variables(bands.names),
    }
