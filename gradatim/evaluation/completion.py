"""How alike are two lines?

Edit similarity is 1 − d / max(length), with Levenshtein's distance d: the fewest characters to insert, delete or
replace. It is 1 for equal lines and 0 when nothing can be kept.

The fuzzy ratio is that of the package fuzzywuzzy, which the authors of 2407.10194 use: twice the characters in matching
blocks over all characters, rounded to whole per cent. The blocks are those of the standard library's ``difflib``, which
fuzzywuzzy takes by itself; where python-Levenshtein is installed too it takes that one's instead, and a few pairs
differ. Compare like with like.

After every true prefix of a program, does the student name the next character?

Nothing needs to be written: one forward pass over a program gives the student's choice after every prefix. *greedy*
takes the likeliest token, *paper* (2407.10194) samples at temperature 1. Counts are characters (tokens, when the
tokenizer is not one of characters); the first of a program has no prefix and is not asked. Random programs hold much
that nobody can foresee, so the best possible share is far below 1, and neighbouring characters are not independent:
the interval is about characters of these programs, no more. The authors go over the whole snippet, its output included:
``text: all``.

With ``chat`` the prompt goes through the tokenizer's chat template, and the answer is asked about, its first token too.

Given the lines so far, does the student write the next one?

For every line of a program after the first the student is given all true lines before it and writes as many
characters as the true line has, newlines included if it comes to that: *greedy* the likeliest, *paper*
(2407.10194) sampled at temperature 1. A line passes when it is exactly right; ``edit_similarity`` tells how near the
others come, and with *paper* ``fuzzy_ratio`` does by the authors' measure (``similarity``). The authors ask for the
lines of the whole snippet, its output included: ``text: all``. Empty lines are not asked: nothing would have to be
written. Where a token may reach over the end of a line the student is asked from that token's beginning on, and held to
what is known of it (``heal`` in ``student.decode``).

With ``chat`` the prompt goes through the tokenizer's chat template, and the answer's lines are asked, the first too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

from ..options import strict
from ..stage import Events, Suite, SuiteResult, ignore_events
from .tally import Attempt, Mode, check_chat, check_options, check_samples, chosen, program_texts, tally, text_column

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["edit_distance", "edit_similarity", "fuzzy_ratio", "line", "token"]


def edit_similarity(one: str, other: str) -> float:
    """1 − distance / length of the longer, in [0, 1]; 1 for two empty strings."""
    longer = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longer if longer else 1.0


def fuzzy_ratio(attempt: str, truth: str) -> float:
    """fuzzywuzzy's ``ratio(attempt, truth)`` as a share, in whole per cent; the order matters, as it does there."""
    if attempt == truth:
        return 1.0
    if not attempt or not truth:
        return 0.0
    return round(100 * SequenceMatcher(None, attempt, truth).ratio()) / 100


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance by Myers' bit-parallel algorithm (JACM 1999, in Hyyrö's form of 2003).

    A column of the distance table is kept as two whole numbers, whose bit i says whether the distance rises or
    falls from row i to i + 1; one step over ``other`` is then a dozen operations on whole numbers instead of a loop
    over ``one``.
    """
    if not one or not other:
        return len(one) + len(other)
    places: dict[str, int] = {}
    for number, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << number
    everything = (1 << len(one)) - 1
    last = 1 << len(one) - 1
    rises, falls, distance = everything, 0, len(one)
    for character in other:
        here = places.get(character, 0)
        level = (((here & rises) + rises) ^ rises) | here | falls
        row_rises = falls | ~(level | rises)
        row_falls = rises & level
        distance += bool(row_rises & last) - bool(row_falls & last)
        row_rises = row_rises << 1 | 1
        rises = (row_falls << 1 | ~(level | row_rises)) & everything
        falls = row_rises & level & everything
    return distance


@strict("the suite 'token'")
def token(
    *,
    protocol: Mode = "greedy",
    text: Literal["program", "all"] = "program",
    chat: bool = False,
    limit: int | None = None,
    batch: int | None = None,
) -> Suite:
    """Next characters. ``text`` is the prompt (the answer where there is none), or ``all`` for both together;
    ``chat`` asks about answers alone, after prompts in the tokenizer's chat template; ``limit`` asks about that many
    samples, chosen by the seed; ``batch`` as in ``complete``.
    """
    check_options("token", limit=limit, batch=batch)
    check_chat("token", chat, text)
    return Token(protocol, text, chat, limit, batch)


@dataclass(frozen=True)
class Token:
    """The suite ``token`` with its options; see the module."""

    protocol: Mode
    text: Literal["program", "all"]
    chat: bool
    limit: int | None
    batch: int | None

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per sample, of as many units as it has characters after the first.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``, and for a chat
        without a template.
        """
        from ..inference.decode import predict_next
        from ..model.prompt_format import chat_formatter, prompt_format_of
        from ..model.vocabulary import Vocabulary

        check_samples(samples)
        started = time.perf_counter()
        rows = chosen(samples.num_rows, self.limit, seed)
        asked = samples.take(rows)
        texts = text_column(asked, "answer") if self.chat else program_texts(asked, self.text)
        prompts, given = [text[:1] for text in texts], None
        if self.chat:
            prompts = text_column(asked, "prompt")
            given = list(map(chat_formatter(student.tokenizer, prompt_format_of(student.tokenizer).system), prompts))
        predictions = predict_next(
            student.model,
            student.tokenizer,
            texts,
            greedy=self.protocol == "greedy",
            seed=seed,
            batch=self.batch,
            prefixes=given,
            events=events,
            task=f"token ({self.protocol})",
        )
        vocabulary = Vocabulary(student.tokenizer)
        attempts = []
        for row, prompt, text, found in zip(map(int, rows), prompts, texts, predictions, strict=True):
            passed = int((found.truth == found.predicted).sum())
            unasked = found.total - len(found.predicted)
            invalid = unasked if found.finish == "unknown_character" else 0
            said = vocabulary.text(found.predicted.tolist(), found.before)
            if not self.chat and len(found.before):
                prompt = vocabulary.text(found.before.tolist())
                said = prompt + said
            failed = len(found.predicted) - passed
            attempts.append(Attempt(row, prompt, text, said, passed, failed, unasked - invalid, invalid))
        return tally("token", self.protocol, samples, attempts, started=started)


