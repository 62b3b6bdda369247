"""Which multiple-choice questions does a file hold, and which of its rows are none?

A file is .jsonl, .json or .parquet. Its columns: ``question``; ``options``, a list (or ``choices``), or columns A, B,
C, …; ``answer``, an index from 0, a letter, or the option's text; optionally ``category`` and ``id``. A row that is
no question is handed back with its number and the reason, never dropped and never fatal. How a question is put to a
model is decided in ``choice``.

Which of several answers does a model find likeliest?

Multiple-choice questions of a user's file. Nothing is written: each option is read after the question, and its
log-likelihood compared, as lm-evaluation-harness does.

    accuracy     the option with the greatest log-likelihood is the right one
    acc_norm     the same with the log-likelihood divided by the option's length in characters
    acc_bytes    the same with its length in bytes of UTF-8

Of equals the first counts. ``protocol`` says how a question is put:

    options      "Question: …\nAnswer:", and each option after a space (as ARC is put)
    continue     the question as it stands, and each option after a space (as HellaSwag is put)
    letters      the question, the options listed as A. B. …, "Answer:", and the letters after a space (as MMLU is put)

Where the question ends and the option begins is found as there: both are encoded as one text, spaces at the seam go to
the option, and the tokens beyond those of the question alone are the option's. Two differences: there, a text that is
too long loses its beginning, while here the question counts as ``too_long``; and a model without a start token is
started with ``<eos>``.

With ``chat`` the question goes through the tokenizer's chat template as the user's, and an option is the beginning of
the reply: it has no space before it, and is encoded apart, since the template's mark ends what is given.

What a file of questions looks like is said in ``questions``. A row that is no question is named and counted as invalid;
the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, RecipeError, UserError, did_you_mean
from ..files import check_input
from ..options import strict
from ..stage import Event, Events, Suite, SuiteResult, ignore_events
from ..table.report import Rejected
from .samples import read_rows, shown, told
from .tally import Attempt, check_options, sample_indices, tally

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.loglikelihood import Continuation

__all__ = ["ChoiceQuestion", "QuestionSet", "choice", "choices_table", "put", "read_questions"]


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


Put = Literal["options", "continue", "letters"]


@strict("the suite 'choice'")
def choice(
    *,
    problems: str | None = None,
    protocol: Put = "options",
    chat: bool = False,
    limit: int | None = None,
    batch: int | None = None,
) -> Suite:
    """Multiple-choice questions of a file, by the log-likelihood of the options."""
    check_options("choice", limit=limit, batch=batch)
    if problems is None:
        raise RecipeError("it needs a file of questions", where="the suite 'choice'", hint="problems: FILE")
    return Choice(problems, protocol, chat, limit, batch)


@dataclass(frozen=True)
class Choice:
    """The suite ``choice`` with its options; see the module."""

    problems: str
    protocol: Put
    chat: bool
    limit: int | None
    batch: int | None

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per question of the file, and one per row that is none; ``samples`` is not used.

        Raises ``DataError`` for a file that is not there or has no question and for a chat without a template,
        ``UserError`` for a model that is not on this machine: the probabilities of given texts are not to be had over
        HTTP.
        """
        import pyarrow as pa

        if not hasattr(student, "model"):
            raise UserError("the suite 'choice' looks into the model itself", where="model", allowed="a folder")
        started = time.perf_counter()
        asked = read_questions(self.problems)
        for row in asked.rejected:
            events(Event("note", "choice", text=f"{asked.source}, row {row.row}{told(row)}: {row.cause}"))
        questions = [asked.questions[int(each)] for each in sample_indices(len(asked.questions), self.limit, seed)]
        ends = self._answers(student, questions, events)
        rejected = asked.rejected
        attempts = [
            *(_attempt(row, self.protocol, *both) for row, both in enumerate(zip(questions, ends, strict=True))),
            *(Attempt(len(questions) + n, row.content, "", row.cause, invalid=1) for n, row in enumerate(rejected)),
        ]
        rows: dict[str, list[str | None]] = {
            "id": [*(each.id for each in questions), *(f"row {row.row}" for row in rejected)],
            "category": [*(each.category for each in questions), *(None for _ in rejected)],
        }
        if not any(rows["category"]):
            del rows["category"]
        judged = [(each, end) for each, end in zip(questions, ends, strict=True) if not isinstance(end, str)]
        scores = {
            "acc_norm": (_right(judged, len), len(attempts)),
            "acc_bytes": (_right(judged, lambda option: len(option.encode("utf-8", "surrogatepass"))), len(attempts)),
        }
        return tally("choice", self.protocol, pa.table(rows), attempts, started=started, scores=scores)

    def _answers(
        self, student: Any, questions: Sequence[ChoiceQuestion], events: Events
    ) -> list[tuple[float, ...] | str]:
        """The log-likelihood of each option, or why a question cannot be asked."""
        from ..inference.loglikelihood import log_likelihoods
        from ..model.prompt_format import chat_formatter, prompt_format_of
        from ..model.vocabulary import Vocabulary

        shape = chat_formatter(student.tokenizer, prompt_format_of(student.tokenizer).system) if self.chat else None
        vocabulary = Vocabulary(student.tokenizer)
        ends: list[Any] = []
        places: list[tuple[int, int]] = []
        encoded: list[Continuation] = []
        for number, each in enumerate(questions):
            made = _encoded(student.model, vocabulary, *put(each, self.protocol), shape=shape)
            ends.append(made if isinstance(made, str) else [0.0] * len(made))
            if not isinstance(made, str):
                places += [(number, option) for option in range(len(made))]
                encoded += made
        events(Event("start", "choice", 0, len(encoded)))
        done = 0
        for found in log_likelihoods(student.model, encoded, batch=self.batch):
            for place, each_token in found.items():
                number, option = places[place]
                ends[number][option] = float(each_token.sum())
            done += len(found)
            events(Event("advance", "choice", done, len(encoded)))
        events(Event("finish", "choice", len(encoded), len(encoded)))
        return [end if isinstance(end, str) else tuple(end) for end in ends]


