"""The mark by which a page or a text is known to be a report of this package.

How does a study become one page that opens anywhere?

Binds the summary, the wording and the figures into a single HTML file: styles and drawings are inside, no script,
nothing is fetched, and it follows the reader's light or dark setting. Everything that comes from a run folder is
escaped: a program text is hostile input. The page says which runs are missing instead of refusing to be written.
It computes no statistics and draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import open_input, replacing
from . import cycle_figures, figures
from . import figures as curves
from .collect import collect
from .cycles import ArmCycle, cycle_rows, designs, lessons, level_rows, teacher_use
from .data import RunData, StudyData
from .figures import course
from .statistics import ENOUGH_SEEDS
from .style import DARK, LIGHT, for_page, styles
from .summary import (
    HEADLINE,
    Summary,
    count,
    group_scores,
    groups,
    headline,
    interval_of_points,
    p_value,
    percent,
    points,
    summarise,
)

__all__ = ["BRAND", "GENERATOR", "TITLE", "is_report", "render", "write_report"]


GENERATOR = '<meta name="generator" content="Gradatim">'
BRAND = '<p class="brand">Gradatim'
"""What pages of former versions have."""
TITLE = "# How the difficulties of "
"""How a report of correlations in Markdown begins."""
_HEAD = 1 << 18


def is_report(path: Path) -> bool:
    """Whether the file ``path`` is a report that was written here."""
    with open_input(path) as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    return GENERATOR in head or BRAND in head or head.startswith(TITLE)


EXAMPLES = 3
"""Predictions shown per arm, right ones and wrong ones each."""


def write_report(folders: Path | str | Iterable[Path | str], out: Path | str) -> Path:
    """Read ``folders`` and write the page to ``out`` at once or not at all; returns its path.

    Raises what ``collect`` raises, ``UserError`` for a folder as ``out``, ``StorageFailed`` when the disk refuses.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError("the report is a file, and this is a folder", where=out, hint=f"{out / 'report.html'}")
    page = render(collect(folders)).encode("utf-8", "backslashreplace")
    with replacing(out) as file:
        file.write(page)
    return out


