"""Compilers and runtimes on this machine, and the cache of their results.

A tool is found on ``PATH`` and resolved to the file behind its links, because links such as ``/etc/alternatives`` do
not exist inside the sandbox. ``mounts`` names the folder to mount for a tool that is not part of the system.

Results are stored in a cache, keyed by a hash of everything they depend on: the language, the compiler's version,
flags, support files and the source. An entry is a folder that is filled under a temporary name and renamed, so that
processes that build the same entry at once do not disturb each other and a reader sees all or nothing. The least
recently used entries are removed when the cache exceeds its size; those used in the last hour stay.

The cache is at ``$GRADATIM_CACHE``, else ``$XDG_CACHE_HOME/gradatim``, else ``~/.cache/gradatim``. Nothing in it is
ever run outside the sandbox. ``compile_once`` compiles in the sandbox unless the result is cached; failures are not
cached, since a compiler that was stopped may succeed on a quieter machine.
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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from ..errors import ToolchainMissing
from ..record import storage_errors
from ..sandbox.limits import Execution
from .language import Built, Fault

SYSTEM = ("/usr/", "/bin/", "/lib/", "/lib64/")
CACHE_BYTES = 2 << 30
KEPT_SECONDS = 3600.0
PRUNED_EACH = 500


def find(name: str) -> Path | None:
    """The executable called ``name``, links followed; None when it is not on ``PATH``."""
    path = shutil.which(name)
    return Path(path).resolve() if path else None


def need(title: str, path: Path | None, advice: str | None) -> Path:
    """``path``; raises ``ToolchainMissing`` with ``advice`` when it is None."""
    if path is None:
        raise ToolchainMissing(f"the toolchain of {title} is not on this machine", hint=advice)
    return path


def mounts(*tools: Path) -> dict[Path, str]:
    """The folders that hold ``tools``, mounted at the same path inside; empty for tools of the system."""
    homes = (tool.parent.parent for tool in tools if not str(tool).startswith(SYSTEM))
    return {home: str(home) for home in homes}


@functools.cache
def tool_version(command: tuple[str, ...]) -> str:
    """The first dotted number in the output of ``command``, such as 12.2.0; run once per process."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise ToolchainMissing(f"{command[0]} cannot be started", given=error) from error
    number = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    if number is None:
        raise ToolchainMissing(f"{command[0]} does not report its version", given=(done.stdout + done.stderr)[:80])
    return number[0]


def cache_folder() -> Path:
    """The folder of compiled programs and support files; not created here."""
    if path := os.environ.get("GRADATIM_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradatim"


def cached_folder(kind: str, key: Iterable[str | bytes], fill: Callable[[Path], None]) -> Path:
    """The cache's folder for ``key``; ``fill(folder)`` creates its content when it is missing.

    Exceptions of ``fill`` are passed on and nothing is stored. ``StorageFailed`` when the disk is full.
    """
    folder = _entry_path(kind, key)
    if stored(kind, key) is not None:
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            fill(temporary)
            temporary.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was faster; its entry is equivalent
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _prune_sometimes(folder)
    return folder


def stored(kind: str, key: Iterable[str | bytes]) -> Path | None:
    """The cache's folder for ``key`` when it exists; its time of use is updated."""
    folder = _entry_path(kind, key)
    if not folder.is_dir():
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    return folder


def _entry_path(kind: str, key: Iterable[str | bytes]) -> Path:
    return cache_folder() / kind / _digest(key)


def _digest(key: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in key:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps "ab", "c" apart from "a", "bc"
    return digest.hexdigest()


def _prune_sometimes(folder: Path) -> None:
    # A scan of the whole cache costs more than a compilation, so only one new entry in PRUNED_EACH triggers it. Names
    # are hashes, so the choice is uniform.
    if int(folder.name[:8], 16) % PRUNED_EACH == 0:
        prune(folder.parent)


def prune(folder: Path, limit: int = CACHE_BYTES, kept_seconds: float = KEPT_SECONDS) -> int:
    """Remove the least recently used entries of ``folder`` until it holds ``limit`` bytes; return their number."""
    entries = sorted(_entries(folder))
    total, removed = sum(size for _, size, _ in entries), 0
    for last_used, size, path in entries:
        if total <= limit or last_used > time.time() - kept_seconds:
            break
        shutil.rmtree(path, ignore_errors=True)
        total, removed = total - size, removed + 1
    return removed


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of every entry."""
    entries = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may be pruning too
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            entries.append((path.stat().st_mtime, size, path))
    return entries


def compile_once(
    key: Iterable[str | bytes],
    run: Callable[[], Execution],
    outputs: tuple[str, ...],
    faults: Callable[[bytes], tuple[Fault, ...]],
    unpack: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] = dict,
) -> Built:
    """The result of ``run``, a compilation, from the cache where possible.

    ``key`` is everything the result depends on. ``outputs`` are the files that a successful run leaves; ``unpack``
    converts them to the files to store. ``faults`` parses the errors from stderr, at least one.
    """
    key = tuple(key)
    if (folder := stored("compiled", key)) is not None:
        return Built(folder)
    done = run()
    if not done.ok or any(name not in done.files for name in outputs):
        stopped = done.ending if done.ending in ("timeout", "memory") else ""
        return Built(None, faults(done.stderr or done.stdout), stopped, done.cpu_seconds)
    return Built(store(key, unpack(done.files)), cpu_seconds=done.cpu_seconds)


def store(key: Iterable[str | bytes], files: Mapping[str, bytes]) -> Path:
    """Store compiled ``files`` in the cache under ``key``; return their folder."""
    return cached_folder("compiled", key, lambda folder: _write_files(folder, files))


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        components = PurePosixPath(name).parts
        if not components or components[0] == "/" or ".." in components:
            raise ValueError(f"a compiled file cannot be called {name!r}")
        path = folder.joinpath(*components)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
