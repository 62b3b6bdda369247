"""What has a model already been asked, and what came of it?

A figure that took a forward pass or a request is kept under the user's cache folder (``GRADATIM_CACHE``; see
``languages.toolchain``) and never asked for again: a second scoring gives the same floats, bit for bit, and one that
was killed goes on where it stopped. ``Remembered`` is one file, ``difficulty/<identity>/<quantity>``: records of 24
bytes, the key of what was asked (BLAKE2b) and the figure as a float64, appended under a lock, so that any number of
processes may share it. A record that a killed process left torn is cut off by the next one that writes.

What cannot be scored is not kept: finding that out again costs nothing. Identities that were not used for longest are
removed when the cache grows large. What the figures mean is known by those who ask.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from ..record import storage_errors

__all__ = ["Remembered", "digest_of", "key_of"]


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
"""Part of every identity; a change of what a quantity means or how it is computed takes a new one."""


def key_of(*parts: str) -> bytes:
    """The key of what was asked. A question's ``id`` would not do: two answers to one question share it."""
    told = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        told.update(len(data).to_bytes(8, "big") + data)  # the length keeps "ab", "c" apart from "a", "bc"
    return told.digest()


def digest_of(place: Path, *, template: bool = False) -> str:
    """A digest of a model's folder, or of its file: weights, configuration and tokenizer, and the chat ``template``.

    Files are read once per process and state. What lies beside them (a card, an optimizer) does not count. Raises
    ``DataError`` when there is nothing.
    """
    if not place.exists():
        raise DataError("there is no such model folder", where=place)
    counted = (*_CONFIGURATION, *(_TEMPLATES if template else ()))
    told = hashlib.sha256()
    more = sorted((place / _MORE_TEMPLATES).glob("*")) if template else []
    for path in [place] if place.is_file() else [*sorted(place.iterdir()), *more]:
        if path.is_file() and (path.name in counted or path.suffix in _WEIGHTS or path in more):
            state = path.stat()
            told.update(f"{path.name}\0{_file_digest(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return told.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file; asked again when its size or its time of change is another."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Remembered:
    """The figures known of one ``quantity`` from one ``identity`` (a model, a teacher with its prompt)."""

    def __init__(self, identity: str, quantity: str) -> None:
        from ..languages.toolchain import cache_folder

        self._folder = cache_folder() / "difficulty" / hashlib.sha256(f"{FORM}\0{identity}".encode()).hexdigest()[:32]
        self._path = self._folder / quantity

    def known(self) -> dict[bytes, float]:
        """Every figure kept so far, by key."""
        import numpy as np

        try:
            with open(self._path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                data = file.read()
        except FileNotFoundError:
            return {}
        whole = data[: len(data) // RECORD_BYTES * RECORD_BYTES]
        records = np.frombuffer(whole, np.dtype([("key", f"V{KEY_BYTES}"), ("figure", "<f8")]))
        return dict(zip(records["key"].tolist(), records["figure"].tolist(), strict=True))

    def add(self, figures: Mapping[bytes, float]) -> None:
        """Keep ``figures``. Raises ``StorageFailed`` when the disk is full or not writable."""
        import numpy as np

        keys, values = b"".join(figures), np.fromiter(figures.values(), "<f8", len(figures))
        records = np.empty(len(figures), np.dtype([("key", f"V{KEY_BYTES}"), ("figure", "<f8")]))
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
        from ..languages.toolchain import prune

        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            prune(self._folder.parent, MOST_BYTES)
