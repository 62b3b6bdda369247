"""Result tables for the terminal (``rich``) and for Markdown, with the same columns.

Both show the value of every seed beside the mean. The HTML page has its own template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..evaluation.statistics import ENOUGH_SEEDS, Difference
from .cycles import ArmCycle, cycle_rows, price_text, teacher_use
from .data import StudyData
from .headline import headline
from .summary import (
    ArmRow,
    Summary,
    count,
    gain_of,
    interval_of_points,
    interval_scope,
    p_value,
    percent,
    points,
    share_text,
    suite_rows,
    summarise,
    training_gains,
)
from .target import target_tables
from .units import metric_of

if TYPE_CHECKING:
    from rich.console import RenderableType

METRIC = "accuracy"
"""A column whose title is the noun of the main metric (``units.metric_of``)."""
RESULT = ("arm", "seeds", METRIC, "per seed", "points vs. baseline", "95 % interval", "p (Holm)")
CYCLE = ("arm", "cycle", METRIC, "95 % interval", "samples", "new", "refused", "easy/middle/hard", "unjudged",
         "rejected: student/mutation/teacher/none")  # fmt: skip
TEACHER = ("arm", "cycle", "requests", "cached", "prompt tokens", "completion tokens", "cost")
SUITE = ("suite", "before training", "at the end", "points")
CONTROL = ("arm", "control", "seeds", "points", "95 % interval", "p (Holm)")


def markdown_table(study: StudyData) -> str:
    """The study as Markdown: headline, result, controls, and with several cycles the results by cycle and the teacher's
    usage. Ends in a newline."""
    summary = summarise(study)
    top = headline(summary)
    sentence = " ".join((top.sentence, *top.support, *training_gains(study, summary)))
    blocks = [_safe(sentence), _result_table(summary)]
    if suites := _suites(study):
        blocks += ["Results by suite:", _markdown(SUITE, suites), SUITE_NOTE]
    for entry in target_tables(study, summary.suite, summary.protocol):
        blocks += [f"{entry.title}:", _markdown(entry.columns, list(entry.rows)), _safe(entry.note)]
    if summary.against:
        blocks += ["Against the controls:", _markdown(CONTROL, _controls(study, summary))]
    blocks.append(_footnote(summary))
    rows = cycle_rows(study, summary)
    if rows:
        blocks += [
            "Results by cycle:",
            _markdown(_titled(CYCLE, summary), [_cycle(row) for row in rows]),
            _safe(_cycle_footnote(rows)),
        ]
    if usage := _teacher(study, summary):
        blocks += ["Teacher usage:", _markdown(TEACHER, usage)]
    if study.missing:
        blocks.append(_safe("Missing: " + "; ".join(study.missing) + "."))
    return "\n\n".join(blocks) + "\n"


def metric_table(study: StudyData, suite: str, protocol: str) -> str:
    """The comparison of the arms by one metric as Markdown: headline, result and footnote."""
    summary = summarise(study, (suite, protocol))
    return "\n\n".join((_safe(headline(summary).sentence), _result_table(summary), _footnote(summary)))


def _result_table(summary: Summary) -> str:
    return _markdown(_titled(RESULT, summary), [_result(row) for row in summary.rows])


def terminal_table(study: StudyData) -> RenderableType:
    """The result table for a terminal, with headline and footnote, and with several cycles a table of them."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(study)
    caption = "\n".join([*training_gains(study, summary), _footnote(summary)])
    table = Table(title=escape(headline(summary).sentence), caption=escape(caption), title_justify="left")
    for name in _titled(RESULT, summary):
        table.add_column(name, justify="left" if name in ("arm", "per seed") else "right")
    for row in summary.rows:
        table.add_row(*map(escape, _result(row)), style="dim" if row.role != "arm" else None)
    rows = cycle_rows(study, summary)
    tables = [table]
    blocks: list[tuple[str, tuple[str, ...], list[tuple[str, ...]], str]] = []
    if suites := _suites(study):
        blocks.append(("Results by suite", SUITE, suites, SUITE_NOTE))
    blocks += [
        (entry.title, entry.columns, list(entry.rows), entry.note)
        for entry in target_tables(study, summary.suite, summary.protocol)
    ]
    blocks += (
        [("Results by cycle", _titled(CYCLE, summary), [_cycle(row) for row in rows], _cycle_footnote(rows))]
        if rows
        else []
    )
    blocks += [("Teacher usage", TEACHER, usage, "")] if (usage := _teacher(study, summary)) else []
    for title, names, lines, caption in blocks:
        tables.append(Table(title=title, title_justify="left", caption=escape(caption) or None))
        for name in names:
            tables[-1].add_column(name, justify="left" if name in ("arm", "suite") else "right")
        for line in lines:
            tables[-1].add_row(*map(escape, line))
    return Group(*tables) if len(tables) > 1 else table


SUITE_NOTE = "Shares of correct items, in brackets Wilson's 95 % interval over test items; of several seeds the means."


def _suites(study: StudyData) -> list[tuple[str, ...]]:
    """The results by suite of one arm, which the result table has for one suite only.

    Empty with several arms, and with one suite and no result before training.
    """
    rows = suite_rows(study) if len(study.arms) == 1 else []
    if len(rows) < 2 and not any(row.before for row in rows):
        return []
    return [
        (
            f"{row.suite} ({row.protocol})",
            share_text(row.before),
            share_text(row.after),
            points(gain_of(row.before, row.after)),
        )
        for row in rows
    ]


def _titled(names: tuple[str, ...], summary: Summary) -> tuple[str, ...]:
    """The titles of columns with the noun of the main metric."""
    return tuple(metric_of(summary.suite) if name == METRIC else name for name in names)


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
        (title, "total" if cycle is None else str(cycle), *map(count, line[:-1]), price_text(line[-1]))
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
        f"{metric_of(summary.suite).capitalize()}: {summary.suite} ({summary.protocol}), mean over seeds. Differences "
        f"are paired by seed, with Student's t interval over {interval_scope(summary)}; p is two-sided, Holm-corrected "
        f"over the arms.{caveat}"
    )


def _markdown(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" if i == 0 else "---:" for i in range(len(names))), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _safe(text.replace("|", "\\|"))


def _safe(text: str) -> str:
    """The text on one line with ``<`` escaped: titles come from users."""
    return " ".join(text.replace("<", "&lt;").splitlines())
