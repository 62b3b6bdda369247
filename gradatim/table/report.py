"""Which rows of a file were used, which were not, and why?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import open_input, replacing

__all__ = ["EMPTY_ANSWER", "UNPARSED", "ReadReport", "Rejected", "is_rejected_file", "rejected_file"]

UNPARSED = ("not UTF-8", "not JSON", "not a JSON object")
"""Causes that make a file one of another kind, perhaps: its lines are not repeated on the terminal."""

EMPTY_ANSWER = "the answer is empty"
"""A remark: such a row teaches to end at once. Questions for a teacher have no answers."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used: its number from 1 (in text and JSON lines: its line), why, and what it said."""

    row: int
    cause: str
    content: str


@dataclass
class ReadReport:
    """What became of a file's rows; filled while they are read.

    ``ignored``: columns that nothing was read from. ``remarks``: by sentence, the rows that are used although a part of
    them is left out or missing.
    """

    path: str = ""
    kept: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for a run's record: kept, rejected (by cause), ignored (column names), and remarks where there are."""
        remarks = {"remarks": dict(sorted(self.remarks.items()))} if self.remarks else {}
        return {"kept": self.kept, "rejected": self._causes(), "ignored": list(self.ignored), **remarks}

    def notes(self) -> list[str]:
        """One line for each thing of the file that is not used as it stands there, for people to read."""
        lines = []
        if self.rejected:
            causes = ", ".join(f"{cause} {count:,}" for cause, count in self._causes().items())
            first = min(row.row for row in self.rejected)
            total = self.kept + len(self.rejected)
            lines.append(f"{len(self.rejected):,} of {total:,} rows cannot be used, the first is row {first}: {causes}")
        return [*(f"{self.path}: {line}" for line in lines), *self.remarked()]

    def remarked(self) -> list[str]:
        """One line for each part of the rows, and for the columns, that nothing is read from."""
        lines = [f"{remark}: in {count:,} of {self.kept:,} rows" for remark, count in sorted(self.remarks.items())]
        if self.ignored:
            lines.append(f"columns that are not used: {', '.join(self.ignored)}")
        return [f"{self.path}: {line}" for line in lines]

    def _causes(self) -> dict[str, int]:
        return dict(sorted(Counter(row.cause for row in self.rejected).items()))

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
