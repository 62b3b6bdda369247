"""Persistent storage of a chat's replies, so that no reply is paid for twice.

``ReplyStore`` holds one entry per key in ``replies.sqlite`` (``gradatim.store``), flushed to the disk. ``claim`` keeps
two processes from paying for one reply.

``Cached`` wraps a chat. A reply is stored raw on arrival, under a hash of the chat's identity, the request and its
draw: after a crash, in another seed or another arm of a study, an equal request has the same reply. Replies that
another process has requested are waited for, and requested here if that process ends without them. Final rejections
are free and not stored. The folder is the recipe's, else ``teacher/`` of Gradatim's cache (``$GRADATIM_CACHE``).

With an ``account`` (the name of a run), earlier spending on it counts against the chat's budget, so a budget holds for
the run over all its processes. An account's sum is stored in one transaction with the reply that is added to it.

Versions before the SQLite file stored replies in ``1/``, in files named by the first two digits of the keys: lines of a
SHA-256 and an entry as JSON. Complete lines are carried over once, with their sums; the files stay as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..client.messages import MAX_TOKENS, Cost, Received, Reply, Request, ignore_reply
from ..errors import StorageFailed
from ..languages.toolchain import cache_folder
from ..stage import Event, Events, ignore_events
from ..store import Store
from .teacher import Chat

REPLIES, ACCOUNTS, CARRIED_OVER = "replies", "accounts", "carried over"
"""Namespaces: entries by key, [prompt tokens, completion tokens] by account, and the bytes carried over by file."""
HINT = "a writable folder with free space as the cache: export GRADATIM_CACHE=FOLDER"
_DIGEST = 64


class ReplyStore:
    """Replies (JSON objects) by key (64 hexadecimal digits) in ``folder``. Safe for threads and for processes.

    ``damaged`` counts unreadable and invalid entries; they are requested again, and the new reply replaces them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = Store(folder / "replies.sqlite", hint=HINT)
        self._invalid = 0
        self._is_carried_over = False
        self._lock = threading.Lock()

    @property
    def damaged(self) -> int:
        """The number of entries that could not be used."""
        return self._store.damaged + self._invalid

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The entry of ``key``, including one that another process has just written; None without a valid one."""
        with _reply_errors():
            self._carry_over()
            value = self._store.get(REPLIES, key.encode())
        if value is None:
            return None
        entry: Mapping[str, Any] = json.loads(value)
        return entry

    def put(self, key: str, entry: Mapping[str, Any]) -> None:
        """Store ``entry`` and add its tokens to its account, flushed to the disk on return.

        Raises ``StorageFailed`` where that is impossible.
        """
        with _reply_errors():
            self._carry_over()
            with self._store.transaction():
                self._store.put(REPLIES, {key.encode(): _json(entry)})
                self._add_to_accounts([entry])

    def paid_on(self, account: str) -> Cost:
        """The tokens of all replies that were paid on ``account``, by any process."""
        with _reply_errors():
            self._carry_over()
            value = self._store.get(ACCOUNTS, account.encode())
        return Cost(*(json.loads(value) if value is not None else (0, 0)))

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """The subset of ``keys`` that no other process or store has claimed; claimed until the block ends."""
        with contextlib.ExitStack() as stack:
            with _reply_errors():
                claims = stack.enter_context(self._store.claim(keys))
            yield claims

    def _add_to_accounts(self, entries: Sequence[Mapping[str, Any]]) -> None:
        added: dict[str, Counter[str]] = {}
        for entry in entries:
            if entry.get("account") and has_token_counts(entry):
                sums = added.setdefault(entry["account"], Counter())
                sums.update({name: entry[name] for name in ("prompt_tokens", "completion_tokens")})
        for account, sums in added.items():
            value = self._store.get(ACCOUNTS, account.encode())
            prompt, completion = json.loads(value) if value is not None else (0, 0)
            total = [prompt + sums["prompt_tokens"], completion + sums["completion_tokens"]]
            self._store.put(ACCOUNTS, {account.encode(): _json(total)})

    def _carry_over(self) -> None:
        """Carry over the lines that earlier versions have stored, once per store object."""
        with self._lock:
            if self._is_carried_over:
                return
            for path in sorted((self.folder / "1").glob("??.jsonl")):
                self._carry_over_file(path)
            self._is_carried_over = True

    def _carry_over_file(self, path: Path) -> None:
        name = path.stem.encode()
        if path.stat().st_size <= int(self._store.get(CARRIED_OVER, name) or 0):
            return
        with self._store.transaction():
            start = int(self._store.get(CARRIED_OVER, name) or 0)  # another process may have carried it over
            lines = list(_complete_lines(path, start))
            entries = [entry for entry, _ in lines if entry is not None]
            values: dict[bytes, bytes] = {}
            for entry in filter(_is_reply, entries):
                values.setdefault(entry["key"].encode(), _json(entry))  # the first valid entry of a key counts
            self._invalid += len(lines) - sum(map(_is_reply, entries))
            self._store.put(REPLIES, values, replace=False)
            self._add_to_accounts(entries)
            self._store.put(CARRIED_OVER, {name: str(lines[-1][1] if lines else start).encode()})


@contextlib.contextmanager
def _reply_errors() -> Iterator[None]:
    try:
        yield
    except StorageFailed as error:
        raise StorageFailed("replies cannot be stored: " + error.message, where=error.where, hint=error.hint) from error


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode()


def _complete_lines(path: Path, start: int) -> Iterator[tuple[Mapping[str, Any] | None, int]]:
    """The entries of an earlier version's file after its first ``start`` bytes (None for a damaged line), with the
    offsets of their ends. An incomplete last line is left out."""
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield _entry_of(line), start


def _entry_of(line: bytes) -> Mapping[str, Any] | None:
    """The entry of an earlier version's line; None for a damaged one."""
    line = line.rstrip(b"\n")
    text = line[_DIGEST + 1 :]
    if line[:_DIGEST] != hashlib.sha256(text).hexdigest().encode():
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):  # an integer of too many digits
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("key"), str) else None


