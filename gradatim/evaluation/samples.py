"""Samples of programming problems in JSON files.

Files are JSON lines or one JSON array, plain or gzip. A line that is no JSON object is returned as ``Rejected`` with
its number and the reason; an unreadable file is a ``DataError``. Training tables have another reader: ``table.read``.

A sample is one object: ``task_id``; the text, as ``completion`` (what follows the prompt, as in HumanEval), ``reply``
(of a chat model, with its code in fences) or ``solution`` (a whole program, as in EvalPlus); and ``draw``, the number
of the sample among those of its problem, by default in line order. Or the file is one JSON array of lists, as
bigcode's evaluation harness writes it: list i holds whole programs for problem i. Texts are stored unchanged. A line
with a problem and no usable text (missing, null, not a string, more than one) is a sample too, with the cause: without
it the score of the others would rise. ``program`` makes the program of a sample, ``verdicts`` runs it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError, did_you_mean
from ..files import read_input
from ..table.report import UNPARSED, Rejected

_EXCERPT = 80


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Rejected]:
    """(line, object) for each object of ``path``, in order, and a ``Rejected`` for every other line.

    In an array, the items are numbered from 1. Raises ``DataError`` when the file is missing, unreadable, or a
    truncated array.
    """
    content = _content(path)
    if content.lstrip()[:1] == b"[" and (items := _array(content)) is not None:
        values: Iterator[Any] = iter(items)
    else:
        values = (_parsed(line) for line in content.split(b"\n"))
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, Rejected):
            yield Rejected(number, value.cause, value.content)
        elif value is not None:
            yield Rejected(number, "not a JSON object", excerpt(value))


def told(row: Rejected) -> str:
    """Excerpt of a rejected row in brackets; empty for a line that is no JSON, since the file may be any other."""
    return "" if row.cause.removeprefix("problem: ") in UNPARSED else f" ({row.content})"


def read_lists(path: Path) -> list[list[Any]] | None:
    """The items of a JSON array of lists; None for any other file."""
    content = _content(path)
    start = content.lstrip()
    if start[:1] != b"[" or start[1:].lstrip()[:1] != b"[":
        return None
    items = _array(content)
    return items if items is not None and all(isinstance(item, list) for item in items) else None


def excerpt(value: object) -> str:
    """An excerpt of ``value`` on one line, safe to print."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _content(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        message = "this is a folder" if path.is_dir() else "there is no such file"
        raise DataError(message, where=path, hint=did_you_mean(path.name, near))
    try:
        # By its first bytes, not by its name: a file that a browser unpacked keeps the ending.
        return read_input(path, unpack=True)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("the gzip file is damaged or truncated", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


def _array(content: bytes) -> list[Any] | None:
    """The items of a JSON array; None for other content, such as lines that begin with a bracket."""
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def _parsed(line: bytes) -> Any:
    """The value of a line, None for a blank one, ``Rejected`` for invalid JSON."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(0, "not UTF-8", excerpt(line[:_EXCERPT].decode("utf-8", "backslashreplace")))
    except (ValueError, RecursionError):
        return Rejected(0, "not JSON", excerpt(line.decode(errors="replace")))
    return Rejected(0, "not a JSON object", "null") if value is None else value


Form = Literal["completion", "reply", "solution"]
Absence = Literal["missing", "null", "not a string", "more than one"]


@dataclass(frozen=True)
class Sample:
    """One text for the problem ``task``. ``finish``: the reason for the end of the text, where available.

    ``absence``: the cause of an empty ``text``, where the line had no usable text.
    """

    task: str
    text: str
    form: Form = "completion"
    draw: int = 0
    finish: str = ""
    absence: Absence | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The sample as a line of a file."""
        end = {"finish": self.finish} if self.finish else {}
        return {"task_id": self.task, self.form: self.text, "draw": self.draw, **end}


@dataclass(frozen=True)
class SampleSet:
    """The samples of ``source`` in the file's order, and the rejected lines."""

    source: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()


def read_samples(path: str | Path, tasks: Sequence[str] | None = None) -> SampleSet:
    """All samples of a .jsonl, .jsonl.gz or .json file.

    ``tasks``: the problems' ids in order, for a file of lists; empty when the order has gaps. Raises ``DataError``
    when the file is missing, unreadable, or has no sample.
    """
    if tasks is not None and (lists := read_lists(Path(path))):
        return _by_index(path, lists, tasks)
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    keys: set[tuple[str, int]] = set()
    textless: list[Rejected] = []  # rows that name a task in a file of which no row has a text field
    fields_present = False
    draws: Counter[str] = Counter()
    for row in read_rows(Path(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        fields_present = fields_present or any(form in fields for form in get_args(Form))
        try:
            sample = sample_of(fields, draws)
            if (sample.task, sample.draw) in keys:
                raise ValueError(f"a second sample for draw {sample.draw} of {excerpt(sample.task)}; the first is used")
        except ValueError as error:
            rejected.append(Rejected(number, str(error), excerpt(fields.get("task_id", list(fields)))))
            continue
        keys.add((sample.task, sample.draw))
        samples.append(sample)
        if not fields_present:
            textless.append(Rejected(number, "none of the fields completion, reply, solution", excerpt(sample.task)))
    if not samples or not fields_present:
        first = next(iter([*textless, *rejected]), None)
        raise DataError(
            f"no line is a sample; the first: {first.cause}" if first else "the file has no samples",
            where=f"{path}, line {first.row}" if first else path,
            given=told(first).strip(" ()") or None if first else None,
            allowed='{"task_id": …, "completion": …} on each line',
        )
    return SampleSet(str(path), tuple(samples), tuple(rejected))


def _by_index(path: str | Path, lists: Sequence[Sequence[Any]], tasks: Sequence[str]) -> SampleSet:
    """The samples of one list for each problem. Raises ``DataError`` for more lists than problems."""
    if not tasks:
        raise DataError(
            "lists of samples belong to the problems by order, and some of the problems are unusable",
            where=path,
            hint='{"task_id": …, "solution": …} on each line',
        )
    if len(lists) > len(tasks):
        raise DataError(
            "there are more lists of samples than problems",
            where=path,
            given=f"{len(lists)} lists for {len(tasks)} problems",
            hint="the problems that the samples were written for, in their order",
        )
    samples = tuple(
        # An item without text is an empty program, which pass@k counts as not passed.
        Sample(task, text if isinstance(text, str) else "", "solution", draw, absence=_absence_of(text))
        for task, texts in zip(tasks, lists, strict=False)
        for draw, text in enumerate(texts)
    )
    if not samples:
        raise DataError("no list holds a sample", where=path, allowed="a list of texts for each problem")
    return SampleSet(str(path), samples)


def _absence_of(text: object) -> Absence | None:
    return None if isinstance(text, str) else "null" if text is None else "not a string"


def sample_of(row: Mapping[str, Any], draws: Counter[str]) -> Sample:
    """The sample of one row; ``draws`` numbers those without a draw.

    A row without a usable text is a sample with an ``absence``. Raises ``ValueError`` with the reason for a row
    without a task or with an invalid draw.
    """
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int) or task == "":
        raise ValueError("no field 'task_id'")
    form, text, absence = _text_field(row)
    draw = row.get("draw")
    if draw is None:
        draw = draws[str(task)]
    elif isinstance(draw, bool) or not isinstance(draw, int) or draw < 0:
        raise ValueError("'draw' is not a whole number")
    draws[str(task)] = max(draws[str(task)], draw + 1)
    finish = row.get("finish")
    return Sample(str(task), text, form, draw, finish if isinstance(finish, str) else "", absence)


def _text_field(row: Mapping[str, Any]) -> tuple[Form, str, Absence | None]:
    """The form, the text and, without a usable text, the cause."""
    present: list[Form] = [form for form in get_args(Form) if form in row]
    forms = [form for form in present if row[form] is not None]
    if not forms:
        return (present or ["completion"])[0], "", "null" if present else "missing"
    if len(forms) > 1:
        return forms[0], "", "more than one"
    text = row[forms[0]]
    return (forms[0], text, None) if isinstance(text, str) else (forms[0], "", "not a string")
