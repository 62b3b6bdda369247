"""What samples does a file hold, and which of its rows could not be used?

Rows stream in batch by batch from any format of ``chunks``. A column mapping (ours -> theirs) says what the file's
columns mean: ``{"prompt": "instruction", "answer": "output"}`` for pairs, ``{"answer": "code"}`` for code to
complete (the prompt is then empty), ``rejected`` for the faulty answer of a pair. Without a mapping, columns of
our names are taken as they are, and columns of floats as metrics; rows of instruction data are recognised by their
columns and become pairs (``instruction``). A row that cannot be used is never fatal: it goes into the ``ReadReport``
with its number, its cause and its content. A column that is missing or of the wrong type is fatal, and so is a file in
which no row is left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, did_you_mean
from ..files import open_input
from .chunks import FORMATS, Chunk, chunks_of, format_of
from .instruction import SHAPES, converted, shape_of
from .schema import COLUMNS, LABELS, complete, fit, kind_of
from .write import ROWS, replacing

__all__ = ["UNPARSED", "ReadReport", "Rejected", "is_rejected_file", "read_table", "rejected_file", "stream_table"]


UNPARSED = ("not UTF-8", "not JSON", "not a JSON object")
"""Causes that make a file one of another kind, perhaps: its lines are not repeated on the terminal."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used: its number from 1 (in text and JSON lines: its line), why, and what it said."""

    row: int
    cause: str
    content: str


@dataclass
class ReadReport:
    """What became of a file's rows; filled while they are read. ``ignored`` columns were not asked for."""

    path: str = ""
    kept: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    ignored: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for a run's record: kept, rejected (by cause), ignored (column names)."""
        causes = Counter(row.cause for row in self.rejected)
        return {"kept": self.kept, "rejected": dict(sorted(causes.items())), "ignored": list(self.ignored)}

    def write_rejected(self, output: Path | str) -> Path | None:
        """Write the rejected rows beside ``output``, as NAME.rejected.jsonl; return that path.

        Each line has the keys row, cause and content. Without rejected rows nothing is written, an older file of
        that name is removed, and None is returned. A file that is no such list is neither replaced nor removed:
        ``DataError``. Raises ``StorageFailed`` when the folder is not writable.
        """
        beside = rejected_file(output)
        if beside.exists() and not is_rejected_file(beside):
            if not self.rejected:
                return None
            raise DataError("this file does not hold rejected rows, so it is not replaced", where=beside)
        if not self.rejected:
            beside.unlink(missing_ok=True)
            return None
        with replacing(beside) as file:
            for row in sorted(self.rejected, key=lambda row: row.row):
                line = {"row": row.row, "cause": row.cause, "content": row.content}
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        return beside


def rejected_file(output: Path | str) -> Path:
    """Where the rejected rows of ``output`` are written."""
    return Path(output).with_suffix(".rejected.jsonl")


def is_rejected_file(path: Path) -> bool:
    """Whether ``path`` holds rejected rows, by its first line; an empty file holds nothing else."""
    try:
        with open_input(path) as file:
            first = next(file, b"")
        if not first:
            return True
        row = json.loads(first)
    except (DataError, OSError, ValueError):
        return False
    return isinstance(row, dict) and list(row) == ["row", "cause", "content"]


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

    ``path`` is a .parquet, .jsonl, .json (lines) or .txt file (the last three also .gz), a folder saved by the
    package ``datasets``, or ``hub:NAME`` (``hub:NAME:CONFIG``); ``#SPLIT`` after the last two names a split.
    ``format`` (parquet, jsonl, text, datasets) overrules the ending; alpaca and chat say what the rows are, as their
    columns do when there is no mapping. ``language`` is given to samples without one,
    before their ids are computed; text is Python unless it says otherwise. ``report`` hears what was kept,
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
        if shape is not None:
            chunk = converted(chunk, shape, reject, where, first=mapping is None)
        if mapping is None:
            mapping = _mapping(columns, chunk, where)
            report.ignored = tuple(name for name in chunk.columns if name not in mapping.values())
        kept = _conform(chunk, mapping, language, report)
        if kept is not None:
            report.kept += kept.num_rows
            yield kept
    if not report.kept:
        raise _nothing_left(report)


