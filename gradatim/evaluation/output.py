"""Does the student know what a program prints?

The question is the prompt (for TinyPy the program and the line ``# output``), the answer what follows. A student that
was taught through a chat template is asked through it (``student.form``).

*greedy*: the likeliest text up to ``<eos>`` must be the answer, character for character. There is room for the
longest true answer of the table, so a right student is never cut short.

*paper* (2407.10194): sampled at temperature 1, at most 20 characters, or 30 when the program has a ``for``; the
numbers up to the first blank line (``<eos>`` plays its part here) must be the answer's numbers, in order. Numbers are
compared as floats, as the authors do: 4 answers 4.0. Their prompt ends before the newline after ``# output``, so that
this newline is the first of the 20 or 30 characters; ours ends behind it, and 19 or 29 remain. A student that has all
outputs right has some 98 % of TinyPy under this protocol, since longer outputs are cut. The paper's expression reads
-5.3 as -5 and 3; here it is one number. Answers without any number are invalid under this protocol: it could not tell
them from silence.

A verdict often stands before the text does: a greedy attempt has failed as soon as it leaves the answer, a sampled
one when the numbers read so far can no longer become the answer's. The student is asked no further then, except for
the few attempts that are shown as examples. Neither verdicts nor examples depend on it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..options import strict
from ..stage import Events, Suite, SuiteResult, ignore_events
from .tally import Attempt, Mode, check_options, check_samples, chosen, shown, tally, text_column

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.decode import Completion, Settled

__all__ = ["can_become", "numbers_in", "output", "paper_limit", "values_in"]


PAPER_LIMIT, PAPER_LIMIT_WITH_FOR = 20, 30
"""Characters after ``# output``, its newline included."""
MARGIN = 8
"""Tokens beyond the longest answer that a greedy attempt may take, so that a wrong one is seen to go on."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_UNFINISHED = re.compile(r"\d(?:\.|[eE][+-]?)?\Z")  # a text may go on so that its last number becomes another
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
        from ..inference.decode import complete
        from ..model.prompt_format import prompt_formatter
        from ..model.vocabulary import Vocabulary

        check_samples(samples)
        started = time.perf_counter()
        rows = chosen(samples.num_rows, self.limit, seed)
        asked = samples.take(rows)
        prompts, answers = text_column(asked, "prompt"), text_column(asked, "answer")
        limits = self._limits(prompts, answers, Vocabulary(student.tokenizer))
        shaped = list(map(prompt_formatter(student.tokenizer), prompts))
        write = partial(
            complete,
            student.model,
            student.tokenizer,
            greedy=self.protocol == "greedy",
            seed=seed,
            stop=() if self.protocol == "greedy" else ("\n\n",),
            batch=self.batch,
        )
        written = write(
            shaped,
            limits=limits,
            drafts=answers,
            settled=self._settled(prompts, answers),
            events=events,
            task=f"output ({self.protocol})",
        )
        attempts = [self._judge(*each) for each in zip(map(int, rows), prompts, answers, written, strict=True)]
        whole = [place for place in shown(attempts) if written[place].finish == "settled"]
        texts = write(
            [shaped[place] for place in whole],
            limits=[limits[place] for place in whole],
            drafts=[answers[place] for place in whole],
            indices=whole,
        )
        for place, text in zip(whole, texts, strict=True):
            attempts[place] = self._judge(int(rows[place]), prompts[place], answers[place], text)
        return tally("output", self.protocol, samples, attempts, started=started)

    def _settled(self, prompts: Sequence[str], answers: Sequence[str]) -> Settled:
        """Whether the attempt at an answer has failed for certain, seen from what was written so far."""
        if self.protocol == "greedy":
            return lambda place, text: not answers[place].startswith(text)
        numbers = [_paper_values(answer) for answer in answers]
        limits = [paper_limit(prompt) for prompt in prompts]
        # Without numbers there is no verdict to wait for.
        return lambda place, text: not (numbers[place] and can_become(text[: limits[place]], numbers[place]))

    def _limits(self, prompts: Sequence[str], answers: Sequence[str], vocabulary: Any) -> list[int]:
        """The most tokens each attempt may have."""
        if self.protocol == "paper":
            return [paper_limit(prompt) for prompt in prompts]
        encoded = vocabulary.encode_all(answers)
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
            text = written.text[: paper_limit(prompt)]
            right = values_in(text) == _paper_values(answer)
        return Attempt(row, prompt, answer, text, passed=int(right), failed=int(not right))

    def _has_answer(self, answer: str) -> bool:
        return bool(answer if self.protocol == "greedy" else numbers_in(answer))


def numbers_in(text: str) -> list[str]:
    """Every number of ``text`` as it is written, with its minus sign, fraction and exponent."""
    return _NUMBER.findall(text)


def values_in(text: str) -> list[float]:
    """Every number of ``text`` as a float: 4 and 4.0 are equal, and so are 0 and -0."""
    return [float(number) for number in numbers_in(text)]


def can_become(text: str, values: Sequence[float]) -> bool:
    """Whether some text that begins with ``text`` has just these numbers; it may say yes too often, never no.

    Going on can only change the last number of a text, where nothing stands behind it yet, and add more.
    """
    written = numbers_in(text)
    found = [float(number) for number in written]
    certain = found[:-1] if _UNFINISHED.search(text) else found
    if len(found) > len(values) or certain != list(values[: len(certain)]):
        return False
    return len(certain) == len(found) or _may_grow(written[-1], values[len(found) - 1])


def _may_grow(number: str, value: float) -> bool:
    """Whether more characters can make ``value`` of ``number``, as far as its sign and leading digits tell.

    They stay the leading digits whatever follows, an exponent included; rounding may carry, so both ends count.
    """
    digits = number.lstrip("-").partition("e")[0].partition("E")[0].replace(".", "").lstrip("0")
    if not digits or not value or not math.isfinite(value):
        return True
    scaled = abs(value) / 10.0 ** (math.floor(math.log10(abs(value))) - len(digits) + 1)
    low, high = int(digits) * (1 - 1e-9), (int(digits) + 1) * (1 + 1e-9)
    near = any(low <= scaled * shift <= high for shift in (0.1, 1.0, 10.0))  # log10 may be off by one at a power of ten
    return near and number.startswith("-") == (value < 0)


def _paper_values(answer: str) -> list[float]:
    """What must be read: the answer's numbers up to its first blank line."""
    return values_in(answer.split("\n\n")[0])


def paper_limit(prompt: str) -> int:
    """The most characters of an answer; a newline that the prompt ends with is one of the published number."""
    limit = PAPER_LIMIT_WITH_FOR if _FOR.search(prompt) else PAPER_LIMIT
    return limit - prompt.endswith("\n")
