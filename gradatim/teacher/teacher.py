"""The contracts of teachers and of chats.

A ``Chat`` turns requests into replies, in order, without any notion of questions. A ``Teacher`` writes answers,
rejected answers, new questions, grades and curricula: ``oracle`` by itself, ``llm_teacher.LanguageTeacher`` through a
chat. ``draw`` is the sample index of a request: equal requests of equal draws have equal replies, another draw is
another sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..client.messages import Cost, Received, Reply, Request, ignore_reply
from ..errors import UserError, did_you_mean
from ..stage import Events, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa


GRADES = ("easy", "middle", "hard")
"""Results on a parent question, one of which is given with each request for a new question."""


def check_grade(grade: str) -> None:
    """``UserError`` for a grade that is not in ``GRADES``."""
    if grade not in GRADES:
        raise UserError(
            "new questions have no such grade",
            where="teacher",
            given=grade,
            allowed=", ".join(GRADES),
            hint=did_you_mean(grade, GRADES),
        )


class Chat(Protocol):
    """A language model behind an interface of messages and texts.

    A subclass defines ``facts``, ``identity``, ``cost`` and ``ask``; the other members have the defaults of a chat
    without a budget and without memory to free.
    """

    @property
    def facts(self) -> dict[str, Any]:
        """``requests``, ``cached``, ``prompt_tokens``, ``completion_tokens``, ``cost`` (None: unknown), ``retries``,
        and ``failed`` by cause."""
        ...

    @property
    def identity(self) -> str:
        """Endpoint and model, never a key: part of the key of stored replies."""
        ...

    def cost(self, reply: Reply) -> float | None:
        """The price of a reply in the unit of the recipe's prices; 0 for a free model, None for an unknown price."""
        ...

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """One reply per request, in order; None for a request that was finally rejected.

        ``received`` is called for every reply on its arrival, also when this raises afterwards.
        """
        ...

    @property
    def limited(self) -> bool:
        """Whether a budget limits the requests."""
        return False

    def begin(self, spent: Cost) -> None:
        """Count ``spent``, the cost of earlier processes, against the budget."""
        return

    def check(self, request: Request, events: Events = ignore_events) -> None:
        """Send ``request`` to the server, without a stored reply; its errors are those of ``ask``.

        A chat without a server has nothing to check.
        """
        return

    def release(self) -> None:
        """Free the memory of a model in this process; the next request loads it again."""
        return


@dataclass(frozen=True)
class Question:
    """A new question, with the correct answer where the teacher has one."""

    prompt: str
    answer: str | None
    level: str | None
    language: str
    tests: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Grade:
    """A rubric score: ``points`` of 6 in half points, the points by criterion, and the analysis before them."""

    points: float
    parts: Mapping[str, float]
    analysis: str


class Teacher(Protocol):
    """The teacher of a run.

    Lists are in the order of the rows, with None for a row without a usable result, which is counted. Deterministic for
    (row, ``draw``), so equal rows have equal results; use another ``draw`` for another sample. Tables have the columns
    of ``table.SCHEMA``.

    A subclass defines ``facts``, ``answers``, ``faults``, ``questions`` and ``seeds``; the other members have defaults,
    those of a teacher without opinions. ``can_judge``: it has ``rubric`` and ``design``, for judges that request points
    and for designed schedules. ``exact``: its questions come with their answers, all computed instead of requested from
    a language model, so a plan may have them made. ``chat``: the language model behind it, for difficulties by rating.

    The options ``seed``, ``events`` and ``account`` (the key that a budget is counted by) of a factory default to the
    recipe's. With options ``max_tokens`` (of a reply) and ``prices`` a plan estimates the cost.
    """

    can_judge: bool = False
    exact: bool = False
    chat: Chat | None = None

    def check(self) -> None:
        """Verify that requests can be sent, before a run trains. Raises the errors of a request."""
        return

    def release(self) -> None:
        """Free the memory of a model in this process; the next request loads it again."""
        return

    @property
    def facts(self) -> dict[str, Any]:
        """Plain counts of requests and of missing results."""
        ...

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Correct answers, in the form of the column ``answer``."""
        ...

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Plausible incorrect answers, different from the samples' answers."""
        ...

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """One new question per parent, of its kind; ``grade`` is the result on the parent: easy, middle or hard."""
        ...

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """Questions of a first dataset. ``UserError`` where the teacher cannot write them."""
        ...

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """A rubric score per attempt. ``UserError`` where the teacher cannot judge."""
        raise UserError("this teacher gives no points", where="rubric", hint="a teacher that is a language model")

    def design(
        self,
        facts: str,
        *,
        form: str,
        reply: str = "",
        faults: Sequence[str] = (),
        prompt: str = "design",
        draw: int = 0,
    ) -> str | None:
        """The raw text of a curriculum for ``facts`` in the ``form`` of a JSON Schema; None without a reply.

        With ``faults``, a correction of the earlier ``reply``. ``prompt``: the name of the prompt, by the kind of
        student. ``UserError`` where the teacher cannot judge.
        """
        hint = "a teacher that is a language model"
        raise UserError("this teacher designs no curriculum", where="schedule", hint=hint)


def used_since(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The difference of two facts of a teacher: requests, tokens and cost of one piece of work."""
    difference: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping):
            difference[name] = used_since(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            difference[name] = value - (old if isinstance(old, int | float) else 0)
        else:
            difference[name] = value
    return difference
