"""Which columns does a sample have, of which type, and what is its id?

Four kinds of column: *text* (what the model may read), *name* (ids), *label* (few distinct words; groups of a
result) and *metric* (one float per difficulty metric, named after it; NaN where a sample has no figure). The
columns of ``SCHEMA`` are always there, in its order; labels of ``LABELS`` beyond them, a student's ``attempt`` and
metrics follow when there are any. ``fit`` is the one place that turns foreign values into a column. Files are the
business of ``read`` and ``write``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, did_you_mean

__all__ = ["COLUMNS", "LABELS", "SCHEMA", "fit", "make_table", "questions", "sample_id", "texts", "type_of"]

Kind = Literal["text", "name", "label", "metric"]
Values: TypeAlias = Sequence[Any] | pa.Array | pa.ChunkedArray

LABEL = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.large_string(), nullable=False),
        pa.field("answer", pa.large_string(), nullable=False),
        pa.field("rejected", pa.large_string()),
        pa.field("tests", pa.large_string()),
        pa.field("level", LABEL),
        pa.field("category", LABEL),
        pa.field("language", LABEL),
        pa.field("parent", pa.string()),
        pa.field("source", LABEL),
    ]
)
COLUMNS = tuple(SCHEMA.names)
LABELS = ("level", "category", "language", "source", "band", "twin")  # band and twin are added on the way

_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "name": pa.string(),
    "label": LABEL,
    "metric": pa.float64(),
}
_MEANING = {"text": "text", "name": "text or whole numbers", "label": "text or whole numbers", "metric": "numbers"}


def kind_of(name: str) -> Kind:
    """The kind of the column called ``name``; every name that the schema does not know is a metric's."""
    if name in LABELS:
        return "label"
    if name in ("id", "parent"):
        return "name"
    return "text" if name in COLUMNS or name == "attempt" else "metric"


def type_of(name: str) -> pa.DataType:
    """The Arrow type of the column called ``name``."""
    return _TYPES[kind_of(name)]


def sample_id(language: str, prompt: str) -> str:
    """The content id: the first 16 hex digits of BLAKE2b over language, a NUL and the prompt.

    For completion, where the prompt is empty, the answer takes its place (see ``questions``). Two answers to one
    prompt have one id: it names the question.
    """
    return hashlib.blake2b(f"{language}\0{prompt}".encode(), digest_size=8).hexdigest()


