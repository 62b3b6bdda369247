"""What did a model write for which problem?

One JSON object a line: ``task_id``; the text, as ``completion`` (what follows the prompt, HumanEval's own format),
``reply`` (what a chat model said, with its code in fences) or ``solution`` (a whole program, EvalPlus's); and
``draw``, the number of the sample among those of its problem. Without ``draw`` the order of the lines counts. Or one
JSON array of lists, as bigcode's evaluation harness writes it: list i holds whole programs for problem i. Samples
are kept raw: nothing is cut or repaired here. Which program a sample makes is decided in ``candidate``, whether that
program is right in ``judge``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError
from ..table.read import Rejected
from .rows import read_lists, read_rows, shown

__all__ = ["Form", "Sample", "SampleSet", "read_samples", "sample_of"]

Form = Literal["completion", "reply", "solution"]


@dataclass(frozen=True)
class Sample:
    """One text for the problem ``task``. ``finish`` is why the model stopped writing, where that is known."""

    task: str
    text: str
    form: Form = "completion"
    draw: int = 0
    finish: str = ""

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
    counted: Counter[str] = Counter()
    for row in read_rows(Path(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        try:
            sample = sample_of(fields, counted)
            if (sample.task, sample.draw) in seen:
                raise ValueError(f"a second sample for draw {sample.draw} of {shown(sample.task)}; the first is used")
        except ValueError as error:
            rejected.append(Rejected(number, str(error), shown(fields.get("task_id", fields))))
            continue
        seen.add((sample.task, sample.draw))
        samples.append(sample)
    if not samples:
        first = rejected[0] if rejected else None
        raise DataError(
            f"no line is a sample; the first: {first.cause}" if first else "the file has no samples",
            where=f"{path}, line {first.row}" if first else path,
            given=first.content if first else None,
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
        # What is no text is an empty program: it has not passed, and pass@k counts it.
        Sample(task, text if isinstance(text, str) else "", "solution", draw)
        for task, texts in zip(tasks, lists, strict=False)
        for draw, text in enumerate(texts)
    )
    if not samples:
        raise DataError("no list holds a sample", where=path, allowed="a list of texts for each problem")
    return SampleSet(str(path), samples)


def sample_of(row: Mapping[str, Any], counted: Counter[str]) -> Sample:
    """The sample that one row describes; ``counted`` numbers those that say no draw.

    Raises ``ValueError`` with the reason when the row describes none.
    """
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int) or task == "":
        raise ValueError("no field 'task_id'")
    forms: list[Form] = [form for form in get_args(Form) if row.get(form) is not None]
    if len(forms) != 1:
        many = "more than one" if forms else "none"
        raise ValueError(f"{many} of the fields completion, reply, solution")
    form, text, draw = forms[0], row[forms[0]], row.get("draw")
    if not isinstance(text, str):
        raise ValueError(f"{form!r} is not text")
    if draw is None:
        draw = counted[str(task)]
    elif isinstance(draw, bool) or not isinstance(draw, int) or draw < 0:
        raise ValueError("'draw' is not a whole number")
    counted[str(task)] = max(counted[str(task)], draw + 1)
    finish = row.get("finish")
    return Sample(str(task), text, form, draw, finish if isinstance(finish, str) else "")
