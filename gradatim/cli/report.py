"""``gradatim report``: one HTML page or Markdown table that compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["EXAMPLES", "report"]

EXAMPLES = (
    "gradatim report runs/hybrid-study",
    "gradatim report runs/a runs/b --out compared.html",
    "gradatim report runs/hybrid-study --markdown > result.md",
)


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run or study folders, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write. (default: report.html in the folder; with several folders, in the current one)"
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the result table as Markdown; write a page only with --out.")
    ] = False,
) -> None:
    """Compare runs on one self-contained HTML page.

    The run folders are only read, so runs in progress can be reported too.
    """
    from ..reporting import collect, markdown_table, write_report
    from .output import check_page
    from .run import print_report

    page = out or (folders[0] / "report.html" if len(folders) == 1 else Path("report.html"))
    if not markdown or out is not None:
        check_page(page, "--out")
    if not markdown:
        print_report(folders, page)
        return
    typer.echo(markdown_table(collect(folders)), nl=False)
    if out is not None:
        write_report(folders, out)
