"""After every true prefix of a program, does the student name the next character?

Nothing needs to be written: one forward pass over a program gives the student's choice after every prefix. *greedy*
takes the likeliest token, *paper* (2407.10194) samples at temperature 1. Counts are characters (tokens, when the
tokenizer is not one of characters); the first of a program has no prefix and is not asked. Random programs hold much
that nobody can foresee, so the best possible share is far below 1, and neighbouring characters are not independent:
the interval is about characters of these programs, no more. The authors go over the whole snippet, its output included:
``text: all``.

With ``chat`` the prompt goes through the tokenizer's chat template, and the answer is asked about, its first token too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..options import strict
from ..stage import Events, Suite, SuiteResult, ignore_events
from .attempts import Attempt, Mode, check_chat, check_options, check_samples, chosen, program_texts, tally, text_column

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["token"]


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
        from ..student.decode import predict_next
        from ..student.form import form_of, templated
        from ..student.vocabulary import Vocabulary

        check_samples(samples)
        started = time.perf_counter()
        rows = chosen(samples.num_rows, self.limit, seed)
        asked = samples.take(rows)
        texts = text_column(asked, "answer") if self.chat else program_texts(asked, self.text)
        prompts, given = [text[:1] for text in texts], None
        if self.chat:
            prompts = text_column(asked, "prompt")
            given = list(map(templated(student.tokenizer, form_of(student.tokenizer).system), prompts))
        predictions = predict_next(
            student.model,
            student.tokenizer,
            texts,
            greedy=self.protocol == "greedy",
            seed=seed,
            batch=self.batch,
            given=given,
            events=events,
            task=f"token ({self.protocol})",
        )
        vocabulary = Vocabulary(student.tokenizer)
        attempts = []
        for row, prompt, text, found in zip(map(int, rows), prompts, texts, predictions, strict=True):
            passed = int((found.truth == found.chosen).sum())
            unasked = found.total - len(found.chosen)
            invalid = unasked if found.finish == "unknown_character" else 0
            said = vocabulary.text(found.chosen.tolist(), found.before)
            if not self.chat and len(found.before):
                prompt = vocabulary.text(found.before.tolist())
                said = prompt + said
            failed = len(found.chosen) - passed
            attempts.append(Attempt(row, prompt, text, said, passed, failed, unasked - invalid, invalid))
        return tally("token", self.protocol, samples, attempts, started=started)
