"""Is a data file still the one that samples were read from?

The content decides, by its SHA-256; for a folder that ``datasets`` saved, the names and contents of its Arrow files.
Size and times are compared first, so that a large file that is untouched is not read again. No times are kept of a file
that had been written less than ``SETTLED`` seconds before: another write within the clock's grain would go unseen.
What lies on the hub has no fingerprint.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["fingerprint", "is_unchanged", "place_of", "stamps"]

SETTLED = 2.0


def place_of(path: str) -> Path | None:
    """The file or folder on this disk that ``path`` names, without a split; None when there is none."""
    if path.startswith("hub:"):
        return None
    place = Path(path if Path(path).exists() else path.partition("#")[0])
    return place if place.exists() else None


def fingerprint(path: str) -> dict[str, Any]:
    """``path``, ``bytes``, ``sha256`` and ``stamps`` of a data file; empty when it is not on this disk."""
    place = place_of(path)
    if place is None:
        return {}
    files = _files(place)
    digest = hashlib.sha256()
    for file in files:
        if place.is_dir():
            digest.update(f"{file.relative_to(place).as_posix()}\0".encode("utf-8", "surrogateescape"))
        digest.update(_digest(file))
    found = stamps(path)
    newest = max((moment for each in found for moment in each[1:]), default=0)
    return {
        "path": path,
        "bytes": sum(size for size, _, _ in found),
        "sha256": digest.hexdigest(),
        "stamps": found if newest < (time.time() - SETTLED) * 1e9 else None,
    }


def is_unchanged(kept: Mapping[str, Any], path: str) -> bool:
    """Whether the file is the one that ``kept`` was made from."""
    there = kept.get("stamps")
    if there is not None and [tuple(each) for each in there] == stamps(path):
        return True
    return bool(fingerprint(path).get("sha256") == kept.get("sha256"))


def stamps(path: str) -> list[tuple[int, int, int]]:
    """Size, time of the last change to the content and to the file's entry, of each file, in nanoseconds."""
    place = place_of(path)
    found = [file.stat() for file in _files(place)] if place is not None else []
    return [(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]


def _files(place: Path) -> list[Path]:
    """``place``, or the Arrow files of a folder, but for those that ``datasets`` keeps for itself beside them."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.rglob("*.arrow") if not file.name.startswith(("cache-", "tmp", ".")))


def _digest(file: Path) -> bytes:
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        raise DataError("the file cannot be read", where=file, given=error.strerror or error) from error
