"""Difficulty rated by a teacher, from 1 to 10.

One request per sample, at temperature 0: the reply holds an analysis first, then the number in tags, and is parsed
strictly. A number that is missing, given twice, out of range, or before any analysis is no rating; such a sample has no
score (NaN), counted in ``causes`` as refusals are. Ratings are cached by chat, prompt and sample text as soon as they
arrive (see ``cache``), so that an interrupted scoring resumes.

The prompt is ``judged.md`` beside this file, or a file of the user's: the system message above a line ``---``, below it
the user's message with ``{question}`` and, optionally, ``{answer}``. Teachers belong to a later layer, so the chat
comes from the injected ``OpenChat``. How well a rating predicts the errors of a model is measured by
``reporting.correlation``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import DataError, RecipeError
from ..files import read_input
from ..languages.thinking import strip_thinking
from ..options import strict
from ..stage import Event, Events, ignore_events
from .cache import ScoreCache, key_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["TeacherRating", "judged", "read_rating"]


MOST_TOKENS = 400
LOWEST, HIGHEST = 1, 10
PACKAGED = Path(__file__).with_name("judged.md")

_TAGGED = re.compile(r"<difficulty>\s*(\d{1,2})\s*</difficulty>")
_PLACEHOLDER = re.compile(r"\{(question|answer)\}")
_SEPARATOR = re.compile(r"^---[ \t]*\n", re.MULTILINE)


Messages = tuple[tuple[str, str], ...]
"""One conversation: (role, text) pairs."""


class ChatReply(Protocol):
    """The reply to one conversation; ``finish`` is the reason why it ended."""

    @property
    def text(self) -> str: ...

    @property
    def finish(self) -> str: ...


class RatingChat(Protocol):
    """A chat model that completes conversations at temperature 0."""

    @property
    def identity(self) -> str:
        """Endpoint and model: ratings are stored under it."""
        ...

    def complete(
        self,
        messages: Sequence[Messages],
        *,
        max_tokens: int,
        events: Events = ...,
        received: Callable[[int, ChatReply], None],
    ) -> None:
        """Call ``received`` with the index and the completion of each conversation; a refused one has none."""
        ...


class OpenChat(Protocol):
    """The chat of a teacher by its name and options; injected by ``assemble.difficulties``."""

    def __call__(self, teacher: str, options: Mapping[str, Any], *, where: str) -> RatingChat:
        """Raises ``UnknownPart`` or ``RecipeError`` when there is no such teacher, or it has no chat."""
        ...


@dataclass(frozen=True)
class TeacherRating:
    """The difficulty that ``chat`` assigns to each sample with ``prompt``; see the module.

    ``causes`` counts the causes of missing ratings in the last call.
    """

    chat: RatingChat
    prompt: str
    causes: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def identity(self) -> str:
        """The state that ratings depend on besides the sample."""
        return f"{self.chat.identity}\0{self.prompt}"

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per row; ``workers`` is ignored: the chat limits the number of concurrent requests.

        Exceptions of the chat are passed on; ratings that had arrived are cached.
        """
        import numpy as np

        self.causes.clear()
        columns = ([value or "" for value in samples[name].to_pylist()] for name in ("prompt", "answer"))
        pairs: list[tuple[str, str]] = list(zip(*columns, strict=True))
        keys = [key_of(*pair) for pair in pairs]
        cache = ScoreCache(self.identity, "judged")
        ratings = cache.scores()
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in ratings}
        order, missing = list(todo), dict[bytes, str]()

        def received(index: int, reply: ChatReply) -> None:
            rating = read_rating(strip_thinking(reply.text))
            if rating is None:
                missing[order[index]] = f"the reply cannot be read ({reply.finish})"
                return
            ratings[order[index]] = rating
            cache.add({order[index]: rating})

        if todo:
            conversations = [self._messages(*pair) for pair in todo.values()]
            self.chat.complete(conversations, max_tokens=MOST_TOKENS, events=events, received=received)
        self.causes.update(missing.get(key, "the request was refused") for key in keys if key not in ratings)
        for cause, count in sorted(self.causes.items()):
            events(Event("note", "judged", text=f"judged: {count:,} samples have no score: {cause}"))
        return np.array([ratings.get(key, math.nan) for key in keys], dtype=np.float64)

    def _messages(self, question: str, answer: str) -> tuple[tuple[str, str], ...]:
        sections = _SEPARATOR.split(self.prompt, maxsplit=1)
        values = {"question": question, "answer": answer}
        # All placeholders in one pass: a program may contain braces itself.
        filled = (_PLACEHOLDER.sub(lambda match: values[match[1]], section).strip() for section in sections)
        return tuple(zip(("system", "user")[-len(sections) :], filled, strict=True))


def read_rating(text: str) -> float | None:
    """The number in the reply's only ``<difficulty>``, after an analysis; None for a reply of another form."""
    numbers = _TAGGED.findall(text)
    analysed = re.sub(r"</?analysis>", "", text[: text.find("<difficulty>")]).strip() if numbers else ""
    if len(numbers) != 1 or text.count("<difficulty>") != 1 or not analysed:
        return None
    # Python refuses to convert a number of thousands of digits.
    rating = int(numbers[0]) if len(numbers[0]) <= len(str(HIGHEST)) else HIGHEST + 1
    return float(rating) if LOWEST <= rating <= HIGHEST else None


@strict("the difficulty 'judged'")
def judged(
    open_chat: OpenChat | None = None,
    /,
    *,
    teacher: str = "",
    options: Mapping[str, Any] | None = None,
    prompt: str | None = None,
) -> TeacherRating:
    """A teacher's rating of a sample, from 1 to 10; a reply that cannot be parsed gives no score."""
    where = "the difficulty 'judged'"
    if not teacher:
        raise RecipeError("it needs a teacher", where=where, hint="teacher: api, and its options in options")
    if open_chat is None:
        raise RecipeError("it needs a chat", where=where, hint="assemble.make_difficulty('judged', options)")
    return TeacherRating(open_chat(teacher, options or {}, where=where), _prompt(prompt))


def _prompt(file: str | None) -> str:
    path = PACKAGED if file is None else Path(file)
    try:
        text = read_input(path, 1 << 20).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the prompt cannot be read", where=path, given=error) from error
    if "{question}" not in _SEPARATOR.split(text, maxsplit=1)[-1]:
        raise RecipeError("the placeholder {question} is missing in the user's message", where=path)
    return text
