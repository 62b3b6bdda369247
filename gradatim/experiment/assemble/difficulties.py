"""Difficulties by name, with the scorers and chats that some of them need.

The positional parameters of a difficulty's factory are services, filled by their names; its keyword-only parameters
are the options of a recipe. Models and teachers belong to later layers than ``difficulty``, so their services are
injected here, for recipes, ``api.score`` and ``gradatim score`` alike:

    open_scorer   ``difficulty.model_based.OpenScorer``: the scorer of a model by its name
    open_chat     ``difficulty.teacher_rating.OpenChat``: the chat of a teacher by its name and options

No torch is imported before a scorer reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...difficulty import DIFFICULTIES
from ...difficulty.cache import digest_of
from ...difficulty.model_based import Quantity, ScoringRequest
from ...difficulty.teacher_rating import ChatReply, Messages
from ...errors import RecipeError
from ...model.hub import check_model, weight_paths
from ...stage import Difficulty, Events, ignore_events
from ...teacher import TEACHERS, Chat, Request

__all__ = ["NamedScorer", "TeacherChat", "make_difficulty", "open_chat", "open_scorer"]

TOKENIZATION = "tokens 2"
"""Part of a scorer's identity; a change of the tokens that a text is read as takes a new value."""


def make_difficulty(
    name: str, options: Mapping[str, Any] | None = None, *, where: str = "difficulty.metric"
) -> Difficulty:
    """The registered difficulty ``name`` with ``options`` and the services that its factory requires.

    Raises ``UnknownPart`` for a name that is not registered and ``RecipeError`` for options that do not fit.
    """
    factory = DIFFICULTIES.get(name, where=where)
    difficulty: Difficulty = factory(*_services(name, factory, where), **dict(options or {}))
    return difficulty


def _services(name: str, factory: Callable[..., Any], where: str) -> list[Any]:
    parameters = inspect.signature(factory).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional]
    if unknown := [service for service in names if service not in SERVICES]:
        raise RecipeError(
            f"the difficulty {name!r} requires a service that does not exist",
            where=where,
            given=", ".join(unknown),
            allowed=", ".join(SERVICES),
            hint="an option of a difficulty is a keyword-only parameter of its factory",
        )
    return [SERVICES[service] for service in names]


@dataclass(frozen=True)
class NamedScorer:
    """The scorer of a model by its name. The model is loaded for a reading and released after it."""

    name: str
    batch: int | None = None
    chat: bool = False

    @property
    def identity(self) -> str:
        """A digest of the weights, configuration and tokenizer, of an adapter's base too; a model on the hub is
        fetched for it. The batch size is no part of it: it changes last bits only.
        """
        digests = [digest_of(path, template=self.chat) for path in weight_paths(self.name)]
        return "\0".join([TOKENIZATION, *digests, *(["chat"] if self.chat else [])])

    def read(self, quantity: Quantity, requests: Sequence[ScoringRequest]) -> Iterator[Mapping[int, float | str]]:
        """See ``difficulty.model_based.Scorer``."""
        from ...inference.loglikelihood import read_model  # imports torch

        return read_model(self.name, quantity, requests, batch=self.batch, chat=self.chat)


def open_scorer(model: str, *, batch: int | None = None, chat: bool = False) -> NamedScorer:
    """The scorer of ``model``; ``DataError`` when it is neither a file or folder nor a possible name on the hub."""
    check_model(model)
    return NamedScorer(model, batch, chat)


@dataclass(frozen=True)
class TeacherChat:
    """A teacher's chat as ``difficulty.teacher_rating`` uses one: messages in, completions out, at temperature 0."""

    chat: Chat

    @property
    def identity(self) -> str:
        """That of the chat."""
        return self.chat.identity

    def complete(
        self,
        messages: Sequence[Messages],
        *,
        max_tokens: int,
        events: Events = ignore_events,
        received: Callable[[int, ChatReply], None],
    ) -> None:
        """See ``difficulty.teacher_rating.RatingChat``. A model in this process releases its memory afterwards."""
        requests = [Request(messages=conversation, max_tokens=max_tokens) for conversation in messages]
        self.chat.ask(requests, events, received)
        getattr(self.chat, "release", lambda: None)()


def open_chat(teacher: str, options: Mapping[str, Any], *, where: str) -> TeacherChat:
    """The chat of the teacher ``teacher``; ``RecipeError`` when it has none."""
    built = TEACHERS.get(teacher, where=f"{where}: teacher")(**dict(options))
    chat = getattr(built, "chat", None)
    if chat is None:
        raise RecipeError(
            "this teacher cannot rate a sample: it is no language model",
            where=where,
            given=teacher,
            allowed="a teacher with a chat, such as api or local",
        )
    return TeacherChat(chat)


SERVICES: Mapping[str, Any] = {"open_scorer": open_scorer, "open_chat": open_chat}
"""What a difficulty's factory may require, by the name of the positional parameter."""
