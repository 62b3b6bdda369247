"""Requests to a language model and its replies.

A ``Request`` is a conversation, as teachers send it; a ``Generation`` is one text of an evaluation, a conversation of
one message or a prompt to be continued. Both have the same interface for ``endpoint``: ``chat``, ``seed``, ``content``
and ``texts``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

__all__ = ["Generation", "Query", "Received", "Reply", "Request", "ignore_reply", "request_number"]


@dataclass(frozen=True)
class Request:
    """What is asked: (role, text) pairs, the number of the draw, and how the reply is written.

    Stored replies depend on these fields and their defaults: a new field would change every key of the cache.
    """

    messages: tuple[tuple[str, str], ...]
    draw: int = 0
    temperature: float = 0.0
    max_tokens: int = 512

    @property
    def chat(self) -> bool:
        return True

    @property
    def seed(self) -> int:
        """Another one for each draw."""
        return request_number(self) % 2**31

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.messages)

    @property
    def content(self) -> dict[str, Any]:
        """What the server is to answer, as fields of the request's body."""
        return {"messages": [{"role": role, "content": text} for role, text in self.messages]}


@dataclass(frozen=True)
class Generation:
    """One text of an evaluation: the reply to ``prompt`` where ``chat``, else its continuation up to ``stop``."""

    prompt: str
    chat: bool
    seed: int
    temperature: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.prompt,)

    @property
    def content(self) -> dict[str, Any]:
        """What the server is to answer, as fields of the request's body."""
        if self.chat:
            return {"messages": [{"role": "user", "content": self.prompt}]}
        # OpenAI's own server takes four strings; the caller cuts the text at the others.
        return {"prompt": self.prompt, **({"stop": list(self.stop[:4])} if self.stop else {})}


Query: TypeAlias = Request | Generation


@dataclass(frozen=True)
class Reply:
    """What came back. ``finish``: ``stop``, ``length``, ``refusal``, ``empty``, or the model's own word. ``raw`` is the
    whole body that an endpoint sent."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    raw: str = field(default="", compare=False, repr=False)


Received = Callable[[int, Reply], None]
"""The receiver of a request's place and its reply, called the moment that the reply arrives, by one thread at a
time."""


def ignore_reply(place: int, reply: Reply) -> None:
    """The default receiver: keeps nothing."""


def request_number(request: Query, attempt: int = 0) -> int:
    """32 bits that depend on the request, its draw, and the attempt."""
    text = json.dumps([asdict(request), attempt], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
