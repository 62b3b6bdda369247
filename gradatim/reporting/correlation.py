"""Do different difficulties mean the same, and do they say what a student gets wrong?

``correlations`` compares the metric columns of a table two by two: Spearman's rank correlation over the samples that
both can score. Where it is known which samples a student passed, each metric is also asked how well it tells failed
from passed ones: the area under the ROC curve (AUC), the chance that of one failed and one passed sample the failed
one is the harder (a tie counts half), with Hanley and McNeil's standard error (1982). 0.5 says nothing; less than 0.5
means that the metric is the wrong way round for this student. Beside it stands the accuracy in each third of the
samples, by that metric.

A figure that cannot be had (under three samples, a column without differences, none passed or none failed) is None,
never a number. Who passed is read in ``passes``; nothing here is computed from a model, and nothing is printed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UserError, did_you_mean
from ..files import replacing
from .html import GENERATOR, TITLE

__all__ = [
    "Correlations",
    "Prediction",
    "caption",
    "correlations",
    "html_fragment",
    "markdown",
    "rows_of",
    "write_correlations",
]


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Figures = npt.NDArray[np.float64]


LEAST = 3
"""Samples below which a rank correlation is not told: two points are always in perfect order."""

NONE = "–"

THIRDS = ("easiest third", "middle", "hardest")


@dataclass(frozen=True)
class Prediction:
    """How well a metric tells failed samples from passed ones; ``auc`` is None without both kinds.

    ``thirds``: (passed, all) of the easiest, the middle and the hardest third; samples of one difficulty stay together.
    """

    auc: float | None
    error: float | None
    passed: int
    failed: int
    thirds: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Correlations:
    """``rho[i][j]`` is the rank correlation of metrics i and j over ``n[i][j]`` samples; ``n[i][i]`` can be scored.

    ``predictions`` has one entry per metric when it was told which samples were passed, and is empty otherwise.
    """

    metrics: tuple[str, ...]
    rho: tuple[tuple[float | None, ...], ...]
    n: tuple[tuple[int, ...], ...]
    predictions: Mapping[str, Prediction]

    def data(self) -> dict[str, Any]:
        """Plain values: {"metrics", "spearman", "n"} and, when passes were told, "predictions"."""
        told: dict[str, Any] = {"metrics": list(self.metrics), "spearman": [list(row) for row in self.rho]}
        told["n"] = [list(row) for row in self.n]
        if self.predictions:
            told["predictions"] = {name: asdict(each) for name, each in self.predictions.items()}
        return told


def correlations(table: pa.Table, metrics: Sequence[str], passed: Mapping[str, bool] | None = None) -> Correlations:
    """Spearman's rank correlations of ``metrics``, float columns of ``table``; NaN takes no part.

    ``passed``: whether a student passed the sample with that id; samples that it does not name take no part in the
    predictions. Raises ``DataError`` for a column that is not there or no metric, and when ``passed`` names no sample
    of the table.
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
    import numpy as np
    import pyarrow as pa

    if name not in table.column_names:
        hint = did_you_mean(name, table.column_names)
        raise DataError(f"there is no column {name!r}", where="correlations", hint=hint)
    if not pa.types.is_floating(table.schema.field(name).type):
        raise DataError(f"the column {name!r} is no metric", where="correlations", given=table.schema.field(name).type)
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _spearman(left: Figures, right: Figures) -> tuple[float | None, int]:
    import numpy as np

    known = ~(np.isnan(left) | np.isnan(right))
    count = int(known.sum())
    if count < LEAST:
        return None, count
    one, two = (ranks(each[known]) - (count + 1) / 2 for each in (left, right))
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return (max(-1.0, min(1.0, float(one @ two) / scale)) if scale else None), count


def ranks(values: Figures) -> Figures:
    """The place of each value in ascending order, from 1; equal ones share the mean of their places."""
    import numpy as np

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Figures = np.cumsum(counts) - (counts - 1) / 2
    return middle[place]


def _predictions(table: pa.Table, columns: Mapping[str, Figures], passed: Mapping[str, bool]) -> dict[str, Prediction]:
    import numpy as np

    verdicts = [passed.get(name) for name in table["id"].to_pylist()]
    if all(verdict is None for verdict in verdicts):
        given = next(iter(passed), "none")
        raise DataError("the results are about none of these samples", where="correlations", given=f"id {given}")
    right, wrong = (np.array([verdict is kind for verdict in verdicts]) for kind in (True, False))
    return {name: _prediction(each[wrong], each[right]) for name, each in columns.items()}