def render(study: StudyData) -> str:
    """The page for ``study`` as HTML text; the same study gives the same text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent,
        "points": points,
        "interval": interval_of_points,
        "p": p_value,
        "count": count,
    }
    here = files(__package__)
    template = environment.from_string((here / "report.html.j2").read_text("utf-8"))
    summary = summarise(study)
    cycles = cycle_rows(study, summary)
    return template.render(
        study=study,
        summary=summary,
        headline=headline(summary),
        sizes=list(_sizes(study, summary)),
        styles=styles([arm.name for arm in study.arms], study.baseline),
        drawings=_drawings(study, summary, cycles),
        cycles=cycles,
        causes=_causes(cycles),
        by_level=level_rows(study, summary),
        teaching=teacher_use(study, summary),
        lessons=lessons(study, summary),
        designs=designs(study),
        by_group=_group_tables(study, summary),
        predictions=[found for arm in _best_first(summary) if (found := _predictions(study, summary, arm))],
        facts=_facts(study),
        recipes=[(arm.title, run.recipe) for arm in study.arms for run in study.of(arm.name)[:1] if run.recipe],
        environment=_environment(study),
        enough=ENOUGH_SEEDS,
        decides=(summary.suite, summary.protocol) == HEADLINE,
        style=Markup(_style((here / "report.css").read_text("utf-8"))),
    )


@dataclass(frozen=True)
class _Predictions:
    """Attempts of one run of an arm at programs of the test set."""

    title: str
    seed: int
    right: tuple[Mapping[str, Any], ...]
    wrong: tuple[Mapping[str, Any], ...]


def _style(css: str) -> str:
    def rules(colours: Mapping[str, str]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in colours.items())

    return f":root {{ {rules(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {rules(DARK)} }} }}\n{css}"


def _sizes(study: StudyData, summary: Summary) -> Iterator[tuple[str, str]]:
    """The size of everything, so that nobody takes a demo for a result."""
    tables = [table for run in study.runs for table in run.tables]
    tests = next((s.total for row in summary.rows for s in row.scores), None)
    tokens = [run.tokens for run in study.runs if run.finished]
    seconds = sum(stage.fitted.seconds for run in study.runs for stage in run.stages)
    yield "arms × seeds", f"{len(study.arms)} × {len(study.seeds)}"
    first = next((run.tables for run in study.runs if any(table.rows for table in run.tables)), ())
    # Of a run with cycles there are more (or others) in each.
    yield "samples to learn from", _range([table.rows for table in first if table.rows])
    if study.several_cycles:
        yield "cycles per run", _range([max(1, len(run.last_stages)) for run in study.runs])
    yield "test programs", count(tests or next((table.test_rows for table in tables if table.test_rows), None))
    guess = next((table for table in tables if table.guessed is not None and table.test_rows), None)
    if guess is not None:
        share = f"{100 * (guess.guessed or 0) / (guess.test_rows or 1):.1f}\u00a0%"
        yield "right with the commonest answer alone", share
    yield "model parameters", _range([stage.fitted.parameters for run in study.runs for stage in run.stages])
    yield "tokens learnt per run", _range(tokens)
    yield (
        "training time, all runs",
        f"{seconds / 60:.1f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:.1f}\u00a0h",
    )


def _range(values: list[int]) -> str:
    """One number when all are about alike (a budget ends with a whole batch), else the lowest to the highest."""
    if not values:
        return count(None)
    low, high = min(values), max(values)
    if high <= 1.05 * low:
        return count(low) if low == high else f"≈\u00a0{count(sum(values) / len(values))}"
    return f"{count(low)} to {count(high)}"


def _drawings(study: StudyData, summary: Summary, cycles: tuple[ArmCycle, ...]) -> dict[str, Any]:
    """Each figure that the study has something for, by name, ready for the page."""
    from markupsafe import Markup

    drawn = {
        "differences": (figures.differences(study, summary), "Difference of each arm to the baseline in points"),
        "validation": (curves.validation_curves(study), "Validation loss of all arms over the tokens learnt"),
        "curves": (curves.learning_curves(study), "Training and validation loss of each arm, stages parted"),
        "level": (figures.by_group(study, summary, "level"), "Accuracy by level"),
        "band": (figures.by_group(study, summary, "band"), "Accuracy by band of difficulty"),
        "stages": (curves.after_stages(study, summary), "Accuracy after each stage"),
        "composition": (figures.composition(study), "Samples of each band in every stage"),
        "course": (course(study), "Share of each band in every stage over the tokens learnt, and progress by band"),
        "cycles": (cycle_figures.accuracy_by_cycle(study, cycles), "Accuracy after each cycle"),
        "feedback": (cycle_figures.feedback_by_cycle(cycles), "Questions by grade after each cycle"),
        "faulty": (cycle_figures.faulty_by_cycle(cycles), "Where faulty answers came from in each cycle"),
        "histogram": (figures.histogram(study), "Histogram of the samples' difficulty, with the bands"),
    }
    return {name: Markup(for_page(text, label)) for name, (text, label) in drawn.items() if text}


def _causes(cycles: tuple[ArmCycle, ...]) -> list[tuple[str, int, str, str, float]]:
    """(title, cycle, what, cause, how many): what was refused, thrown away or not judged, and why."""
    kinds = (("new question refused", "refused"), ("faulty answer proved right", "thrown"), ("not judged", "unjudged"))
    return [
        (row.title, row.cycle, said, cause, number)
        for row in cycles
        for said, name in kinds
        for cause, number in getattr(row, name).items()
    ]


def _group_tables(study: StudyData, summary: Summary) -> dict[str, Any]:
    """``[group]`` → (values, rows of (title, mean share per value)): what the dots show, in numbers."""
    tables = {}
    for group in ("level", "band"):
        values = groups(study, summary.suite, summary.protocol).get(group, ())
        found = group_scores(study, summary.suite, summary.protocol, group)
        rows = [
            (row.title, [_mean([score.share for score in found[row.arm][value]]) for value in values])
            for row in summary.rows
        ]
        tables[group] = (values, rows)
    return tables


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _best_first(summary: Summary) -> list[str]:
    return [row.arm for row in sorted(summary.rows, key=lambda row: -(row.mean or 0))]


def _predictions(study: StudyData, summary: Summary, arm: str) -> _Predictions | None:
    for run in study.finished(arm):
        found = run.evaluation(summary.suite, summary.protocol)
        if found and found.examples:
            right = [example for example in found.examples if example.get("passed")]
            wrong = [example for example in found.examples if not example.get("passed")]
            return _Predictions(study.title_of(arm), run.seed, tuple(right[:EXAMPLES]), tuple(wrong[:EXAMPLES]))
    return None


def _facts(study: StudyData) -> list[tuple[str, Any]]:
    """What is known of the data, from the first table: all arms of a study share it."""
    table = next((table for run in study.runs for table in run.tables), None)
    if table is None:
        return []
    facts: list[tuple[str, Any]] = [("samples", table.rows), ("test programs", table.test_rows)]
    facts += [(f"level {level}", number) for level, number in table.levels.items()]
    return [(name, value) for name, value in (*facts, *_flat(table.facts)) if value is not None]


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as lines: ``{"dropped": {"too long": 3}}`` → ``("dropped: too long", 3)``."""
    for name, value in content.items():
        place = f"{above}: {name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, place)
        else:
            yield place, value


def _environment(study: StudyData) -> list[tuple[str, str]]:
    """Where the runs ran; a fact that differs between runs lists each of its values."""

    def facts(run: RunData) -> dict[str, str]:
        return {name: str(value) for name, value in _flat(run.environment)}

    values: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for name, value in facts(run).items():
            values.setdefault(name, {}).setdefault(value)
    return [(name, " / ".join(list(found)[:8])) for name, found in values.items()]
