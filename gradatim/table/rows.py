"""Rows of data files: TinyPy's text format, the report on used and rejected rows, and apportioning of a number of rows.

A sample in the text format is a program, a line ``# output`` and the printed lines as comments, followed by a blank
line. ``prompt`` ends with the line ``# output``, ``answer`` is the rest; both end with a newline, so a file is the
samples' texts with a blank line after each, and reading restores them byte for byte. If the first sample has no line
``# output``, the file is code completion: all samples are answers to an empty prompt.

The module imports no table library, since a plan uses it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError
from ..files import open_input, replacing

OUTPUT_LINE = "# output\n"
"""The last line of a prompt whose answer is the output of a program."""


def asks_for_output(prompt: str) -> bool:
    """Whether the answer to ``prompt`` is the output of a program: its last line that is not blank is ``# output``."""
    text, line = prompt.rstrip(), OUTPUT_LINE.rstrip()
    return text == line or text.endswith("\n" + line)


def divide(text: str) -> tuple[str, str] | None:
    """Prompt and answer of ``text``, split after the first line ``# output``; None without such a line."""
    start = 0 if text.startswith(OUTPUT_LINE) else text.find("\n" + OUTPUT_LINE) + 1
    if not start and not text.startswith(OUTPUT_LINE):
        return None
    end = start + len(OUTPUT_LINE)
    return text[:end], text[end:]


