"""How is a program compiled only once?

``compile_once`` looks in the cache first; else it lets a compiler run behind the walls, keeps what it made, and tells
its errors otherwise. Failures are not kept: a compiler that was stopped may do better on a quieter machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from ..sandbox.execution import Execution
from .language import Built, Fault
from .toolchain import made_once, stored

__all__ = ["compile_once", "keep"]


def compile_once(
    key: Iterable[str | bytes],
    run: Callable[[], Execution],
    wanted: tuple[str, ...],
    faults: Callable[[bytes], tuple[Fault, ...]],
    unpack: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] = dict,
) -> Built:
    """What ``run`` compiles, from the cache when it was made before.

    ``key`` is everything the result depends on. ``wanted`` are the files that a successful run leaves; ``unpack``
    makes of them the files to keep. ``faults`` reads the errors from stderr, at least one.
    """
    key = tuple(key)
    if (folder := stored("compiled", key)) is not None:
        return Built(folder)
    done = run()
    if not done.ok or any(name not in done.files for name in wanted):
        stopped = done.ending if done.ending in ("timeout", "memory") else ""
        return Built(None, faults(done.stderr or done.stdout), stopped, done.cpu_seconds)
    return Built(keep(key, unpack(done.files)), cpu_seconds=done.cpu_seconds)


def keep(key: Iterable[str | bytes], files: Mapping[str, bytes]) -> Path:
    """Put compiled ``files`` into the cache under ``key``; the folder they are in."""
    return made_once("compiled", key, lambda folder: _write(folder, files))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"a compiled file cannot be called {name!r}")
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
