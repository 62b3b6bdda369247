"""The HTML report: one self-contained page with tables, figures and styles.

No scripts and no external resources; light or dark by the reader's setting. All text from run folders is escaped,
since program texts are untrusted input. Missing runs are listed on the page. ``is_report`` recognises reports of this
package by their generator tag.

Result tables for the terminal (``rich``) and for Markdown, with the same columns.

Both show the value of every seed beside the mean. The HTML page has its own template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..evaluation.statistics import ENOUGH_SEEDS, Difference
from ..files import open_input, replacing
from . import cycles as cycle_figures
from . import figures
from . import figures as curves
from .collect import collect
from .cycles import ArmCycle, cycle_rows, designs, example_questions, level_rows, teacher_use
from .data import RunData, StudyData
from .figures import DARK, LIGHT, accuracy_over_tokens, for_page, schedule_shares, styles
from .summary import (
    HEADLINE,
    ArmRow,
    Summary,
    count,
    group_scores,
    groups,
    headline,
    interval_of_points,
    interval_scope,
    p_value,
    percent,
    points,
    summarise,
)
from .target import target_tables

if TYPE_CHECKING:
    from rich.console import RenderableType


GENERATOR = '<meta name="generator" content="Gradatim">'
BRAND = '<p class="brand">Gradatim'
"""Marker of pages of earlier versions."""
TITLE = "# How the difficulties of "
"""First words of a correlation report in Markdown."""
_HEAD = 1 << 18


def is_report(path: Path) -> bool:
    """Whether the file is a report of this package."""
    with open_input(path) as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    return GENERATOR in head or BRAND in head or head.startswith(TITLE)


EXAMPLES = 3
"""Correct and wrong predictions shown per arm, of each kind."""


def write_report(folders: Path | str | Iterable[Path | str], out: Path | str, *, targets: Sequence[float] = ()) -> Path:
    """Read ``folders`` and write the page to ``out`` atomically; return its path. ``targets``: see ``StudyData``.

    Raises what ``collect`` raises, ``UserError`` for a folder as ``out``, ``StorageFailed`` when the disk refuses.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError("the report is a file, not a folder", where=out, hint=f"{out / 'report.html'}")
    page = render(collect(folders, targets=targets)).encode("utf-8", "backslashreplace")
    with replacing(out) as file:
        file.write(page)
    return out


def render(study: StudyData) -> str:
    """The page for ``study`` as HTML text; deterministic."""
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
        example_questions=example_questions(study, summary),
        designs=designs(study),
        by_group=_group_tables(study, summary),
        targets=target_tables(study, summary.suite, summary.protocol),
        predictions=[entry for arm in _best_first(summary) if (entry := _predictions(study, summary, arm))],
        facts=_facts(study),
        recipes=[(arm.title, run.recipe) for arm in study.arms for run in study.of(arm.name)[:1] if run.recipe],
        environment=_environment(study),
        enough=ENOUGH_SEEDS,
        decides=(summary.suite, summary.protocol) == HEADLINE,
        style=Markup(_style((here / "report.css").read_text("utf-8"))),
    )


