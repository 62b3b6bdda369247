"""Is a data file still the one that samples were read from?

The content decides, by its SHA-256; for a folder that ``datasets`` saved, the names and contents of its Arrow files.
Size and times are compared first, so that a large file that is untouched is not read again. No times are kept of a file
that had been written less than ``SETTLED`` seconds before: another write within the clock's grain would go unseen.
What lies on the hub has no fingerprint.

Was a corpus made from the data file as it is now?

Beside the samples of a corpus lies ``origin.json``, the fingerprint of the file that they were read from (see
``table.fingerprint``). A run that goes on uses the samples as they were made; when the file has been changed since,
that is refused unless the recipe says ``data.on_change: keep``. Corpora of former versions have no fingerprint; of
these a file that is newer than its samples is only reported.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .errors import DataError
from .record import read_json
from .stage import Event, Events

__all__ = ["ORIGIN", "OnChange", "check_drawn", "check_origin", "fingerprint", "is_unchanged", "place_of", "stamps"]


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


ORIGIN = "origin.json"

OnChange = Literal["refuse", "keep"]


def check_origin(corpus: Path, path: str | None, on_change: OnChange, events: Events) -> None:
    """Compare the data file at ``path`` with the one that ``corpus`` was made from.

    ``DataError`` when it has been changed and ``on_change`` is ``refuse``; else a note says so.
    """

    if path is None or path.startswith("hub:"):
        return
    if place_of(path) is None:
        _note(events, f"{path} is no longer there: its samples are used as {corpus} keeps them")
    elif (corpus / ORIGIN).exists():
        kept = read_json(corpus / ORIGIN)
        if is_unchanged(kept, path):
            return
        if on_change == "refuse":
            raise _changed(path, kept, corpus)
        _note(events, f"{path} has been changed since its samples were made: they are used as they were")
    elif max((modified for _, modified, _ in stamps(path)), default=0) > (corpus / "facts.json").stat().st_mtime_ns:
        _note(events, f"{path} is newer than its samples in {corpus}, which keep no digest: they may be older data")


def check_drawn(first: Path, origin: Mapping[str, Any]) -> None:
    """``DataError`` when a later cycle has read another file than the corpus in the folder ``first`` was made from.

    Nothing can be kept here: the cycle's samples are read from the file itself.
    """
    kept = read_json(first / ORIGIN) if origin and (first / ORIGIN).exists() else None
    if kept is not None and kept["sha256"] != origin["sha256"]:
        raise DataError(
            "the data file has been changed since the first cycle read it",
            where=origin["path"],
            given=_shown(origin),
            allowed=_shown(kept),
            hint="the file as it was, or a new run with another --out",
        )


def _changed(path: str, kept: Mapping[str, Any], corpus: Path) -> DataError:

    return DataError(
        "the data file has been changed since the run's samples were made from it",
        where=path,
        given=_shown(fingerprint(path)),
        allowed=f"{_shown(kept)}, as in {corpus}",
        hint="another --out for the data as it is now, or --set data.on_change=keep to go on with the old samples",
    )


def _shown(origin: Mapping[str, Any]) -> str:
    return f"{origin['bytes']:,} bytes, SHA-256 {origin['sha256'][:12]}…"


def _note(events: Events, text: str) -> None:
    events(Event("note", "data", text=text))
