"""What did a model write for which problem?

One JSON object a line: ``task_id``; the text, as ``completion`` (what follows the prompt, HumanEval's own format),
``reply`` (what a chat model said, with its code in fences) or ``solution`` (a whole program, EvalPlus's); and
``draw``, the number of the sample among those of its problem. Without ``draw`` the order of the lines counts. Or one
JSON array of lists, as bigcode's evaluation harness writes it: list i holds whole programs for problem i. Samples
are kept raw: nothing is cut or repaired here. A line that names a problem and holds no text (missing, null, not a
string, more than one) is a sample too, with the cause: left out, it would raise the score of the others. Which program
a sample makes is decided in ``candidate``, whether that program is right in ``judge``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError
from ..table.read import Rejected
from .rows import read_lists, read_rows, shown, told

__all__ = ["Absence", "Form", "Sample", "SampleSet", "read_samples", "sample_of"]

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
