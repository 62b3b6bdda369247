"""Arrow tables of samples, and the files they are read from and written to.

schema        columns, their types and the content id; ``make_table`` builds a table from plain columns
formats       Parquet, JSON, CSV, TinyPy text and ``datasets``, in chunks of rows
read          reading with a column mapping and atomic writing, in batches
rows          the text format, and the report on rows that were not used
instruction   rows of conversations and instructions as prompt and answer
mapped        tables larger than memory, as memory-mapped files
splits        training, validation and test sets without a common program; ``dedupe``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .mapped import SLICE_ROWS, filter_rows, mapped_table, slices, take_rows
    from .read import read_table, stream_table, write_stream, write_table
    from .rows import ReadReport, Rejected
    from .schema import COLUMNS, LABELS, SCHEMA, make_table, questions, sample_id, texts
    from .splits import Deduped, Split, SplitBy, dedupe, drop_duplicates, split

__all__ = [
    "COLUMNS",
    "LABELS",
    "SCHEMA",
    "SLICE_ROWS",
    "Deduped",
    "ReadReport",
    "Rejected",
    "Split",
    "SplitBy",
    "dedupe",
    "drop_duplicates",
    "filter_rows",
    "make_table",
    "mapped_table",
    "questions",
    "read_table",
    "sample_id",
    "slices",
    "split",
    "stream_table",
    "take_rows",
    "texts",
    "write_stream",
    "write_table",
]

__getattr__ = lazy_names(
    __name__,
    {
        "mapped": ("SLICE_ROWS", "filter_rows", "mapped_table", "slices", "take_rows"),
        "read": ("read_table", "stream_table", "write_stream", "write_table"),
        "rows": ("ReadReport", "Rejected"),
        "schema": ("COLUMNS", "LABELS", "SCHEMA", "make_table", "questions", "sample_id", "texts"),
        "splits": ("Deduped", "Split", "SplitBy", "dedupe", "drop_duplicates", "split"),
    },
)
