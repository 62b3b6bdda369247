"""Was a corpus made from the data file as it is now?

Beside the samples of a corpus lies ``origin.json``, the fingerprint of the file that they were read from (see
``table.fingerprint``). A run that goes on uses the samples as they were made; when the file has been changed since,
that is refused unless the recipe says ``data.on_change: keep``. Corpora of former versions have no fingerprint; of
these a file that is newer than its samples is only reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .errors import DataError
from .record import read_json
from .stage import Event, Events

__all__ = ["ORIGIN", "OnChange", "check_drawn", "check_origin"]

ORIGIN = "origin.json"

OnChange = Literal["refuse", "keep"]


def check_origin(corpus: Path, path: str | None, on_change: OnChange, events: Events) -> None:
    """Compare the data file at ``path`` with the one that ``corpus`` was made from.

    ``DataError`` when it has been changed and ``on_change`` is ``refuse``; else a note says so.
    """
    from .table.fingerprint import is_unchanged, place_of, stamps

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
    from .table.fingerprint import fingerprint

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
