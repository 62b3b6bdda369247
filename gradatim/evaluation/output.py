"""The suite ``output``: prediction of a program's output.

The prompt is the question (for TinyPy the program and the line ``# output``), the text after it the answer. A student
trained with a chat template receives the prompt in it, and so does a chat model that was not trained by Gradatim,
except for TinyPy programs (``model.prompt_format``); ``chat`` says otherwise.

*greedy*: greedy decoding up to ``<eos>`` must equal the answer, character for character. The limit of tokens fits the
longest answer of the table, so a correct text is never truncated.

*scratchpad*: greedy decoding, but only the printed lines are compared, not the steps before them
(``programs.scratchpad``). The answers of the table may have steps or not; one without a printed line is invalid.

*paper* (2407.10194): sampling at temperature 1, at most 20 characters, or 30 when the program has a ``for``; the
numbers up to the first blank line (here ``<eos>``) must be the answer's numbers, in order, compared as floats: 4 equals
4.0. The authors' prompt ends before the newline after ``# output``, so that this newline is the first of the 20 or 30
characters; ours ends after it, and 19 or 29 remain. A student with all outputs correct has some 98 % of TinyPy under
this protocol, since longer outputs are truncated. The paper's expression reads -5.3 as -5 and 3; here it is one number.
Answers without a number are invalid under this protocol, since an empty text would equal them.

A model behind a server (``generation.Endpoint``) receives the prompt itself, or with ``chat`` a message; its tokenizer
is unknown here, so that limits count bytes of the longest answer instead of tokens. A text that the server cuts off at
the limit is wrong.

A verdict is often certain before the end of a text: a greedy attempt has failed at the first wrong character, a sampled
one when its numbers can no longer become the answer's. Decoding stops there, except for the attempts that become
examples and with ``whole_texts``. Neither verdicts nor examples depend on it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from ..errors import RecipeError
from ..inference import decode
from ..model import prompt_format, vocabulary
from ..options import BatchSize, strict
from ..programs import longest_answer, printed_lines
from ..stage import Event, Events, Model, Suite, SuiteResult, ignore_events
from .generation import Endpoint, Question, ServerOptions, Writing, server_options, write
from .model_server import ServedModel
from .statistics import (
    Attempt,
    SampleLimit,
    check_options,
    check_samples,
    example_indices,
    sample_indices,
    tally,
    text_column,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.decode import Completion, Settled


OutputProtocol = Annotated[
    Literal["greedy", "scratchpad", "paper"],
    Field(
        description="Greedy decoding and the whole answer; greedy decoding and its printed lines, without the steps of "
        "a scratchpad; or sampling at temperature 1 with the limits of arXiv 2407.10194."
    ),
]
PAPER_LIMIT, PAPER_LIMIT_WITH_FOR = 20, 30
"""Characters after ``# output``, its newline included."""
MARGIN = 8
"""Tokens beyond the longest answer in a greedy attempt, so that a wrong longer one shows."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_UNFINISHED = re.compile(r"\d(?:\.|[eE][+-]?)?\Z")  # a longer text may have another last number
_FOR = re.compile(r"\bfor\b")


@strict("the suite 'output'")
def output(
    *,
    protocol: OutputProtocol = "greedy",
    limit: SampleLimit = None,
    batch: BatchSize = None,
    chat: Annotated[
        bool | None,
        Field(
            description="Send the prompt as a chat message. Default: to a model folder as it was trained, or in its "
            "chat template if it was not trained by Gradatim (TinyPy programs are then plain text); to an endpoint "
            "false."
        ),
    ] = None,
    server: ServerOptions = None,
    whole_texts: Annotated[
        bool, Field(description="Write every text to its end, also after it is certain to be wrong, for its own sake.")
    ] = False,
) -> Suite:
    """Whole outputs."""
    check_options("output", limit=limit, batch=batch)
    if server is not None:
        server_options(**server)
    return Output(protocol, limit, batch, chat, server, whole_texts)


@dataclass(frozen=True)
class Output(Suite):
    """The suite ``output`` with its options; see the module docstring."""

    accepts_endpoint = True

    protocol: OutputProtocol
    limit: int | None
    batch: int | None
    chat: bool | None = None
    server: Mapping[str, Any] | None = None
    whole_texts: bool = False

    def __call__(
        self, student: Model | Endpoint | ServedModel, samples: pa.Table, *, seed: int, events: Events = ignore_events
    ) -> SuiteResult:
        """One attempt per sample. ``student`` has ``model`` and ``tokenizer``, as from ``load_student``, or is an
        ``Endpoint``.

        Raises ``DataError`` for a table without rows or without the columns ``prompt`` and ``answer``, ``WorkFailed``
        when a text of an endpoint is missing.
        """
        check_samples(samples)
        if isinstance(student, Endpoint | ServedModel):
            return self._evaluate_endpoint(student, samples, seed, events)
        if self.server is not None:
            raise RecipeError(
                "an endpoint has this option, and the model is none",
                where="the suite 'output'",
                given="server",
                hint="leave it out, or name a model as http://HOST/v1#NAME",
            )
        started = time.perf_counter()
        rows = sample_indices(samples.num_rows, self.limit, seed)
        items = samples.take(rows)
        prompts, answers = text_column(items, "prompt"), text_column(items, "answer")
        limits = self._limits(prompts, answers, vocabulary.Vocabulary(student.tokenizer))
        formatted = list(map(self._formatter(student.tokenizer, prompts, events), prompts))
        complete = partial(
            decode.complete,
            student.model,
            student.tokenizer,
            greedy=self.protocol != "paper",
            seed=seed,
            stop=("\n\n",) if self.protocol == "paper" else (),
            batch=self.batch,
        )
        completions = complete(
            formatted,
            limits=limits,
            drafts=answers,
            settled=None if self.whole_texts else self._settled(prompts, answers),
            events=events,
            task=f"output ({self.protocol})",
        )
        attempts = [self.judge(*item) for item in zip(map(int, rows), prompts, answers, completions, strict=True)]
        cut = [index for index in example_indices(attempts) if completions[index].finish == "settled"]
        texts = complete(
            [formatted[index] for index in cut],
            limits=[limits[index] for index in cut],
            drafts=[answers[index] for index in cut],
            indices=cut,
        )
        for index, text in zip(cut, texts, strict=True):
            attempts[index] = self.judge(int(rows[index]), prompts[index], answers[index], text)
        return tally("output", self.protocol, samples, attempts, started=started)

    def _formatter(self, tokenizer: Any, prompts: Sequence[str], events: Events) -> Callable[[str], str]:
        """The format of the prompts of a local model; a note says when it is not that of the model's training."""
        form, chat = prompt_format.prompt_format_of(tokenizer), self.chat
        if chat is None:
            trained = form.template == "chat"
            chat = trained or prompt_format.uses_chat_template(tokenizer, prompts)
            if chat and not trained:
                text = "output: the prompts are in the model's chat template (chat=false: not)"
                events(Event("note", "output", text=text))
        return (
            prompt_format.chat_formatter(tokenizer, form.system) if chat else prompt_format.plain_formatter(tokenizer)
        )

    def _evaluate_endpoint(
        self, server: Endpoint | ServedModel, samples: pa.Table, seed: int, events: Events
    ) -> SuiteResult:
        started = time.perf_counter()
        rows = sample_indices(samples.num_rows, self.limit, seed)
        items = samples.take(rows)
        prompts, answers = text_column(items, "prompt"), text_column(items, "answer")
        stop = ("\n\n",) if self.protocol == "paper" else ()
        # No token is shorter than a byte.
        longest = max(len(text.encode()) for text in self._texts(prompts, answers))
        tokens = max(map(paper_limit, prompts)) if self.protocol == "paper" else longest + 1 + MARGIN
        chat = bool(self.chat)
        if isinstance(server, ServedModel):
            tokens = max(self._limits(prompts, answers, vocabulary.Vocabulary(server.tokenizer)))
            chat = prompt_format.prompt_format_of(server.tokenizer).template == "chat"
        settings = Writing(tokens, float(self.protocol == "paper"), chat, seed, self.batch, self.server)
        questions = [Question(str(number), prompt, number, stop=stop) for number, prompt in enumerate(prompts)]
        texts = [sample for group in write(server, questions, settings, events) for sample in group]
        attempts = []
        for row, prompt, answer, sample in zip(map(int, rows), prompts, answers, texts, strict=True):
            finish = "eos" if sample.finish in ("", "stop") else sample.finish
            completion = decode.Completion(sample.text, cast("decode.Finish", finish))
            attempts.append(self.judge(row, prompt, answer, completion))
        return tally("output", self.protocol, samples, attempts, started=started)

    def _settled(self, prompts: Sequence[str], answers: Sequence[str]) -> Settled:
        """A function of an attempt's index and text so far: whether the attempt has certainly failed."""
        if self.protocol == "greedy":
            return _OtherText(answers)
        if self.protocol == "scratchpad":
            return _OtherLines(list(map(printed_lines, answers)))
        return _OtherNumbers([_paper_values(answer) for answer in answers], list(map(paper_limit, prompts)))

    def _limits(self, prompts: Sequence[str], answers: Sequence[str], vocabulary: Any) -> list[int]:
        """The largest number of tokens of each attempt."""
        if self.protocol == "paper":
            return [paper_limit(prompt) for prompt in prompts]
        encoded = vocabulary.encode_all(self._texts(prompts, answers))
        longest = max((len(tokens) for tokens in encoded if tokens is not None), default=0)
        return [longest + 1 + MARGIN] * len(prompts)

    def _texts(self, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[str]:
        """Texts that determine the limit of a greedy attempt: the answers, with the scratchpads that they lack."""
        if self.protocol != "scratchpad":
            return answers
        return [
            longest_answer(prompt, answer) if answer == printed_lines(answer) else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def judge(self, row: int, prompt: str, answer: str, completion: Completion) -> Attempt:
        """The verdict on one completion of row ``row``."""
        if completion.finish == "unknown_character" or not self._has_answer(answer):
            return Attempt(row, prompt, answer, completion.text, invalid=1)
        if completion.finish == "too_long":
            return Attempt(row, prompt, answer, too_long=1)
        if self.protocol != "paper":
            read = printed_lines if self.protocol == "scratchpad" else str
            text, right = completion.text, completion.finish == "eos" and read(completion.text) == read(answer)
        else:
            # Tokens of several characters may go past a limit that the paper counts in characters.
            text = completion.text[: paper_limit(prompt)]
            right = values_in(text) == _paper_values(answer)
        return Attempt(row, prompt, answer, text, passed=int(right), failed=int(not right))

    def _has_answer(self, answer: str) -> bool:
        if self.protocol == "paper":
            return bool(numbers_in(answer))
        return bool(printed_lines(answer) if self.protocol == "scratchpad" else answer)


@dataclass(frozen=True)
class _OtherText:
    """``decode.Settled`` of the protocol greedy: the text is no beginning of the answer."""

    answers: Sequence[str]

    def __call__(self, index: int, text: str) -> bool:
        return not self.answers[index].startswith(text)


@dataclass(frozen=True)
class _OtherLines:
    """``decode.Settled`` of the protocol scratchpad: the printed lines so far are no beginning of the output."""

    outputs: Sequence[str]

    def __call__(self, index: int, text: str) -> bool:
        whole_lines = text[: text.rfind("\n") + 1]
        return not self.outputs[index].startswith(printed_lines(whole_lines))


@dataclass(frozen=True)
class _OtherNumbers:
    """``decode.Settled`` of the protocol paper: no longer text has the answer's numbers; without any it is invalid."""

    numbers: Sequence[Sequence[float]]
    limits: Sequence[int]

    def __call__(self, index: int, text: str) -> bool:
        numbers = self.numbers[index]
        return not (numbers and can_become(text[: self.limits[index]], numbers))


def numbers_in(text: str) -> list[str]:
    """Every number of ``text`` as a string, with its minus sign, fraction and exponent."""
    return _NUMBER.findall(text)


def values_in(text: str) -> list[float]:
    """Every number of ``text`` as a float: 4 and 4.0 are equal, and so are 0 and -0."""
    return [float(number) for number in numbers_in(text)]


def can_become(text: str, values: Sequence[float]) -> bool:
    """Whether some text with the prefix ``text`` may have exactly these numbers; never wrongly False.

    A longer text can only change the last number, where ``text`` ends with it, and add numbers.
    """
    literals = numbers_in(text)
    numbers = [float(literal) for literal in literals]
    certain = numbers[:-1] if _UNFINISHED.search(text) else numbers
    if len(numbers) > len(values) or certain != list(values[: len(certain)]):
        return False
    return len(certain) == len(numbers) or _may_grow(literals[-1], values[len(numbers) - 1])


def _may_grow(number: str, value: float) -> bool:
    """Whether more characters may turn ``number`` into ``value``, by its sign and leading digits.

    Leading digits stay whatever follows, an exponent included; rounding may carry, so both ends are possible.
    """
    digits = number.lstrip("-").partition("e")[0].partition("E")[0].replace(".", "").lstrip("0")
    if not digits or not value or not math.isfinite(value):
        return True
    scaled = abs(value) / 10.0 ** (math.floor(math.log10(abs(value))) - len(digits) + 1)
    low, high = int(digits) * (1 - 1e-9), (int(digits) + 1) * (1 + 1e-9)
    near = any(low <= scaled * shift <= high for shift in (0.1, 1.0, 10.0))  # log10 may be off by one at a power of ten
    return near and number.startswith("-") == (value < 0)


def _paper_values(answer: str) -> list[float]:
    """The answer's numbers up to its first blank line."""
    return values_in(answer.split("\n\n")[0])


def paper_limit(prompt: str) -> int:
    """The largest number of characters of an answer; a final newline of the prompt is one of them."""
    limit = PAPER_LIMIT_WITH_FOR if _FOR.search(prompt) else PAPER_LIMIT
    return limit - prompt.endswith("\n")
