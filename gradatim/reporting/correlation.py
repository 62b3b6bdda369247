"""Correlations between difficulty metrics, and their power to predict failure.

``correlations`` computes Spearman's rank correlation of every pair of metric columns over the samples that both score.
With per-sample results (``results_by_sample``) each metric also gets the area under the ROC curve (AUC): the
probability that a failed sample is harder than a passed one (a tie counts half), with the standard error of Hanley and
McNeil (1982); 0.5 is chance, less means an inverse relation. The accuracy in each third of the samples by that metric
stands beside it. Undefined values (fewer than three samples, a constant column, none passed or none failed) are None.

Per-sample results: the samples that a model passed or failed.

``read_passes`` reads them from a file, or from a run: its feedback, with a verdict on every completion, or else the
examples that its last evaluation stored. ``correlation`` uses them to test difficulty metrics.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UserError, did_you_mean
from ..evaluation.statistics import rank_correlation
from ..files import replacing
from ..lazy import np, pa
from ..stage import SuiteResult
from .collect import read_run
from .html import GENERATOR, TITLE
from .summary import HEADLINE
from .verdicts import evaluations

if TYPE_CHECKING:
    import numpy.typing as npt

    Figures = npt.NDArray[np.float64]


LEAST = 3
"""Minimum samples of a rank correlation: two points are always perfectly correlated."""

NONE = "–"

THIRDS = ("easiest third", "middle", "hardest")


@dataclass(frozen=True)
class Prediction:
    """The power of a metric to separate failed from passed samples; ``auc`` is None without both kinds.

    ``thirds``: (passed, total) of the easiest, middle and hardest third; samples of equal difficulty stay together.
    """

    auc: float | None
    error: float | None
    passed: int
    failed: int
    thirds: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Correlations:
    """Rank correlations ``rho[i][j]`` of metrics i and j over ``n[i][j]`` samples; ``n[i][i]`` are scored by i.

    ``predictions`` has one entry per metric with per-sample results, and is empty without.
    """

    metrics: tuple[str, ...]
    rho: tuple[tuple[float | None, ...], ...]
    n: tuple[tuple[int, ...], ...]
    predictions: Mapping[str, Prediction]

    def data(self) -> dict[str, Any]:
        """Plain values: {"metrics", "spearman", "n"} and, with per-sample results, "predictions"."""
        plain: dict[str, Any] = {"metrics": list(self.metrics), "spearman": [list(row) for row in self.rho]}
        plain["n"] = [list(row) for row in self.n]
        if self.predictions:
            plain["predictions"] = {name: asdict(prediction) for name, prediction in self.predictions.items()}
        return plain


def correlations(table: pa.Table, metrics: Sequence[str], passed: Mapping[str, bool] | None = None) -> Correlations:
    """Spearman's rank correlations of ``metrics``, float columns of ``table``; NaN rows are excluded pairwise.

    ``passed``: per-sample results by id; samples without one are excluded from the predictions. Raises ``DataError``
    for a missing or non-float column, and when ``passed`` has no sample of the table.
    """
    columns = [_column(table, name) for name in metrics]
    rho: list[list[float | None]] = [[None] * len(metrics) for _ in metrics]
    n = [[0] * len(metrics) for _ in metrics]
    for i, left in enumerate(columns):
        for j, right in enumerate(columns[: i + 1]):
            rho[i][j], n[i][j] = _spearman(left, right)
            rho[j][i], n[j][i] = rho[i][j], n[i][j]
    predictions = {} if passed is None else _predictions(table, dict(zip(metrics, columns, strict=True)), passed)
    return Correlations(tuple(metrics), tuple(map(tuple, rho)), tuple(map(tuple, n)), predictions)


def _column(table: pa.Table, name: str) -> Figures:
    if name not in table.column_names:
        hint = did_you_mean(name, table.column_names)
        raise DataError(f"there is no column {name!r}", where="correlations", hint=hint)
    if not pa.types.is_floating(table.schema.field(name).type):
        raise DataError(
            f"the column {name!r} is not a metric", where="correlations", given=table.schema.field(name).type
        )
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _spearman(left: Figures, right: Figures) -> tuple[float | None, int]:
    scored = ~(np.isnan(left) | np.isnan(right))
    count = int(scored.sum())
    return None if count < LEAST else rank_correlation(left[scored], right[scored]), count


def _predictions(table: pa.Table, columns: Mapping[str, Figures], passed: Mapping[str, bool]) -> dict[str, Prediction]:
    verdicts = [passed.get(name) for name in table["id"].to_pylist()]
    if all(verdict is None for verdict in verdicts):
        first = next(iter(passed), "none")
        raise DataError("the results have none of these samples", where="correlations", given=f"id {first}")
    correct, wrong = (np.array([verdict is kind for verdict in verdicts]) for kind in (True, False))
    return {name: _prediction(values[wrong], values[correct]) for name, values in columns.items()}


def _prediction(failed: Figures, passed: Figures) -> Prediction:
    from scipy.stats import rankdata

    failed, passed = (values[~np.isnan(values)] for values in (failed, passed))
    f, p = len(failed), len(passed)
    order = rankdata(np.concatenate([failed, passed]))
    third = np.minimum(3 * (order - 0.5) // max(f + p, 1), 2)
    thirds = tuple((int((third[f:] == part).sum()), int((third == part).sum())) for part in range(3))
    if not f or not p:
        return Prediction(None, None, p, f, thirds)
    auc = float(order[:f].sum() - f * (f + 1) / 2) / (f * p)
    return Prediction(auc, area_error(auc, f, p), p, f, thirds)


def area_error(auc: float, failed: int, passed: int) -> float:
    """The standard error of the area under the ROC curve by Hanley and McNeil (1982)."""
    two_failed, two_passed = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    sums = (failed - 1) * (two_failed - auc * auc) + (passed - 1) * (two_passed - auc * auc)
    return math.sqrt(max((auc * (1 - auc) + sums) / (failed * passed), 0.0))


def rows_of(result: Correlations) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and rows of text: the correlation matrix, the number of samples, and the predictions."""
    names = ("metric", *result.metrics, "samples", *(("AUC", "± s.e.", *THIRDS) if result.predictions else ()))
    rows = []
    for i, name in enumerate(result.metrics):
        cells = [name, *map(decimal, result.rho[i]), f"{result.n[i][i]:,}"]
        if result.predictions:
            prediction = result.predictions[name]
            cells += [decimal(prediction.auc, signed=False), decimal(prediction.error, signed=False)]
            cells += [f"{passed / total:.0%}" if total else NONE for passed, total in prediction.thirds]
        rows.append(tuple(cells))
    return names, rows


