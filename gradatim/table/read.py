"""Which column of a file is which of ours?

``mapping_of`` checks a mapping (ours -> theirs), or makes one of the columns that have our names and those that look
like metrics. CSV has no types: ``typed`` reads numbers where a column is to hold some.

What samples does a file hold, and which of its rows could not be used?

Rows stream in batch by batch from any format of ``chunks``. A column mapping (ours -> theirs) says what the file's
columns mean: ``{"prompt": "instruction", "answer": "output"}`` for pairs, ``{"answer": "code"}`` for code to
complete (the prompt is then empty), ``rejected`` for the faulty answer of a pair, ``system`` and ``history`` for what
stands before the question. Without a mapping, columns of our names are taken as they are, and columns of numbers as
metrics; rows of instruction data are recognised by their columns and become pairs (``instruction``). A row that cannot
be used is never fatal: it goes into the ``ReadReport`` with its number, its cause and its content. A column that is
missing or of the wrong type is fatal, and so is a file in which no row is left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, did_you_mean
from .formats import FORMATS, Chunk, Reject, chunks_of, format_of
from .instruction import CONTEXT, SHAPES, converted, own_columns, shape_of, with_context
from .report import EMPTY_ANSWER, UNPARSED, ReadReport, Rejected, is_rejected_file, rejected_file
from .schema import COLUMNS, LABELS, complete, fit, kind_of
from .write import ROWS

__all__ = [
    "UNPARSED",
    "ReadReport",
    "Rejected",
    "is_metric",
    "is_rejected_file",
    "mapping_of",
    "read_table",
    "rejected_file",
    "stream_table",
    "typed",
]


def mapping_of(columns: Mapping[str, str] | None, chunk: Chunk, there: list[str], where: str) -> dict[str, str]:
    """Ours -> theirs for the columns to take; a ``DataError`` for one that is not ``there``."""
    there = list(dict.fromkeys(there))
    if columns is None:
        taken = {name: name for name in chunk.columns if name in COLUMNS or name in LABELS or is_metric(name, chunk)}
        if "answer" not in taken:
            raise DataError(
                "there is no column 'answer'",
                where=where,
                given=", ".join(there),
                hint=did_you_mean("answer", there)
                or "name it in a column mapping, such as answer: COLUMN under data.columns, or --columns answer=COLUMN",
            )
        return taken
    if "answer" not in columns:
        raise DataError(
            "the column mapping must name the answer",
            where=where,
            given=dict(columns),
            allowed="answer: COLUMN, …",
        )
    named = {ours: theirs for ours, theirs in columns.items() if ours not in CONTEXT}
    if len(named) < len(columns):  # a question is made of what stands before it where the file has none
        named.setdefault("prompt", "prompt")
    for ours, theirs in {**columns, **named}.items():
        if theirs not in there:
            raise DataError(
                f"there is no column {theirs!r} to take as {ours!r}",
                where=where,
                allowed=", ".join(there),
                hint=did_you_mean(theirs, there),
            )
    return named


def is_metric(name: str, chunk: Chunk) -> bool:
    """Whether a column that nobody named looks like a metric: numbers, in CSV texts that are numbers."""
    values = chunk.columns[name]
    if kind_of(name) != "metric":
        return False
    if not isinstance(values, list):
        return bool(pa.types.is_floating(values.type) or pa.types.is_integer(values.type))
    there = [value for value in values if value is not None]
    if chunk.untyped:
        there = [_number(value) for value in there]
    return bool(there) and {type(value) for value in there} <= {float, int}


def _number(text: Any) -> Any:
    """The number that a cell of CSV spells, else the cell."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def typed(name: str, values: list[Any]) -> list[Any]:
    """Cells of CSV as the column ``name`` takes them: an empty prompt is one, numbers are read where they are meant."""
    if name == "prompt":
        return ["" if value is None else value for value in values]
    return [_number(value) for value in values] if kind_of(name) == "metric" else values


def read_table(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    language: str | None = None,
    report: ReadReport | None = None,
) -> pa.Table:
    """All samples of ``path`` in memory; the arguments and errors are those of ``stream_table``."""
    batches = stream_table(path, columns=columns, format=format, language=language, report=report)
    return pa.Table.from_batches(batches).unify_dictionaries()


def stream_table(
    path: Path | str,
    batch: int = ROWS,
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    language: str | None = None,
    report: ReadReport | None = None,
) -> Iterator[pa.RecordBatch]:
    """The samples of ``path``, at most ``batch`` at a time, in the schema of ``make_table``.

    ``path`` is a .parquet, .jsonl, .json (lines or an array), .csv, .tsv or .txt file (all but the first also .gz), a
    folder saved by the package ``datasets``, or ``hub:NAME`` (``hub:NAME:CONFIG``); ``#SPLIT`` after the last two names
    a split. ``format`` (parquet, jsonl, csv, text, datasets) overrules the ending; alpaca and chat say what the rows
    are, as their columns do when there is no mapping. ``language`` is given to samples without one, before their ids
    are computed; text is Python unless it says otherwise. ``report`` hears what was kept,
    rejected and ignored.

    Raises ``DataError`` when the file is missing or unreadable, a column is missing or of the wrong type, or no
    row can be used.
    """
    report = ReadReport() if report is None else report
    report.path, where = str(path), str(path)
    shape = format if format in SHAPES else None
    asked, format = format, format_of(where) if format is None or shape else format
    if format not in FORMATS:
        raise _no_format(where, format)
    language = language or ("python" if format == "text" else None)

    def reject(row: int, cause: str, content: str) -> None:
        report.rejected.append(Rejected(row, cause, content))

    mapping: dict[str, str] | None = None
    for chunk in chunks_of(where, format, batch, reject):
        if mapping is None and columns is None and asked is None:
            shape = shape_of(chunk.columns)
        given = chunk.columns
        chunk, used = _shaped(chunk, shape, columns, reject, report, first=mapping is None)
        if mapping is None:
            mapping = mapping_of(columns, chunk, [*given, *chunk.columns], where)
        elif columns is None:  # in JSON lines a key may come late
            mapping |= {name: name for name in chunk.columns if name in COLUMNS}
        kept_as = set(mapping.values()) - ({"prompt"} if shape else set())  # a shape makes its own prompts
        unused = [name for name in given if name not in used and name not in kept_as]
        report.ignored = tuple(dict.fromkeys([*report.ignored, *unused]))
        kept = _conform(chunk, mapping, language, report, guessed=columns is None)
        if kept is not None:
            report.kept += kept.num_rows
            yield kept
    if not report.kept:
        raise _nothing_left(report)


