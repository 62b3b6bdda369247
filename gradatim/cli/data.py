"""``gradatim generate``: random TinyPy programs with their output, written to a file.

``gradatim score``: difficulty scores for the samples of a file or the Python files of a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import difficulty, executors, programs
from .. import table as tables
from ..api import is_source_folder
from ..errors import UserError
from ..evaluation import choice
from ..experiment.assemble import components
from ..files import parquet_files
from ..lazy import pc
from ..options import option_names, override
from ..processes import available_cores
from ..reporting import correlation
from ..table import formats
from ..table import read as table_read
from ..table import rows as table_rows
from .output import (
    Columns,
    Force,
    Json,
    On,
    Workers,
    check_page,
    check_samples_file,
    mapping_of,
    output,
    print_json,
    table,
    watching,
    words,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ..reporting.correlation import Correlations, Passes
    from ..stage import Difficulty
    from ..table import ReadReport


GENERATE_EXAMPLES = (
    "gradatim generate programs.parquet --count 100000 --workers 2",
    "gradatim generate easy.txt --count 500 --level 1.1,1.2 --seed 3",
    "gradatim generate programs.parquet --count 1000000 --on ray",
)


def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output file: .parquet, .jsonl or .txt.")],
    count: Annotated[int, typer.Option(min=1, help="Number of programs, spread evenly over the levels.")],
    level: Annotated[
        list[str] | None,
        typer.Option(help="Levels (1.1 … 4.1, or all), comma-separated or repeated. (default: all)"),
    ] = None,
    digits: Annotated[int, typer.Option(help="Largest integer literal.")] = 9,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; the same seed gives the same file, byte for byte.")
    ] = 0,
    dedupe: Annotated[bool, typer.Option(help="Drop duplicate programs.")] = True,
    workers: Workers = 1,
    on: On = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate random TinyPy programs with their output.

    The file is written atomically. Dropped programs are counted by cause.
    """
    levels = tuple(words(level or ["all"]))
    table_read.check_format(out)
    check_samples_file(out, "OUT", force=force)
    with watching() as events, executors.use(on):
        stream = programs.stream(
            count, levels=levels, digits=digits, seed=seed, dedupe=dedupe, workers=workers, events=events
        )
        tables.write_stream(stream, out, schema=tables.SCHEMA)
    facts = stream.facts
    if as_json:
        counts = {
            name: {"kept": level.kept, "duplicates": level.duplicates, "dropped": dict(level.dropped)}
            for name, level in facts.levels.items()
        }
        print_json({"path": str(out), "kept": facts.kept, "levels": counts})
        return
    rows = [
        (name, level.kept, level.duplicates, ", ".join(f"{why} {n:,}" for why, n in level.dropped.items()) or "0")
        for name, level in facts.levels.items()
    ]
    output().print(table(("level", "programs", "duplicates dropped", "dropped"), rows))
    output().print(f"{facts.kept:,} programs in {out}", markup=False)


SCORE_EXAMPLES = (
    "gradatim score programs.parquet --out scored.parquet --metric om,halstead",
    "gradatim score alpaca.csv --columns prompt=instruction,answer=output",
    "gradatim score my_project/ --metric cyclomatic --hardest 10",
    "gradatim score pairs.jsonl --metric loss,attention,size --model MODEL --correlate --out scored.parquet",
    "gradatim score asked.parquet --metric om,size,nesting --correlate --passes runs/taught --report agree.html",
)

ROWS_PER_WORKER = 25_000
"""Starting a process takes as long as scoring some ten thousand programs with ``om``."""


