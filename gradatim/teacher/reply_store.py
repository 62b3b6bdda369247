"""Persistent storage of a chat's replies, so that no reply is paid for twice.

``Store`` is a folder of at most 256 files, named by the first two digits of the keys in them. An entry is one line with
its SHA-256 before it, appended under a lock and flushed to the disk. A damaged line is counted and stays; files only
grow, so readers continue at their last position. ``claim`` keeps two processes from paying for one reply, by a lock on
one byte of the file ``claims`` per key, which ends with its process.

``Cached`` wraps a chat. A reply is stored raw on arrival, under a hash of the chat's identity, the request and its
draw: after a crash, in another seed or another arm of a study, an equal request has the same reply. Replies that
another process has requested are waited for, and requested here if that process ends without them. Final rejections
are free and not stored. The folder is the recipe's, else ``teacher/`` of Gradatim's cache (``$GRADATIM_CACHE``).

With an ``account`` (the name of a run), earlier spending on it counts against the chat's budget, so a budget holds for
the run over all its processes. ``paid_on`` adds up the stored replies of an account; the sums are cached in
``accounts.json`` with the bytes of each file that they cover, and recomputed when damaged, or when a file has shrunk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client.messages import MAX_TOKENS, Cost, Received, Reply, Request, ignore_reply
from ..errors import StorageFailed
from ..languages.toolchain import cache_folder
from ..record import storage_errors
from ..stage import Event, Events, ignore_events
from .teacher import Chat

VERSION = "1"
_DIGEST = 64


class Store:
    """Entries (JSON objects) by key (hexadecimal digits, at least sixteen). Safe for threads and for processes.

    An entry that ``valid`` rejects counts as damaged; a later entry of its key replaces it.
    """

    def __init__(self, folder: Path, valid: Callable[[Mapping[str, Any]], bool] = lambda entry: True) -> None:
        # Another line format would get another folder, so that old and new versions can share the cache.
        self.folder = folder / VERSION
        self._valid = valid
        self.damaged = 0
        self._spans: dict[str, tuple[int, int]] = {}
        self._positions: dict[str, int] = {}
        self._lock = threading.RLock()
        self._claims = -1
        self._process = 0

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The entry of ``key``, including one that another process has just written; None without one."""
        with self._lock, _cache_errors(self.folder):
            if key not in self._spans:
                self._catch_up(key[:2])
            if key not in self._spans:
                return None
            start, length = self._spans[key]
            with open(self._path(key[:2]), "rb") as file:
                file.seek(start)
                entry = entry_of(file.read(length))
            if entry is None or not self._valid(entry):  # damaged since it was indexed
                del self._spans[key]
                self.damaged += 1
                return None
            return entry

    def put(self, key: str, entry: Mapping[str, Any]) -> None:
        """Store ``entry``, flushed to the disk on return. ``StorageFailed`` where that is impossible."""
        line = line_of({**entry, "key": key})
        with self._lock, _cache_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self._path(key[:2]), "ab+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                if end:
                    # A line cut short by a killed process or a full disk must not swallow this one.
                    file.seek(end - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(28, "an entry was cut short")
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The current size of each file in bytes, by its two digits."""
        with _cache_errors(self.folder):
            return {path.stem: path.stat().st_size for path in sorted(self.folder.glob("??.jsonl"))}

    def since(self, name: str, start: int) -> Iterator[tuple[Mapping[str, Any] | None, int]]:
        """The entries of a file after its first ``start`` bytes (None for a damaged one), with the offset of their
        ends. They are not indexed."""
        with _cache_errors(self.folder):
            for line, offset in self._lines(name, start):
                yield entry_of(line), offset + len(line)

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """The subset of ``keys`` without a claim of another process or store, locked until the block ends."""
        locked: list[str] = []
        try:
            locked += [key for key in keys if self._lock_key(key, fcntl.F_WRLCK)]
            yield locked
        finally:
            for key in locked:
                self._lock_key(key, fcntl.F_UNLCK)

    def _catch_up(self, name: str) -> None:
        """Index the lines appended to a file since the last call, up to its last complete one."""
        for line, start in self._lines(name, self._positions.get(name, 0)):
            entry = entry_of(line)
            if entry is not None and self._valid(entry):
                self._spans.setdefault(entry["key"], (start, len(line)))
            else:
                self.damaged += 1
            self._positions[name] = start + len(line)

    def _lines(self, name: str, start: int) -> Iterator[tuple[bytes, int]]:
        """The complete lines of a file from ``start`` on, with their offsets."""
        with contextlib.suppress(FileNotFoundError), open(self._path(name), "rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # another process is writing it, or was killed while writing
                yield line, start
                start += len(line)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _lock_key(self, key: str, kind: int) -> bool:
        """Lock or unlock the key's byte, by a lock of the open file, which also separates stores of one process."""
        with self._lock:
            if self._process != os.getpid():  # a forked child would share the locks of its parent
                with _cache_errors(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self._claims = os.open(self.folder / "claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._process = os.getpid()
            lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, int(key[:15], 16), 1, 0)
            try:
                fcntl.fcntl(self._claims, fcntl.F_OFD_SETLK, lock)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:
                return True  # without locks of the file system, a reply may be paid for twice
            return True

    def close(self) -> None:
        """Close the file of claims. Safe to call twice."""
        with self._lock:
            if self._claims >= 0 and self._process == os.getpid():
                os.close(self._claims)
            self._claims, self._process = -1, 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        with storage_errors(folder):
            yield
    except StorageFailed as error:
        hint = "a writable folder with free space as the cache: export GRADATIM_CACHE=FOLDER"
        raise StorageFailed("replies cannot be stored: " + error.message, where=folder, hint=hint) from error


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def line_of(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line, with its digest at the start."""
    text = json.dumps(entry, ensure_ascii=True, allow_nan=False).encode()
    return _digest(text) + b" " + text + b"\n"


def entry_of(line: bytes) -> Mapping[str, Any] | None:
    """The entry of a line; None for a damaged one."""
    line = line.rstrip(b"\n")
    if line[:_DIGEST] != _digest(line[_DIGEST + 1 :]):
        return None
    try:
        entry = json.loads(line[_DIGEST + 1 :])
    except (ValueError, RecursionError):  # an integer of too many digits, as older versions stored
        return None
    return entry if isinstance(entry, dict) else None


WAIT = (0.02, 0.5)
"""Seconds between lookups while another process requests a reply: the first pause and the longest."""


def request_key(identity: str, request: Request) -> str:
    """The key of a request: 64 hexadecimal digits. A change of its inputs would invalidate all stored replies."""
    content = [identity, request.messages, request.temperature, request.max_tokens]
    text = json.dumps([content, request.draw], ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_reply(entry: Mapping[str, Any]) -> bool:
    """Whether a stored entry is a valid reply; otherwise it is requested again."""
    return has_token_counts(entry) and all(isinstance(entry.get(name), str) for name in ("text", "finish", "raw"))


class Cached(Chat):
    """A chat that answers from the replies stored in ``folder``, and sends only new requests to ``chat``."""

    def __init__(self, chat: Chat, folder: str | Path | None = None, *, account: str = "") -> None:
        self.chat, self.account = chat, account
        self._store = Store(Path(folder) if folder is not None else cache_folder() / "teacher", _is_reply)
        self._counts: Counter[str] = Counter()
        self._cost = 0.0
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

    def cost(self, reply: Reply) -> float:
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
        """Count earlier spending on the account against the budget; without one, the files need not be read."""
        if not self._is_initialized and self.chat.limited:
            self.chat.begin(paid_on(self._store, self.account))
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
                self._cost += self.cost(reply)


@dataclass
class _Sums:
    """Contents of ``accounts.json``. ``read``: bytes of each file that the sums cover; ``paid``: tokens of prompts and
    of completions by account."""

    read: dict[str, int] = field(default_factory=dict)
    paid: dict[str, list[int]] = field(default_factory=dict)


def has_token_counts(entry: Mapping[str, Any]) -> bool:
    """Whether the token counts of a stored reply are in range; older versions stored any value of the server."""
    counts = [entry.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return all(isinstance(count, int) and 0 <= count <= MAX_TOKENS for count in counts)


def paid_on(store: Store, account: str) -> Cost:
    """The tokens of all replies in ``store`` that were paid on ``account``, by any process."""
    path = store.folder / "accounts.json"
    sums, sizes = _load(path), store.sizes()
    if any(sizes.get(name, 0) < covered for name, covered in sums.read.items()):
        sums = _Sums()
    if _add_new_entries(sums, store, sizes):
        _save(path, sums)
    return Cost(*sums.paid.get(account, (0, 0)))


def _add_new_entries(sums: _Sums, store: Store, sizes: dict[str, int]) -> bool:
    """Add the entries beyond ``sums.read``; whether there are any."""
    before = dict(sums.read)
    for name, size in sizes.items():
        if size == before.get(name):
            continue
        for entry, end in store.since(name, before.get(name, 0)):
            sums.read[name] = end
            if entry is not None and entry.get("account") and has_token_counts(entry):
                paid = sums.paid.setdefault(entry["account"], [0, 0])
                paid[0] += entry["prompt_tokens"]
                paid[1] += entry["completion_tokens"]
    return sums.read != before


def _load(path: Path) -> _Sums:
    """The sums of ``_save``; empty where the file is missing or damaged."""
    try:
        entry: Any = entry_of(path.read_bytes())
    except OSError:
        entry = None
    if entry is None or any(count > MAX_TOKENS**2 for paid in entry["paid"].values() for count in paid):
        return _Sums()
    return _Sums(entry["read"], entry["paid"])


def _save(path: Path, sums: _Sums) -> None:
    """Store the sums. In a read-only cache they are computed again by the next call.

    Concurrent calls write separate files and rename them; either result is correct.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with contextlib.suppress(OSError):
        try:
            partial.write_bytes(line_of(vars(sums)))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
