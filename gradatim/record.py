"""What has already been done, and how do we never do it twice?

A run is a folder. Each costly thing has a key, a path inside the folder that ends in ``.json``; the thing is done
when that file exists, and the file is written last, by rename. To resume is to run the same command again:
``once`` returns what is there and makes what is missing. The folder is locked while in use, and ``metrics.jsonl``
is append-only except for ``rewind``, which cuts off what a killed process wrote after its last checkpoint.

This module knows nothing of stages, models or recipes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import RunFolderError, StorageFailed
from .files import check_input, read_input
from .parsing import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MISSHAPEN",
    "Metrics",
    "Record",
    "fault_of",
    "read_json",
    "read_rows",
    "settle",
    "write_atomically",
    "write_folder",
    "write_json",
    "write_new_folder",
]


ADVICE = {
    errno.ENOSPC: "free some disk space, then run the same command again: finished work is kept",
    errno.EDQUOT: "free some of your quota, then run the same command again: finished work is kept",
    errno.EACCES: "choose a folder you may write to with --out",
    errno.EPERM: "choose a folder you may write to with --out",
    errno.EROFS: "choose a folder you may write to with --out",
    errno.ENOTDIR: "choose a folder, not a file, with --out",
    errno.EEXIST: "choose a folder, not a file, with --out",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what a disk can refuse into one clear line; other errors pass."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number not in ADVICE:
            raise
        raise StorageFailed(f"cannot write ({os.strerror(number)})", where=path, hint=ADVICE[number]) from error


def _system_error(error: Exception) -> int:
    """The errno behind an error, 0 when there is none. Libraries written in Rust tell it only in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, flush it to the disk and rename: a reader sees all or nothing."""
    temporary = path.with_name(f".{path.name}.partial")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a temporary folder, flush every file, then rename it to ``path``.

    An older folder at ``path`` is moved aside, not removed, until the new one is in its place: a kill in between
    leaves one of the two, and ``settle`` finds it.
    """
    aside = settle(path)
    temporary = path.with_name(f".{path.name}.partial")
    with storage_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                os.replace(path, aside)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)


def write_new_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a temporary folder and rename it to ``path``, which is not there or empty.

    For places that a user names: the temporary name is one that nothing else has.
    """
    path = Path(os.path.realpath(path))
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        temporary.mkdir()
        try:
            fill(temporary)
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(path.parent)


def settle(path: Path) -> Path:
    """Undo what a kill inside ``write_folder`` left: the old folder comes back unless the new one is there.

    Returns the name under which an old folder stands aside.
    """
    aside = path.with_name(f".{path.name}.old")
    if aside.exists():
        with storage_errors(path):
            if path.exists():
                shutil.rmtree(aside)
            else:
                os.replace(aside, path)
    return aside


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, decode: Callable[[Any], Any] | None = None) -> Any:
    """Read a JSON file, its value put through ``decode``; ``RunFolderError`` names the file when it is damaged.

    Damaged is what is no JSON, and what ``decode`` cannot take: another type, a key that is missing.
    """
    try:
        value = parse_json(read_input(path))
        return value if decode is None else decode(value)
    except (*MISSHAPEN, OSError) as error:
        raise RunFolderError(
            "this file of the run is damaged",
            where=path,
            given=error.strerror if isinstance(error, OSError) else fault_of(error),
            hint="remove it: its part is done again",
        ) from error


def fault_of(error: Exception) -> str:
    """What a value's shape has against it, in a few words that repeat nothing of it."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the value'}: {first['msg'].lower()}"
    if isinstance(error, KeyError):
        return f"no key {error}"
    return str(error) if type(error) is ValueError else "another shape than it was written in"


def read_rows(path: Path, what: str, hint: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of a run. ``RunFolderError`` says that ``what`` it holds are damaged, and ``hint``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_input(path)
        return pq.read_table(path, columns=columns, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise RunFolderError(f"{what} are damaged", where=path, given=error, hint=hint) from error


MISSHAPEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What decoding a value of another shape may raise."""

_NOWHERE = (1 << 62, 0, 0)
"""After every place there is."""


class Metrics:
    """The append-only ``metrics.jsonl``: one JSON object a line, each with cycle, stage and step.

    Rows hold nothing that depends on the clock, so a run that was killed and resumed has the same file, byte for
    byte, as one that was not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; it reaches the operating system at once."""
        with storage_errors(self.path):
            if self._file is None:
                # Unbuffered: a row is with the system when append returns, and a full disk is told here.
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - kept open from row to row
            try:
                line = (json.dumps(row, allow_nan=False) + "\n").encode()
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "a row was cut short")
            except OSError:
                self._file.close()
                self._file = None
                raise

    def rewind(self, cycle: int, stage: int, step: int) -> None:
        """Forget every row after (cycle, stage, step), and a last line that a killed process left torn."""
        self.close()
        kept = [
            line
            for line in (self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else [])
            if line.endswith(b"\n") and self._place(line) <= (cycle, stage, step)
        ]
        write_atomically(self.path, b"".join(kept))

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        return [parse_json(line) for line in lines if line.endswith(b"\n")]

    def close(self) -> None:
        """Flush to the disk and let go of the file."""
        if self._file is not None:
            with storage_errors(self.path):
                os.fsync(self._file.fileno())
                self._file.close()
            self._file = None

    @staticmethod
    def _place(line: bytes) -> tuple[int, int, int]:
        try:
            row = parse_json(line)
            return int(row["cycle"]), int(row["stage"]), int(row["step"])
        except MISSHAPEN:
            return _NOWHERE  # a row that a full disk cut short: what follows it is made again


def _open_lock(path: Path) -> IO[bytes]:
    """The lock file, made where it is missing; not through a link, and no pipe or device."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        return open(descriptor, "a+b")
    except BaseException:
        os.close(descriptor)
        raise


def _holder(lock: IO[bytes]) -> str | None:
    """The number of the process that wrote the lock, empty for a fresh one; None when it holds something else."""
    lock.seek(0)
    content = lock.read(32)
    return content.decode("ascii") if not content or content.isdigit() else None


class Record:
    """An open run folder, locked for this process until ``close``; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _open_lock(folder / ".lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._lock) or "unknown"
            self._lock.close()
            raise RunFolderError(
                "another process is using this run folder",
                where=folder,
                given=f"process {holder}",
                hint="wait for it to end, stop it, or choose another folder with --out",
            ) from error
        if _holder(self._lock) is None:
            self._lock.close()
            raise RunFolderError(
                "the lock in this folder is another program's", where=folder / ".lock", hint="another folder with --out"
            )
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()).encode())
        self._lock.flush()
        self.metrics = Metrics(folder / "metrics.jsonl")

    def once(self, key: str, make: Callable[[], Any], decode: Callable[[Any], Any] | None = None) -> Any:
        """The JSON value recorded under ``key``; made by ``make()`` and recorded when it is not there yet.

        With ``decode``, what it gives of the value; a recorded one that it cannot take is a ``RunFolderError``.
        """
        path = self.folder / key
        if path.exists():
            return read_json(path, decode)
        value = make()
        write_json(path, value)
        return value if decode is None else decode(value)

    def discard(self, key: str) -> None:
        """Remove a folder that only mattered until something else was recorded."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def done(self, key: str) -> bool:
        """Whether ``key`` is recorded."""
        return (self.folder / key).exists()

    def close(self) -> None:
        """Release the lock; safe to call twice."""
        self.metrics.close()
        if not self._lock.closed:
            self._lock.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