def put(each: ChoiceQuestion, protocol: Put) -> tuple[str, tuple[str, ...]]:
    """What the model is shown, and what it may go on with."""
    if protocol == "continue":
        return each.question, tuple(f" {option}" for option in each.options)
    if protocol == "options":
        return f"Question: {each.question}\nAnswer:", tuple(f" {option}" for option in each.options)
    letters = ascii_uppercase[: len(each.options)]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, each.options, strict=True))
    return f"{each.question.strip()}\n{listed}\nAnswer:", tuple(f" {letter}" for letter in letters)


def _encoded(
    model: Any, vocabulary: Any, context: str, options: Sequence[str], *, shape: Callable[[str], str] | None
) -> list[Continuation] | str:
    from ..inference.loglikelihood import TOO_LONG, context_of, encode_option

    made = []
    given = context if shape is None else shape(context)
    for option in options:
        each = encode_option(vocabulary, given, option, apart=shape is not None)
        if isinstance(each, str):
            return each
        # The last token is asked for, never read.
        if len(each.tokens) - 1 > context_of(model):
            return TOO_LONG
        made.append(each)
    return made


def _attempt(row: int, protocol: Put, question: ChoiceQuestion, end: tuple[float, ...] | str) -> Attempt:
    prompt, right = put(question, protocol)[0], question.options[question.right]
    if isinstance(end, str):
        from ..inference.loglikelihood import TOO_LONG

        return Attempt(row, prompt, right, end, too_long=int(end == TOO_LONG), invalid=int(end != TOO_LONG))
    taken = _best(end)
    passed = int(taken == question.right)
    return Attempt(row, prompt, right, question.options[taken], passed=passed, failed=1 - passed)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])


def _right(judged: Sequence[tuple[ChoiceQuestion, tuple[float, ...]]], length: Callable[[str], int]) -> float:
    """How many are right when each log-likelihood is divided by the option's length."""
    return float(
        sum(
            _best([value / max(length(option), 1) for value, option in zip(end, each.options, strict=True)])
            == each.right
            for each, end in judged
        )
    )


def choices_table(asked: QuestionSet, protocol: Put = "options") -> pa.Table:
    """The questions as samples with a column ``options``, for difficulties: ``p_correct`` compares the options."""
    import pyarrow as pa

    from ..table import make_table

    both = [put(each, protocol) for each in asked.questions]
    made = make_table(
        {
            "id": [each.id for each in asked.questions],
            "prompt": [prompt for prompt, _ in both],
            "answer": [options[each.right] for each, (_, options) in zip(asked.questions, both, strict=True)],
            "category": [each.category for each in asked.questions],
        }
    )
    return made.append_column("options", pa.array([list(options) for _, options in both], pa.list_(pa.large_string())))