def sample_blocks(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks of lines between blank lines: (number of the first line from 1, the lines with their line ends)."""
    block: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        if line != b"\n":
            block.append(line if line.endswith(b"\n") else line + b"\n")
        elif block:
            yield number - len(block), b"".join(block)
            block = []
    if block:
        yield number - len(block) + 1, b"".join(block)


def sample_lines(prompt: str, answer: str, code_only: bool) -> bytes | None:
    """Bytes of the sample in a file; None if ``divide`` would not restore its prompt and answer."""
    text = prompt + answer
    is_block = text.endswith("\n") and not text.startswith("\n") and "\n\n" not in text
    same = prompt == "" and divide(text) is None if code_only else divide(text) == (prompt, answer)
    return f"{text}\n".encode() if is_block and same and text.strip() else None


UNPARSED = ("not UTF-8", "not JSON", "not a JSON object")
"""Causes that may indicate a file of another kind, whose lines are not printed to the terminal."""

EMPTY_ANSWER = "the answer is empty"
"""A remark: such a row teaches to end at once. Questions for a teacher have no answers."""


@dataclass(frozen=True)
class Rejected:
    """An unusable row: its number from 1 (in text and JSON lines the line), the cause and the content."""

    row: int
    cause: str
    content: str


@dataclass
class ReadReport:
    """Counts of the rows of a file, filled during reading.

    ``read_as``: {prompt or answer: the file's column}, of columns that were recognised by another usual name.
    ``unmapped``: text columns that a mapping without a prompt leaves out. ``fields``: the fields that rows of JSON have
    for prompt and answer, with the number of rows; ``read_by``: those that all rows are read by. ``ignored``: columns
    that are not used. ``remarks``: by sentence, the number of rows that are used although a part of them is omitted or
    missing. ``repeated``: rows with prompt and answer of an earlier one; ``left_out``: rows that the source has removed
    as duplicates.
    """

    path: str = ""
    kept: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    read_as: dict[str, str] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    fields: Counter[tuple[str, ...]] = field(default_factory=Counter)
    read_by: tuple[str, ...] = ()
    remarks: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    left_out: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for a run's record: kept, rejected (by cause), ignored (column names), remarks and repeated if any."""
        remarks = {"remarks": dict(sorted(self.remarks.items()))} if self.remarks else {}
        repeated = {"repeated": self.repeated} if self.repeated else {}
        return {"kept": self.kept, "rejected": self._causes(), "ignored": list(self.ignored), **remarks, **repeated}

    def notes(self) -> list[str]:
        """Lines for the user on rejected rows, remarks and ignored columns."""
        lines = []
        if self.rejected:
            causes = ", ".join(f"{cause} {count:,}" for cause, count in self._causes().items())
            first = min(row.row for row in self.rejected)
            total = self.kept + len(self.rejected)
            lines.append(f"{len(self.rejected):,} of {total:,} rows cannot be used, the first is row {first}: {causes}")
        return [*(f"{self.path}: {line}" for line in lines), *self.remark_lines()]

    def remark_lines(self) -> list[str]:
        """Lines for the user on recognised columns, remarks, repeated rows and ignored columns."""
        lines = []
        if self.mixed_fields:
            lines.append(
                f"{self.mixed_fields}; all are read by {' and '.join(self.read_by)}: a file for each is better"
            )
        if any(ours != theirs for ours, theirs in self.read_as.items()):
            pairs = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in self.read_as.items())
            lines.append(f"columns by their usual names: {pairs}; data.columns or --columns names others")
        if self.unmapped:
            names = " or ".join(map(repr, self.unmapped))
            lines.append(
                f"the column mapping names no prompt, so answers are learnt alone; a prompt could be {names}: "
                f"prompt={self.unmapped[0]}, beside answer"
            )
        lines += [f"{remark}: in {count:,} of {self.kept:,} rows" for remark, count in sorted(self.remarks.items())]
        if self.left_out:
            lines.append(f"{self.left_out:,} of {self.kept:,} rows are duplicates of earlier ones and are left out")
        elif self.repeated:
            lines.append(
                f"{self.repeated:,} of {self.kept:,} rows repeat the prompt and the answer of an earlier one; "
                "data.duplicates: text leaves them out"
            )
        if self.ignored:
            lines.append(f"columns that are not used: {', '.join(self.ignored)}")
        return [f"{self.path}: {line}" for line in lines]

    @property
    def mixed_fields(self) -> str:
        """The fields of rows of several kinds in words, with their numbers; empty for rows of one kind."""
        if len(self.fields) < 2:
            return ""
        kinds = [f"{' and '.join(names)} in {count:,}" for names, count in self.fields.most_common()]
        return f"the rows have different fields: {', '.join(kinds)}"

    def _causes(self) -> dict[str, int]:
        return dict(sorted(Counter(row.cause for row in self.rejected).items()))

    def write_rejected(self, output: Path | str) -> Path | None:
        """Write the rejected rows beside ``output`` as NAME.rejected.jsonl; return that path.

        Each line has the keys row, cause and content. Without rejected rows an older file of that name is removed and
        None returned. A file with other content is neither replaced nor removed: ``DataError``. Raises
        ``StorageFailed`` for a folder that is not writable.
        """
        path = rejected_file(output)
        if path.exists() and not is_rejected_file(path):
            if not self.rejected:
                return None
            raise DataError("this file does not hold rejected rows, so it is not replaced", where=path)
        if not self.rejected:
            path.unlink(missing_ok=True)
            return None
        with replacing(path) as file:
            for row in sorted(self.rejected, key=lambda row: row.row):
                line = {"row": row.row, "cause": row.cause, "content": row.content}
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        return path


def rejected_file(output: Path | str) -> Path:
    """Path of the file of rejected rows beside ``output``."""
    return Path(output).with_suffix(".rejected.jsonl")


def is_rejected_file(path: Path) -> bool:
    """Whether ``path`` holds rejected rows, by its first line, or is empty."""
    try:
        with open_input(path) as file:
            first = next(file, b"")
        if not first:
            return True
        row = json.loads(first)
    except (DataError, OSError, ValueError):
        return False
    return isinstance(row, dict) and list(row) == ["row", "cause", "content"]


def rows_of(amount: int | float, rows: int) -> int:
    """The number of samples of ``amount``: itself, or for a share between 0 and 1 that of ``rows``, at least 1."""
    return max(1, round(amount * rows)) if 0 < amount < 1 else int(amount)


Name = TypeVar("Name", bound=Hashable)


def largest_remainder(count: int, weights: Mapping[Name, float]) -> dict[Name, int]:
    """``count`` apportioned in proportion to ``weights`` by the largest remainder method; earlier weights win ties.

    Exact for whole weights. Without a positive weight every number is 0.
    """
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    if all(isinstance(weight, int) for weight in weights.values()):
        numbers = {name: int(count * weight // total) for name, weight in weights.items()}
        remainders = {name: count * weight % total for name, weight in weights.items()}
    else:
        exact = {name: count * weight / total for name, weight in weights.items()}
        numbers = {name: int(share) for name, share in exact.items()}
        remainders = {name: share - numbers[name] for name, share in exact.items()}
    for name in sorted(weights, key=lambda name: -remainders[name])[: count - sum(numbers.values())]:
        numbers[name] += 1
    return numbers