@dataclass(frozen=True)
class _Predictions:
    """Predictions of one run of an arm on test programs."""

    title: str
    seed: int
    correct: tuple[Mapping[str, Any], ...]
    wrong: tuple[Mapping[str, Any], ...]


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
    yield "test programs", count(tests or next((table.test_rows for table in tables if table.test_rows), None))
    majority = next((table for table in tables if table.guessed is not None and table.test_rows), None)
    if majority is not None:
        share = f"{100 * (majority.guessed or 0) / (majority.test_rows or 1):.1f}\u00a0%"
        yield "majority-answer baseline", share
    yield "model parameters", _range([stage.fitted.parameters for run in study.runs for stage in run.stages])
    auxiliary = [stage.fitted.auxiliary_parameters for run in study.runs for stage in run.stages]
    if any(auxiliary):
        yield "auxiliary parameters, in training only", _range(auxiliary)
    yield "training tokens per run", _range(tokens)
    yield (
        "training time, all runs",
        f"{seconds / 60:.1f}\u00a0min" if seconds < 7200 else f"{seconds / 3600:.1f}\u00a0h",
    )


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

    drawings = {
        "differences": (
            figures.differences(study, summary),
            "Difference of each arm to the baseline in points",
        ),
        "validation": (curves.validation_curves(study), "Validation loss of all arms over training tokens"),
        "curves": (curves.learning_curves(study), "Training and validation loss of each arm, with stage boundaries"),
        "level": (figures.by_group(study, summary, "level"), "Accuracy by level"),
        "band": (figures.by_group(study, summary, "band"), "Accuracy by difficulty band"),
        "stages": (curves.after_stages(study, summary), "Accuracy after each stage"),
        "accuracy": (accuracy_over_tokens(study, summary), "Accuracy over training tokens, with intervals over seeds"),
        "composition": (figures.composition(study), "Samples of each band in every stage"),
        "schedule": (schedule_shares(study), "Share of each band in every stage over training tokens, and progress"),
        "cycles": (cycle_figures.accuracy_by_cycle(study, cycles), "Accuracy after each cycle"),
        "feedback": (cycle_figures.feedback_by_cycle(cycles), "Questions by grade after each cycle"),
        "rejected": (cycle_figures.rejected_by_cycle(cycles), "Sources of rejected answers in each cycle"),
        "histogram": (figures.histogram(study), "Histogram of the difficulty of the samples, with the bands"),
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
    for group in ("level", "band"):
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


def _best_first(summary: Summary) -> list[str]:
    return [row.arm for row in sorted(summary.rows, key=lambda row: -(row.mean or 0))]


def _predictions(study: StudyData, summary: Summary, arm: str) -> _Predictions | None:
    for run in study.finished(arm):
        result = run.evaluation(summary.suite, summary.protocol)
        if result and result.examples:
            correct = [example for example in result.examples if example.get("passed")]
            wrong = [example for example in result.examples if not example.get("passed")]
            return _Predictions(study.title_of(arm), run.seed, tuple(correct[:EXAMPLES]), tuple(wrong[:EXAMPLES]))
    return None


def _facts(study: StudyData) -> list[tuple[str, Any]]:
    """The data statistics of the first table, which all arms of a study share."""
    table = next((table for run in study.runs for table in run.tables), None)
    if table is None:
        return []
    facts: list[tuple[str, Any]] = [("samples", table.rows), ("test programs", table.test_rows)]
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


RESULT = ("arm", "seeds", "accuracy", "per seed", "points vs. baseline", "95 % interval", "p (Holm)")
CYCLE = ("arm", "cycle", "accuracy", "95 % interval", "samples", "new", "refused", "easy/middle/hard", "unjudged",
         "rejected: student/mutation/teacher/none")  # fmt: skip
TEACHER = ("arm", "cycle", "requests", "cached", "prompt tokens", "completion tokens", "cost")
CONTROL = ("arm", "control", "seeds", "points", "95 % interval", "p (Holm)")


def markdown_table(study: StudyData) -> str:
    """The study as Markdown: headline, result, controls, and with several cycles the results by cycle and the teacher's
    usage. Ends in a newline."""
    summary = summarise(study)
    top = headline(summary)
    blocks = [_safe(" ".join((top.sentence, *top.support))), _markdown(RESULT, [_result(row) for row in summary.rows])]
    for entry in target_tables(study, summary.suite, summary.protocol):
        blocks += [f"{entry.title}:", _markdown(entry.columns, list(entry.rows)), _safe(entry.note)]
    if summary.against:
        blocks += ["Against the controls:", _markdown(CONTROL, _controls(study, summary))]
    blocks.append(_footnote(summary))
    rows = cycle_rows(study, summary)
    if rows:
        blocks += ["Results by cycle:", _markdown(CYCLE, [_cycle(row) for row in rows]), _safe(_cycle_footnote(rows))]
    if usage := _teacher(study, summary):
        blocks += ["Teacher usage:", _markdown(TEACHER, usage)]
    if study.missing:
        blocks.append(_safe("Missing: " + "; ".join(study.missing) + "."))
    return "\n\n".join(blocks) + "\n"


def terminal_table(study: StudyData) -> RenderableType:
    """The result table for a terminal, with headline and footnote, and with several cycles a table of them."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(study)
    table = Table(title=escape(headline(summary).sentence), caption=escape(_footnote(summary)), title_justify="left")
    for name in RESULT:
        table.add_column(name, justify="left" if name in ("arm", "per seed") else "right")
    for row in summary.rows:
        table.add_row(*map(escape, _result(row)), style="dim" if row.role != "arm" else None)
    rows = cycle_rows(study, summary)
    tables = [table]
    blocks: list[tuple[str, tuple[str, ...], list[tuple[str, ...]], str]] = [
        (entry.title, entry.columns, list(entry.rows), entry.note)
        for entry in target_tables(study, summary.suite, summary.protocol)
    ]
    blocks += [("Results by cycle", CYCLE, [_cycle(row) for row in rows], _cycle_footnote(rows))] if rows else []
    blocks += [("Teacher usage", TEACHER, usage, "")] if (usage := _teacher(study, summary)) else []
    for title, names, lines, caption in blocks:
        tables.append(Table(title=title, title_justify="left", caption=escape(caption) or None))
        for name in names:
            tables[-1].add_column(name, justify="left" if name == "arm" else "right")
        for line in lines:
            tables[-1].add_row(*map(escape, line))
    return Group(*tables) if len(tables) > 1 else table


def _result(row: ArmRow) -> tuple[str, ...]:
    mark = "" if row.role == "arm" else f" ({row.role})" if row.role not in row.title.lower() else ""
    shares = " ".join(percent(score.share).removesuffix("\u00a0%") for score in row.scores) or "–"
    return (row.title + mark, str(len(row.scores)), percent(row.mean), shares, *_tested(row.difference))


def _cycle(row: ArmCycle) -> tuple[str, ...]:
    low_high = f"{percent(row.interval.low)} to {percent(row.interval.high)}" if row.interval else "–"
    grades, rejected = row.grades, row.rejected
    questions = [count(grades.get(name, 0)) for name in ("easy", "middle", "hard")] if grades else ["–"]
    sources = (
        [count(rejected.get(name, 0)) for name in ("student", "mutation", "teacher", "none")] if rejected else ["–"]
    )
    counts = (row.rows, row.new, sum(row.refused.values()))
    unjudged = count(grades.get("unjudged", 0)) if grades else "–"
    return (
        row.title, str(row.cycle), percent(row.mean), low_high, *map(count, counts), "/".join(questions), unjudged,
        "/".join(sources),
    )  # fmt: skip


def _cycle_footnote(rows: Sequence[ArmCycle]) -> str:
    shortfalls = "; ".join(f"{row.title}, cycle {row.cycle}: {line}" for row in rows for line in row.dry)
    single = max(len(row.scores) for row in rows) < 2
    interval = "Wilson over test items" if single else "Student's t over seeds (Wilson over test items for one seed)"
    note = f"Interval: {interval}. Counts are means over runs; grades are of the questions after the cycle."
    return f"{note} Fewer new questions than requested: {shortfalls}." if shortfalls else note


def _teacher(study: StudyData, summary: Summary) -> list[tuple[str, ...]]:
    """The teacher's usage in each cycle over all purposes, and the total."""
    lines: dict[tuple[str, int | None], list[float]] = {}
    names = ("requests", "cached", "prompt_tokens", "completion_tokens", "cost")
    for use in teacher_use(study, summary):
        line = lines.setdefault((use.title, use.cycle), [0.0] * len(names))
        line[:] = [total + use.counts[name] for total, name in zip(line, names, strict=True)]
    return [
        (title, "total" if cycle is None else str(cycle), *map(count, line[:-1]), f"{line[-1]:.4g}")
        for (title, cycle), line in lines.items()
    ]


def _controls(study: StudyData, summary: Summary) -> list[tuple[str, ...]]:
    return [
        (study.title_of(row.arm), study.title_of(control), str(len(row.seeds)), *_tested(row))
        for control, differences in summary.against.items()
        for row in differences
    ]


def _tested(difference: Difference | None) -> tuple[str, str, str]:
    if difference is None:
        return ("–", "–", "–")
    return (points(difference.mean), interval_of_points(difference.interval), p_value(difference.p_holm))


def _footnote(summary: Summary) -> str:
    seeds = max((len(row.scores) for row in summary.rows), default=0)
    caveat = f" Fewer than {ENOUGH_SEEDS} seeds: no difference is claimed." if seeds < ENOUGH_SEEDS else ""
    return (
        f"Accuracy: {summary.suite} ({summary.protocol}), mean over seeds. Differences are paired by seed, with "
        f"Student's t interval over {interval_scope(summary)}; p is two-sided, Holm-corrected over the arms.{caveat}"
    )


def _markdown(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" if i == 0 else "---:" for i in range(len(names))), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _safe(text.replace("|", "\\|"))


def _safe(text: str) -> str:
    """The text on one line with ``<`` escaped: titles come from users."""
    return " ".join(text.replace("<", "&lt;").splitlines())