def _shaped(
    chunk: Chunk,
    shape: str | None,
    columns: Mapping[str, str] | None,
    reject: Reject,
    report: ReadReport,
    *,
    first: bool,
) -> tuple[Chunk, set[str]]:
    """``chunk`` with prompts and answers in columns of their own, and the file's columns that were read for them."""
    if shape is not None:
        own = own_columns(chunk.columns, shape)
        return converted(chunk, shape, reject, report.path, remarks=report.remarks, first=first), set(own)
    if columns is None:
        names = {name: name for name in CONTEXT if name in chunk.columns and not is_metric(name, chunk)}
    else:
        names = {ours: theirs for ours, theirs in columns.items() if ours in CONTEXT and theirs in chunk.columns}
    prompt = "prompt" if columns is None else columns.get("prompt", "prompt")
    return (with_context(chunk, names, prompt, reject), set(names.values())) if names else (chunk, set())


def _no_format(where: str, format: str) -> DataError:
    known = [*FORMATS, *SHAPES]
    return DataError(
        "there is no such format", where=where, given=format, allowed=", ".join(known), hint=did_you_mean(format, known)
    )


def _nothing_left(report: ReadReport) -> DataError:
    if not report.rejected:
        return DataError("the file has no samples", where=report.path)
    first = min(report.rejected, key=lambda row: row.row)
    return DataError(
        f"no row can be used; the first is rejected: {first.cause}",
        where=f"{report.path}, row {first.row}",
        given=None if first.cause in UNPARSED else repr(first.content[:60]),
    )


def _conform(
    chunk: Chunk, mapping: Mapping[str, str], language: str | None, report: ReadReport, *, guessed: bool
) -> pa.RecordBatch | None:
    """The usable rows of ``chunk`` in our schema, None when there are none; the others go to ``report``."""
    rows = len(chunk.numbers)
    fitted, causes = _fitted(chunk, mapping, report.path, guessed=guessed)
    masks = _unusable(fitted)
    for cause, rejected in masks.items():
        for row in np.flatnonzero(rejected).tolist():
            causes.setdefault(row, cause)
    empty = pc.equal(fitted["answer"], "").fill_null(False).to_numpy(zero_copy_only=False).copy()
    empty[list(causes)] = False
    if empty.any():
        report.remarks[EMPTY_ANSWER] += int(empty.sum())
    if not causes:
        return complete(fitted, language)
    for row in sorted(causes):
        content = {name: _plain(values[row]) for name, values in chunk.columns.items()}
        text = json.dumps(content, ensure_ascii=False, default=str)
        report.rejected.append(Rejected(int(chunk.numbers[row]), causes[row], text))
    if len(causes) == rows:
        return None
    kept = np.ones(rows, bool)
    kept[list(causes)] = False
    return complete({name: array.filter(pa.array(kept)) for name, array in fitted.items()}, language)


def _fitted(
    chunk: Chunk, mapping: Mapping[str, str], where: str, *, guessed: bool
) -> tuple[dict[str, pa.Array], dict[int, str]]:
    """The columns that ``mapping`` takes, by our names, and the cause for each row that does not fit.

    ``guessed``: metrics were taken because they looked like some; a value that is none is then missing.
    """
    causes: dict[int, str] = {}
    fitted: dict[str, pa.Array] = {}
    for ours, theirs in mapping.items():
        values = chunk.columns.get(theirs)  # in JSON lines a key may be missing from a whole chunk
        metric = kind_of(ours) == "metric"
        if chunk.untyped and isinstance(values, list):
            values = typed(ours, values)
        try:
            fitted[ours], misfits = fit(ours, [None] * len(chunk.numbers) if values is None else values)
        except DataError as error:
            what = f"{error.what} (theirs: {theirs!r})" if ours != theirs else error.what
            raise DataError(what, where=where, given=error.given, allowed=error.allowed, hint=error.hint) from error
        if metric and guessed:
            fitted[ours] = fitted[ours].fill_null(float("nan"))
            continue
        for row in misfits:
            causes.setdefault(row, f"{ours} is no {'number' if metric else 'text'}")
    return fitted, causes


def _unusable(fitted: Mapping[str, pa.Array]) -> dict[str, npt.NDArray[np.bool_]]:
    """By cause, which rows have nothing to learn from."""
    answer = fitted["answer"]
    prompt = fitted.get("prompt", pa.array([""] * len(answer), pa.large_string()))
    text = pc.binary_join_element_wise(prompt, answer, pa.scalar("", pa.large_string()))
    blank = pc.equal(pc.utf8_trim_whitespace(text), "").fill_null(False)
    masks = {
        "the answer is null": answer.is_null(),
        "the prompt is null": prompt.is_null(),
        "the text is empty": blank,
    }
    return {cause: mask.to_numpy(zero_copy_only=False) for cause, mask in masks.items()}


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value
