"""The suites ``token`` and ``line``: completion of the next character and of the next line.

``token``: one forward pass over a program gives the prediction after every prefix. *greedy* takes the likeliest token,
*paper* (2407.10194) samples at temperature 1. Counts are characters (tokens, for another tokenizer than one of
characters); the first one of a program has no prefix and is not counted. Random programs contain much that is
unpredictable, so the best possible share is far below 1, and neighbouring characters are not independent: the interval
concerns characters of these programs only. The authors use the whole text, output included: ``text: all``.

``line``: for every line of a program after the first, the student receives all true lines before it and writes as many
characters as the true line has, newlines included: *greedy*, or *paper* (2407.10194), sampled at temperature 1. A line
passes when it is equal; ``edit_similarity`` measures the others, and with *paper* ``fuzzy_ratio``, the authors'
measure, does too. Empty lines are left out. Where a token may extend over the end of a line, the prompt ends before
that token and the first token is constrained to the removed text (token healing, ``inference.decode``).

With ``chat`` the prompt goes through the tokenizer's chat template, and only the answer is evaluated, from its first
token or line on. Where the option is not given, the model decides (``prompt_format.uses_chat_template``).

Edit similarity is 1 − d / max(length), with Levenshtein's distance d. The fuzzy ratio is that of the package
fuzzywuzzy, which the authors of 2407.10194 use: twice the characters in matching blocks over all characters, rounded to
whole per cent. The blocks are those of ``difflib``, fuzzywuzzy's default; with python-Levenshtein installed it uses
that one's, and a few pairs differ.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from ..inference import decode
from ..lazy import pa
from ..model import prompt_format, vocabulary
from ..options import BatchSize, strict
from ..stage import Event, Events, Model, Suite, SuiteResult, ignore_events
from .statistics import (
    Attempt,
    Mode,
    SampleLimit,
    check_chat,
    check_options,
    check_samples,
    program_texts,
    sample_indices,
    tally,
    text_column,
)

Text = Annotated[
    Literal["program", "all"],
    Field(description="Evaluate the prompt (the answer where there is none), or the prompt and the answer (`all`)."),
]
ChatAnswers = Annotated[
    bool | None,
    Field(
        description="Evaluate only answers, after prompts in the tokenizer's chat template. Default: for samples with "
        "prompts if the model was trained on such prompts, or if it has a template and was not trained by Gradatim "
        "(TinyPy programs are then plain text); not with `text: all`."
    ),
]


def edit_similarity(first: str, second: str) -> float:
    """1 − distance / length of the longer, in [0, 1]; 1 for two empty strings."""
    longer = max(len(first), len(second))
    return 1 - edit_distance(first, second) / longer if longer else 1.0


def fuzzy_ratio(attempt: str, truth: str) -> float:
    """fuzzywuzzy's ``ratio(attempt, truth)`` as a share, in whole per cent; it is not symmetric."""
    if attempt == truth:
        return 1.0
    if not attempt or not truth:
        return 0.0
    return round(100 * SequenceMatcher(None, attempt, truth).ratio()) / 100


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's distance by Myers' bit-parallel algorithm (JACM 1999, in Hyyrö's form of 2003).

    A column of the distance table is stored as two integers, whose bit i is set where the distance rises or falls from
    row i to i + 1; one step over ``second`` is a dozen operations on integers instead of a loop over ``first``.
    """
    if not first or not second:
        return len(first) + len(second)
    masks: dict[str, int] = {}
    for number, character in enumerate(first):
        masks[character] = masks.get(character, 0) | 1 << number
    all_ones = (1 << len(first)) - 1
    last = 1 << len(first) - 1
    rises, falls, distance = all_ones, 0, len(first)
    for character in second:
        mask = masks.get(character, 0)
        level = (((mask & rises) + rises) ^ rises) | mask | falls
        row_rises = falls | ~(level | rises)
        row_falls = rises & level
        distance += bool(row_rises & last) - bool(row_falls & last)
        row_rises = row_rises << 1 | 1
        rises = (row_falls << 1 | ~(level | row_rises)) & all_ones
        falls = row_rises & level & all_ones
    return distance


@strict("the suite 'token'")
def token(
    *,
    protocol: Mode = "greedy",
    text: Text = "program",
    chat: ChatAnswers = None,
    limit: SampleLimit = None,
    batch: BatchSize = None,
) -> Suite:
    """Next characters."""
    return Token(protocol, text, chat, limit, batch).checked("token")


@dataclass(frozen=True)
class CompletionOptions(Suite):
    """Options of the suites ``token`` and ``line``; see there."""

    protocol: Mode
    text: Literal["program", "all"]
    chat: bool | None
    limit: int | None
    batch: int | None

    def checked(self, suite: str) -> Self:
        """These options; ``RecipeError`` for a value out of range, and for ``chat`` with another text."""
        check_options(suite, limit=self.limit, batch=self.batch)
        check_chat(suite, bool(self.chat), self.text)
        return self

    def for_model(self, suite: str, tokenizer: Any, samples: pa.Table, events: Events) -> Self:
        """These options with ``chat`` decided by the model and the samples where it is None, which a note says."""
        if self.chat is not None:
            return self
        chat = self.text == "program" and prompt_format.uses_chat_template(tokenizer, text_column(samples, "prompt"))
        if chat:
            text = f"{suite}: answers alone are evaluated, after prompts in the model's chat template (chat=false: not)"
            events(Event("note", suite, text=text))
        return replace(self, chat=chat)

    def texts(self, tokenizer: Any, samples: pa.Table) -> list[str]:
        """The texts to complete: answers in a chat, else ``text``, with the separator of the model's training."""
        if self.chat:
            return text_column(samples, "answer")
        separator = prompt_format.prompt_format_of(tokenizer).separator
        return program_texts(samples, self.text, lambda prompt: prompt_format.plain_prompt(prompt, separator))

    def chat_prompts(self, tokenizer: Any, samples: pa.Table) -> list[str] | None:
        """The prompts in the tokenizer's chat template, None without ``chat``."""
        if not self.chat:
            return None
        system = prompt_format.prompt_format_of(tokenizer).system
        return list(map(prompt_format.chat_formatter(tokenizer, system), text_column(samples, "prompt")))


@dataclass(frozen=True)
class Token(CompletionOptions):
    """The suite ``token`` with its options; see the module docstring."""

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per sample, of as many units as it has characters after the first.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``, and for a chat
        without a template.
        """
        check_samples(samples)
        if self.chat is None:
            return self.for_model("token", student.tokenizer, samples, events)(
                student, samples, seed=seed, events=events
            )
        started = time.perf_counter()
        rows = sample_indices(samples.num_rows, self.limit, seed)
        items = samples.take(pa.array(rows, pa.int64()))
        texts = self.texts(student.tokenizer, items)
        prompts = text_column(items, "prompt") if self.chat else [text[:1] for text in texts]
        predictions = decode.predict_next(
            student.model,
            student.tokenizer,
            texts,
            greedy=self.protocol == "greedy",
            seed=seed,
            batch=self.batch,
            prefixes=self.chat_prompts(student.tokenizer, items),
            events=events,
            task=f"token ({self.protocol})",
        )
        vocab = vocabulary.Vocabulary(student.tokenizer)
        attempts = []
        for row, prompt, text, prediction in zip(map(int, rows), prompts, texts, predictions, strict=True):
            passed = int((prediction.truth == prediction.predicted).sum())
            missing = prediction.total - len(prediction.predicted)
            invalid = missing if prediction.finish == "unknown_character" else 0
            attempt = vocab.text(prediction.predicted.tolist(), prediction.before)
            if not self.chat and len(prediction.before):
                prompt = vocab.text(prediction.before.tolist())
                attempt = prompt + attempt
            failed = len(prediction.predicted) - passed
            attempts.append(Attempt(row, prompt, text, attempt, passed, failed, missing - invalid, invalid))
        return tally("token", self.protocol, samples, attempts, started=started)


@strict("the suite 'line'")
def line(
    *,
    protocol: Mode = "greedy",
    text: Text = "program",
    chat: ChatAnswers = None,
    limit: SampleLimit = None,
    batch: BatchSize = None,
) -> Suite:
    """Next lines."""
    return Line(protocol, text, chat, limit, batch).checked("line")


@dataclass(frozen=True)
class LinePrompt:
    """One line to predict: ``truth`` follows ``prefix``, the beginning of its text up to a newline."""

    row: int
    prefix: str
    truth: str


@dataclass(frozen=True)
class Line(CompletionOptions):
    """The suite ``line`` with its options; see the module docstring."""

    def __call__(self, student: Model, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per line.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``, and for a chat
        without a template.
        """
        check_samples(samples)
        if self.chat is None:
            return self.for_model("line", student.tokenizer, samples, events)(
                student, samples, seed=seed, events=events
            )
        started = time.perf_counter()
        before = self.chat_prompts(student.tokenizer, samples)
        lines = list(_line_prompts(self.texts(student.tokenizer, samples), first=self.chat))
        prompts = [lines[index] for index in sample_indices(len(lines), self.limit, seed)]
        completions = decode.complete(
            student.model,
            student.tokenizer,
            [prompt.prefix for prompt in prompts],
            prefixes=None if before is None else [before[prompt.row] for prompt in prompts],
            # A character may take as many tokens as it has bytes; the start of a text may have one more.
            limits=[len(prompt.truth.encode("utf-8", "surrogatepass")) + self.chat for prompt in prompts],
            greedy=self.protocol == "greedy",
            seed=seed,
            drafts=[prompt.truth for prompt in prompts],
            settled=_LongEnough([len(prompt.truth) for prompt in prompts]),
            heal=True,
            batch=self.batch,
            events=events,
            task=f"line ({self.protocol})",
        )
        attempts, similar, fuzzy = [], 0.0, 0.0
        questions = text_column(samples, "prompt") if self.chat else None
        for prompt, completion in zip(prompts, completions, strict=True):
            attempt = _judge(prompt, completion)
            if questions is not None:  # the text before the line begins with the question
                question = prompt_format.plain_prompt(questions[prompt.row], prompt_format.SEPARATOR)
                attempt = replace(attempt, prompt=question + attempt.prompt)
            if attempt.passed + attempt.failed:
                similar += edit_similarity(attempt.attempt, prompt.truth)
                fuzzy += fuzzy_ratio(attempt.attempt, prompt.truth) if self.protocol == "paper" else 0.0
            attempts.append(attempt)
        scores = {"edit_similarity": (similar, len(prompts))}
        if self.protocol == "paper":
            scores["fuzzy_ratio"] = (fuzzy, len(prompts))
        return tally("line", self.protocol, samples, attempts, started=started, scores=scores)


@dataclass(frozen=True)
class _LongEnough:
    """``decode.Settled`` of the suite ``line``: the text has the length of the line."""

    lengths: Sequence[int]

    def __call__(self, index: int, text: str) -> bool:
        return len(text) >= self.lengths[index]


def _line_prompts(texts: Sequence[str], *, first: bool = False) -> Iterator[LinePrompt]:
    """The non-empty lines of each text after the first line, or with ``first`` from the first on."""
    for row, text in enumerate(texts):
        start = 0 if first else text.find("\n") + 1 or len(text)
        while start < len(text):
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            if end > start:
                yield LinePrompt(row, text[:start], text[start:end])
            start = end + 1


def _judge(prompt: LinePrompt, completion: Any) -> Attempt:
    row, prefix, truth = prompt.row, prompt.prefix, prompt.truth
    if completion.finish == "unknown_character":
        return Attempt(row, prefix, truth, invalid=1)
    if completion.finish == "too_long":
        return Attempt(row, prefix, truth, too_long=1)
    # Tokens of several characters may exceed the length of the line.
    text = completion.text[: len(truth)]
    return Attempt(row, prefix, truth, text, passed=int(text == truth), failed=int(text != truth))
