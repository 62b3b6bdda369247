"""``gradatim score``: how hard is each sample of a file, or each Python file of a folder?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..parsing import parse_yaml
from .options import Columns, Json, mapping_of, words

if TYPE_CHECKING:
    import pyarrow as pa

    from ..reporting.correlation import Correlations
    from ..reporting.results_by_sample import Passes
    from ..stage import Difficulty
    from ..table import ReadReport

__all__ = ["EXAMPLES", "score"]

EXAMPLES = (
    "gradatim score programs.parquet --out scored.parquet --metric om,halstead",
    "gradatim score alpaca.csv --columns prompt=instruction,answer=output",
    "gradatim score my_project/ --metric cyclomatic --hardest 10",
    "gradatim score pairs.jsonl --metric loss,attention,size --model MODEL --correlate --out scored.parquet",
    "gradatim score asked.parquet --metric om,size,nesting --correlate --passes runs/taught --report agree.html",
)

ROWS_PER_WORKER = 25_000
"""A process takes as long to start as ``om`` takes for some ten thousand programs."""


def score(
    samples: Annotated[
        Path, typer.Argument(metavar="IN", help="A .parquet, .jsonl, .csv or .txt file, or a folder of .py files.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write: .parquet or .jsonl, with a column per metric.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metrics, with commas or given many times (gradatim list difficulties). (default: om)"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="What loss, perplexity, attention and p_correct ask: a folder, a .gguf file or a name on the hub; "
            "p_correct takes many."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.KEY=VALUE", help="An option of a metric; may be given many times."),
    ] = None,
    correlate: Annotated[bool, typer.Option("--correlate", help="Also show how the metrics' orders agree.")] = False,
    passes: Annotated[
        Path | None,
        typer.Option(
            help="With --correlate: results by sample (a file with id, and passed or verdict; or a run), to see what "
            "predicts them."
        ),
    ] = None,
    report_to: Annotated[
        Path | None, typer.Option("--report", help="With --correlate: also write that as a page (.html) or text (.md).")
    ] = None,
    columns: Columns = None,
    format: Annotated[
        str | None,
        typer.Option(help="parquet, jsonl, csv, text or datasets, when the ending does not say; alpaca or chat."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="The language of samples that do not name one.")] = None,
    hardest: Annotated[int, typer.Option(min=0, help="Also show so many of the hardest samples.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="How many processes share the work; 0: as many as pay on this machine.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Give each sample a difficulty: one column per metric, higher is harder.

    What cannot be read or parsed is reported and written beside OUT, never fatal. What a model or a teacher was asked
    is remembered, so the same command goes on where it was stopped.
    """
    from ..difficulty import score as score_table
    from ..table.write import check_format
    from .output import check_page, check_samples_file, output, print_json
    from .progress import watching

    metrics = list(dict.fromkeys(words(metric or ["om"])))
    if out is not None and out.suffix.lower() == ".txt":
        raise UserError("text has no place for a difficulty", where="--out", given=out, allowed=".parquet, .jsonl")
    parts = _parts(metrics, words(model or []), changes or [])
    for name, given in {"--passes": passes, "--report": report_to}.items():
        if given is not None and not correlate:
            raise UserError("it is about how the metrics agree", where=name, hint="--correlate")
    if report_to is not None and report_to.suffix.lower() not in (".html", ".md"):
        raise UserError(
            "a report of correlations is a page or a text", where="--report", given=report_to, allowed=".html, .md"
        )
    inputs = [samples, passes, *(model or [])]
    if out is not None:
        check_format(out)
        check_samples_file(out, "--out", inputs, rejected=True)
    if report_to is not None:
        check_page(report_to, "--report", inputs)
    who = _passes(passes)
    told = {"columns": mapping_of(columns), "format": format, "language": language}
    with watching(resumable=any(hasattr(part, "causes") for part in parts.values())) as events:
        table, report = _read(samples, told)
        scored, facts = score_table(table, parts, workers=workers or _workers(table.num_rows), events=events)
        agreement = _agreement(scored, metrics, who) if correlate else None
        rejected = _write(scored, report, out)
    if agreement is not None and report_to is not None:
        _report(agreement, report_to, samples, who)
    facts |= {"path": str(out) if out else None, "rejected": len(report.rejected)}
    hard = {name: _hardest(scored, name, hardest) for name in metrics} if hardest else {}
    _tell_rejected(report, rejected)
    if as_json:
        print_json({**facts, **({"hardest": hard} if hardest else {}), **_plain(agreement)})
        return
    for block in _tables(facts, hard, agreement):
        output().print(block)
    if agreement is not None and who is not None:
        output().print(who.told, markup=False)
    if report_to:
        output().print(f"how they agree: {report_to}", markup=False)
    if out:
        output().print(f"{facts['rows']:,} samples in {out}", markup=False)