@strict("the suite 'line'")
def line(
    *,
    protocol: Mode = "greedy",
    text: Literal["program", "all"] = "program",
    chat: bool = False,
    limit: int | None = None,
    batch: int | None = None,
) -> Suite:
    """Next lines. ``text`` is the prompt (the answer where there is none), or ``all`` for both together;
    ``chat`` asks for the lines of answers alone, after prompts in the tokenizer's chat template; ``limit`` asks about
    that many lines, chosen by the seed from all of them; ``batch`` as in ``complete``.
    """
    check_options("line", limit=limit, batch=batch)
    check_chat("line", chat, text)
    return Line(protocol, text, chat, limit, batch)


@dataclass(frozen=True)
class Question:
    """One line to be written: after ``prefix``, the beginning of its text up to a newline, comes ``truth``."""

    row: int
    prefix: str
    truth: str


@dataclass(frozen=True)
class Line:
    """The suite ``line`` with its options; see the module."""

    protocol: Mode
    text: Literal["program", "all"]
    chat: bool
    limit: int | None
    batch: int | None

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per line asked.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``, and for a chat
        without a template.
        """
        from ..inference.decode import complete
        from ..model.prompt_format import chat_formatter, prompt_format_of

        check_samples(samples)
        started = time.perf_counter()
        before = None
        if self.chat:
            shape = chat_formatter(student.tokenizer, prompt_format_of(student.tokenizer).system)
            before = list(map(shape, text_column(samples, "prompt")))
        texts = text_column(samples, "answer") if self.chat else program_texts(samples, self.text)
        every = list(_questions(texts, first=self.chat))
        asked = [every[place] for place in chosen(len(every), self.limit, seed)]
        written = complete(
            student.model,
            student.tokenizer,
            [question.prefix for question in asked],
            prefixes=None if before is None else [before[question.row] for question in asked],
            # A character may take as many tokens as it has bytes, and a text that begins may have a token before it.
            limits=[len(question.truth.encode("utf-8", "surrogatepass")) + self.chat for question in asked],
            greedy=self.protocol == "greedy",
            seed=seed,
            drafts=[question.truth for question in asked],
            settled=lambda place, text: len(text) >= len(asked[place].truth),
            heal=True,
            batch=self.batch,
            events=events,
            task=f"line ({self.protocol})",
        )
        attempts, similar, fuzzy = [], 0.0, 0.0
        for question, found in zip(asked, written, strict=True):
            attempt = _judge(question, found)
            if attempt.passed + attempt.failed:
                similar += edit_similarity(attempt.attempt, question.truth)
                fuzzy += fuzzy_ratio(attempt.attempt, question.truth) if self.protocol == "paper" else 0.0
            attempts.append(attempt)
        scores = {"edit_similarity": (similar, len(asked))}
        if self.protocol == "paper":
            scores["fuzzy_ratio"] = (fuzzy, len(asked))
        return tally("line", self.protocol, samples, attempts, started=started, scores=scores)


def _questions(texts: Sequence[str], *, first: bool = False) -> Iterator[Question]:
    """The lines of each text after its first, or from its ``first`` on."""
    for row, text in enumerate(texts):
        start = 0 if first else text.find("\n") + 1 or len(text)
        while start < len(text):
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            if end > start:
                yield Question(row, text[:start], text[start:end])
            start = end + 1


def _judge(question: Question, found: Any) -> Attempt:
    row, prefix, truth = question.row, question.prefix, question.truth
    if found.finish == "unknown_character":
        return Attempt(row, prefix, truth, invalid=1)
    if found.finish == "too_long":
        return Attempt(row, prefix, truth, too_long=1)
    # Tokens of several characters may go past the length of the line.
    text = found.text[: len(truth)]
    return Attempt(row, prefix, truth, text, passed=int(text == truth), failed=int(text != truth))