def _no_format(where: str, format: str) -> DataError:
    known = [*FORMATS, *SHAPES]
    return DataError(
        "there is no such format", where=where, given=format, allowed=", ".join(known), hint=did_you_mean(format, known)
    )


def _nothing_left(report: ReadReport) -> DataError:
    if not report.rejected:
        return DataError("the file has no samples", where=report.path)
    first = min(report.rejected, key=lambda row: row.row)
    array = first.row == 1 and first.content.startswith("[")
    return DataError(
        f"no row can be used; the first is rejected: {first.cause}",
        where=f"{report.path}, row {first.row}",
        given=None if first.cause in UNPARSED else repr(first.content[:60]),
        allowed="one JSON object on each line" if array else None,
        hint="jq -c '.[]' turns an array into lines" if array else None,
    )


def _mapping(columns: Mapping[str, str] | None, chunk: Chunk, where: str) -> dict[str, str]:
    """Ours -> theirs for the columns to take; a ``DataError`` for one that is not there."""
    there = list(chunk.columns)
    if columns is None:
        taken = {name: name for name in there if name in COLUMNS or name in LABELS or _is_metric(chunk.columns[name])}
        if "answer" not in taken:
            raise DataError(
                "there is no column 'answer'",
                where=where,
                given=", ".join(there),
                hint=did_you_mean("answer", there) or "name it in a column mapping, such as answer: COLUMN",
            )
        return taken
    if "answer" not in columns:
        raise DataError(
            "the column mapping must name the answer",
            where=where,
            given=dict(columns),
            allowed="answer: COLUMN, …",
        )
    for ours, theirs in columns.items():
        if theirs not in there:
            raise DataError(
                f"there is no column {theirs!r} to take as {ours!r}",
                where=where,
                allowed=", ".join(there),
                hint=did_you_mean(theirs, there),
            )
    return dict(columns)


def _is_metric(values: list[Any] | pa.Array) -> bool:
    """Whether a column that nobody named looks like a metric: floats, or in JSON floats and whole numbers."""
    if not isinstance(values, list):
        return bool(pa.types.is_floating(values.type))
    kinds = {type(value) for value in values} - {type(None)}
    return float in kinds and kinds <= {float, int}


def _conform(
    chunk: Chunk, mapping: Mapping[str, str], language: str | None, report: ReadReport
) -> pa.RecordBatch | None:
    """The usable rows of ``chunk`` in our schema, None when there are none; the others go to ``report``."""
    rows = len(chunk.numbers)
    fitted, causes = _fitted(chunk, mapping, report.path)
    for cause, rejected in _unusable(fitted).items():
        for row in np.flatnonzero(rejected).tolist():
            causes.setdefault(row, cause)
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


def _fitted(chunk: Chunk, mapping: Mapping[str, str], where: str) -> tuple[dict[str, pa.Array], dict[int, str]]:
    """The columns that ``mapping`` takes, by our names, and the cause for each row that does not fit."""
    causes: dict[int, str] = {}
    fitted: dict[str, pa.Array] = {}
    for ours, theirs in mapping.items():
        values = chunk.columns.get(theirs)  # in JSON lines a key may be missing from a whole chunk
        try:
            fitted[ours], misfits = fit(ours, [None] * len(chunk.numbers) if values is None else values)
        except DataError as error:
            what = f"{error.what} (theirs: {theirs!r})" if ours != theirs else error.what
            raise DataError(what, where=where, given=error.given, allowed=error.allowed, hint=error.hint) from error
        for row in misfits:
            causes.setdefault(row, f"{ours} is no {'number' if kind_of(ours) == 'metric' else 'text'}")
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
