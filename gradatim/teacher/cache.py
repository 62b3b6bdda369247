"""How is no received reply ever paid for twice?

``Cached`` stands around a chat. A reply is kept the moment it arrives, raw, under a hash of the chat's identity, the
request and the number of its draw; who asks the same again, after a crash, in another seed or another arm of a study,
gets the same reply. Equal requests of one call are asked once. What another process is asking for just now is waited
for, and asked here when that process ends without it. A request that was refused for good cost nothing and is not
kept.

The cache stands outside the runs: in the folder that is given, else in ``teacher/`` of Gradatim's cache
(``$GRADATIM_CACHE``). A cache that another recipe filled holds other keys and does no harm.

With an ``account`` (a run's own name), replies are paid for on it, and what was paid on it before counts against the
chat's budget where it has one: so a budget is the run's and not the process's, however often it is resumed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..stage import Event, Events, ignore_events
from .account import has_token_counts, paid_on
from .store import Store
from .teacher import Chat, Received, Reply, Request, ignore_reply

__all__ = ["Cached", "request_key"]

WAIT = (0.02, 0.5)
"""Seconds between looks at what another process is asking for: the first, and the longest."""


def request_key(identity: str, request: Request) -> str:
    """What tells requests apart: 64 hexadecimal digits."""
    asked = [identity, request.messages, request.temperature, request.max_tokens]
    told = json.dumps([asked, request.draw], ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(told.encode()).hexdigest()


def _is_reply(entry: Mapping[str, Any]) -> bool:
    """Whether a stored entry can be used; one that cannot is asked for anew."""
    return has_token_counts(entry) and all(isinstance(entry.get(name), str) for name in ("text", "finish", "raw"))


class Cached:
    """``chat`` with a memory in ``folder``. A chat itself."""

    def __init__(self, chat: Chat, folder: str | Path | None = None, *, account: str = "") -> None:
        from ..languages.toolchain import cache_folder

        self.chat, self.account = chat, account
        self._store = Store(Path(folder) if folder is not None else cache_folder() / "teacher", _is_reply)
        self._counts: Counter[str] = Counter()
        self._cost = 0.0
        self._began = not account

    @property
    def identity(self) -> str:
        """The chat's own."""
        return self.chat.identity

    @property
    def facts(self) -> dict[str, Any]:
        """The replies used, kept ones too: ``requests``, ``cached`` of them, tokens and ``cost``: what the work takes.
        ``paid`` is what the chat was really asked for by this object, ``damaged`` what the store could not read."""
        paid, counts = self.chat.facts, self._counts
        names = ("requests", "prompt_tokens", "completion_tokens", "cost")
        own = {name: counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        rest = {name: value for name, value in paid.items() if name not in (*own, "cost")}
        return {**own, "cost": self._cost, **rest, "paid": {n: paid[n] for n in names}, "damaged": self._store.damaged}

    def cost(self, reply: Reply) -> float:
        """The chat's own."""
        return self.chat.cost(reply)

    def release(self) -> None:
        """Have the chat give back what it holds in memory, where it holds anything."""
        getattr(self.chat, "release", lambda: None)()

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask``; ``StorageFailed`` when a reply cannot be kept, and then no more is asked."""
        if not requests:
            return []
        self._begin()
        identity = self.chat.identity
        keys = [request_key(identity, request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        found: dict[str, Reply | None] = {}
        self._look_up(wanted, found)
        asked, pause = 0, WAIT[0]
        while left := {key: request for key, request in wanted.items() if key not in found}:
            with self._store.claim(list(left)) as mine:
                # Somebody may have finished with it between the look and the claim.
                self._look_up({key: left[key] for key in mine}, found)
                ours = {key: left[key] for key in mine if key not in found}
                if ours:
                    self._ask_for(ours, found, events)
                    asked += len(ours)
            if not mine:
                pause = self._wait(left, found, events, pause)
        replies = [found[key] for key in keys]
        self._counts["cached"] += len(requests) - asked
        self._hand_over(replies, received)
        return replies

    def _wait(self, left: dict[str, Request], found: dict[str, Reply | None], events: Events, pause: float) -> float:
        """Look for what another process is asking for, and rest a little; the pause after this one."""
        before = len(found)
        self._look_up(left, found)
        # Told each time, so that a listener can stop the work.
        events(Event("advance", "wait for another process", len(found) - before, len(left)))
        time.sleep(pause)
        return min(2 * pause, WAIT[1])

    def _begin(self) -> None:
        """Tell the chat what was spent on the account before, where a budget asks for it: nobody else need wait."""
        chat: Any = self.chat
        if not self._began and getattr(chat, "limited", False):
            chat.begin(paid_on(self._store, self.account))
        self._began = True

    def _look_up(self, wanted: dict[str, Request], found: dict[str, Reply | None]) -> None:
        for key in wanted:
            entry = self._store.get(key)
            if entry is not None:
                names = ("text", "finish", "prompt_tokens", "completion_tokens", "raw")
                found[key] = Reply(*(entry[name] for name in names))

    def _ask_for(self, ours: dict[str, Request], found: dict[str, Reply | None], events: Events) -> None:
        keys = list(ours)

        def keep(place: int, reply: Reply) -> None:
            request = ours[keys[place]]
            entry = {**vars(reply), "identity": self.identity, "account": self.account, "request": vars(request)}
            self._store.put(keys[place], entry)

        found.update(zip(keys, self.chat.ask(list(ours.values()), events, keep), strict=True))

    def _hand_over(self, replies: Sequence[Reply | None], received: Received) -> None:
        self._counts["requests"] += len(replies)
        for place, reply in enumerate(replies):
            if reply is not None:
                received(place, reply)
                self._counts["prompt_tokens"] += reply.prompt_tokens
                self._counts["completion_tokens"] += reply.completion_tokens
                self._cost += self.cost(reply)
