"""Where are the compilers and runtimes, and what have they already made?

A tool is found on ``PATH`` and followed to the file behind its links, because links such as ``/etc/alternatives`` do
not exist inside the walls. ``mounts`` names the folder that has to be shown inside for a tool that is not part of the
system.

What a compiler makes is kept in a cache, named by a hash of everything it depends on: the language, the compiler's
version, flags, support files and the source. An entry is a folder that is filled beside its place and renamed, so
processes that make the same entry at once do not disturb each other and a reader sees all or nothing. Entries that
have not been used for longest go first when the cache is over its size; those used in the last hour stay.

The cache stands in ``$GRADATIM_CACHE``, else ``$XDG_CACHE_HOME/gradatim``, else ``~/.cache/gradatim``. Nothing in it
is ever run outside the walls.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import ToolchainMissing
from ..record import storage_errors

__all__ = ["cache_folder", "find", "made_once", "mounts", "need", "prune", "stored", "tell_version"]

SYSTEM = ("/usr/", "/bin/", "/lib/", "/lib64/")
CACHE_BYTES = 2 << 30
KEPT_SECONDS = 3600.0
PRUNED_EACH = 500


def find(name: str) -> Path | None:
    """The executable called ``name``, links followed; None when it is not on ``PATH``."""
    found = shutil.which(name)
    return Path(found).resolve() if found else None


def need(title: str, path: Path | None, advice: str | None) -> Path:
    """``path``, or ``ToolchainMissing`` with the advice."""
    if path is None:
        raise ToolchainMissing(f"the toolchain of {title} is not on this machine", hint=advice)
    return path


def mounts(*tools: Path) -> dict[Path, str]:
    """The folders that hold ``tools``, shown inside at their own place; empty for tools of the system."""
    homes = (tool.parent.parent for tool in tools if not str(tool).startswith(SYSTEM))
    return {home: str(home) for home in homes}


@functools.cache
def tell_version(command: tuple[str, ...]) -> str:
    """The first number with dots that ``command`` tells, such as 12.2.0. Asked once per process."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise ToolchainMissing(f"{command[0]} cannot be started", given=error) from error
    number = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    if number is None:
        raise ToolchainMissing(f"{command[0]} does not tell its version", given=(done.stdout + done.stderr)[:80])
    return number[0]


def cache_folder() -> Path:
    """Where compiled programs and support files are kept. Not made here."""
    if given := os.environ.get("GRADATIM_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradatim"


def made_once(kind: str, key: Iterable[str | bytes], fill: Callable[[Path], None]) -> Path:
    """The cache's folder for ``key``; ``fill(folder)`` makes what is in it when it is not there.

    What ``fill`` raises is passed on and nothing is kept. ``StorageFailed`` when the disk is full.
    """
    place = _place(kind, key)
    if stored(kind, key) is not None:
        return place
    with storage_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
        try:
            fill(temporary)
            temporary.chmod(0o755)
            with contextlib.suppress(OSError):  # somebody else was faster: theirs is as good
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _prune_at_times(place)
    return place


def stored(kind: str, key: Iterable[str | bytes]) -> Path | None:
    """The cache's folder for ``key`` when it is there; it counts as used now."""
    place = _place(kind, key)
    if not place.is_dir():
        return None
    with contextlib.suppress(OSError):
        os.utime(place)
    return place


def _place(kind: str, key: Iterable[str | bytes]) -> Path:
    return cache_folder() / kind / _digest(key)


def _digest(key: Iterable[str | bytes]) -> str:
    told = hashlib.sha256()
    for part in key:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        told.update(len(data).to_bytes(8, "big") + data)  # the length keeps "ab", "c" apart from "a", "bc"
    return told.hexdigest()


def _prune_at_times(folder: Path) -> None:
    # Looking through the whole cache costs more than a compilation: one entry in PRUNED_EACH pays for it. The names are
    # hashes, so the last made one decides evenly.
    if int(folder.name[:8], 16) % PRUNED_EACH == 0:
        prune(folder.parent)


def prune(folder: Path, most: int = CACHE_BYTES, kept_seconds: float = KEPT_SECONDS) -> int:
    """Remove the entries of ``folder`` that were not used for longest until it holds ``most`` bytes; tell how many."""
    entries = sorted(_entries(folder))
    used, removed = sum(size for _, size, _ in entries), 0
    for last_used, size, path in entries:
        if used <= most or last_used > time.time() - kept_seconds:
            break
        shutil.rmtree(path, ignore_errors=True)
        used, removed = used - size, removed + 1
    return removed


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of every entry."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may be pruning too
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            found.append((path.stat().st_mtime, size, path))
    return found
