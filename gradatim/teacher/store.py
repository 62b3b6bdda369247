"""Where do replies lie that were paid for, so that no crash and no other process loses them?

A folder of at most 256 files, named by the first two digits of the keys in them. A reply is one line, its SHA-256
before it, appended under the file's lock and flushed to the disk before anything else happens. A line that was cut
short or damaged is left where it is and counted; all others stay good. Files only grow, so a reader goes on where it
stopped.

``claim`` keeps two processes from paying for the same reply: a lock on one byte of the file ``claims`` for each key,
which ends with its process however that ends. Nothing here knows what a key stands for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import StorageFailed
from ..record import storage_errors

__all__ = ["Store", "entry_of", "line_of"]

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
