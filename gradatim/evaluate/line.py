"""Given the lines so far, does the student write the next one?

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
from typing import TYPE_CHECKING, Any, Literal

from ..options import strict
from ..stage import Events, Suite, SuiteResult, ignore_events
from .attempts import Attempt, Mode, check_chat, check_options, check_samples, chosen, program_texts, tally, text_column
from .similarity import edit_similarity, fuzzy_ratio

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["line"]


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
        from ..student.decode import complete
        from ..student.form import form_of, templated

        check_samples(samples)
        started = time.perf_counter()
        before = None
        if self.chat:
            shape = templated(student.tokenizer, form_of(student.tokenizer).system)
            before = list(map(shape, text_column(samples, "prompt")))
        texts = text_column(samples, "answer") if self.chat else program_texts(samples, self.text)
        every = list(_questions(texts, first=self.chat))
        asked = [every[place] for place in chosen(len(every), self.limit, seed)]
        written = complete(
            student.model,
            student.tokenizer,
            [question.prefix for question in asked],
            given=None if before is None else [before[question.row] for question in asked],
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
