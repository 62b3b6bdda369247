"""How does the result look as a table of text?

One set of columns for the terminal (a ``rich`` table) and for Markdown files. Both show every seed, so that nobody
has to trust a mean. The HTML page has its own template. Nothing is printed here: the command line does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .data import StudyData
from .statistics import ENOUGH_SEEDS, Difference
from .summary import ArmRow, Summary, summarise
from .wording import headline, interval_of_points, p_value, percent, points

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["markdown_table", "terminal_table"]

RESULT = ("arm", "seeds", "accuracy", "each seed", "points to baseline", "95 % interval", "p (Holm)")
CONTROL = ("arm", "against", "seeds", "points", "95 % interval", "p (Holm)")


def markdown_table(study: StudyData) -> str:
    """The headline, the result table and the table against the controls, as Markdown that ends in a newline."""
    summary = summarise(study)
    said = headline(summary)
    parts = [" ".join((said.sentence, *said.support)), _markdown(RESULT, [_result(row) for row in summary.rows])]
    if summary.against:
        parts += ["The same arms against the controls:", _markdown(CONTROL, _controls(study, summary))]
    parts.append(_footnote(summary))
    if study.missing:
        parts.append("Missing: " + "; ".join(study.missing) + ".")
    return "\n\n".join(parts) + "\n"


def terminal_table(study: StudyData) -> Table:
    """The result table for a terminal, with the headline above and how to read it below."""
    from rich.markup import escape
    from rich.table import Table

    summary = summarise(study)
    table = Table(title=escape(headline(summary).sentence), caption=escape(_footnote(summary)), title_justify="left")
    for name in RESULT:
        table.add_column(name, justify="left" if name in ("arm", "each seed") else "right")
    for row in summary.rows:
        table.add_row(*map(escape, _result(row)), style="dim" if row.role != "arm" else None)
    return table


def _result(row: ArmRow) -> tuple[str, ...]:
    mark = "" if row.role == "arm" else f" ({row.role})" if row.role not in row.title.lower() else ""
    shares = " ".join(percent(score.share).removesuffix("\u00a0%") for score in row.scores) or "–"
    return (row.title + mark, str(len(row.scores)), percent(row.mean), shares, *_tested(row.difference))


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
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").splitlines())
