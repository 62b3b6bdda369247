"""Reading of samples from files, with a column mapping and a report on unusable rows, and atomic writing.

Rows are streamed in batches from all formats of ``formats``. A column mapping (ours -> theirs) defines the meaning of
the file's columns: ``{"prompt": "instruction", "answer": "output"}`` for pairs, ``{"answer": "code"}`` for code
completion (the prompt is then empty), ``{"messages": "dialog"}`` for conversations, ``rejected`` for the rejected
answer of a pair, ``system`` and ``history`` for text before the question. The default mapping takes columns of our
names, and numeric columns as metrics; instruction data is recognised by its columns and converted to pairs
(``instruction``). CSV has no types: ``typed`` converts numbers where a column needs them. An unusable row is not fatal:
the ``ReadReport`` gets its number, cause and content. A missing column, a column of the wrong type and a file without
usable rows are fatal.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import DataError, did_you_mean
from ..files import open_input, replacing
from .formats import FORMATS, Chunk, Reject, chunks_of, format_of
from .instruction import (
    CONTEXT,
    MESSAGES,
    PROMPTS,
    SHAPES,
    conversation_columns,
    convert,
    pair_columns,
    shape_columns,
    shape_of,
    text_fields,
    with_context,
)
from .mapped import mapped_table, slices
from .rows import EMPTY_ANSWER, UNPARSED, ReadReport, Rejected, divide, sample_blocks, sample_lines
from .schema import COLUMNS, LABELS, complete, fit, kind_of, texts, type_of
from .splits import first_rows

ROWS = 65_536  # samples in a row group, and by default in a batch


def write_table(table: pa.Table, path: Path | str) -> None:
    """Write ``table`` to ``path``: .parquet, .jsonl (or .json: the same lines) or .txt. See ``write_stream``.

    Formats: Parquet (zstd, row groups of a fixed size independent of the batches, so the same samples give the same
    bytes), JSON lines (one object per sample with all columns; a metric that is not finite is null), and text
    (prompt and answer only, samples separated by a blank line). The content goes to a temporary file, which is
    flushed and renamed, so readers see the old file or the new one.
    """
    write_stream(slices(table), path, schema=table.schema)


def write_stream(
    batches: Iterable[pa.RecordBatch | pa.Table], path: Path | str, schema: pa.Schema | None = None
) -> int:
    """Write ``batches``, all with the columns of the first, to ``path``, and return the number of samples.

    A missing folder is created. ``schema`` is needed for an empty table. Raises ``DataError`` for an unknown format,
    for batches whose columns differ, and for samples that text cannot represent; ``StorageFailed`` when the disk is
    full or not writable. An existing file is unchanged after an error.
    """
    path = Path(path)
    check_format(path)
    writer = _WRITERS[path.suffix.lower()]
    stream = iter(batches)
    if schema is None:
        first = next(stream, None)
        if first is None:
            raise DataError("there are no samples to write", where=path)
        schema, stream = first.schema, chain([first], stream)
    with replacing(path) as file:
        return writer(file, _regrouped(stream, schema, path), schema, path)


def check_format(path: Path) -> None:
    """Raise ``DataError`` when no format has the suffix of ``path``."""
    if path.suffix.lower() not in _WRITERS:
        raise DataError("no format has this ending", where=path, given=path.suffix or "none", allowed=_endings())


def _endings() -> str:
    return ", ".join(_WRITERS)


def is_written(path: Path) -> bool:
    """Whether this module wrote ``path``: its columns begin with the schema's, in the same order.

    In text the first sample must be a program, the line ``# output`` and only comments.
    """
    suffix = path.suffix.lower()
    with open_input(path) as file:
        if suffix == ".parquet":
            return list(pq.ParquetFile(file).schema_arrow.names[: len(COLUMNS)]) == list(COLUMNS)
        if suffix == ".txt":
            _, block = next(sample_blocks(file), (0, b""))
            pair = divide(block.decode())
            return pair is not None and all(line.startswith("#") for line in pair[1].splitlines())
        row = json.loads(next(file, b"null"))
        return isinstance(row, dict) and list(row)[: len(COLUMNS)] == list(COLUMNS)


def _regrouped(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, path: Path) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ``ROWS`` (the last may be shorter), dictionaries of labels in order of appearance."""
    buffer: list[pa.Table] = []
    buffer_rows = 0
    for batch in batches:
        if batch.schema.names != schema.names:
            raise DataError(
                "batches of one file must have the same columns",
                where=path,
                given=", ".join(batch.schema.names),
                allowed=", ".join(schema.names),
            )
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        buffer.append(table.cast(schema))
        buffer_rows += table.num_rows
        while buffer_rows >= ROWS:
            rows = pa.concat_tables(buffer)
            yield _one_batch(rows.slice(0, ROWS))
            buffer, buffer_rows = [rows.slice(ROWS)], buffer_rows - ROWS
    if buffer_rows:
        yield _one_batch(pa.concat_tables(buffer))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type).combine_chunks().dictionary_encode().cast(field.type)
        else:
            column = column.combine_chunks()
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _write_parquet(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=ROWS)
            rows += batch.num_rows
    return rows