def _workers(rows: int) -> int:
    """As many processes as there are processors, if each has enough rows to be worth its start."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, rows // ROWS_PER_WORKER))


def _parts(metrics: Sequence[str], models: Sequence[str], changes: Sequence[str]) -> dict[str, Difficulty]:
    """The metrics with their options: a model goes to each of them that asks one."""
    from ..difficulty import DIFFICULTIES
    from ..experiment.assemble.difficulties import make_difficulty
    from ..options import option_names

    options = _options(changes, metrics)
    asking = [name for name in metrics if "model" in option_names(DIFFICULTIES.get(name, where="--metric"))]
    if models and not asking:
        raise UserError("none of the metrics asks a model", where="--model", given=", ".join(metrics))
    for name in asking if models else []:
        options[name].setdefault("model", models[0] if len(models) == 1 else list(models))
    return {name: make_difficulty(name, options[name], where="--metric") for name in metrics}


def _options(changes: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {name: {} for name in metrics}
    for change in changes:
        key, equals, value = change.partition("=")
        name, _, option = key.strip().partition(".")
        if not equals or not option or name not in found:
            hint = f"--set {metrics[0]}.KEY=VALUE"
            raise UserError("an option is written METRIC.KEY=VALUE", where="--set", given=change, hint=hint)
        try:
            found[name][option] = parse_yaml(value)
        except ValueError as error:
            raise UserError("the value is not YAML", where=f"--set {key[:100]}", given=error) from error
    return found


def _passes(path: Path | None) -> Passes | None:
    if path is None:
        return None
    from ..reporting.results_by_sample import read_passes

    return read_passes(path)


def _agreement(scored: pa.Table, metrics: Sequence[str], passes: Passes | None) -> Correlations:
    from ..reporting.correlation import correlations

    return correlations(scored, metrics, None if passes is None else passes.by_id)


def _report(agreement: Correlations, out: Path, samples: Path, passes: Passes | None) -> None:
    from ..reporting.correlation import write_correlations

    write_correlations(agreement, out, title=samples.name, passes="" if passes is None else passes.told)


def _plain(agreement: Correlations | None) -> dict[str, Any]:
    return {} if agreement is None else {"correlations": agreement.data()}


def _read(path: Path, told: Mapping[str, Any]) -> tuple[pa.Table, ReadReport]:
    """The samples; ``told``: column mapping, format and language of a file, where they were given."""
    from ..api import is_source_folder
    from ..difficulty import read_folder
    from ..table import ReadReport, read_table
    from ..table.read import Rejected

    report = ReadReport(str(path))
    if not is_source_folder(path):
        if not any(told.values()) and _holds_choices(path):
            return _read_choices(path, report), report
        return read_table(path, report=report, **told), report
    if given := [name for name, value in told.items() if value]:
        raise UserError("a folder of .py files has no columns", where=f"--{given[0]}", given=path)
    table, facts = read_folder(path)
    report.kept = table.num_rows
    for kind in ("unreadable", "unparsable"):
        report.rejected += [Rejected(0, f"{kind}: {why}", name) for name, why in facts[kind].items()]
    return table, report


def _holds_choices(path: Path) -> bool:
    """Whether the rows are multiple-choice questions, as the suite ``choice`` reads them."""
    from ..table.formats import chunks_of, format_of

    form = format_of(str(path))
    first = next(chunks_of(str(path), form, 1, lambda *row: None), None) if form in ("jsonl", "parquet") else None
    names = set(first.columns) if first else set()
    return "question" in names and "prompt" not in names and bool(names & {"options", "choices", "A"})


def _read_choices(path: Path, report: ReadReport) -> pa.Table:
    from ..evaluation.choice import choices_table, read_questions

    asked = read_questions(path)
    report.kept = len(asked.questions)
    report.rejected += asked.rejected
    return choices_table(asked)


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
    for line in report.remark_lines():
        typer.echo(f"gradatim: {line}", err=True)
    more = len(report.rejected) - 10
    if more > 0:
        typer.echo(f"gradatim: … and {more:,} more", err=True)
    if beside is not None:
        typer.echo(f"gradatim: all {len(report.rejected):,} are written to {beside}", err=True)


def _tables(facts: dict[str, Any], hard: dict[str, list[dict[str, Any]]], agreement: Correlations | None) -> list[Any]:
    from .output import table

    def figure(value: float | None) -> str | None:
        return None if value is None else f"{value:g}"

    rows = [
        (name, each["scored"], each["unscored"], *(figure(each[key]) for key in ("least", "median", "most")))
        for name, each in facts["metrics"].items()
    ]
    blocks: list[Any] = [table(("metric", "scored", "unscored", "least", "median", "most"), rows)]
    blocks += [
        table((f"hardest by {name}", name), [(row["sample"], figure(row["difficulty"])) for row in found])
        for name, found in hard.items()
    ]
    if agreement is not None:
        from ..reporting.correlation import caption, rows_of

        blocks += [table(*rows_of(agreement)), caption(agreement)]
    return blocks
