"""What would a chat say, if it said what a test or a document wants?

``ScriptedChat`` is the public fake: replies from a list (in the order of the requests), from a mapping (the first key
that the request's last message contains), or from a function of the request. It counts what it is asked and can be
told to fail at a certain request, as an endpoint would that goes down. It takes replies as they are: nothing here
reads them.
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
    """Replies by ``script``; None in it is a request refused for good. A word counts as a token.

    ``failures``: the exception that is raised instead of the n-th request's reply, counted from 0 over all calls; once
    each. ``asked`` holds every request that got so far as to be answered.
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
        """The name, or a hash of a script that is data."""
        if self._name or callable(self._script):
            return f"scripted:{self._name}"
        told = list(self._script.items()) if isinstance(self._script, Mapping) else list(self._script)
        return f"scripted:{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}"

    @property
    def facts(self) -> dict[str, Any]:
        """As every chat tells them."""
        counts = {name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        failed = {"rejected": self._counts["rejected"]} if self._counts["rejected"] else {}
        return {**counts, "cost": 0.0, "retries": 0, "failed": failed}

    def cost(self, reply: Reply) -> float:
        """Nothing."""
        return 0.0

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """The script's replies. ``DataError`` when a list is used up or a mapping has no word for a request."""
        replies: list[Reply | None] = []
        for place, request in enumerate(requests):
            failure = self._failures.pop(self._next, None)
            if failure is not None:
                raise failure
            reply = self._reply(request)
            self._next += 1
            self.asked.append(request)
            if reply is not None:
                received(place, reply)
            replies.append(reply)
        return replies

    def _reply(self, request: Request) -> Reply | None:
        text = self._text(request)
        if text is None:
            self._counts["rejected"] += 1
            return None
        asked = sum(len(said.split()) for _, said in request.messages)
        self._counts.update(requests=1, prompt_tokens=asked, completion_tokens=len(text.split()))
        return Reply(text, "stop" if text.strip() else "empty", asked, len(text.split()))

    def _text(self, request: Request) -> str | None:
        script = self._script
        if callable(script):
            return script(request)
        last = request.messages[-1][1]
        if isinstance(script, Mapping):
            found = next((key for key in script if key in last), None)
            if found is None:
                raise DataError("the script has no reply to this request", where="scripted", given=repr(last[:80]))
            return script[found]
        if self._next >= len(script):
            raise DataError("the script is used up", where="scripted", given=f"{len(script)} replies, one more request")
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
