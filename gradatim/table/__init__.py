"""What does a sample look like, at rest and on its way in and out?

A table is an Arrow table whose rows are samples. Everything the rest of the project asks of one is here:

    schema   the columns, their types and the content id; ``make_table`` builds a table from plain columns
    read     Parquet, JSON, CSV, TinyPy text and ``datasets`` in, with a column mapping and a report on the rows
    fingerprint  is a data file still the one that was read?
    write    the same formats out, whole or not at all
    split    training, validation and test sets that share no program; ``dedupe`` before that

``read`` and ``write`` pass batches on, so a table need not fit in memory on its way through. Nothing here scores,
bands or tokenizes samples, and nothing runs them.
"""

from __future__ import annotations

from .dedupe import Deduped, dedupe
from .read import ReadReport, Rejected, read_table, stream_table
from .schema import COLUMNS, LABELS, SCHEMA, make_table, questions, sample_id, texts
from .split import Split, SplitBy, split
from .write import write_stream, write_table

__all__ = [
    "COLUMNS",
    "LABELS",
    "SCHEMA",
    "Deduped",
    "ReadReport",
    "Rejected",
    "Split",
    "SplitBy",
    "dedupe",
    "make_table",
    "questions",
    "read_table",
    "sample_id",
    "split",
    "stream_table",
    "texts",
    "write_stream",
    "write_table",
]
