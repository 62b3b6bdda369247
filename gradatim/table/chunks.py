"""Which rows does a file hold, before anybody says what they mean?

Every format becomes a stream of chunks: the rows' numbers and their columns under the file's own names, as Arrow
arrays (Parquet, ``datasets``) or as plain lists (JSON, CSV, text). Lines that are not rows at all are handed to
``reject``. What cannot be opened is a ``DataError``. Which column means what, and which rows are fit, is decided
in ``read``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, did_you_mean
from ..files import check_input
from .csv_rows import csv_rows
from .json_rows import json_rows
from .opened import Chunk, Reject, opened
from .text import divide, sample_blocks

__all__ = ["FORMATS", "Chunk", "Reject", "chunks_of", "format_of"]


def format_of(path: str) -> str:
    """The format that the ending of ``path``, or what is there, speaks for; ``DataError`` when none does."""
    if path.startswith("hub:"):
        return "datasets"
    place = Path(path.partition("#")[0] if "#" in path and not Path(path).exists() else path)
    if not place.exists():
        near = [other.name for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError("there is no such file", where=path, hint=did_you_mean(place.name, near))
    if place.is_dir():
        return "datasets"
    endings = [ending.lower() for ending in place.suffixes]
    ending = endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else "".join(endings[-1:])
    if ending not in _ENDINGS:
        raise DataError(
            "no format has this ending",
            where=path,
            given=ending or "none",
            allowed=", ".join([*_ENDINGS, "hub:NAME"]),
        )
    return _ENDINGS[ending]


def chunks_of(path: str, format: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    """The chunks of ``path``, of at most ``rows`` rows each. Raises ``DataError`` when it cannot be read."""
    if format not in FORMATS:
        raise DataError(
            "there is no such format",
            where=path,
            given=format,
            allowed=", ".join(FORMATS),
            hint=did_you_mean(format, FORMATS),
        )
    yield from FORMATS[format](path, rows, reject)


def _text(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    with opened(path) as file:
        found = _divided(path, file, reject)
        while some := list(islice(found, rows)):
            numbers, prompts, answers = (list(column) for column in zip(*some, strict=True))
            yield Chunk(numbers, {"prompt": prompts, "answer": answers})


def _divided(path: str, lines: Iterable[bytes], reject: Reject) -> Iterator[tuple[int, str, str]]:
    code_only: bool | None = None  # settled by the first sample
    for number, block in sample_blocks(lines):
        if block.split(b"\n", 1)[0].endswith(b"\r"):
            raise DataError("the lines end as on Windows", where=f"{path}, line {number}", hint="sed -i 's/\\r$//'")
        try:
            text = block.decode()
        except UnicodeDecodeError:
            reject(number, "not UTF-8", block.decode("utf-8", "backslashreplace"))
            continue
        pair = divide(text)
        code_only = pair is None if code_only is None else code_only
        if code_only:
            yield number, "", text
        elif pair is not None:
            yield number, *pair
        else:
            reject(number, "no line '# output'", text)


def _parquet(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    first = 1
    try:
        check_input(path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                batch.validate(full=True)  # Parquet's own checks do not see text that is not UTF-8
                yield _arrow_chunk(path, first, batch)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        place = f"{path}, after row {first - 1}" if first > 1 else path
        raise DataError("this is not a readable Parquet file", where=place, given=error) from error


def _datasets(path: str, rows: int, reject: Reject) -> Iterator[Chunk]:
    first = 1
    for table in _dataset(path).with_format("arrow").iter(batch_size=rows):
        yield _arrow_chunk(path, first, table)
        first += table.num_rows


def _arrow_chunk(path: str, first: int, rows: pa.Table | pa.RecordBatch) -> Chunk:
    names = rows.schema.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError("two columns have the same name", where=path, given=", ".join(twice))
    return Chunk(range(first, first + rows.num_rows), dict(zip(names, rows.columns, strict=True)))


def _dataset(path: str) -> Any:
    """The saved or published dataset at ``path``: FOLDER, FOLDER#SPLIT, hub:NAME, hub:NAME:CONFIG#SPLIT."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "datasets are read by the package 'datasets'", where=path, hint="pip install 'gradatim[datasets]'"
        ) from error
    place, _, part = (path, "", "") if Path(path).exists() else path.partition("#")
    try:
        if place.startswith("hub:"):
            name, _, config = place.removeprefix("hub:").partition(":")
            found = datasets.load_dataset(name, config or None)
        else:
            found = datasets.load_from_disk(place)
    # A dataset with a script of its own is a RuntimeError: such scripts are not run.
    except (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException) as error:
        raise DataError("the dataset cannot be read", where=path, given=error) from error
    if isinstance(found, datasets.Dataset) and not part:
        return found
    splits = list(found) if isinstance(found, dict) else []
    if not part and len(splits) == 1:
        part = splits[0]
    if part not in splits:
        hint = did_you_mean(part, splits) or (f"{place}#{splits[0]}" if splits else place)
        raise DataError(
            "which split is meant?",
            where=path,
            given=part or "none",
            allowed=", ".join(splits) or "none",
            hint=hint,
        )
    return found[part]


FORMATS: dict[str, Callable[[str, int, Reject], Iterator[Chunk]]] = {
    "parquet": _parquet,
    "jsonl": json_rows,
    "csv": csv_rows,
    "text": _text,
    "datasets": _datasets,
}
_ENDINGS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
