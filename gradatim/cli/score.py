"""``gradatim score``: how hard is each sample of a file, or each Python file of a folder?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from .options import Json, Workers, words

if TYPE_CHECKING:
    import pyarrow as pa

    from ..table import ReadReport

__all__ = ["EXAMPLES", "score"]

EXAMPLES = (
    "gradatim score programs.parquet --out scored.parquet --metric om,halstead",
    "gradatim score my_project/ --metric cyclomatic --hardest 10",
)


def score(
    samples: Annotated[
        Path, typer.Argument(metavar="IN", help="A .parquet, .jsonl or .txt file, or a folder of .py files.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write: .parquet or .jsonl, with a column per metric.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metrics, with commas or given many times (gradatim list difficulties). (default: om)"),
    ] = None,
    hardest: Annotated[int, typer.Option(min=0, help="Also show so many of the hardest samples.")] = 0,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Give each sample a difficulty: one column per metric, higher is harder.

    What cannot be read or parsed is reported and written beside OUT, never fatal.
    """
    from ..difficulty import score as score_table
    from .progress import watching
    from .show import output, print_json

    metrics = list(dict.fromkeys(words(metric or ["om"])))
    if out is not None and out.suffix.lower() == ".txt":
        raise UserError("text has no place for a difficulty", where="--out", given=out, allowed=".parquet, .jsonl")
    with watching() as events:
        table, report = _read(samples)
        scored, facts = score_table(table, metrics, workers=workers, events=events)
        rejected = _write(scored, report, out)
    facts |= {"path": str(out) if out else None, "rejected": len(report.rejected)}
    hard = {name: _hardest(scored, name, hardest) for name in metrics} if hardest else {}
    _tell_rejected(report, rejected)
    if as_json:
        print_json({**facts, **({"hardest": hard} if hardest else {})})
        return
    for block in _tables(facts, hard):
        output().print(block)
    if out:
        output().print(f"{facts['rows']:,} samples in {out}", markup=False)


def _read(path: Path) -> tuple[pa.Table, ReadReport]:
    from ..api import is_source_folder
    from ..difficulty import read_folder
    from ..table import ReadReport, read_table
    from ..table.read import Rejected

    report = ReadReport(str(path))
    if not is_source_folder(path):
        return read_table(path, report=report), report
    table, facts = read_folder(path)
    report.kept = table.num_rows
    for kind in ("unreadable", "unparsable"):
        report.rejected += [Rejected(0, f"{kind}: {why}", name) for name, why in facts[kind].items()]
    return table, report


def _write(scored: pa.Table, report: ReadReport, out: Path | None) -> Path | None:
    from ..table import write_table

    if out is None:
        return None
    write_table(scored, out)
    return report.write_rejected(out)


def _hardest(scored: pa.Table, metric: str, count: int) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    known = scored.filter(pc.invert(pc.is_nan(scored[metric]))).sort_by([(metric, "descending")]).slice(0, count)
    return [
        {"sample": row["source"] if row["prompt"] == "" and row["source"] else row["id"], "difficulty": row[metric]}
        for row in known.select(["id", "prompt", "source", metric]).to_pylist()
    ]


def _tell_rejected(report: ReadReport, beside: Path | None) -> None:
    """Name what could not be used, on stderr; a long list is cut short, since the file holds all of it."""
    for row in report.rejected[:10]:
        place = f"row {row.row}" if row.row else row.content
        typer.echo(f"gradatim: {report.path}: {place}: {row.cause}", err=True)
    more = len(report.rejected) - 10
    if more > 0:
        typer.echo(f"gradatim: … and {more:,} more", err=True)
    if beside is not None:
        typer.echo(f"gradatim: all {len(report.rejected):,} are written to {beside}", err=True)


def _tables(facts: dict[str, Any], hard: dict[str, list[dict[str, Any]]]) -> list[Any]:
    from .show import table

    def figure(value: float | None) -> str | None:
        return None if value is None else f"{value:g}"

    rows = [
        (name, each["scored"], each["unscored"], *(figure(each[key]) for key in ("least", "median", "most")))
        for name, each in facts["metrics"].items()
    ]
    blocks = [table(("metric", "scored", "unscored", "least", "median", "most"), rows)]
    blocks += [
        table((f"hardest by {name}", name), [(row["sample"], figure(row["difficulty"])) for row in found])
        for name, found in hard.items()
    ]
    return blocks
