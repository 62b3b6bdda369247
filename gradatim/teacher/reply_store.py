"""Where do replies lie that were paid for, so that no crash and no other process loses them?

A folder of at most 256 files, named by the first two digits of the keys in them. A reply is one line, its SHA-256
before it, appended under the file's lock and flushed to the disk before anything else happens. A line that was cut
short or damaged is left where it is and counted; all others stay good. Files only grow, so a reader goes on where it
stopped.

``claim`` keeps two processes from paying for the same reply: a lock on one byte of the file ``claims`` for each key,
which ends with its process however that ends. Nothing here knows what a key stands for.

How is no received reply ever paid for twice?

``Cached`` stands around a chat. A reply is kept the moment it arrives, raw, under a hash of the chat's identity, the
request and the number of its draw; who asks the same again, after a crash, in another seed or another arm of a study,
gets the same reply. Equal requests of one call are asked once. What another process is asking for just now is waited
for, and asked here when that process ends without it. A request that was refused for good cost nothing and is not
kept.

The cache stands outside the runs: in the folder that is given, else in ``teacher/`` of Gradatim's cache
(``$GRADATIM_CACHE``). A cache that another recipe filled holds other keys and does no harm.

With an ``account`` (a run's own name), replies are paid for on it, and what was paid on it before counts against the
chat's budget where it has one: so a budget is the run's and not the process's, however often it is resumed.

What was paid on an account before?

Every kept reply names the account that it was paid on. ``paid_on`` sums them up, and keeps the sums of all accounts
beside the replies (``accounts.json``) with the place in each file up to which they go: files only grow, so a look reads
what was added since the last one and no more. The sums say what the files say. Removed, damaged, or older than files
that somebody took away, they are made anew. A reply that was paid for twice, where locks do not work, counts twice.
Whether what was paid is too much is ``allowance``'s to say.
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

from ..client.messages import Cost
from ..client.replies import MAX_TOKENS
from ..errors import StorageFailed
from ..record import storage_errors
from ..stage import Event, Events, ignore_events
from .teacher import Chat, Received, Reply, Request, ignore_reply

__all__ = ["Cached", "Store", "entry_of", "has_token_counts", "line_of", "paid_on", "request_key"]


VERSION = "1"
_DIGEST = 64


class Store:
    """Entries (JSON objects) by key (hexadecimal digits, at least sixteen). Safe for threads and for processes.

    An entry that ``valid`` refuses counts as damaged: a later one with its key takes its place.
    """

    def __init__(self, folder: Path, valid: Callable[[Mapping[str, Any]], bool] = lambda entry: True) -> None:
        # A later form of the lines would have a folder of its own, so that old and new programs can share the cache.
        self.folder = folder / VERSION
        self._valid = valid
        self.damaged = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._read: dict[str, int] = {}
        self._lock = threading.RLock()
        self._claims = -1
        self._process = 0

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The entry, also when another process has just written it."""
        with self._lock, _cache_errors(self.folder):
            if key not in self._places:
                self._catch_up(key[:2])
            if key not in self._places:
                return None
            start, length = self._places[key]
            with open(self._path(key[:2]), "rb") as file:
                file.seek(start)
                entry = entry_of(file.read(length))
            if entry is None or not self._valid(entry):  # damaged since it was found
                del self._places[key]
                self.damaged += 1
                return None
            return entry

    def put(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep ``entry``; it is on the disk when this returns. ``StorageFailed`` when it cannot be."""
        line = line_of({**entry, "key": key})
        with self._lock, _cache_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self._path(key[:2]), "ab+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                if end:
                    # A line that a killed process or a full disk left short must not take this one with it.
                    file.seek(end - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(28, "an entry was cut short")
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The bytes of each file there is now, by its two digits."""
        with _cache_errors(self.folder):
            return {path.stem: path.stat().st_size for path in sorted(self.folder.glob("??.jsonl"))}

    def since(self, name: str, start: int) -> Iterator[tuple[Mapping[str, Any] | None, int]]:
        """What was appended to a file after its first ``start`` bytes: entries, None for a damaged one, and where each
        ends. Nothing is remembered of them."""
        with _cache_errors(self.folder):
            for line, place in self._lines(name, start):
                yield entry_of(line), place + len(line)

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Those of ``keys`` that nobody else is asking for now, held until the block ends."""
        mine: list[str] = []
        try:
            mine += [key for key in keys if self._byte(key, fcntl.F_WRLCK)]
            yield mine
        finally:
            for key in mine:
                self._byte(key, fcntl.F_UNLCK)

    def _catch_up(self, name: str) -> None:
        """Read what was appended to a file since the last time, up to its last whole line."""
        for line, start in self._lines(name, self._read.get(name, 0)):
            entry = entry_of(line)
            if entry is not None and self._valid(entry):
                self._places.setdefault(entry["key"], (start, len(line)))
            else:
                self.damaged += 1
            self._read[name] = start + len(line)

    def _lines(self, name: str, start: int) -> Iterator[tuple[bytes, int]]:
        """The whole lines of a file from ``start`` on, and where each begins."""
        with contextlib.suppress(FileNotFoundError), open(self._path(name), "rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # somebody is writing it, or was killed while doing so
                yield line, start
                start += len(line)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _byte(self, key: str, kind: int) -> bool:
        """Lock or unlock the key's byte. Locks of the open file, not of the process: threads and stores differ too."""
        with self._lock:
            if self._process != os.getpid():  # a forked child would share its parent's locks
                with _cache_errors(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self._claims = os.open(self.folder / "claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._process = os.getpid()
            wanted = struct.pack("hhqqi0q", kind, os.SEEK_SET, int(key[:15], 16), 1, 0)
            try:
                fcntl.fcntl(self._claims, fcntl.F_OFD_SETLK, wanted)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:
                return True  # a file system without locks: the same may be paid twice there, and nothing else
            return True

    def close(self) -> None:
        """Let go of the file of claims; safe to call twice."""
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
        hint = "a folder of yours with room in it as the cache: export GRADATIM_CACHE=FOLDER"
        raise StorageFailed("replies cannot be kept: " + error.what, where=folder, hint=hint) from error


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def line_of(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line, its digest before it."""
    text = json.dumps(entry, ensure_ascii=True, allow_nan=False).encode()
    return _digest(text) + b" " + text + b"\n"


def entry_of(line: bytes) -> Mapping[str, Any] | None:
    """The entry of a line; None when it is damaged."""
    line = line.rstrip(b"\n")
    if line[:_DIGEST] != _digest(line[_DIGEST + 1 :]):
        return None
    try:
        entry = json.loads(line[_DIGEST + 1 :])
    except (ValueError, RecursionError):  # an integer of too many digits, which an older version stored
        return None
    return entry if isinstance(entry, dict) else None


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


@dataclass
class _Sums:
    """``read``: bytes of each file that the sums cover; ``paid``: tokens of prompts and of completions by account."""

    read: dict[str, int] = field(default_factory=dict)
    paid: dict[str, list[int]] = field(default_factory=dict)


def has_token_counts(entry: Mapping[str, Any]) -> bool:
    """Whether the token counts of a stored reply are possible ones; older versions stored what the server said."""
    counts = [entry.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return all(isinstance(count, int) and 0 <= count <= MAX_TOKENS for count in counts)


def paid_on(store: Store, account: str) -> Cost:
    """The tokens of all replies in ``store`` that were paid on ``account``, by whatever process."""
    path = store.folder / "accounts.json"
    sums, sizes = _load(path), store.sizes()
    if any(sizes.get(name, 0) < covered for name, covered in sums.read.items()):
        sums = _Sums()
    if _read_on(sums, store, sizes):
        _save(path, sums)
    return Cost(*sums.paid.get(account, (0, 0)))


def _read_on(sums: _Sums, store: Store, sizes: dict[str, int]) -> bool:
    """Add what the files have beyond ``sums.read``; whether there was any."""
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
    """What ``_save`` wrote; empty where nothing whole is there."""
    try:
        kept: Any = entry_of(path.read_bytes())
    except OSError:
        kept = None
    if kept is None or any(count > MAX_TOKENS**2 for paid in kept["paid"].values() for count in paid):
        return _Sums()
    return _Sums(kept["read"], kept["paid"])


def _save(path: Path, sums: _Sums) -> None:
    """Keep the sums. Where they cannot be kept (a cache that is only read) the next look takes longer, and that is all.

    Two threads or processes may do so at once: each writes a file of its own and puts it in place; either is right.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with contextlib.suppress(OSError):
        try:
            partial.write_bytes(line_of(vars(sums)))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