WAIT = (0.02, 0.5)
"""Seconds between lookups while another process requests a reply: the first pause and the longest."""


def request_key(identity: str, request: Request) -> str:
    """The key of a request: 64 hexadecimal digits. A change of its inputs would invalidate all stored replies."""
    content = [identity, request.messages, request.temperature, request.max_tokens]
    content += [request.schema] if request.schema else []
    text = json.dumps([content, request.draw], ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_reply(entry: Mapping[str, Any]) -> bool:
    """Whether a stored entry is a valid reply; otherwise it is requested again."""
    return has_token_counts(entry) and all(isinstance(entry.get(name), str) for name in ("text", "finish", "raw"))


def has_token_counts(entry: Mapping[str, Any]) -> bool:
    """Whether the token counts of a stored reply are in range; older versions stored any value of the server."""
    counts = [entry.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return all(isinstance(count, int) and 0 <= count <= MAX_TOKENS for count in counts)


class Cached(Chat):
    """A chat that answers from the replies stored in ``folder``, and sends only new requests to ``chat``."""

    def __init__(self, chat: Chat, folder: str | Path | None = None, *, account: str = "") -> None:
        self.chat, self.account = chat, account
        self._store = ReplyStore(Path(folder) if folder is not None else cache_folder() / "teacher")
        self._counts: Counter[str] = Counter()
        self._cost: float | None = 0.0
        self._is_initialized = not account

    @property
    def identity(self) -> str:
        """The identity of the inner chat."""
        return self.chat.identity

    @property
    def facts(self) -> dict[str, Any]:
        """All replies used, including stored ones: ``requests``, ``cached`` of them, tokens and ``cost``. ``paid``: the
        part that the inner chat has produced; ``damaged``: unreadable entries of the store."""
        inner, names = self.chat.facts, ("requests", "prompt_tokens", "completion_tokens", "cost")
        facts: dict[str, Any] = {
            name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")
        }
        facts["cost"] = self._cost
        facts |= {name: value for name, value in inner.items() if name not in facts}
        return {**facts, "paid": {name: inner[name] for name in names}, "damaged": self._store.damaged}

    def cost(self, reply: Reply) -> float | None:
        """The price of the inner chat."""
        return self.chat.cost(reply)

    def release(self) -> None:
        """Release the memory of the inner chat's model, where it has one."""
        self.chat.release()

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask``. ``StorageFailed`` when a reply cannot be stored; then no further request is sent."""
        if not requests:
            return []
        self._initialize_budget()
        identity = self.chat.identity
        keys = [request_key(identity, request) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        replies: dict[str, Reply | None] = {}
        self._look_up(by_key, replies)
        sent, pause = 0, WAIT[0]
        while missing := {key: request for key, request in by_key.items() if key not in replies}:
            with self._store.claim(list(missing)) as claims:
                # Another process may have stored a reply between the lookup and the claim.
                self._look_up({key: missing[key] for key in claims}, replies)
                batch = {key: missing[key] for key in claims if key not in replies}
                if batch:
                    self._send(batch, replies, events)
                    sent += len(batch)
            if not claims:
                pause = self._wait(missing, replies, events, pause)
        results = [replies[key] for key in keys]
        self._counts["cached"] += len(requests) - sent
        self._hand_over(results, received)
        return results

    def check(self, request: Request, events: Events = ignore_events) -> None:
        """See ``Chat.check``. The request is sent although its reply may be stored, and counts like any other."""
        self._initialize_budget()
        key = request_key(self.identity, request)
        replies: dict[str, Reply | None] = {}
        self._send({key: request}, replies, events)
        self._hand_over([replies[key]], ignore_reply)

    def _wait(
        self, missing: dict[str, Request], replies: dict[str, Reply | None], events: Events, pause: float
    ) -> float:
        """Look up the replies that another process has requested, then sleep for ``pause``; returns the next pause."""
        before = len(replies)
        self._look_up(missing, replies)
        # An event every time lets a listener stop the work.
        events(Event("advance", "wait for another process", len(replies) - before, len(missing)))
        time.sleep(pause)
        return min(2 * pause, WAIT[1])

    def _initialize_budget(self) -> None:
        """Count earlier spending on the account against the budget, where there is one."""
        if not self._is_initialized and self.chat.limited:
            self.chat.begin(self._store.paid_on(self.account))
        self._is_initialized = True

    def _look_up(self, requests: dict[str, Request], replies: dict[str, Reply | None]) -> None:
        for key in requests:
            entry = self._store.get(key)
            if entry is not None:
                names = ("text", "finish", "prompt_tokens", "completion_tokens", "raw")
                replies[key] = Reply(*(entry[name] for name in names))

    def _send(self, requests: dict[str, Request], replies: dict[str, Reply | None], events: Events) -> None:
        keys = list(requests)

        def store(index: int, reply: Reply) -> None:
            request = requests[keys[index]]
            entry = {**vars(reply), "identity": self.identity, "account": self.account, "request": vars(request)}
            self._store.put(keys[index], entry)

        replies.update(zip(keys, self.chat.ask(list(requests.values()), events, store), strict=True))

    def _hand_over(self, replies: Sequence[Reply | None], received: Received) -> None:
        self._counts["requests"] += len(replies)
        for index, reply in enumerate(replies):
            if reply is not None:
                received(index, reply)
                self._counts["prompt_tokens"] += reply.prompt_tokens
                self._counts["completion_tokens"] += reply.completion_tokens
                cost = self.cost(reply)
                self._cost = None if cost is None or self._cost is None else self._cost + cost
