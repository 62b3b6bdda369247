"""Cache of scores that took a forward pass or a request.

A score is stored under the user's cache folder (``GRADATIM_CACHE``; see ``languages.toolchain``) and reused: a second
scoring gives the same floats, bit for bit, and one that was killed resumes where it stopped. ``ScoreCache`` is one
file, ``difficulty/<identity>/<quantity>``: records of 24 bytes, the key of the request (BLAKE2b) and the score as a
float64, appended under a lock, so that any number of processes may share it. A record that a killed process left torn
is cut off by the next writer. Samples without a score are not stored, since finding that out again costs nothing. The
identities least recently used are removed when the cache grows large.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from ..languages.toolchain import cache_folder, prune
from ..record import storage_errors

__all__ = ["ScoreCache", "digest_of", "key_of"]


KEY_BYTES = 16
RECORD_BYTES = KEY_BYTES + 8
MOST_BYTES = 1 << 30
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_CONFIGURATION = (
    "added_tokens.json",
    "adapter_config.json",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_MORE_TEMPLATES = "additional_chat_templates"
FORM = "1"
"""Part of every identity; a change of the meaning or the computation of a quantity takes a new value."""


def key_of(*texts: str) -> bytes:
    """The key of a request by its texts. The ``id`` of a sample is no key: two answers to one prompt share it."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps "ab", "c" apart from "a", "bc"
    return digest.digest()


def digest_of(path: Path, *, template: bool = False) -> str:
    """A digest of a model's folder, or of its file: weights, configuration and tokenizer, and the chat ``template``.

    Files are read once per process and state; other files of the folder (a card, an optimizer) do not count. Raises
    ``DataError`` when the path does not exist.
    """
    if not path.exists():
        raise DataError("there is no such model folder", where=path)
    names = (*_CONFIGURATION, *(_TEMPLATES if template else ()))
    digest = hashlib.sha256()
    templates = sorted((path / _MORE_TEMPLATES).glob("*")) if template else []
    for file in [path] if path.is_file() else [*sorted(path.iterdir()), *templates]:
        if file.is_file() and (file.name in names or file.suffix in _WEIGHTS or file in templates):
            state = file.stat()
            digest.update(f"{file.name}\0{_file_digest(file, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file; computed again when its size or its time of change differs."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ScoreCache:
    """The stored scores of one ``quantity`` from one ``identity`` (a model, a teacher with its prompt)."""

    def __init__(self, identity: str, quantity: str) -> None:
        self._folder = cache_folder() / "difficulty" / hashlib.sha256(f"{FORM}\0{identity}".encode()).hexdigest()[:32]
        self._path = self._folder / quantity

    def scores(self) -> dict[bytes, float]:
        """All stored scores by key."""
        import numpy as np

        try:
            with open(self._path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                data = file.read()
        except FileNotFoundError:
            return {}
        complete = data[: len(data) // RECORD_BYTES * RECORD_BYTES]
        records = np.frombuffer(complete, np.dtype([("key", f"V{KEY_BYTES}"), ("figure", "<f8")]))
        return dict(zip(records["key"].tolist(), records["figure"].tolist(), strict=True))

    def add(self, scores: Mapping[bytes, float]) -> None:
        """Store ``scores``. Raises ``StorageFailed`` when the disk is full or not writable."""
        import numpy as np

        keys, values = b"".join(scores), np.fromiter(scores.values(), "<f8", len(scores))
        records = np.empty(len(scores), np.dtype([("key", f"V{KEY_BYTES}"), ("figure", "<f8")]))
        records["key"] = np.frombuffer(keys, f"V{KEY_BYTES}")
        records["figure"] = values
        with storage_errors(self._path):
            self._make_room()
            with open(self._path, "ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = os.fstat(file.fileno()).st_size
                file.truncate(size - size % RECORD_BYTES)
                file.write(records.tobytes())
            os.utime(self._folder)  # pruning looks at the folder, which an append does not touch

    def _make_room(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            prune(self._folder.parent, MOST_BYTES)
