"""The suite ``choice``: multiple-choice questions, by the log-likelihood of their options.

A file is .jsonl, .json or .parquet. Its columns: ``question``; ``options``, a list (or ``choices``), or columns A, B,
C, …; ``answer``, an index from 0, a letter, or the option's text; optionally ``category`` and ``id``. A row that is no
question is reported with its number and the reason, and counts as invalid.

No text is generated: each option is read after the question, and its log-likelihood compared, as
lm-evaluation-harness does.

    accuracy     the option with the greatest log-likelihood is correct
    acc_norm     the same with the log-likelihood divided by the option's length in characters
    acc_bytes    the same with its length in bytes of UTF-8

The first of equal options counts. ``protocol`` sets the prompt:

    options      "Question: …\nAnswer:", and each option after a space (as for ARC)
    continue     the question unchanged, and each option after a space (as for HellaSwag)
    letters      the question, the options listed as A. B. …, "Answer:", and the letters after a space (as for MMLU)

Question and option are encoded as one text, spaces between them belong to the option, and the tokens beyond those of
the question alone are the option's. Two differences to the harness: a text longer than the context counts as
``too_long`` instead of losing its beginning, and a model without a start token is started with ``<eos>``.

With ``chat`` the question is the user's message of the tokenizer's chat template, and an option the beginning of the
reply: it has no space before it, and is encoded apart, since a control token ends the prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import DataError, RecipeError, UserError, did_you_mean
from ..files import check_input
from ..inference import loglikelihood
from ..lazy import pa, pq
from ..model import prompt_format, vocabulary
from ..options import BatchSize, strict
from ..stage import Event, Events, Model, Suite, SuiteResult, ignore_events
from ..table.rows import Rejected
from .problems import excerpt, read_rows, row_name
from .statistics import Attempt, SampleLimit, check_options, sample_indices, tally

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..inference.loglikelihood import Continuation


@dataclass(frozen=True)
class ChoiceQuestion:
    """One question; ``right`` is the index of the correct option."""

    id: str
    question: str
    options: tuple[str, ...]
    right: int
    category: str | None = None


@dataclass(frozen=True)
class QuestionSet:
    """The questions of ``source`` in the file's order, and the rejected rows."""

    source: str
    questions: tuple[ChoiceQuestion, ...]
    rejected: tuple[Rejected, ...] = ()


def read_questions(source: str | Path) -> QuestionSet:
    """The questions of a file. Raises ``DataError`` when it is missing, unreadable, or has no question."""
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
            rejected.append(Rejected(number, str(error), excerpt(fields.get("question") or list(fields))))
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

    if not path.is_file():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
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
    """The question of one row. Raises ``ValueError`` with the reason for an unusable row."""
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("no field 'question'" if question is None else "'question' is not text, or empty")
    options = _options(row)
    category, name = row.get("category"), row.get("id")
    if category is not None and not isinstance(category, str | int):
        raise ValueError("'category' is not text")
    id = str(name) if isinstance(name, str | int) and name != "" else f"row {number}"
    return ChoiceQuestion(id, question, options, _answer(row, options), None if category is None else str(category))


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    options = row.get("options", row.get("choices"))
    if isinstance(options, Mapping):  # the form of ARC: {"text": [...], "label": [...]}
        options = options.get("text")
    if options is None:
        letters = [letter for letter in ascii_uppercase if row.get(letter) is not None]
        if letters != list(ascii_uppercase[: len(letters)]):
            raise ValueError(f"the columns {', '.join(letters)} leave one out")
        options = [row[letter] for letter in letters]
    if not isinstance(options, list | tuple):
        raise ValueError("'options' is not a list")
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError("an option is not text, or empty")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(
            f"{len(options)} options; from 2 to {len(ascii_uppercase)} are allowed" if options else "no options"
        )
    if len(set(options)) < len(options):
        raise ValueError("two options are equal")
    return tuple(options)


def _answer(row: Mapping[str, Any], options: Sequence[str]) -> int:
    """Index of the correct option: the answer is an option's text, else a letter, else an index from 0."""
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
        raise ValueError(f"the answer {excerpt(answer)} is none of the options: {allowed}")
    return answer


Put = Annotated[
    Literal["options", "continue", "letters"],
    Field(
        description="Prompt format: options after the question and `Answer:` (as ARC), after the question "
        "alone (as HellaSwag), or listed with letters (as MMLU)."
    ),
]


@strict("the suite 'choice'")
def choice(
    *,
    problems: Annotated[
        str | None, Field(description="File of questions: .jsonl, .json or .parquet. Required.")
    ] = None,
    protocol: Put = "options",
    chat: Annotated[
        bool,
        Field(
            description="Format questions with the tokenizer's chat template; an option is the beginning of the reply."
        ),
    ] = False,
    limit: SampleLimit = None,
    batch: BatchSize = None,
) -> Suite:
    """Multiple-choice questions of a file, by the log-likelihood of the options."""
    check_options("choice", limit=limit, batch=batch)
    if problems is None:
        raise RecipeError("it needs a file of questions", where="the suite 'choice'", hint="problems: FILE")
    return Choice(problems, protocol, chat, limit, batch)


