"""Which objects does a file of problems or samples hold, and which of its lines are none?

JSON lines or one JSON array, packed with gzip or not. A line that is no JSON object is handed back with its number
and the reason, never dropped and never fatal; a file that cannot be read at all is a ``DataError``. What the objects
mean is decided by ``problems`` and ``samples``. Tables for training have a reader of their own (``table.read``), which
also knows Parquet and columns.

What did a model write for which problem?

One JSON object a line: ``task_id``; the text, as ``completion`` (what follows the prompt, HumanEval's own format),
``reply`` (what a chat model said, with its code in fences) or ``solution`` (a whole program, EvalPlus's); and
``draw``, the number of the sample among those of its problem. Without ``draw`` the order of the lines counts. Or one
JSON array of lists, as bigcode's evaluation harness writes it: list i holds whole programs for problem i. Samples
are kept raw: nothing is cut or repaired here. A line that names a problem and holds no text (missing, null, not a
string, more than one) is a sample too, with the cause: left out, it would raise the score of the others. Which program
a sample makes is decided in ``candidate``, whether that program is right in ``judge``.
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

__all__ = [
    "Absence",
    "Form",
    "Sample",
    "SampleSet",
    "read_lists",
    "read_rows",
    "read_samples",
    "sample_of",
    "shown",
    "told",
]


_SHOWN = 80


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Rejected]:
    """(line, object) for each object of ``path``, in order, and a ``Rejected`` for what is none.

    In an array, lines are counted as its items, from 1. Raises ``DataError`` when the file is missing, unreadable, or
    an array that is torn.
    """
    content = _content(path)
    if content.lstrip()[:1] == b"[" and (items := _array(content)) is not None:
        found: Iterator[Any] = iter(items)
    else:
        found = (_parsed(line) for line in content.split(b"\n"))
    for number, value in enumerate(found, start=1):
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, Rejected):
            yield Rejected(number, value.cause, value.content)
        elif value is not None:
            yield Rejected(number, "not a JSON object", shown(value))


def told(row: Rejected) -> str:
    """What tells a rejected row from others, in brackets: nothing of a line that is no JSON, whose file may be any."""
    return "" if row.cause.removeprefix("problem: ") in UNPARSED else f" ({row.content})"


def read_lists(path: Path) -> list[list[Any]] | None:
    """The items of a JSON array whose items are all lists themselves; None for any other file."""
    content = _content(path)
    start = content.lstrip()
    if start[:1] != b"[" or start[1:].lstrip()[:1] != b"[":
        return None
    items = _array(content)
    return items if items is not None and all(isinstance(item, list) for item in items) else None


def shown(value: object) -> str:
    """A short account of ``value`` on one line that is safe to print."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _content(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "this is a folder" if path.is_dir() else "there is no such file"
        raise DataError(what, where=path, hint=did_you_mean(path.name, near))
    try:
        # By its first bytes, not by its name: what a browser has unpacked keeps the ending.
        return read_input(path, unpack=True)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("this is not a whole gzip file", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


def _array(content: bytes) -> list[Any] | None:
    """The items of a JSON array; None when it is none, and lines that begin with a bracket are just lines."""
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def _parsed(line: bytes) -> Any:
    """The value of a line, None when it is blank, ``Rejected`` when it is no JSON."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(0, "not UTF-8", shown(line[:_SHOWN].decode("utf-8", "backslashreplace")))
    except (ValueError, RecursionError):
        return Rejected(0, "not JSON", shown(line.decode(errors="replace")))
    return Rejected(0, "not a JSON object", "null") if value is None else value


Form = Literal["completion", "reply", "solution"]
Absence = Literal["missing", "null", "not a string", "more than one"]


@dataclass(frozen=True)
class Sample:
    """One text for the problem ``task``. ``finish`` is why the model stopped writing, where that is known.

    ``absence`` is why ``text`` is empty, where the line had no text that can be used.
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
    """The samples of ``source`` in the file's order, and the lines that are none."""

    source: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()


def read_samples(path: str | Path, tasks: Sequence[str] | None = None) -> SampleSet:
    """All samples of a .jsonl, .jsonl.gz or .json file.

    ``tasks``: the problems' ids in order, for a file of lists; empty when the order has gaps. Raises ``DataError``
    when the file is not there, unreadable, or has not one sample.
    """
    if tasks is not None and (lists := read_lists(Path(path))):
        return _by_place(path, lists, tasks)
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    seen: set[tuple[str, int]] = set()
    textless: list[Rejected] = []  # rows that name a task in a file of which no row has a text field
    fields_present = False
    counted: Counter[str] = Counter()
    for row in read_rows(Path(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        fields_present = fields_present or any(form in fields for form in get_args(Form))
        try:
            sample = sample_of(fields, counted)
            if (sample.task, sample.draw) in seen:
                raise ValueError(f"a second sample for draw {sample.draw} of {shown(sample.task)}; the first is used")
        except ValueError as error:
            rejected.append(Rejected(number, str(error), shown(fields.get("task_id", list(fields)))))
            continue
        seen.add((sample.task, sample.draw))
        samples.append(sample)
        if not fields_present:
            textless.append(Rejected(number, "none of the fields completion, reply, solution", shown(sample.task)))
    if not samples or not fields_present:
        first = next(iter([*textless, *rejected]), None)
        raise DataError(
            f"no line is a sample; the first: {first.cause}" if first else "the file has no samples",
            where=f"{path}, line {first.row}" if first else path,
            given=told(first).strip(" ()") or None if first else None,
            allowed='{"task_id": …, "completion": …} on each line',
        )
    return SampleSet(str(path), tuple(samples), tuple(rejected))


def _by_place(path: str | Path, lists: Sequence[Sequence[Any]], tasks: Sequence[str]) -> SampleSet:
    """The samples of one list for each problem. More lists than problems belong to other problems."""
    if not tasks:
        raise DataError(
            "lists of samples stand for the problems by their order, and some of the problems cannot be used",
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
        # An item without text is an empty program: it has not passed, and pass@k counts it.
        Sample(task, text if isinstance(text, str) else "", "solution", draw, absence=_absence_of(text))
        for task, texts in zip(tasks, lists, strict=False)
        for draw, text in enumerate(texts)
    )
    if not samples:
        raise DataError("no list holds a sample", where=path, allowed="a list of texts for each problem")
    return SampleSet(str(path), samples)


def _absence_of(text: object) -> Absence | None:
    return None if isinstance(text, str) else "null" if text is None else "not a string"


def sample_of(row: Mapping[str, Any], counted: Counter[str]) -> Sample:
    """The sample that one row describes; ``counted`` numbers those without a draw.

    A row without a usable text is a sample with an ``absence``. Raises ``ValueError`` with the reason when the row has
    no task or no possible draw.
    """
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int) or task == "":
        raise ValueError("no field 'task_id'")
    form, text, absence = _text(row)
    draw = row.get("draw")
    if draw is None:
        draw = counted[str(task)]
    elif isinstance(draw, bool) or not isinstance(draw, int) or draw < 0:
        raise ValueError("'draw' is not a whole number")
    counted[str(task)] = max(counted[str(task)], draw + 1)
    finish = row.get("finish")
    return Sample(str(task), text, form, draw, finish if isinstance(finish, str) else "", absence)


def _text(row: Mapping[str, Any]) -> tuple[Form, str, Absence | None]:
    """The form, the text and, where there is no text that can be used, why."""
    present: list[Form] = [form for form in get_args(Form) if form in row]
    given = [form for form in present if row[form] is not None]
    if not given:
        return (present or ["completion"])[0], "", "null" if present else "missing"
    if len(given) > 1:
        return given[0], "", "more than one"
    text = row[given[0]]
    return (given[0], text, None) if isinstance(text, str) else (given[0], "", "not a string")