def _write_json_lines(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    metrics = [field.name for field in schema if type_of(field.name) == pa.float64()]
    rows = 0
    for batch in batches:
        for row in batch.to_pylist():
            for name in metrics:  # JSON has no NaN; a null metric is read as NaN
                row[name] = row[name] if row[name] is not None and math.isfinite(row[name]) else None
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        rows += batch.num_rows
    return rows


def _write_text(file: BinaryIO, batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows, code_only = 0, False
    for batch in batches:
        pairs = zip(batch["prompt"].to_pylist(), batch["answer"].to_pylist(), strict=True)
        for row, (prompt, answer) in enumerate(pairs, start=rows):
            code_only = prompt == "" if not row else code_only
            lines = sample_lines(prompt, answer, code_only)
            if lines is None:
                raise DataError(
                    "this sample cannot be restored from the text format",
                    where=f"{path}, row {row}",
                    given=repr((prompt + answer)[:60]),
                    allowed="lines up to '# output' and further lines, none of them blank; or only code in all rows",
                    hint="write .jsonl or .parquet",
                )
            file.write(lines)
        rows += batch.num_rows
    return rows


_Writer = Callable[[Any, Iterator[pa.RecordBatch], pa.Schema, Path], int]
_WRITERS: dict[str, _Writer] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
    ".json": _write_json_lines,
    ".txt": _write_text,
}


def mapping_of(columns: Mapping[str, str] | None, chunk: Chunk, names: list[str], where: str) -> dict[str, str]:
    """Mapping (ours -> theirs) of the columns to read; ``DataError`` for one that is not in ``names``."""
    names = list(dict.fromkeys(names))
    if columns is None:
        mapping = {name: name for name in chunk.columns if name in COLUMNS or name in LABELS or is_metric(name, chunk)}
        if "answer" not in mapping:
            raise DataError(
                "there is no column 'answer'",
                where=where,
                given=", ".join(names),
                hint=_mapping_hint(names, conversation_columns(chunk)),
            )
        return mapping
    if "answer" not in columns:
        raise DataError(
            "the column mapping must name the answer",
            where=where,
            given=dict(columns),
            allowed="answer: COLUMN, …",
        )
    mapping = {ours: theirs for ours, theirs in columns.items() if ours not in CONTEXT}
    if len(mapping) < len(columns):  # the context is the question of a file without questions
        mapping.setdefault("prompt", "prompt")
    for ours, theirs in {**columns, **mapping}.items():
        if theirs not in names:
            raise _no_column(ours, theirs, names, where)
    return mapping


def _no_column(ours: str, theirs: str, names: Sequence[str], where: str) -> DataError:
    return DataError(
        f"there is no column {theirs!r} to take as {ours!r}",
        where=where,
        allowed=", ".join(names),
        hint=did_you_mean(theirs, names),
    )


def _mapping_hint(names: Sequence[str], conversations: Sequence[str]) -> str:
    if conversations:
        column = conversations[0]
        return f"a column mapping, --columns messages={column} or data.columns: {{messages: {column}}}"
    answer = next(iter(get_close_matches("answer", names, n=1, cutoff=0.6)), "COLUMN")
    return (
        f"a column mapping, --columns prompt=COLUMN,answer={answer} or data.columns: {{prompt: COLUMN, "
        f"answer: {answer}}}; answer alone is code to complete"
    )


def is_metric(name: str, chunk: Chunk) -> bool:
    """Whether an unmapped column is numeric and so a metric; in CSV, a column of texts that are numbers."""
    values = chunk.columns[name]
    if kind_of(name) != "metric":
        return False
    if not isinstance(values, list):
        return bool(pa.types.is_floating(values.type) or pa.types.is_integer(values.type))
    cells = [value for value in values if value is not None]
    if chunk.untyped:
        cells = [_number(value) for value in cells]
    return bool(cells) and {type(value) for value in cells} <= {float, int}


def _number(text: Any) -> Any:
    """Number in a cell of CSV, or the cell itself."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def typed(name: str, values: list[Any]) -> list[Any]:
    """Cells of CSV converted for the column ``name``: an empty prompt is valid, metrics are numbers."""
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
    """All samples of ``path``, memory-mapped if they are large (``mapped``); options of ``stream_table``.

    ``report`` also receives the number of rows that repeat an earlier one.
    """
    report = ReadReport() if report is None else report
    table = mapped_table(stream_table(path, columns=columns, format=format, language=language, report=report))
    report.repeated = table.num_rows - int(first_rows(texts(part) for part in slices(table)).sum())
    return table


def stream_table(
    path: Path | str,
    batch: int = ROWS,
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    language: str | None = None,
    report: ReadReport | None = None,
) -> Iterator[pa.RecordBatch]:
    """Batches of at most ``batch`` samples of ``path`` in the schema of ``make_table``.

    ``path`` is a .parquet, .jsonl, .json (lines or an array), .csv, .tsv or .txt file (all but the first also .gz), a
    folder of Parquet files, a folder saved by the package ``datasets``, or ``hub:NAME`` (``hub:NAME:CONFIG``); the last
    two may end in ``#SPLIT``.
    ``format`` (parquet, jsonl, csv, text, datasets) overrides the suffix; alpaca and chat are shapes of rows, otherwise
    recognised by the columns if there is no mapping. ``language``: for samples without one, set before their ids are
    computed; Python by default for text. ``report`` receives the counts of rows kept, rejected and ignored.

    Raises ``DataError`` when the file is missing or unreadable, a column is missing or of the wrong type, or no row is
    usable.
    """
    report = ReadReport() if report is None else report
    report.path, where = str(path), str(path)
    shape = format if format in SHAPES else None
    option, format = format, format_of(where) if format is None or shape else format
    if format not in FORMATS:
        raise _no_format(where, format)
    language = language or ("python" if format == "text" else None)

    def reject(row: int, cause: str, content: str) -> None:
        report.rejected.append(Rejected(row, cause, content))

    mapping: dict[str, str] | None = None
    guessed, chunks = columns is None, chunks_of(where, format, batch, reject)
    if columns is not None and not columns.keys().isdisjoint(MESSAGES):
        _check_conversations(columns, shape, where)
        chunks = _renamed(chunks, columns, report)
        shape, option, columns = "chat", "chat", None
    for chunk in chunks:
        if mapping is None and columns is None and option is None:
            text_columns = [name for name in chunk.columns if not is_metric(name, chunk)]
            shape = shape_of(text_columns)
            report.read_as = _recognised(text_columns, shape)
            report.read_by = text_fields(text_columns) if format == "jsonl" else ()
        elif mapping is None and columns is not None:
            report.unmapped = _prompt_candidates(chunk, columns)
        if report.read_by:
            report.fields.update(_fields_of_rows(chunk))
        file_columns = chunk.columns
        chunk, used = _with_shape(chunk, shape, columns, reject, report, first=mapping is None)
        if mapping is None:
            mapping = mapping_of(columns, chunk, [*file_columns, *chunk.columns], where)
        elif columns is None:  # in JSON lines a key may appear late
            mapping |= {name: name for name in chunk.columns if name in COLUMNS}
        sources = set(mapping.values()) - ({"prompt"} if shape else set())  # a shape creates the prompts
        unused = [name for name in file_columns if name not in used and name not in sources]
        report.ignored = tuple(dict.fromkeys([*report.ignored, *unused]))
        samples = _conform(chunk, mapping, language, report, guessed=guessed)
        if samples is not None:
            report.kept += samples.num_rows
            yield samples
    if not report.kept:
        raise _no_usable_row(report)


def _check_conversations(columns: Mapping[str, str], shape: str | None, where: str) -> None:
    """Raise ``DataError`` for a mapping of a column of conversations that also names what these have."""
    others = [name for name in ("prompt", "answer", *MESSAGES) if name in columns]
    if len(others) > 1 or shape == "alpaca":
        raise DataError(
            "conversations have the prompts and the answers, so that a mapping names nothing else for them",
            where=where,
            given=dict(columns) if len(others) > 1 else f"format {shape}",
            allowed="messages: COLUMN, with system, labels and metrics",
        )


def _renamed(chunks: Iterable[Chunk], columns: Mapping[str, str], report: ReadReport) -> Iterator[Chunk]:
    """``chunks`` with the columns of the mapping alone, under our names; the others are added to ``report.ignored``.

    ``DataError`` for a column that the first chunk has not.
    """
    first = True
    for chunk in chunks:
        for ours, theirs in columns.items() if first else ():
            if theirs not in chunk.columns:
                raise _no_column(ours, theirs, list(chunk.columns), report.path)
        first = False
        named = {ours: chunk.columns[theirs] for ours, theirs in columns.items() if theirs in chunk.columns}
        unused = [name for name in chunk.columns if name not in columns.values()]
        report.ignored = tuple(dict.fromkeys([*report.ignored, *unused]))
        yield Chunk(chunk.numbers, named, chunk.untyped)


def _fields_of_rows(chunk: Chunk) -> Counter[tuple[str, ...]]:
    """The numbers of rows by ``text_fields`` of the fields that they have; rows without an answer are left out."""
    names, columns = list(chunk.columns), list(chunk.columns.values())
    present = Counter(tuple(value is not None for value in values) for values in zip(*columns, strict=True))
    counts: Counter[tuple[str, ...]] = Counter()
    for mask, count in present.items():
        counts[text_fields(name for name, here in zip(names, mask, strict=True) if here)] += count
    del counts[()]
    return counts


def _with_shape(
    chunk: Chunk,
    shape: str | None,
    columns: Mapping[str, str] | None,
    reject: Reject,
    report: ReadReport,
    *,
    first: bool,
) -> tuple[Chunk, set[str]]:
    """``chunk`` with columns of prompts and answers, and the file's columns they were made of."""
    if shape is not None:
        sources = shape_columns(chunk.columns, shape)
        return convert(chunk, shape, reject, report.path, remarks=report.remarks, first=first), set(sources)
    if columns is None:
        names = {name: name for name in CONTEXT if name in chunk.columns and not is_metric(name, chunk)}
    else:
        names = {ours: theirs for ours, theirs in columns.items() if ours in CONTEXT and theirs in chunk.columns}
    prompt = "prompt" if columns is None else columns.get("prompt", "prompt")
    return (with_context(chunk, names, prompt, reject), set(names.values())) if names else (chunk, set())


def _recognised(names: Sequence[str], shape: str | None) -> dict[str, str]:
    """The columns of prompts and answers in a shape that is recognised by usual names, ours -> theirs."""
    if shape == "text":
        return {"answer": shape_columns(names, shape)[0]}
    pair = zip(("prompt", "answer"), pair_columns(names), strict=True) if shape == "pairs" else ()
    return {ours: theirs for ours, theirs in pair if theirs is not None}


def _prompt_candidates(chunk: Chunk, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Usual names of prompts among the columns that a mapping without a prompt does not name."""
    if "prompt" in columns:
        return ()
    free = [name for name in PROMPTS if name in chunk.columns and name not in columns.values()]
    return tuple(name for name in free if not is_metric(name, chunk))


def _no_format(where: str, format: str) -> DataError:
    formats = [*FORMATS, *SHAPES]
    return DataError(
        "there is no such format",
        where=where,
        given=format,
        allowed=", ".join(formats),
        hint=did_you_mean(format, formats),
    )


def _no_usable_row(report: ReadReport) -> DataError:
    if not report.rejected:
        return DataError("the file has no samples", where=report.path)
    if report.mixed_fields:
        return DataError(f"no row can be used: {report.mixed_fields}", where=report.path, hint="a file for each")
    first = min(report.rejected, key=lambda row: row.row)
    return DataError(
        f"no row can be used; the first is rejected: {first.cause}",
        where=f"{report.path}, row {first.row}",
        given=None if first.cause in UNPARSED else repr(first.content[:60]),
    )


def _conform(
    chunk: Chunk, mapping: Mapping[str, str], language: str | None, report: ReadReport, *, guessed: bool
) -> pa.RecordBatch | None:
    """Usable rows of ``chunk`` in the schema, None without any; all others are added to ``report``."""
    rows = len(chunk.numbers)
    fitted, causes = _fit_columns(chunk, mapping, report.path, guessed=guessed)
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
    usable = np.ones(rows, bool)
    usable[list(causes)] = False
    return complete({name: array.filter(pa.array(usable)) for name, array in fitted.items()}, language)


def _fit_columns(
    chunk: Chunk, mapping: Mapping[str, str], where: str, *, guessed: bool
) -> tuple[dict[str, pa.Array], dict[int, str]]:
    """Columns of ``mapping`` by our names, and the cause for each row with an invalid value.

    ``guessed``: metrics were recognised by their values, so that an invalid value is a missing one.
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
            problem = f"{error.message} (theirs: {theirs!r})" if ours != theirs else error.message
            raise DataError(problem, where=where, given=error.given, allowed=error.allowed, hint=error.hint) from error
        if metric and guessed:
            fitted[ours] = fitted[ours].fill_null(float("nan"))
            continue
        for row in misfits:
            causes.setdefault(row, f"{ours} is no {'number' if metric else 'text'}")
    return fitted, causes


def _unusable(fitted: Mapping[str, pa.Array]) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks of rows without content, by cause."""
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
