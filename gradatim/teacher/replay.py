"""A chat with scripted replies, for tests and documents.

Replies of ``ScriptedChat`` come from a list (in the order of the requests), from a mapping (the first key that occurs
in the request's last message), or from a function of the request. Requests are counted, and ``failures`` simulate an
endpoint that goes down.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..options import strict
from ..stage import Events, ignore_events
from .llm_teacher import LanguageTeacher
from .teacher import Received, Reply, Request, Teacher, ignore_reply

__all__ = ["Script", "ScriptedChat", "scripted"]


Script = Sequence[str | None] | Mapping[str, str | None] | Callable[[Request], str | None]


class ScriptedChat:
    """Replies by ``script``; None in it is a final rejection. Every word counts as a token.

    ``failures``: an exception in place of the reply to the n-th request, counted from 0 over all calls; raised once.
    ``asked``: the requests with a reply or a rejection.
    """

    def __init__(self, script: Script, *, failures: Mapping[int, BaseException] | None = None, name: str = "") -> None:
        self._script = script
        self._failures = dict(failures or {})
        self._name = name
        self._next = 0
        self.asked: list[Request] = []
        self._counts = Counter[str]()

    @property
    def identity(self) -> str:
        """The name, or a hash of a script of data."""
        if self._name or callable(self._script):
            return f"scripted:{self._name}"
        entries = list(self._script.items()) if isinstance(self._script, Mapping) else list(self._script)
        return f"scripted:{hashlib.sha256(repr(entries).encode()).hexdigest()[:16]}"

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Chat.facts``."""
        counts = {name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        failed = {"rejected": self._counts["rejected"]} if self._counts["rejected"] else {}
        return {**counts, "cost": 0.0, "retries": 0, "failed": failed}

    def cost(self, reply: Reply) -> float:
        """0: scripted replies are free."""
        return 0.0

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """The script's replies. ``DataError`` when a list is exhausted or no key of a mapping matches a request."""
        replies: list[Reply | None] = []
        for index, request in enumerate(requests):
            failure = self._failures.pop(self._next, None)
            if failure is not None:
                raise failure
            reply = self._reply(request)
            self._next += 1
            self.asked.append(request)
            if reply is not None:
                received(index, reply)
            replies.append(reply)
        return replies

    def _reply(self, request: Request) -> Reply | None:
        text = self._text(request)
        if text is None:
            self._counts["rejected"] += 1
            return None
        prompt_tokens = sum(len(message.split()) for _, message in request.messages)
        self._counts.update(requests=1, prompt_tokens=prompt_tokens, completion_tokens=len(text.split()))
        return Reply(text, "stop" if text.strip() else "empty", prompt_tokens, len(text.split()))

    def _text(self, request: Request) -> str | None:
        script = self._script
        if callable(script):
            return script(request)
        last = request.messages[-1][1]
        if isinstance(script, Mapping):
            match = next((key for key in script if key in last), None)
            if match is None:
                raise DataError("the script has no reply to this request", where="scripted", given=repr(last[:80]))
            return script[match]
        if self._next >= len(script):
            raise DataError(
                "the script has no further reply",
                where="scripted",
                given=f"{len(script)} replies, and request number {len(script) + 1}",
            )
        return script[self._next]


@strict("teacher 'scripted'")
def scripted(
    *,
    replies: list[str | None] | dict[str, str | None],
    prompts: str | Path | None = None,
    temperature: float = 0.7,
    max_tokens: int = 512,
    language: str = "python",
    events: Events = ignore_events,
) -> Teacher:
    """Replies written beforehand, for tests and documents"""
    return LanguageTeacher(
        ScriptedChat(replies), prompts, temperature=temperature, max_tokens=max_tokens, language=language, events=events
    )