def _prediction(failed: Figures, passed: Figures) -> Prediction:
    import numpy as np

    failed, passed = (each[~np.isnan(each)] for each in (failed, passed))
    f, p = len(failed), len(passed)
    places = ranks(np.concatenate([failed, passed]))
    third = np.minimum(3 * (places - 0.5) // max(f + p, 1), 2)
    thirds = tuple((int((third[f:] == each).sum()), int((third == each).sum())) for each in range(3))
    if not f or not p:
        return Prediction(None, None, p, f, thirds)
    auc = float(places[:f].sum() - f * (f + 1) / 2) / (f * p)
    return Prediction(auc, area_error(auc, f, p), p, f, thirds)


def area_error(auc: float, failed: int, passed: int) -> float:
    """The standard error of an area under the ROC curve, by Hanley and McNeil (1982)."""
    two_failed, two_passed = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    sums = (failed - 1) * (two_failed - auc * auc) + (passed - 1) * (two_passed - auc * auc)
    return math.sqrt(max((auc * (1 - auc) + sums) / (failed * passed), 0.0))


def rows_of(found: Correlations) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and rows of text: the matrix, then the number of samples, then what each metric predicts."""
    names = ("metric", *found.metrics, "samples", *(("AUC", "± s.e.", *THIRDS) if found.predictions else ()))
    rows = []
    for i, name in enumerate(found.metrics):
        cells = [name, *map(figure, found.rho[i]), f"{found.n[i][i]:,}"]
        if found.predictions:
            each = found.predictions[name]
            cells += [figure(each.auc, signed=False), figure(each.error, signed=False)]
            cells += [f"{passed / total:.0%}" if total else NONE for passed, total in each.thirds]
        rows.append(tuple(cells))
    return names, rows


def figure(value: float | None, *, signed: bool = True) -> str:
    """A correlation with its sign, an AUC without one, to two places; a dash where there is none."""
    if value is None:
        return NONE
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.lstrip("+-") if signed and float(text) == 0 else text.replace("-", "−")


def caption(found: Correlations) -> str:
    """What the table shows, in words, with the number of passed and failed samples."""
    said = "Spearman's rank correlation over the samples that both metrics can score."
    if not found.predictions:
        return said
    first = next(iter(found.predictions.values()))
    return (
        f"{said} AUC: the chance that a failed sample is harder than a passed one, 0.50 is chance "
        f"({first.passed:,} passed and {first.failed:,} failed under {found.metrics[0]}). Then how many were passed of "
        "each third of the samples by that metric."
    )


def markdown(found: Correlations) -> str:
    """The table and its caption as Markdown that ends in a newline."""
    names, rows = rows_of(found)
    marks = ("---", *("---:" for _ in names[1:]))
    lines = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (names, marks, *rows)
    )
    return f"{lines}\n\n{caption(found)}\n"


def html_fragment(found: Correlations) -> str:
    """The same as a table for the report's page; names are escaped, since columns are the user's."""
    names, rows = rows_of(found)
    head = "".join(f'<th scope="col"{_class(place)}>{html.escape(name)}</th>' for place, name in enumerate(names))
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
        f'<p class="intro">{html.escape(caption(found))}</p>\n'
    )


def write_correlations(found: Correlations, out: Path | str, *, title: str, passes: str = "") -> Path:
    """Write the table to ``out``: .html, a page that opens without a network, or .md; returns the path.

    ``title`` says what was scored and ``passes`` who passed what. Raises ``UserError`` for another kind of file and
    ``StorageFailed`` when the disk refuses.
    """
    out = Path(out)
    heading = f"{TITLE.removeprefix('# ')}{title} agree"
    if out.suffix.lower() == ".html":
        text = _page(heading, html_fragment(found), passes)
    elif out.suffix.lower() == ".md":
        text = "\n\n".join(part for part in (f"# {heading}", passes, markdown(found)) if part)
    else:
        raise UserError("a report of correlations is a page or a text", where=out, allowed=".html, .md")
    with replacing(out) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return out


def _page(heading: str, table: str, passes: str) -> str:
    from importlib.resources import files

    from .style import DARK, LIGHT

    light, dark = ("".join(f"--{name}: {colour};" for name, colour in each.items()) for each in (LIGHT, DARK))
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


def _class(place: int) -> str:
    return ' class="n"' if place else ""
