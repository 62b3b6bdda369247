"""Trees of questions in runs with cycles: question, attempt of the student, verdict, new questions of the next cycle.

A root is a question of the first cycle with a new question; a child is a question that a later cycle's corpus derives
from it (column ``parent``), with the attempts that the student made at it. Read from ``feedback.parquet`` and
``corpus/train.parquet`` of each cycle; a part that a run lacks is a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import read_input
from ..lazy import pq
from ..options import parse_json
from ..record import DECODE_ERRORS
from ..results import cycle_folder

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROOTS = 40
"""Roots of a run on the page; grades take turns."""
MOST_CHILDREN = 4
"""New questions of one question on the page."""
MOST_QUESTIONS = 400
"""Questions of a run on the page."""
MOST_BYTES = 64 << 20
"""Bytes of the files of a cycle; larger ones are not read."""
_ATTEMPTED = ["id", "prompt", "answer", "level", "attempt", "verdict", "reason", "grade"]
_NEW = ["id", "parent", "prompt", "answer", "level"]


@dataclass(frozen=True)
class Attempt:
    """A completion of the student with the verdict on it and the judge's reason."""

    text: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Question:
    """A question of cycle ``cycle``. ``more``: new questions beyond ``children``, which are not shown."""

    cycle: int
    prompt: str
    answer: str
    level: str | None
    grade: str | None
    attempts: tuple[Attempt, ...]
    children: tuple[Question, ...]
    more: int = 0


@dataclass(frozen=True)
class QuestionTree:
    """``roots`` of a run; ``total``: its roots, shown or not; ``notes``: parts that the run lacks."""

    roots: tuple[Question, ...]
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Cycle:
    """``attempts``: rows of the feedback by question; ``children``: rows of new questions by parent."""

    attempts: Mapping[str, list[dict[str, Any]]]
    children: Mapping[str, list[dict[str, Any]]]


def read_tree(folder: Path) -> QuestionTree | None:
    """The questions of the run in ``folder``; None for a run without feedback, such as one of a single cycle."""
    cycles = [number for number in range(len(list(folder.glob("cycle-*")))) if (folder / cycle_folder(number)).is_dir()]
    if not any((folder / cycle_folder(number) / "feedback.json").is_file() for number in cycles):
        return None
    notes: list[str] = []
    read = [_read_cycle(folder, number, notes) for number in cycles]
    roots = [key for key in read[0].attempts if key in read[0].children]
    chosen = list(_in_turn(read[0].attempts, roots))[:MOST_ROOTS]
    builder = _Builder(read)
    trees = [builder.question(0, read[0].attempts[key][0]) for key in chosen if builder.remaining > 0]
    return QuestionTree(tuple(trees), len(roots), tuple(notes))


def _read_cycle(folder: Path, number: int, notes: list[str]) -> _Cycle:
    """The attempts of a cycle and the questions that follow it; what is missing becomes a note."""
    cycle, following = folder / cycle_folder(number), folder / cycle_folder(number + 1)
    attempts: dict[str, list[dict[str, Any]]] = {}
    children: dict[str, list[dict[str, Any]]] = {}
    if (cycle / "feedback.json").is_file():
        for row in _rows(cycle / "feedback.parquet", _ATTEMPTED, number, notes):
            attempts.setdefault(row["id"], []).append(row)
    if following.is_dir():
        # The samples of earlier cycles come first in the corpus.
        old = _earlier(following, notes)
        rows = _rows(following / "corpus" / "train.parquet", _NEW, number + 1, notes)[old:]
        for row in rows:
            if row["parent"] is not None:
                children.setdefault(row["parent"], []).append(row)
        if rows and not children:
            notes.append(f"Cycle {number + 2} records no parents of its questions.")
    return _Cycle(attempts, children)


def _rows(path: Path, columns: list[str], cycle: int, notes: list[str]) -> list[dict[str, Any]]:
    where = f"Cycle {cycle + 1}: {path.name}"
    try:
        if path.stat().st_size > MOST_BYTES:
            notes.append(f"{where} has more than {MOST_BYTES >> 20} MiB and is not shown.")
            return []
        schema = pq.read_schema(path)
        table: pa.Table = pq.read_table(path, columns=[name for name in columns if name in schema.names])
        rows = table.to_pylist()
    except FileNotFoundError:
        notes.append(f"{where} is missing.")
        return []
    except (DataError, OSError, *DECODE_ERRORS) as error:  # pyarrow's errors are among them
        notes.append(f"{where} cannot be read ({type(error).__name__}).")
        return []
    missing = dict.fromkeys(columns)
    return [{**missing, **row} for row in rows]


def _earlier(cycle: Path, notes: list[str]) -> int:
    """Samples of earlier cycles at the beginning of the cycle's corpus."""
    try:
        table = parse_json(read_input(cycle / "table.json"))
        return int(table["facts"]["source"].get("learnt") or 0)
    except (DataError, OSError, TypeError, *DECODE_ERRORS):
        notes.append(f"{cycle.name}: table.json cannot be read, so earlier questions may appear as new ones.")
        return 0


def _in_turn(attempts: Mapping[str, list[dict[str, Any]]], keys: Iterable[str]) -> Iterator[str]:
    """``keys`` with their grades in turn, those of failed attempts first."""
    groups: dict[str, list[str]] = {"hard": [], "middle": [], "easy": []}
    for key in keys:
        groups.setdefault(str(attempts[key][0]["grade"]), []).append(key)
    longest = max(map(len, groups.values()), default=0)
    for index in range(longest):
        yield from (group[index] for group in groups.values() if index < len(group))


@dataclass
class _Builder:
    """Questions with those below them; ``remaining``: questions that still fit on the page."""

    cycles: list[_Cycle]
    remaining: int = MOST_QUESTIONS

    def question(self, number: int, row: Mapping[str, Any]) -> Question:
        """The question of ``row`` in cycle ``number`` (from 0) and below it those derived from it."""
        self.remaining -= 1
        here = self.cycles[number] if number < len(self.cycles) else _Cycle({}, {})
        rows = here.attempts.get(row["id"], [])
        children = here.children.get(row["id"], []) if rows else []
        shown = []
        for child in children[:MOST_CHILDREN]:
            if self.remaining > 0:
                shown.append(self.question(number + 1, child))
        return Question(
            cycle=number,
            prompt=str(row["prompt"]),
            answer=str(row["answer"]),
            level=None if row["level"] is None else str(row["level"]),
            grade=str(rows[0]["grade"]) if rows else None,
            attempts=tuple(dict.fromkeys(Attempt(item["attempt"], item["verdict"], item["reason"]) for item in rows)),
            children=tuple(shown),
            more=len(children) - len(shown),
        )