@dataclass(frozen=True)
class Choice(Suite):
    """The suite ``choice`` with its options; see the module docstring."""

    problems: str
    protocol: Put
    chat: bool
    limit: int | None
    batch: int | None

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per row of the file, rejected rows included; ``samples`` is not used.

        Raises ``DataError`` for a missing file, one without questions, and ``chat`` without a chat template,
        ``UserError`` for an endpoint: servers do not return the probabilities of a prompt.
        """
        if not hasattr(student, "model"):
            raise UserError("the suite 'choice' needs the model itself", where="model", allowed="a folder")
        started = time.perf_counter()
        if not self.chat:
            prompt_format.note_plain_prompts(student.tokenizer, "choice", events)
        file = read_questions(self.problems)
        for row in file.rejected:
            events(Event("note", "choice", text=f"{file.source}, row {row.row}{row_name(row)}: {row.cause}"))
        questions = [file.questions[int(index)] for index in sample_indices(len(file.questions), self.limit, seed)]
        results = self._log_likelihoods(student, questions, events)
        rejected = file.rejected
        attempts = [
            *(_attempt(row, self.protocol, *pair) for row, pair in enumerate(zip(questions, results, strict=True))),
            *(Attempt(len(questions) + n, row.content, "", row.cause, invalid=1) for n, row in enumerate(rejected)),
        ]
        rows: dict[str, list[str | None]] = {
            "id": [*(question.id for question in questions), *(f"row {row.row}" for row in rejected)],
            "category": [*(question.category for question in questions), *(None for _ in rejected)],
        }
        if not any(rows["category"]):
            del rows["category"]
        scored = [(question, end) for question, end in zip(questions, results, strict=True) if not isinstance(end, str)]
        scores = {
            "acc_norm": (_correct(scored, len), len(attempts)),
            "acc_bytes": (_correct(scored, lambda option: len(option.encode("utf-8", "surrogatepass"))), len(attempts)),
        }
        return tally("choice", self.protocol, pa.table(rows), attempts, started=started, scores=scores)

    def _log_likelihoods(
        self, student: Model, questions: Sequence[ChoiceQuestion], events: Events
    ) -> list[tuple[float, ...] | str]:
        """The log-likelihoods of each question's options, or the cause for one that cannot be encoded."""
        template = (
            prompt_format.chat_formatter(student.tokenizer, prompt_format.prompt_format_of(student.tokenizer).system)
            if self.chat
            else None
        )
        vocab = vocabulary.Vocabulary(student.tokenizer)
        results: list[Any] = []
        positions: list[tuple[int, int]] = []
        encoded: list[Continuation] = []
        for number, question in enumerate(questions):
            options = _encoded(student.model, vocab, *put(question, self.protocol), template=template)
            results.append(options if isinstance(options, str) else [0.0] * len(options))
            if not isinstance(options, str):
                positions += [(number, option) for option in range(len(options))]
                encoded += options
        events(Event("start", "choice", 0, len(encoded)))
        done = 0
        for batch in loglikelihood.log_likelihoods(student.model, encoded, batch=self.batch):
            for index, logprobs in batch.items():
                number, option = positions[index]
                results[number][option] = float(logprobs.sum())
            done += len(batch)
            events(Event("advance", "choice", done, len(encoded)))
        events(Event("finish", "choice", len(encoded), len(encoded)))
        return [result if isinstance(result, str) else tuple(result) for result in results]


def put(question: ChoiceQuestion, protocol: Put) -> tuple[str, tuple[str, ...]]:
    """The prompt of a question, and its possible continuations."""
    if protocol == "continue":
        return question.question, tuple(f" {option}" for option in question.options)
    if protocol == "options":
        return f"Question: {question.question}\nAnswer:", tuple(f" {option}" for option in question.options)
    letters = ascii_uppercase[: len(question.options)]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, question.options, strict=True))
    return f"{question.question.strip()}\n{listed}\nAnswer:", tuple(f" {letter}" for letter in letters)


def _encoded(
    model: PreTrainedModel,
    vocabulary: Any,
    context: str,
    options: Sequence[str],
    *,
    template: Callable[[str], str] | None,
) -> list[Continuation] | str:
    continuations = []
    prompt = context if template is None else template(context)
    for option in options:
        continuation = loglikelihood.encode_option(vocabulary, prompt, option, apart=template is not None)
        if isinstance(continuation, str):
            return continuation
        # The last token is a target only, and no input.
        if len(continuation.tokens) - 1 > loglikelihood.context_of(model):
            return loglikelihood.TOO_LONG
        continuations.append(continuation)
    return continuations


def _attempt(row: int, protocol: Put, question: ChoiceQuestion, end: tuple[float, ...] | str) -> Attempt:
    prompt, right = put(question, protocol)[0], question.options[question.right]
    if isinstance(end, str):
        return Attempt(
            row,
            prompt,
            right,
            end,
            too_long=int(end == loglikelihood.TOO_LONG),
            invalid=int(end != loglikelihood.TOO_LONG),
        )
    prediction = _best(end)
    passed = int(prediction == question.right)
    return Attempt(row, prompt, right, question.options[prediction], passed=passed, failed=1 - passed)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


def _correct(scored: Sequence[tuple[ChoiceQuestion, tuple[float, ...]]], length: Callable[[str], int]) -> float:
    """Number of correct questions when each log-likelihood is divided by the option's length."""
    return float(
        sum(
            _best([value / max(length(option), 1) for value, option in zip(end, question.options, strict=True)])
            == question.right
            for question, end in scored
        )
    )


def choices_table(file: QuestionSet, protocol: Put = "options") -> pa.Table:
    """The questions as samples with a column ``options``, for difficulties: ``p_correct`` compares the options."""
    from ..table import make_table

    pairs = [put(question, protocol) for question in file.questions]
    table = make_table(
        {
            "id": [question.id for question in file.questions],
            "prompt": [prompt for prompt, _ in pairs],
            "answer": [options[question.right] for question, (_, options) in zip(file.questions, pairs, strict=True)],
            "category": [question.category for question in file.questions],
        }
    )
    return table.append_column(
        "options", pa.array([list(options) for _, options in pairs], pa.list_(pa.large_string()))
    )
