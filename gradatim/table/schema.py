"""Columns of a table of samples, their types, and the content id.

Four kinds of column: *text* (possible input of the model), *name* (ids), *label* (few distinct words; groups of a
result) and *metric* (one float per difficulty metric, NaN for samples without a score). A table has all columns of
``SCHEMA`` in its order; further labels of ``LABELS``, a student's ``attempt`` and metrics follow, if any. All
conversions of external values to a column are in ``fit``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError, did_you_mean
from .mapped import slices

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
LABELS = ("level", "category", "language", "source", "band", "twin")  # band and twin are added by runs and splits

_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "name": pa.string(),
    "label": LABEL,
    "metric": pa.float64(),
}
_MEANING = {"text": "text", "name": "text or whole numbers", "label": "text or whole numbers", "metric": "numbers"}


def kind_of(name: str) -> Kind:
    """Kind of the column ``name``; names outside the schema are metrics."""
    if name in LABELS:
        return "label"
    if name in ("id", "parent"):
        return "name"
    return "text" if name in COLUMNS or name == "attempt" else "metric"


def type_of(name: str) -> pa.DataType:
    """Arrow type of the column ``name``."""
    return _TYPES[kind_of(name)]


def sample_id(language: str, prompt: str) -> str:
    """Content id: the first 16 hex digits of BLAKE2b of language, a NUL and the prompt.

    For completion, with an empty prompt, the answer replaces it (see ``questions``). Two answers to one prompt have
    one id: it identifies the question.
    """
    return hashlib.blake2b(f"{language}\0{prompt}".encode(), digest_size=8).hexdigest()


def texts(table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """Training texts of the samples: prompt and answer, concatenated."""
    return pc.binary_join_element_wise(table["prompt"], table["answer"], pa.scalar("", pa.large_string()))


def questions(table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """Question of each sample: the prompt, or the answer if the prompt is empty (code completion)."""
    return pc.if_else(pc.equal(table["prompt"], ""), table["answer"], table["prompt"])


def label_codes(column: pa.ChunkedArray, missing: str) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Distinct labels of a column in order, and the index of the label of each row; ``missing`` for null."""
    numbers: dict[str, int] = {}
    codes = [np.empty(0, np.int32)]
    for part in slices(column):
        encoded = part.cast(pa.string()).fill_null(missing).combine_chunks().dictionary_encode()
        words = encoded.dictionary.to_pylist()
        number_of_code = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32)
        codes.append(number_of_code[encoded.indices.to_numpy()])
    labels = sorted(numbers)
    index_of = {label: index for index, label in enumerate(labels)}
    return labels, np.array([index_of[label] for label in numbers], np.int32)[np.concatenate(codes)]


def make_table(columns: Mapping[str, Values | None]) -> pa.Table:
    """Table of samples from plain columns (lists, Arrow or NumPy arrays, all of one length).

    Only ``answer`` is required: the default prompt is empty, missing ids are computed, other columns of ``SCHEMA`` are
    null. Names outside ``SCHEMA`` and ``LABELS`` are metrics: floats, NaN if missing. Raises ``DataError`` with the
    column, and the first row with an invalid value.
    """
    plain = {name: values for name, values in columns.items() if values is not None}
    lengths = {name: len(values) for name, values in plain.items()}
    if "answer" not in plain:
        hint = did_you_mean("answer", plain)
        raise DataError("the column 'answer' is missing", given=", ".join(plain) or "no columns", hint=hint)
    if len(set(lengths.values())) > 1:
        raise DataError("the columns differ in length", given=", ".join(f"{n} {k}" for n, k in lengths.items()))
    fitted: dict[str, pa.Array] = {}
    for name, values in plain.items():
        fitted[name], misfits = fit(name, values)
        if name in ("prompt", "answer") and not misfits and fitted[name].null_count:
            misfits = pc.indices_nonzero(fitted[name].is_null()).to_pylist()
        if misfits:
            raise misfit(name, values, misfits[0])
    return pa.Table.from_batches([complete(fitted)])


def misfit(name: str, values: Values, row: int) -> DataError:
    """Error for an invalid value of the column ``name``."""
    value = values[row]
    description = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
    hint = did_you_mean(name, (*COLUMNS, *LABELS)) if kind_of(name) == "metric" else None
    return DataError(
        f"the column {name!r} has an invalid value in row {row}",
        given=description,
        allowed=_MEANING[kind_of(name)],
        hint=hint,
    )


