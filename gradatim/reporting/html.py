"""The HTML report: one self-contained page with tables, figures, styles and a script.

The page loads nothing: its content security policy allows the script of ``report.js`` by its digest and no request.
Without script it shows the same tables and drawings; with it charts have hover values and tables can be sorted and
downloaded. All text from run folders is escaped, since program texts are untrusted input. ``is_report`` recognises
reports of this package by their generator tag.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..evaluation.statistics import ENOUGH_SEEDS
from ..files import open_input, replacing
from . import cycles as cycle_figures
from . import figures
from .charts import charts
from .collect import collect
from .comparison import setting_differences
from .cycles import ArmCycle, cycle_rows, designs, example_questions, level_rows, price_text, teacher_use
from .data import RunData, StudyData, TableFacts
from .export import results
from .figures import DARK, LIGHT, accuracy_over_tokens, for_page, schedule_shares, styles
from .headline import headline
from .items import LABELS, comparisons, items, shown_items
from .maps import episode_maps
from .notices import unused_rows
from .summary import (
    HEADLINE,
    Summary,
    count,
    figure_groups,
    group_scores,
    groups,
    interval_of_points,
    p_value,
    percent,
    points,
    summarise,
    training_gains,
)
from .target import target_tables
from .units import is_tinypy, metric_of, plural, terms_of

if TYPE_CHECKING:
    from jinja2 import Template

GENERATOR = '<meta name="generator" content="Gradatim">'
BRAND = '<p class="brand">Gradatim'
"""Marker of pages of earlier versions."""
TITLE = "# How the difficulties of "
"""First words of a correlation report in Markdown."""
_HEAD = 1 << 18


@dataclass(frozen=True)
class Insert:
    """A further part of the page: ``section`` and ``data`` (HTML), ``style`` (CSS) and ``scripts`` (JavaScript).

    ``section`` follows the result; ``data`` is the end of the page and contains the scripts, which the policy allows.
    """

    section: str
    style: str
    scripts: tuple[str, ...]
    data: str


def is_report(path: Path) -> bool:
    """Whether the file is a report of this package."""
    with open_input(path) as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    return GENERATOR in head or BRAND in head or head.startswith(TITLE)


def write_report(
    folders: Path | str | Iterable[Path | str],
    out: Path | str,
    *,
    targets: Sequence[float] = (),
    refresh: float | None = None,
) -> Path:
    """Read ``folders`` and write the page to ``out`` atomically; return its path.

    ``targets``: see ``StudyData``. ``refresh``: seconds after which a browser loads the page again. Raises what
    ``collect`` raises, ``UserError`` for a folder as ``out``, ``StorageFailed`` when the disk refuses.
    """
    return write_page(collect(folders, targets=targets), out, refresh=refresh)


def write_page(
    study: StudyData, out: Path | str, *, refresh: float | None = None, insert: Insert | None = None
) -> Path:
    """Write the page of collected runs, as ``write_report`` does; ``insert``: a further part of it."""
    out = Path(out)
    if out.is_dir():
        raise UserError("the report is a file, not a folder", where=out, hint=f"{out / 'report.html'}")
    page = render(study, refresh=refresh, insert=insert).encode("utf-8", "backslashreplace")
    with replacing(out) as file:
        file.write(page)
    return out


def render(study: StudyData, *, refresh: float | None = None, insert: Insert | None = None) -> str:
    """The page for ``study`` as HTML text; deterministic."""
    from markupsafe import Markup

    here = files(__package__)
    script = (here / "report.js").read_text("utf-8")
    summary = summarise(study)
    cycles = cycle_rows(study, summary)
    top = headline(summary)
    data = charts(study, summary, cycles)
    listed = items(study, summary)
    return _template().render(
        study=study,
        summary=summary,
        headline=top,
        support=[*top.support, *training_gains(study, summary)],
        sizes=list(_sizes(study, summary)),
        styles=styles([arm.name for arm in study.arms], study.baseline),
        index={arm.name: number for number, arm in enumerate(study.arms)},
        drawings=_drawings(study, summary, cycles),
        charts=data["charts"],
        cycles=cycles,
        causes=_causes(cycles),
        by_level=level_rows(study, summary),
        teaching=teacher_use(study, summary),
        example_questions=example_questions(study, summary),
        designs=designs(study),
        by_group=_group_tables(study, summary),
        targets=target_tables(study, summary.suite, summary.protocol),
        items=shown_items(listed),
        labels=_labels(listed),
        comparisons=tuple(comparisons(study, summary)),
        unused=unused_rows(study, summary),
        setting_differences=setting_differences(study) if len(study.arms) > 1 else (),
        tinypy=is_tinypy(study),
        metric=metric_of(summary.suite),
        terms=terms_of(study),
        maps=episode_maps(study, summary),
        facts=_facts(study),
        recipes=_recipes(study),
        environment=_environment(study),
        enough=ENOUGH_SEEDS,
        decides=(summary.suite, summary.protocol) == HEADLINE,
        style=Markup(_style((here / "report.css").read_text("utf-8")) + (insert.style if insert else "")),
        script=Markup(script),
        digests=[_digest(text) for text in (script, *(insert.scripts if insert else ()))],
        inserted=Markup(insert.section if insert else ""),
        inserted_data=Markup(insert.data if insert else ""),
        charts_json=Markup(_embedded(data)),
        results_json=Markup(_embedded(results(study))),
        refresh=refresh,
    )


@cache
def _template() -> Template:
    """The page's template, compiled once per process."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent,
        "points": points,
        "interval": interval_of_points,
        "p": p_value,
        "count": count,
        "plural": plural,
        "price": price_text,
    }
    return environment.from_string((files(__package__) / "report.html.j2").read_text("utf-8"))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _embedded(value: Any) -> str:
    """JSON for a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _style(css: str) -> str:
    def rules(colours: Mapping[str, str]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in colours.items())

    return f":root {{ {rules(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {rules(DARK)} }} }}\n{css}"


def _sizes(study: StudyData, summary: Summary) -> Iterator[tuple[str, str]]:
    """The sizes of data, models and budget, so that a demo is not mistaken for a result."""
    tables = [table for run in study.runs for table in run.tables]
    tests = next((s.total for row in summary.rows for s in row.scores), None)
    tokens = [run.tokens for run in study.runs if run.finished]
    seconds = sum(stage.fitted.seconds for run in study.runs for stage in run.stages)
    yield "arms × seeds", f"{len(study.arms)} × {len(study.seeds)}"
    first = next((run.tables for run in study.runs if any(table.rows for table in run.tables)), ())
    # The number of samples varies between cycles.
    yield "training samples", _range([table.rows for table in first if table.rows])
    if study.several_cycles:
        yield "cycles per run", _range([max(1, len(run.last_stages)) for run in study.runs])
    yield f"test {summary.unit}s", count(tests or next((table.test_rows for table in tables if table.test_rows), None))
    if summary.majority is not None:
        yield "majority-answer baseline", percent(summary.majority)
    yield _parameters(study)
    auxiliary = [stage.fitted.auxiliary_parameters for run in study.runs for stage in run.stages]
    if any(auxiliary):
        yield "auxiliary parameters, in training only", _range(auxiliary)
    yield f"{terms_of(study).budget} per run", _range(tokens)
    yield (
        "training time, all runs",
        f"{seconds / 60:.1f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:.1f}\u00a0h",
    )


def _parameters(study: StudyData) -> tuple[str, str]:
    """The number of parameters of the models with its title; where not all are trained, both numbers.

    Runs of earlier versions with an adapter have the trainable parameters alone.
    """
    fitted = [stage.fitted for run in study.runs for stage in run.stages]
    trainable = _range([stage.parameters for stage in fitted])
    totals = [stage.total_parameters for stage in fitted if stage.total_parameters is not None]
    if any(stage.total_parameters not in (None, stage.parameters) for stage in fitted):
        return "model parameters", f"{trainable} trainable of {_range(totals)}"
    students = [run.settings.get("student") for run in study.runs]
    adapters = any(isinstance(student, Mapping) and student.get("lora") for student in students)
    return ("trainable parameters" if adapters else "model parameters"), trainable


def _range(values: list[int]) -> str:
    """One number if all are within 5 % (a budget ends with a full batch), else the range."""
    if not values:
        return count(None)
    low, high = min(values), max(values)
    if high <= 1.05 * low:
        return count(low) if low == high else f"≈\u00a0{count(sum(values) / len(values))}"
    return f"{count(low)} to {count(high)}"


def _drawings(study: StudyData, summary: Summary, cycles: tuple[ArmCycle, ...]) -> dict[str, Any]:
    """The figures for which the study has data, by name, ready for the page."""
    from markupsafe import Markup

    metric, budget = metric_of(summary.suite).capitalize(), terms_of(study).budget
    drawings = {
        "differences": (figures.differences(study, summary), "Difference of each arm to the baseline in points"),
        "validation": (figures.validation_curves(study), f"Validation loss of all arms over {budget}"),
        "curves": (figures.learning_curves(study), "Training and validation loss of each arm, with stage boundaries"),
        "rewards": (figures.reward_curves(study), f"Mean reward per step of each run over {budget}"),
        "stages": (figures.after_stages(study, summary), f"{metric} after each stage"),
        "accuracy": (accuracy_over_tokens(study, summary), f"{metric} over {budget}, with intervals over seeds"),
        "schedule": (schedule_shares(study), f"Share of each band in every stage over {budget}, and progress"),
        "cycles": (cycle_figures.accuracy_by_cycle(study, cycles), f"{metric} after each cycle"),
        **{
            group: (figures.by_group(study, summary, group), f"{metric} by {group}")
            for group in figure_groups(study, summary.suite, summary.protocol)
        },
    }
    return {name: Markup(for_page(text, label)) for name, (text, label) in drawings.items() if text}


def _causes(cycles: tuple[ArmCycle, ...]) -> list[tuple[str, int, str, str, float]]:
    """(title, cycle, kind, cause, count) of refused questions, discarded answers and unjudged completions."""
    kinds = (
        ("new question refused", "refused"),
        ("rejected answer proved correct", "discarded"),
        ("completion unjudged", "unjudged"),
    )
    return [
        (row.title, row.cycle, kind, cause, number)
        for row in cycles
        for kind, name in kinds
        for cause, number in getattr(row, name).items()
    ]


def _group_tables(study: StudyData, summary: Summary) -> dict[str, Any]:
    """``[group]`` → (values, rows of (title, mean share per value)): the data of the figures."""
    tables = {}
    for group in figure_groups(study, summary.suite, summary.protocol):
        values = groups(study, summary.suite, summary.protocol).get(group, ())
        scores = group_scores(study, summary.suite, summary.protocol, group)
        rows = [
            (row.title, [_mean([score.share for score in scores[row.arm][value]]) for value in values])
            for row in summary.rows
        ]
        tables[group] = (values, rows)
    return tables


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _labels(listed: Iterable[Any]) -> dict[str, list[str]]:
    """The values of each label of the items, for the filters."""
    values = {name: sorted({item.labels[name] for item in listed if name in item.labels}) for name in LABELS}
    return {name: names for name, names in values.items() if len(names) > 1}


def _recipes(study: StudyData) -> list[tuple[str, str]]:
    """(title, recipe) of the baseline, or of the first arm: the table of differences has what the others change."""
    order = sorted(study.arms, key=lambda arm: arm.name != study.baseline)
    return [(arm.title, run.recipe) for arm in order for run in study.of(arm.name)[:1] if run.recipe][:1]


def _facts(study: StudyData) -> list[tuple[str, Any]]:
    """The data statistics of the first table, or of one of each arm where the arms' samples differ."""
    tables = {arm.title: table for arm in study.arms for run in study.of(arm.name)[:1] for table in run.tables[:1]}
    if len({table.corpus for table in tables.values()}) > 1:
        return [(f"{title}: {name}", value) for title, table in tables.items() for name, value in _statistics(table)]
    table = next((table for run in study.runs for table in run.tables), None)
    return [] if table is None else _statistics(table)


def _statistics(table: TableFacts) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [("samples", table.rows), ("test samples", table.test_rows)]
    facts += [(f"level {level}", number) for level, number in table.levels.items()]
    return [(name, value) for name, value in (*facts, *_flat(table.facts)) if value is not None]


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as lines: ``{"dropped": {"too long": 3}}`` → ``("dropped: too long", 3)``."""
    for name, value in content.items():
        title = f"{above}: {name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, title)
        else:
            yield title, value


def _environment(study: StudyData) -> list[tuple[str, str]]:
    """The environment of the runs; an entry that differs between runs lists all its values."""

    def facts(run: RunData) -> dict[str, str]:
        return {name: str(value) for name, value in _flat(run.environment)}

    values: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for name, value in facts(run).items():
            values.setdefault(name, {}).setdefault(value)
    return [(name, " / ".join(list(texts)[:8])) for name, texts in values.items()]