def texts(table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """What a model learns from each sample: prompt and answer, joined with nothing between them."""
    return pc.binary_join_element_wise(table["prompt"], table["answer"], pa.scalar("", pa.large_string()))


def questions(table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """What tells samples apart: the prompt, or the answer where the prompt is empty (code to complete)."""
    return pc.if_else(pc.equal(table["prompt"], ""), table["answer"], table["prompt"])


def make_table(columns: Mapping[str, Values | None]) -> pa.Table:
    """A table of samples from plain columns (lists or Arrow or NumPy arrays, all of one length).

    ``answer`` is the one column that must be given; ``prompt`` is empty without one, ids are computed where they
    are missing, and the other columns of ``SCHEMA`` are null. Names outside ``SCHEMA`` and ``LABELS`` are metrics:
    floats, missing ones NaN. Raises ``DataError`` that names the column, and the first row when a value does not
    fit.
    """
    given = {name: values for name, values in columns.items() if values is not None}
    lengths = {name: len(values) for name, values in given.items()}
    if "answer" not in given:
        hint = did_you_mean("answer", given)
        raise DataError("the column 'answer' is missing", given=", ".join(given) or "no columns", hint=hint)
    if len(set(lengths.values())) > 1:
        raise DataError("the columns differ in length", given=", ".join(f"{n} {k}" for n, k in lengths.items()))
    fitted: dict[str, pa.Array] = {}
    for name, values in given.items():
        fitted[name], misfits = fit(name, values)
        if name in ("prompt", "answer") and not misfits and fitted[name].null_count:
            misfits = pc.indices_nonzero(fitted[name].is_null()).to_pylist()
        if misfits:
            raise misfit(name, values, misfits[0])
    return pa.Table.from_batches([complete(fitted)])


def misfit(name: str, values: Values, row: int) -> DataError:
    """The error that says which value of the column ``name`` does not fit, and what would."""
    value = values[row]
    shown = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    known = did_you_mean(name, (*COLUMNS, *LABELS)) if kind_of(name) == "metric" else None
    return DataError(
        f"the column {name!r} has an unfit value in row {row}",
        given=shown,
        allowed=_MEANING[kind_of(name)],
        hint=known,
    )


def complete(columns: Mapping[str, pa.Array], language: str | None = None) -> pa.RecordBatch:
    """The batch that ``columns`` (fitted, none but ``answer`` required) make in the order of the schema.

    ``language`` fills the missing languages; ids are computed where they are null.
    """
    rows = len(columns["answer"])
    filled = dict(columns)
    filled.setdefault("prompt", pa.array([""] * rows, pa.large_string()))
    for name in COLUMNS:
        filled.setdefault(name, pa.nulls(rows, type_of(name)))
    if language is not None:
        filled["language"] = filled["language"].cast(pa.string()).fill_null(language).dictionary_encode()
    filled["id"] = _with_ids(filled)
    extra = [name for name in filled if name not in COLUMNS]
    fields = [*SCHEMA, *(pa.field(name, type_of(name)) for name in extra)]
    return pa.RecordBatch.from_arrays([filled[field.name] for field in fields], schema=pa.schema(fields))


def _with_ids(columns: Mapping[str, pa.Array]) -> pa.Array:
    if not columns["id"].null_count:
        return columns["id"]
    languages = columns["language"].cast(pa.string()).fill_null("").to_pylist()
    asked = pc.if_else(pc.equal(columns["prompt"], ""), columns["answer"], columns["prompt"]).to_pylist()
    computed = pa.array([sample_id(*pair) for pair in zip(languages, asked, strict=True)], pa.string())
    return pc.coalesce(columns["id"], computed)


def fit(name: str, values: Values) -> tuple[pa.Array, list[int]]:
    """``values`` as the column ``name``, and the rows (ascending) whose value does not fit and became null.

    Whole numbers fit names and labels as their digits, since levels and ids are often written so; other numbers fit
    labels. An Arrow column
    fits as a whole or raises ``DataError``: its type already speaks for every row.
    """
    kind = kind_of(name)
    if isinstance(values, np.ndarray) and kind == "metric" and values.dtype.kind in "fiu":
        return pa.array(values.astype(np.float64)), []
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return _fit_arrow(name, values), []
    plain: Iterable[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    taken = [_taken(value, kind) for value in plain]
    misfits = [row for row, value in enumerate(taken) if value is _UNFIT]
    for row in misfits:
        taken[row] = None
    return _encoded(pa.array(taken, _plain(kind)), kind), misfits


_UNFIT = object()  # told apart from None, which is a missing value


def _taken(value: Any, kind: Kind) -> Any:
    """``value`` as a column of ``kind`` holds it, or ``_UNFIT``."""
    if value is None:
        return None
    if isinstance(value, str) and kind != "metric":
        # Half a surrogate pair is a valid JSON escape and a Python string, but no file can hold it.
        return value if value.isascii() or not _has_surrogate(value) else _UNFIT
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _UNFIT
    if kind == "metric":
        return _float(value)
    if kind == "label" and isinstance(value, float):
        return _digits(value)
    return str(value) if kind != "text" and isinstance(value, int) else _UNFIT


def _float(value: float) -> Any:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every float
        return _UNFIT


def _digits(value: float) -> Any:
    """A number as a label: 1.1 is "1.1", 3.0 is "3", since whole numbers with gaps come as floats; NaN is missing."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return _UNFIT
    return str(int(value)) if value.is_integer() else repr(value)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _fit_arrow(name: str, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    kind, array = kind_of(name), values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    held = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    words = pa.types.is_string(held) or pa.types.is_large_string(held) or held == pa.string_view()
    whole = pa.types.is_integer(held)
    fits = pa.types.is_null(held) or (words and kind != "metric") or (whole and kind != "text")
    floats = pa.types.is_floating(held) and kind in ("metric", "label")
    if not fits and not floats:
        known = did_you_mean(name, (*COLUMNS, *LABELS)) if kind == "metric" else None
        raise DataError(f"the column {name!r} has the wrong type", given=str(held), allowed=_MEANING[kind], hint=known)
    if floats and kind == "label":
        labels = (None if value is None else _digits(value) for value in array.to_pylist())
        return _encoded(pa.array([None if label is _UNFIT else label for label in labels], pa.string()), kind)
    # Whole numbers beyond 2^53 lose their last digits as floats, which is no reason to refuse the file.
    return _encoded(array.cast(_plain(kind), safe=kind != "metric"), kind)


def _plain(kind: Kind) -> pa.DataType:
    return pa.string() if kind == "label" else _TYPES[kind]


def _encoded(array: pa.Array, kind: Kind) -> pa.Array:
    if kind == "label":
        return array.dictionary_encode()
    return array.fill_null(float("nan")) if kind == "metric" else array