def decimal(value: float | None, *, signed: bool = True) -> str:
    """The value with two decimals and, when ``signed``, its sign; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.lstrip("+-") if signed and float(text) == 0 else text.replace("-", "−")


def caption(result: Correlations) -> str:
    """A caption of the table, with the number of passed and failed samples."""
    text = "Spearman's rank correlation over the samples that both metrics score."
    if not result.predictions:
        return text
    first = next(iter(result.predictions.values()))
    return (
        f"{text} AUC: probability that a failed sample is harder than a passed one; 0.50 is chance "
        f"({first.passed:,} passed and {first.failed:,} failed scored by {result.metrics[0]}). Last columns: share "
        "passed in each third of the samples by that metric."
    )


def markdown(result: Correlations) -> str:
    """The table and its caption as Markdown that ends in a newline."""
    names, rows = rows_of(result)
    rule = ("---", *("---:" for _ in names[1:]))
    lines = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (names, rule, *rows)
    )
    return f"{lines}\n\n{caption(result)}\n"


def html_fragment(result: Correlations) -> str:
    """The table and its caption as HTML; names are escaped, since column names come from users."""
    names, rows = rows_of(result)
    head = "".join(f'<th scope="col"{_class(index)}>{html.escape(name)}</th>' for index, name in enumerate(names))
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
        f'<p class="intro">{html.escape(caption(result))}</p>\n'
    )


def write_correlations(result: Correlations, out: Path | str, *, title: str, passes: str = "") -> Path:
    """Write the table to ``out``, a self-contained .html page or .md; return the path.

    ``title`` names the samples and ``passes`` the source of per-sample results. Raises
    ``UserError`` for another kind of file and ``StorageFailed`` when it cannot be written.
    """
    out = Path(out)
    heading = f"{TITLE.removeprefix('# ')}{title} agree"
    if out.suffix.lower() == ".html":
        text = _page(heading, html_fragment(result), passes)
    elif out.suffix.lower() == ".md":
        text = "\n\n".join(block for block in (f"# {heading}", passes, markdown(result)) if block)
    else:
        raise UserError("a correlation report is HTML or Markdown", where=out, allowed=".html, .md")
    with replacing(out) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return out


def _page(heading: str, table: str, passes: str) -> str:
    from importlib.resources import files

    from .figures import DARK, LIGHT

    light, dark = ("".join(f"--{name}: {colour};" for name, colour in colours.items()) for colours in (LIGHT, DARK))
    style = (files(__package__) / "report.css").read_text("utf-8")
    heading = html.escape(heading)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{GENERATOR}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading} · Gradatim</title>\n<style>\n:root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{style}</style>\n</head>\n<body>\n"
        f'<header class="top">\n<p class="brand">Gradatim <span>difficulties</span></p>\n<h1>{heading}</h1>\n'
        f'<p class="lede">{html.escape(passes)}</p>\n</header>\n<main>\n<section>\n{table}</section>\n'
        "</main>\n</body>\n</html>\n"
    )


def _class(column: int) -> str:
    return ' class="n"' if column else ""


@dataclass(frozen=True)
class Passes:
    """Whether the model passed the sample of each id; ``description`` names the source of the results."""

    by_id: Mapping[str, bool]
    description: str


def read_passes(path: str | Path) -> Passes:
    """Per-sample results of a file (.parquet or .jsonl) or a run folder.

    Columns of a file: ``id``, and ``outcome`` (as in the verdicts of an evaluation), ``passed`` (boolean) or
    ``verdict`` (as in a run's feedback); ``unjudged`` and ``not evaluated`` rows are skipped. A sample with several
    rows is passed when more than half of them are. For a run: the feedback of the last cycle that has one, else the
    verdicts of the last evaluation, of the suite ``output`` if there are several, else its examples. Raises
    ``DataError`` for an unreadable file, missing columns, invalid values, and a run without results.
    """
    path = Path(path)
    if not path.is_dir():
        return Passes(_of_file(path), f"Results of {path.name}.")
    feedback = sorted(path.glob("cycle-*/feedback.parquet"))
    if feedback:
        return Passes(_of_file(feedback[-1]), f"Verdicts after {feedback[-1].parent.name} of {path.name}.")
    if verdicts := [evaluation for evaluation in evaluations(path) if evaluation.has_verdicts]:
        last = max(verdicts, key=lambda item: (item.cycle, item.stage, _is_headline(item.result)))
        return Passes(
            _of_file(last.path.with_suffix(".parquet")),
            f"Verdicts of {last.label} after the stage {last.stage_name} of {path.name}.",
        )
    result = next(_with_examples(path), None)
    if result is None:
        raise DataError(
            "no run with per-sample results", where=path, allowed="a run folder with feedback.parquet or evaluations"
        )
    return Passes(
        {str(example["id"]): bool(example["passed"]) for example in result.examples},
        f"Stored examples of the suite {result.suite} ({result.protocol}) after the last stage of {path.name}: a few "
        "correct and wrong ones, so the share passed is not an accuracy.",
    )


def _with_examples(folder: Path) -> Iterator[SuiteResult]:
    """The evaluations of the last stage with examples, the main one first."""
    notes: list[str] = []
    stages = read_run(folder, "run", 0, notes, examples=False).stages
    if notes:
        raise DataError("the run's results cannot be read", where=folder, given=notes[0])
    results = [result for result in (stages[-1].evaluations if stages else ()) if result.examples]
    yield from sorted(results, key=_is_headline, reverse=True)


def _is_headline(result: SuiteResult) -> bool:
    return (result.suite, result.protocol) == HEADLINE


def _of_file(path: Path) -> dict[str, bool]:
    from ..table.formats import chunks_of, format_of

    where, counts = str(path), dict[str, list[int]]()
    for chunk in chunks_of(where, format_of(where), 65_536, _refused(where)):
        kind = next((name for name in ("outcome", "passed", "verdict") if name in chunk.columns), None)
        if kind is None or "id" not in chunk.columns:
            allowed = "id, and outcome, passed or verdict"
            raise DataError(
                "a column is missing",
                where=where,
                given=", ".join(chunk.columns),
                allowed=allowed,
            )
        names, verdicts = _plain(chunk.columns["id"]), _plain(chunk.columns[kind])
        for number, name, verdict in zip(chunk.numbers, names, verdicts, strict=True):
            if verdict in ("unjudged", "not evaluated"):
                continue
            if name is None or not isinstance(verdict, bool if kind == "passed" else str):
                given = f"{kind} {verdict!r}"
                raise DataError("invalid result", where=f"{where}, row {number}", given=given)
            tally = counts.setdefault(str(name), [0, 0])
            tally[0] += verdict is True or verdict == "passed"
            tally[1] += 1
    return {name: 2 * passed > total for name, (passed, total) in counts.items()}


def _plain(values: Any) -> Any:
    return values if isinstance(values, list) else values.to_pylist()


def _refused(where: str) -> Any:
    from ..table.rows import UNPARSED

    def refuse(row: int, cause: str, content: str) -> None:
        given = None if cause in UNPARSED else repr(content[:60])
        raise DataError(cause, where=f"{where}, row {row}", given=given)

    return refuse
