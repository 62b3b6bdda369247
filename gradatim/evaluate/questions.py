"""Which multiple-choice questions does a file hold, and which of its rows are none?

A file is .jsonl, .json or .parquet. Its columns: ``question``; ``options``, a list (or ``choices``), or columns A, B,
C, …; ``answer``, an index from 0, a letter, or the option's text; optionally ``category`` and ``id``. A row that is
no question is handed back with its number and the reason, never dropped and never fatal. How a question is put to a
model is decided in ``choice``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..errors import DataError, did_you_mean
from ..files import check_input
from ..table.read import Rejected
from .rows import read_rows, shown

__all__ = ["ChoiceQuestion", "QuestionSet", "read_questions"]


@dataclass(frozen=True)
class ChoiceQuestion:
    """One question; ``right`` is the place of the right option, from 0."""

    id: str
    question: str
    options: tuple[str, ...]
    right: int
    category: str | None = None


@dataclass(frozen=True)
class QuestionSet:
    """The questions of ``source`` in the file's order, and the rows that are none."""

    source: str
    questions: tuple[ChoiceQuestion, ...]
    rejected: tuple[Rejected, ...] = ()


def read_questions(source: str | Path) -> QuestionSet:
    """The questions of a file. Raises ``DataError`` when it is not there, unreadable, or has no question."""
    questions: list[ChoiceQuestion] = []
    rejected: list[Rejected] = []
    for row in _rows(Path(source)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        try:
            questions.append(_question(number, fields))
        except ValueError as error:
            rejected.append(Rejected(number, str(error), shown(fields.get("question") or list(fields))))
    if not questions:
        first = rejected[0] if rejected else None
        raise DataError(
            f"no row is a question; the first: {first.cause}" if first else "the file has no questions",
            where=f"{source}, row {first.row}" if first else str(source),
            allowed="question; options (a list), or A, B, …; answer (an index from 0, a letter, or an option's text)",
        )
    return QuestionSet(str(source), tuple(questions), tuple(rejected))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Rejected]:
    if path.suffix.lower() != ".parquet":
        yield from read_rows(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("there is no such file", where=path, hint=did_you_mean(path.name, near))
    try:
        check_input(path)
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(4096):
            for fields in batch.to_pylist():
                number += 1
                yield number, fields
    except (pa.ArrowException, OSError) as error:
        raise DataError("the file cannot be read as Parquet", where=path, given=error) from error


def _question(number: int, row: Mapping[str, Any]) -> ChoiceQuestion:
    """The question of one row. Raises ``ValueError`` with the reason when it has none."""
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("no field 'question'" if question is None else "'question' is not text, or empty")
    options = _options(row)
    category, name = row.get("category"), row.get("id")
    if category is not None and not isinstance(category, str | int):
        raise ValueError("'category' is not text")
    told = str(name) if isinstance(name, str | int) and name != "" else f"row {number}"
    return ChoiceQuestion(told, question, options, _place(row, options), None if category is None else str(category))


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    given = row.get("options", row.get("choices"))
    if isinstance(given, Mapping):  # ARC's own form: {"text": [...], "label": [...]}
        given = given.get("text")
    if given is None:
        letters = [letter for letter in ascii_uppercase if row.get(letter) is not None]
        if letters != list(ascii_uppercase[: len(letters)]):
            raise ValueError(f"the columns {', '.join(letters)} leave one out")
        given = [row[letter] for letter in letters]
    if not isinstance(given, list | tuple):
        raise ValueError("'options' is not a list")
    if not all(isinstance(option, str) and option.strip() for option in given):
        raise ValueError("an option is not text, or empty")
    if not 2 <= len(given) <= len(ascii_uppercase):
        raise ValueError(f"{len(given)} options; from 2 to {len(ascii_uppercase)} are asked" if given else "no options")
    if len(set(given)) < len(given):
        raise ValueError("two options are equal")
    return tuple(given)


def _place(row: Mapping[str, Any], options: Sequence[str]) -> int:
    """The right option's place: the answer is an option's text, else a letter, else an index from 0."""
    answer = row.get("answer", row.get("answerKey"))
    if answer is None:
        raise ValueError("no field 'answer'")
    if isinstance(answer, str) and answer in options:
        return options.index(answer)
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in ascii_uppercase:
        answer = ascii_uppercase.index(answer.strip().upper())
    elif isinstance(answer, str) and answer.strip().isdecimal():
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        allowed = f"0 to {len(options) - 1}, A to {ascii_uppercase[len(options) - 1]}, or an option's text"
        raise ValueError(f"the answer {shown(answer)} is none of the options: {allowed}")
    return answer
