"""How does the result look as a table of text?

One set of columns for the terminal (a ``rich`` table) and for Markdown files. Both show every seed, so that nobody
has to trust a mean. The HTML page has its own template. Nothing is printed here: the command line does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cycles import ArmCycle, cycle_rows, teacher_use
from .data import StudyData
from .statistics import ENOUGH_SEEDS, Difference
from .summary import ArmRow, Summary, count, headline, interval_of_points, p_value, percent, points, summarise

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["markdown_table", "terminal_table"]


RESULT = ("arm", "seeds", "accuracy", "each seed", "points to baseline", "95 % interval", "p (Holm)")
CYCLE = ("arm", "cycle", "accuracy", "95 % interval", "samples", "new", "refused", "easy/middle/hard", "not judged",
         "faulty: student/mutation/teacher/none")  # fmt: skip
TEACHER = ("arm", "cycle", "requests", "from the cache", "prompt tokens", "reply tokens", "cost")
CONTROL = ("arm", "against", "seeds", "points", "95 % interval", "p (Holm)")


def markdown_table(study: StudyData) -> str:
    """The headline, the result, what came against the controls, and of several cycles each cycle and what the teacher
    was asked, as Markdown that ends in a newline."""
    summary = summarise(study)
    said = headline(summary)
    parts = [_safe(" ".join((said.sentence, *said.support))), _markdown(RESULT, [_result(row) for row in summary.rows])]
    if summary.against:
        parts += ["The same arms against the controls:", _markdown(CONTROL, _controls(study, summary))]
    parts.append(_footnote(summary))
    rows = cycle_rows(study, summary)
    if rows:
        parts += ["Cycle by cycle:", _markdown(CYCLE, [_cycle(row) for row in rows]), _safe(_cycle_footnote(rows))]
    if used := _teacher(study, summary):
        parts += ["What the teacher was asked:", _markdown(TEACHER, used)]
    if study.missing:
        parts.append(_safe("Missing: " + "; ".join(study.missing) + "."))
    return "\n\n".join(parts) + "\n"


def terminal_table(study: StudyData) -> RenderableType:
    """The result for a terminal, with the headline above and how to read it below; of several cycles each one too."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(study)
    table = Table(title=escape(headline(summary).sentence), caption=escape(_footnote(summary)), title_justify="left")
    for name in RESULT:
        table.add_column(name, justify="left" if name in ("arm", "each seed") else "right")
    for row in summary.rows:
        table.add_row(*map(escape, _result(row)), style="dim" if row.role != "arm" else None)
    rows = cycle_rows(study, summary)
    if not rows:
        return table
    parts = [table]
    told: list[tuple[str, tuple[str, ...], list[tuple[str, ...]], str]] = [
        ("Cycle by cycle", CYCLE, [_cycle(row) for row in rows], _cycle_footnote(rows))
    ]
    told += [("What the teacher was asked", TEACHER, used, "")] if (used := _teacher(study, summary)) else []
    for title, names, lines, below in told:
        parts.append(Table(title=title, title_justify="left", caption=escape(below) or None))
        for name in names:
            parts[-1].add_column(name, justify="left" if name == "arm" else "right")
        for line in lines:
            parts[-1].add_row(*map(escape, line))
    return Group(*parts)


def _result(row: ArmRow) -> tuple[str, ...]:
    mark = "" if row.role == "arm" else f" ({row.role})" if row.role not in row.title.lower() else ""
    shares = " ".join(percent(score.share).removesuffix("\u00a0%") for score in row.scores) or "–"
    return (row.title + mark, str(len(row.scores)), percent(row.mean), shares, *_tested(row.difference))


def _cycle(row: ArmCycle) -> tuple[str, ...]:
    low_high = f"{percent(row.interval.low)} to {percent(row.interval.high)}" if row.interval else "–"
    grades, faulty = row.grades, row.faulty
    asked = [count(grades.get(name, 0)) for name in ("easy", "middle", "hard")] if grades else ["–"]
    places = [count(faulty.get(name, 0)) for name in ("student", "mutation", "teacher", "none")] if faulty else ["–"]
    counts = (row.rows, row.new, sum(row.refused.values()))
    unjudged = count(grades.get("unjudged", 0)) if grades else "–"
    return (
        row.title, str(row.cycle), percent(row.mean), low_high, *map(count, counts), "/".join(asked), unjudged,
        "/".join(places),
    )  # fmt: skip


def _cycle_footnote(rows: Sequence[ArmCycle]) -> str:
    short = "; ".join(f"{row.title}, cycle {row.cycle}: {line}" for row in rows for line in row.dry)
    one = max(len(row.scores) for row in rows) < 2
    interval = "Wilson's over test items" if one else "Student's t over seeds (of one seed Wilson's over test items)"
    said = f"Interval: {interval}. Counts are means over runs; grades are those of the questions asked after the cycle."
    return f"{said} The source ran short: {short}." if short else said


def _teacher(study: StudyData, summary: Summary) -> list[tuple[str, ...]]:
    """What was asked in each cycle, whatever for, and in all."""
    lines: dict[tuple[str, int | None], list[float]] = {}
    names = ("requests", "cached", "prompt_tokens", "completion_tokens", "cost")
    for use in teacher_use(study, summary):
        line = lines.setdefault((use.title, use.cycle), [0.0] * len(names))
        line[:] = [total + use.counts[name] for total, name in zip(line, names, strict=True)]
    return [
        (title, "in all" if cycle is None else str(cycle), *map(count, line[:-1]), f"{line[-1]:.4g}")
        for (title, cycle), line in lines.items()
    ]


def _controls(study: StudyData, summary: Summary) -> list[tuple[str, ...]]:
    return [
        (study.title_of(found.arm), study.title_of(control), str(len(found.seeds)), *_tested(found))
        for control, differences in summary.against.items()
        for found in differences
    ]


def _tested(found: Difference | None) -> tuple[str, str, str]:
    if found is None:
        return ("–", "–", "–")
    return (points(found.mean), interval_of_points(found.interval), p_value(found.p_holm))


def _footnote(summary: Summary) -> str:
    most = max((len(row.scores) for row in summary.rows), default=0)
    few = f" Under {ENOUGH_SEEDS} seeds nothing is claimed." if most < ENOUGH_SEEDS else ""
    return (
        f"Accuracy: {summary.suite} ({summary.protocol}), mean over seeds. Differences are paired by seed, with "
        f"Student's t interval over seeds; p is two-sided, corrected over the arms by Holm.{few}"
    )


def _markdown(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" if i == 0 else "---:" for i in range(len(names))), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _safe(text.replace("|", "\\|"))


def _safe(text: str) -> str:
    """One line, in which somebody's words open no tag."""
    return " ".join(text.replace("<", "&lt;").splitlines())