def complete(columns: Mapping[str, pa.Array], language: str | None = None) -> pa.RecordBatch:
    """Batch of fitted ``columns`` in the order of the schema; only ``answer`` is required.

    ``language`` replaces missing languages; null ids are computed.
    """
    rows = len(columns["answer"])
    arrays = dict(columns)
    arrays.setdefault("prompt", pa.array([""] * rows, pa.large_string()))
    for name in COLUMNS:
        arrays.setdefault(name, pa.nulls(rows, type_of(name)))
    if language is not None:
        arrays["language"] = arrays["language"].cast(pa.string()).fill_null(language).dictionary_encode()
    arrays["id"] = _with_ids(arrays)
    extra = [name for name in arrays if name not in COLUMNS]
    fields = [*SCHEMA, *(pa.field(name, type_of(name)) for name in extra)]
    return pa.RecordBatch.from_arrays([arrays[field.name] for field in fields], schema=pa.schema(fields))


def _with_ids(columns: Mapping[str, pa.Array]) -> pa.Array:
    if not columns["id"].null_count:
        return columns["id"]
    languages = columns["language"].cast(pa.string()).fill_null("").to_pylist()
    prompts = pc.if_else(pc.equal(columns["prompt"], ""), columns["answer"], columns["prompt"]).to_pylist()
    ids = pa.array([sample_id(*pair) for pair in zip(languages, prompts, strict=True)], pa.string())
    return pc.coalesce(columns["id"], ids)


def fit(name: str, values: Values) -> tuple[pa.Array, list[int]]:
    """``values`` as the column ``name``, and the rows (ascending) with an invalid value, which became null.

    Integers are valid names and labels, as their digits, since levels and ids are often numbers; floats are valid
    labels. An Arrow column is valid by its type or raises ``DataError``.
    """
    kind = kind_of(name)
    if isinstance(values, np.ndarray) and kind == "metric" and values.dtype.kind in "fiu":
        return pa.array(values.astype(np.float64)), []
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return _fit_arrow(name, values), []
    plain: Iterable[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    converted = [_converted(value, kind) for value in plain]
    misfits = [row for row, value in enumerate(converted) if value is _INVALID]
    for row in misfits:
        converted[row] = None
    return _encoded(pa.array(converted, _plain(kind)), kind), misfits


_INVALID = object()  # distinct from None, a missing value


def _converted(value: Any, kind: Kind) -> Any:
    """``value`` converted for a column of ``kind``, or ``_INVALID``."""
    if value is None:
        return None
    if isinstance(value, str) and kind != "metric":
        # A lone surrogate is valid in JSON escapes and Python strings, but has no UTF-8 encoding.
        return value if value.isascii() or not _has_surrogate(value) else _INVALID
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _INVALID
    if kind == "metric":
        return _float(value)
    if kind == "label" and isinstance(value, float):
        return _digits(value)
    return str(value) if kind != "text" and isinstance(value, int) else _INVALID


def _float(value: float) -> Any:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of floats
        return _INVALID


def _digits(value: float) -> Any:
    """Label of a number: 1.1 is "1.1", 3.0 is "3", since columns of integers with gaps are floats; NaN is missing."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return _INVALID
    return str(int(value)) if value.is_integer() else repr(value)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _fit_arrow(name: str, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    kind, array = kind_of(name), values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    dtype = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    strings = pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or dtype == pa.string_view()
    integers = pa.types.is_integer(dtype)
    fits = pa.types.is_null(dtype) or (strings and kind != "metric") or (integers and kind != "text")
    floats = pa.types.is_floating(dtype) and kind in ("metric", "label")
    if not fits and not floats:
        hint = did_you_mean(name, (*COLUMNS, *LABELS)) if kind == "metric" else None
        raise DataError(f"the column {name!r} has the wrong type", given=str(dtype), allowed=_MEANING[kind], hint=hint)
    if floats and kind == "label":
        labels = (None if value is None else _digits(value) for value in array.to_pylist())
        return _encoded(pa.array([None if label is _INVALID else label for label in labels], pa.string()), kind)
    # Integers beyond 2^53 lose their last digits as floats, which is acceptable for a metric.
    return _encoded(array.cast(_plain(kind), safe=kind != "metric"), kind)


def _plain(kind: Kind) -> pa.DataType:
    return pa.string() if kind == "label" else _TYPES[kind]


def _encoded(array: pa.Array, kind: Kind) -> pa.Array:
    if kind == "label":
        return array.dictionary_encode()
    return array.fill_null(float("nan")) if kind == "metric" else array
