"""How hard is a sample in the opinion of a teacher, from 1 to 10?

One request per sample, at temperature 0: the analysis comes first, then the number, in tags. The reply is read
strictly. A number that is missing, given twice, out of range, or put before any analysis is no opinion; such a sample
has no score (NaN), and ``causes`` counts it, as it counts refusals. Opinions are remembered by the chat, the prompt
and the sample's text as soon as they arrive (see ``remembered``), so a rating that was stopped goes on where it was.

The prompt is ``judged.md`` beside this file, or a file of the user's: above a line ``---`` what the system is told,
below it the user's message, with ``{question}`` and, if wanted, ``{answer}``.

Teachers belong to a later layer, so the chat comes from the injected ``OpenChat``. How well a teacher's rating predicts
the errors of a model is measured by ``reporting.correlation``.
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
from ..options import strict
from ..stage import Event, Events, ignore_events
from .cache import Remembered, key_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["Judged", "judged", "read_rating"]


MOST_TOKENS = 400
LOWEST, HIGHEST = 1, 10
PACKAGED = Path(__file__).with_name("judged.md")

_TAGGED = re.compile(r"<difficulty>\s*(\d{1,2})\s*</difficulty>")
_PLACE = re.compile(r"\{(question|answer)\}")
_PARTED = re.compile(r"^---[ \t]*\n", re.MULTILINE)


Messages = tuple[tuple[str, str], ...]
"""One conversation: (role, text) pairs."""


class Completion(Protocol):
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
        received: Callable[[int, Completion], None],
    ) -> None:
        """Call ``received`` with the index and the completion of each conversation; a refused one has none."""
        ...


class OpenChat(Protocol):
    """The chat of a teacher by its name and options; injected by ``assemble.difficulties``."""

    def __call__(self, teacher: str, options: Mapping[str, Any], *, where: str) -> RatingChat:
        """Raises ``UnknownPart`` or ``RecipeError`` when there is no such teacher, or it has no chat."""
        ...


@dataclass(frozen=True)
class Judged:
    """The difficulty that ``chat`` gives each sample when it is asked with ``prompt``; see the module.

    ``causes`` counts, for the last call, why samples have none.
    """

    chat: RatingChat
    prompt: str
    causes: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def identity(self) -> str:
        """What opinions depend on besides the sample."""
        return f"{self.chat.identity}\0{self.prompt}"

    def __call__(
        self, samples: pa.Table, *, workers: int = 1, events: Events = ignore_events
    ) -> npt.NDArray[np.float64]:
        """One float per row; ``workers`` has no say: the chat decides how many requests are under way.

        Raises what the chat raises; what had arrived by then is remembered.
        """
        import numpy as np

        self.causes.clear()
        columns = ([value or "" for value in samples[name].to_pylist()] for name in ("prompt", "answer"))
        pairs: list[tuple[str, str]] = list(zip(*columns, strict=True))
        keys = [key_of(*pair) for pair in pairs]
        kept = Remembered(self.identity, "judged")
        figures = kept.known()
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in figures}
        order, why = list(todo), dict[bytes, str]()

        from ..languages.thinking import strip_thinking

        def received(place: int, reply: Completion) -> None:
            rating = read_rating(strip_thinking(reply.text))
            if rating is None:
                why[order[place]] = f"the reply cannot be read ({reply.finish})"
                return
            figures[order[place]] = rating
            kept.add({order[place]: rating})

        if todo:
            conversations = [self._messages(*pair) for pair in todo.values()]
            self.chat.complete(conversations, max_tokens=MOST_TOKENS, events=events, received=received)
        self.causes.update(why.get(key, "the request was refused") for key in keys if key not in figures)
        for cause, count in sorted(self.causes.items()):
            events(Event("note", "judged", text=f"judged: {count:,} samples have no score: {cause}"))
        return np.array([figures.get(key, math.nan) for key in keys], dtype=np.float64)

    def _messages(self, question: str, answer: str) -> tuple[tuple[str, str], ...]:
        parts = _PARTED.split(self.prompt, maxsplit=1)
        values = {"question": question, "answer": answer}
        # All places at once: a program may have braces of its own.
        filled = (_PLACE.sub(lambda found: values[found[1]], part).strip() for part in parts)
        return tuple(zip(("system", "user")[-len(parts) :], filled, strict=True))


def read_rating(text: str) -> float | None:
    """The number in the reply's only ``<difficulty>``, after some analysis; None when the reply has not that form."""
    found = _TAGGED.findall(text)
    analysed = re.sub(r"</?analysis>", "", text[: text.find("<difficulty>")]).strip() if found else ""
    if len(found) != 1 or text.count("<difficulty>") != 1 or not analysed:
        return None
    # A number of thousands of digits is none that Python converts.
    rating = int(found[0]) if len(found[0]) <= len(str(HIGHEST)) else HIGHEST + 1
    return float(rating) if LOWEST <= rating <= HIGHEST else None


@strict("the difficulty 'judged'")
def judged(
    open_chat: OpenChat | None = None,
    /,
    *,
    teacher: str = "",
    options: Mapping[str, Any] | None = None,
    prompt: str | None = None,
) -> Judged:
    """How hard a teacher finds a sample, from 1 to 10; what cannot be read has no score."""
    where = "the difficulty 'judged'"
    if not teacher:
        raise RecipeError("it needs a teacher to ask", where=where, hint="teacher: api, and its options in options")
    if open_chat is None:
        raise RecipeError("it needs a chat", where=where, hint="assemble.make_difficulty('judged', options)")
    return Judged(open_chat(teacher, options or {}, where=where), _prompt(prompt))


def _prompt(given: str | None) -> str:
    path = PACKAGED if given is None else Path(given)
    try:
        text = read_input(path, 1 << 20).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the prompt cannot be read", where=path, given=error) from error
    if "{question}" not in _PARTED.split(text, maxsplit=1)[-1]:
        raise RecipeError("the placeholder {question} is missing in the user's message", where=path)
    return text
