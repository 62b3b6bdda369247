"""Does the student know what a program prints?

The question is the prompt (for TinyPy the program and the line ``# output``), the answer what follows.

*greedy*: the likeliest text up to ``<eos>`` must be the answer, character for character. There is room for the
longest true answer of the table, so a right student is never cut short.

*paper* (2407.10194): sampled at temperature 1, at most 20 characters, or 30 when the program has a ``for``; the
numbers up to the first blank line (``<eos>`` plays its part here) must be the answer's numbers, in order. The
paper's expression reads -5.3 as -5 and 3; here it is one number. What is equal there is equal here and the other way
round: 5 and 5.0 differ, as do 5.3 and 5.30, because Python prints them apart. Answers without any number are
invalid under this protocol: it could not tell them from silence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..options import strict
from ..stage import Events, Suite, SuiteResult, ignore_events
from .attempts import Attempt, Mode, check_options, check_samples, chosen, tally, text_column

if TYPE_CHECKING:
    from ..student.decode import Completion

__all__ = ["numbers_in", "output"]

PAPER_LIMIT, PAPER_LIMIT_WITH_FOR = 20, 30
MARGIN = 8
"""Tokens beyond the longest answer that a greedy attempt may take, so that a wrong one is seen to go on."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_FOR = re.compile(r"\bfor\b")


@strict("the suite 'output'")
def output(
    *,
    protocol: Mode = "greedy",
    limit: int | None = None,
    batch: int | None = None,
) -> Suite:
    """Whole outputs. ``limit`` asks about that many samples, chosen by the seed; ``batch`` as in ``complete``."""
    check_options("output", limit=limit, batch=batch)
    return Output(protocol, limit, batch)


@dataclass(frozen=True)
class Output:
    """The suite ``output`` with its options; see the module."""

    protocol: Mode
    limit: int | None
    batch: int | None

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One attempt per sample. ``student`` has ``model`` and ``tokenizer``, as ``load_student`` gives them.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``.
        """
        from ..student.decode import complete
        from ..student.vocabulary import Vocabulary

        check_samples(samples)
        started = time.perf_counter()
        rows = chosen(samples.num_rows, self.limit, seed)
        asked = samples.take(rows)
        prompts, answers = text_column(asked, "prompt"), text_column(asked, "answer")
        written = complete(
            student.model,
            student.tokenizer,
            prompts,
            limits=self._limits(prompts, answers, Vocabulary(student.tokenizer)),
            greedy=self.protocol == "greedy",
            seed=seed,
            stop=() if self.protocol == "greedy" else ("\n\n",),
            drafts=answers,
            batch=self.batch,
            events=events,
            task=f"output ({self.protocol})",
        )
        attempts = [self._judge(*each) for each in zip(map(int, rows), prompts, answers, written, strict=True)]
        return tally("output", self.protocol, samples, attempts, started=started)

    def _limits(self, prompts: Sequence[str], answers: Sequence[str], vocabulary: Any) -> list[int]:
        """The most tokens each attempt may have."""
        if self.protocol == "paper":
            return [_paper_limit(prompt) for prompt in prompts]
        encoded = [vocabulary.encode(answer) for answer in answers]
        longest = max((len(tokens) for tokens in encoded if tokens is not None), default=0)
        return [longest + 1 + MARGIN] * len(prompts)

    def _judge(self, row: int, prompt: str, answer: str, written: Completion) -> Attempt:
        if written.finish == "unknown_character" or not self._has_answer(answer):
            return Attempt(row, prompt, answer, written.text, invalid=1)
        if written.finish == "too_long":
            return Attempt(row, prompt, answer, too_long=1)
        if self.protocol == "greedy":
            text, right = written.text, written.finish == "eos" and written.text == answer
        else:
            # Tokens of several characters may go past a limit that the paper counts in characters.
            text = written.text[: _paper_limit(prompt)]
            right = numbers_in(text) == numbers_in(answer.split("\n\n")[0])
        return Attempt(row, prompt, answer, text, passed=int(right), failed=int(not right))

    def _has_answer(self, answer: str) -> bool:
        return bool(answer if self.protocol == "greedy" else numbers_in(answer))


def numbers_in(text: str) -> list[str]:
    """Every number of ``text`` as it is written, with its minus sign, fraction and exponent."""
    return _NUMBER.findall(text)


def _paper_limit(prompt: str) -> int:
    return PAPER_LIMIT_WITH_FOR if _FOR.search(prompt) else PAPER_LIMIT
