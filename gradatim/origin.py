"""Fingerprints of data files, and the check that a corpus still matches its data file.

A fingerprint is the SHA-256 of the content; for a folder saved by ``datasets``, of the names and contents of its Arrow
files. Sizes and times are compared first, so that an unchanged large file is not read again. Times are not stored for a
file written less than ``SETTLED`` seconds ago, since a second write within the clock's resolution would go unnoticed.
Datasets on the hub have no fingerprint.

A corpus has the fingerprint of its data file in ``origin.json``. A resumed run uses the stored samples; a changed file
is an error unless the recipe sets ``data.on_change: keep``. Corpora of earlier versions have no fingerprint; for these
a file newer than the samples causes only a note.
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

__all__ = ["ORIGIN", "OnChange", "check_origin", "check_reread", "fingerprint", "is_unchanged", "local_path", "stamps"]


SETTLED = 2.0


def local_path(path: str) -> Path | None:
    """The local file or folder of ``path``, without a split; None when there is none."""
    if path.startswith("hub:"):
        return None
    local = Path(path if Path(path).exists() else path.partition("#")[0])
    return local if local.exists() else None


def fingerprint(path: str) -> dict[str, Any]:
    """Path, bytes, SHA-256 and stamps (``stamps``) of a data file; empty unless it is on this disk."""
    local = local_path(path)
    if local is None:
        return {}
    files = _files(local)
    digest = hashlib.sha256()
    for file in files:
        if local.is_dir():
            digest.update(f"{file.relative_to(local).as_posix()}\0".encode("utf-8", "surrogateescape"))
        digest.update(_digest(file))
    file_stamps = stamps(path)
    newest = max((time_ns for stamp in file_stamps for time_ns in stamp[1:]), default=0)
    return {
        "path": path,
        "bytes": sum(size for size, _, _ in file_stamps),
        "sha256": digest.hexdigest(),
        "stamps": file_stamps if newest < (time.time() - SETTLED) * 1e9 else None,
    }


def is_unchanged(origin: Mapping[str, Any], path: str) -> bool:
    """Whether the file still has the fingerprint ``origin``."""
    stored = origin.get("stamps")
    if stored is not None and [tuple(stamp) for stamp in stored] == stamps(path):
        return True
    return bool(fingerprint(path).get("sha256") == origin.get("sha256"))


def stamps(path: str) -> list[tuple[int, int, int]]:
    """Size, modification time and status-change time (nanoseconds) of each file."""
    local = local_path(path)
    stats = [file.stat() for file in _files(local)] if local is not None else []
    return [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def _files(local: Path) -> list[Path]:
    """``local`` itself, or the Arrow files of a folder without the caches of ``datasets``."""
    if not local.is_dir():
        return [local]
    return sorted(file for file in local.rglob("*.arrow") if not file.name.startswith(("cache-", "tmp", ".")))


def _digest(file: Path) -> bytes:
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        raise DataError("the file cannot be read", where=file, given=error.strerror or error) from error


ORIGIN = "origin.json"

OnChange = Literal["refuse", "keep"]


def check_origin(corpus: Path, path: str | None, on_change: OnChange, events: Events) -> None:
    """Compare the data file at ``path`` with the fingerprint in ``corpus``.

    ``DataError`` for a changed file when ``on_change`` is ``refuse``, otherwise a note.
    """
    if path is None or path.startswith("hub:"):
        return
    if local_path(path) is None:
        _note(events, f"{path} no longer exists: its samples in {corpus} are used")
    elif (corpus / ORIGIN).exists():
        origin = read_json(corpus / ORIGIN)
        if is_unchanged(origin, path):
            return
        if on_change == "refuse":
            raise _changed(path, origin, corpus)
        _note(events, f"{path} has been changed since its samples were read: the old samples are used")
    elif max((modified for _, modified, _ in stamps(path)), default=0) > (corpus / "facts.json").stat().st_mtime_ns:
        _note(events, f"{path} is newer than its samples in {corpus}, which have no digest: they may be out of date")


def check_reread(first: Path, origin: Mapping[str, Any]) -> None:
    """Raise ``DataError`` when a later cycle has read other data than the first corpus, in the folder ``first``.

    ``on_change`` does not apply: each cycle reads its samples from the file.
    """
    expected = read_json(first / ORIGIN) if origin and (first / ORIGIN).exists() else None
    if expected is not None and expected["sha256"] != origin["sha256"]:
        raise DataError(
            "the data file has been changed since the first cycle read it",
            where=origin["path"],
            given=_summary(origin),
            allowed=_summary(expected),
            hint="the original file, or a new run with another --out",
        )


def _changed(path: str, origin: Mapping[str, Any], corpus: Path) -> DataError:
    return DataError(
        "the data file has been changed since the run's samples were read from it",
        where=path,
        given=_summary(fingerprint(path)),
        allowed=f"{_summary(origin)}, as in {corpus}",
        hint="another --out for the changed data, or --set data.on_change=keep to continue with the old samples",
    )


def _summary(origin: Mapping[str, Any]) -> str:
    return f"{origin['bytes']:,} bytes, SHA-256 {origin['sha256'][:12]}…"


def _note(events: Events, text: str) -> None:
    events(Event("note", "data", text=text))
