"""What is a teacher, and what is the chat that most teachers are made of?

A ``Chat`` turns requests into replies, in their order, and knows nothing of questions. A ``Teacher`` answers, errs,
asks and grades; ``oracle`` does so by itself, ``language.LanguageTeacher`` through a chat. A ``Request`` with another
``draw`` is another request: asking again is a new draw, and the same request with the same draw means the same reply.
This module asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..client.messages import Received, Reply, Request, ignore_reply
from ..stage import Events, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "GRADES",
    "Chat",
    "Grade",
    "Question",
    "Received",
    "Reply",
    "Request",
    "Teacher",
    "ignore_reply",
    "used_since",
]

GRADES = ("easy", "middle", "hard")
"""How a parent went, for which a new question can be asked."""


class Chat(Protocol):
    """Messages in, text out.

    ``facts``: ``requests``, ``cached``, ``prompt_tokens``, ``completion_tokens``, ``cost``, ``retries`` and ``failed``
    (by cause). ``cost(reply)`` is the price of a reply in the unit of the recipe's prices, 0 where nothing is paid.
    """

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def identity(self) -> str:
        """Endpoint and model, never a key: requests to chats of one identity are the same requests."""
        ...

    def cost(self, reply: Reply) -> float: ...

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """One reply per request, in their order; None where the request itself was refused for good.

        When this raises, everything that arrived before has been handed to ``received``.
        """
        ...


@dataclass(frozen=True)
class Question:
    """A question that somebody wrote, with the right answer where it is known."""

    prompt: str
    answer: str | None
    level: str | None
    language: str
    tests: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Grade:
    """What the rubric gave: ``points`` of 6 in half points, the parts by name, and the analysis written before them."""

    points: float
    parts: Mapping[str, float]
    analysis: str


class Teacher(Protocol):
    """What the loop asks for. Lists are in the order of the rows; None: nothing usable could be had, which is counted.

    The same call gives the same result; another ``draw`` asks anew. Tables are in ``table.SCHEMA``. Rows that are equal
    get equal results: what shall differ differs in ``draw``.
    """

    @property
    def facts(self) -> dict[str, Any]:
        """Plain counts of what was asked and what could not be had."""
        ...

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Right answers, as the column ``answer`` holds them."""
        ...

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Plausible answers that are not the sample's and are meant to be wrong."""
        ...

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """One new question per parent, of its kind; ``grade`` says how the parent went: easy, middle or hard."""
        ...

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """Questions to begin with. ``UserError`` where the teacher has no way to write them."""
        ...

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """Points for each attempt. ``UserError`` where the teacher has no opinion, only the truth."""
        ...

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None:
        """A curriculum after ``facts`` in the ``form`` of a JSON Schema, as it was written; None: nothing came.

        With ``faults`` it is asked to mend its ``reply``. ``UserError`` where the teacher has no opinion.
        """
        ...


def used_since(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What a teacher's facts have grown by: requests, tokens and cost of one piece of work."""
    grown: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping):
            grown[name] = used_since(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            grown[name] = value - (old if isinstance(old, int | float) else 0)
        else:
            grown[name] = value
    return grown