def score(
    samples: Annotated[
        Path,
        typer.Argument(metavar="IN", help=".parquet, .jsonl, .csv or .txt file, or a folder of .parquet or .py files."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Output file (.parquet or .jsonl) with one column per metric.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metrics, comma-separated or repeated (gradatim list difficulties). (default: om)"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model of loss, perplexity, attention and p_correct: a folder, a .gguf file or a Hugging Face name; "
            "repeatable for p_correct."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.KEY=VALUE", help="Option of a metric; repeatable."),
    ] = None,
    correlate: Annotated[bool, typer.Option("--correlate", help="Spearman correlation between the metrics.")] = False,
    passes: Annotated[
        Path | None,
        typer.Option(
            help="With --correlate: per-sample results (a file with id and passed or verdict, or a run folder), to "
            "test how well each metric predicts failure."
        ),
    ] = None,
    report_to: Annotated[
        Path | None,
        typer.Option("--report", help="With --correlate: write the correlations to a page (.html) or Markdown (.md)."),
    ] = None,
    columns: Columns = None,
    format: Annotated[
        str | None,
        typer.Option(help="parquet, jsonl, csv, text or datasets if the extension is ambiguous; alpaca or chat."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of samples without one.")] = None,
    hardest: Annotated[int, typer.Option(min=0, help="Number of hardest samples to show.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Parallel processes (0 = auto).")] = 0,
    on: On = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score the difficulty of samples: one column per metric, higher is harder.

    Rows that cannot be read or parsed are reported and written to a file beside OUT. Results of models and teachers
    are cached, so a stopped command can be repeated to resume.
    """
    metrics = list(dict.fromkeys(words(metric or ["om"])))
    if out is not None and out.suffix.lower() == ".txt":
        raise UserError("a text file cannot store scores", where="--out", given=out, allowed=".parquet, .jsonl")
    difficulties = _difficulties(metrics, words(model or []), changes or [])
    for name, path in {"--passes": passes, "--report": report_to}.items():
        if path is not None and not correlate:
            raise UserError("this option needs --correlate", where=name, hint="--correlate")
    if report_to is not None and report_to.suffix.lower() not in (".html", ".md"):
        raise UserError(
            "a correlation report is HTML or Markdown", where="--report", given=report_to, allowed=".html, .md"
        )
    inputs = [samples, *parquet_files(samples), passes, *(model or [])]
    if out is not None:
        table_read.check_format(out)
        check_samples_file(out, "--out", inputs, rejected=True, force=force)
    if report_to is not None:
        check_page(report_to, "--report", inputs, force=force)
    results = _passes(passes)
    options = {"columns": mapping_of(columns), "format": format, "language": language}
    resumable = any(difficulty.scored_by != "program" for difficulty in difficulties.values())
    with watching(resumable=resumable) as events, executors.use(on):
        table, report = _read(samples, options)
        scored, facts = difficulty.score(
            table, difficulties, workers=workers or _workers(table.num_rows), events=events
        )
        agreement = _agreement(scored, metrics, results) if correlate else None
        rejected = _write(scored, report, out)
    if agreement is not None and report_to is not None:
        _report(agreement, report_to, samples, results)
    facts |= {"path": str(out) if out else None, "rejected": len(report.rejected)}
    hardest_samples = {name: _hardest(scored, name, hardest) for name in metrics} if hardest else {}
    _print_rejected(report, rejected)
    if as_json:
        print_json({**facts, **({"hardest": hardest_samples} if hardest else {}), **_plain(agreement)})
        return
    for block in _tables(facts, hardest_samples, agreement):
        output().print(block)
    if agreement is not None and results is not None:
        output().print(results.description, markup=False)
    if report_to:
        output().print(f"correlations: {report_to}", markup=False)
    if out:
        output().print(f"{facts['rows']:,} samples in {out}", markup=False)


def _workers(rows: int) -> int:
    """One process per core, as long as each has enough rows to be worth starting."""
    usable = available_cores()
    return max(1, min(usable, rows // ROWS_PER_WORKER))


def _difficulties(metrics: Sequence[str], models: Sequence[str], changes: Sequence[str]) -> dict[str, Difficulty]:
    """The metrics with their options; ``--model`` goes to every metric that has an option ``model``."""
    options = _options(changes, metrics)
    model_based = [
        name for name in metrics if "model" in option_names(difficulty.DIFFICULTIES.get(name, where="--metric"))
    ]
    if models and not model_based:
        raise UserError("none of the metrics uses a model", where="--model", given=", ".join(metrics))
    for name in model_based if models else []:
        options[name].setdefault("model", models[0] if len(models) == 1 else list(models))
    return {name: components.make_difficulty(name, options[name], where="--metric") for name in metrics}


def _options(changes: Sequence[str], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {name: {} for name in metrics}
    form, hint = "METRIC.KEY=VALUE", f"--set {metrics[0]}.KEY=VALUE"
    for change in changes:
        (name, *option), value = override(change, form, hint=hint)
        if not option or name not in options:
            raise UserError(f"an override is written {form}", where="--set", given=change, hint=hint)
        options[name][".".join(option)] = value
    return options


def _passes(path: Path | None) -> Passes | None:
    if path is None:
        return None

    return correlation.read_passes(path)


def _agreement(scored: pa.Table, metrics: Sequence[str], passes: Passes | None) -> Correlations:
    return correlation.correlations(scored, metrics, None if passes is None else passes.by_id)


def _report(agreement: Correlations, out: Path, samples: Path, passes: Passes | None) -> None:
    correlation.write_correlations(
        agreement, out, title=samples.name, passes="" if passes is None else passes.description
    )


def _plain(agreement: Correlations | None) -> dict[str, Any]:
    return {} if agreement is None else {"correlations": agreement.data()}


def _read(path: Path, options: Mapping[str, Any]) -> tuple[pa.Table, ReadReport]:
    """The samples; ``options``: column mapping, format and language of a file, None where not given."""
    report = tables.ReadReport(str(path))
    if not is_source_folder(path):
        if not any(options.values()) and _holds_choices(path):
            return _read_choices(path, report), report
        return tables.read_table(path, report=report, **options), report
    if names := [name for name, value in options.items() if value]:
        raise UserError("a folder of .py files has no columns", where=f"--{names[0]}", given=path)
    table, facts = difficulty.read_folder(path)
    report.kept = table.num_rows
    for kind in ("unreadable", "unparsable"):
        report.rejected += [table_rows.Rejected(0, f"{kind}: {why}", name) for name, why in facts[kind].items()]
    return table, report


def _holds_choices(path: Path) -> bool:
    """Whether the rows are multiple-choice questions, as the suite ``choice`` reads them."""
    kind = formats.format_of(str(path))
    first = (
        next(formats.chunks_of(str(path), kind, 1, lambda *row: None), None) if kind in ("jsonl", "parquet") else None
    )
    names = set(first.columns) if first else set()
    return "question" in names and "prompt" not in names and bool(names & {"options", "choices", "A"})


def _read_choices(path: Path, report: ReadReport) -> pa.Table:
    content = choice.read_questions(path)
    report.kept = len(content.questions)
    report.rejected += content.rejected
    return choice.choices_table(content)


def _write(scored: pa.Table, report: ReadReport, out: Path | None) -> Path | None:
    if out is None:
        return None
    tables.write_table(scored, out)
    return report.write_rejected(out)


def _hardest(scored: pa.Table, metric: str, count: int) -> list[dict[str, Any]]:
    ordered = scored.filter(pc.invert(pc.is_nan(scored[metric]))).sort_by([(metric, "descending")]).slice(0, count)
    return [
        {"sample": row["source"] if row["prompt"] == "" and row["source"] else row["id"], "difficulty": row[metric]}
        for row in ordered.select(["id", "prompt", "source", metric]).to_pylist()
    ]


def _print_rejected(report: ReadReport, path: Path | None) -> None:
    """Print the first rejected rows on stderr; the file ``path`` has all of them."""
    for row in report.rejected[:10]:
        name = f"row {row.row}" if row.row else row.content
        typer.echo(f"gradatim: {report.path}: {name}: {row.cause}", err=True)
    for line in report.remark_lines():
        typer.echo(f"gradatim: {line}", err=True)
    remaining = len(report.rejected) - 10
    if remaining > 0:
        typer.echo(f"gradatim: … and {remaining:,} more", err=True)
    if path is not None:
        typer.echo(f"gradatim: all {len(report.rejected):,} are written to {path}", err=True)


def _tables(
    facts: dict[str, Any], hardest: dict[str, list[dict[str, Any]]], agreement: Correlations | None
) -> list[Any]:
    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:g}"

    rows = [
        (name, values["scored"], values["unscored"], *(number(values[key]) for key in ("least", "median", "most")))
        for name, values in facts["metrics"].items()
    ]
    blocks: list[Any] = [table(("metric", "scored", "unscored", "min", "median", "max"), rows)]
    blocks += [
        table((f"hardest by {name}", name), [(row["sample"], number(row["difficulty"])) for row in rows])
        for name, rows in hardest.items()
    ]
    if agreement is not None:
        blocks += [table(*correlation.rows_of(agreement)), correlation.caption(agreement)]
    return blocks
