"""Run folders: recorded results, metrics and the lock, with atomic writes.

Each expensive step has a key, a path inside the folder that ends in ``.json``. The step is done when that file exists;
the file is written last, by rename. The same command resumes a run: ``once`` returns the recorded value or computes
and records it. The folder is locked while in use. ``metrics.jsonl`` is append-only except for ``rewind``, which removes
the rows that a killed process wrote after its last checkpoint. Stages, models and recipes are handled elsewhere.
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
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from .errors import RunFolderError, StorageFailed, UserError
from .faults import fault_text
from .files import check_input, read_input
from .lazy import pa, pq
from .options import parse_json

LOCK_INTERVAL = 0.1
"""Seconds between two attempts to lock a file that another process has locked."""

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
    """Convert errors of the disk (full, read-only, no permission) to ``StorageFailed``; others pass unchanged."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number not in ADVICE:
            raise
        raise StorageFailed(f"cannot write ({os.strerror(number)})", where=path, hint=ADVICE[number]) from error


def _system_error(error: Exception) -> int:
    """The errno behind an error, 0 without one. Libraries written in Rust have it in their message only."""
    if isinstance(error, OSError):
        return error.errno or 0
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file, flush it and rename it to ``path``; readers see all of it or none."""
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
    """Write a folder atomically: ``fill`` writes to a temporary folder, which is flushed and renamed to ``path``.

    An existing folder at ``path`` is renamed, not removed, until the rename is complete: after a kill in between one
    of the two remains, and ``settle`` restores it.
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
    """Write a folder atomically to ``path``, which is missing or empty; ``fill`` writes its content.

    For paths named by the user: the temporary name is random, so that it hits no existing file.
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
    """Finish a ``write_folder`` that was killed: restore the old folder unless the new one is complete.

    Returns the path to which ``write_folder`` moves an old folder.
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
    """Write ``value`` as indented JSON, atomically. ``ValueError`` for NaN and infinity, which JSON lacks."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, decode: Callable[[Any], Any] | None = None) -> Any:
    """Value of a JSON file, converted by ``decode``; ``RunFolderError`` for a damaged file.

    Damaged: invalid JSON, or a value that ``decode`` cannot convert (another type, a missing key).
    """
    try:
        value = parse_json(read_input(path))
        return value if decode is None else decode(value)
    except (*DECODE_ERRORS, OSError) as error:
        raise RunFolderError(
            "this file of the run is damaged",
            where=path,
            given=error.strerror if isinstance(error, OSError) else fault_of(error),
            hint="remove it: the step is repeated",
        ) from error


def fault_of(error: Exception) -> str:
    """Short reason for a decoding error, without any content of the value."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the value'}: {fault_text(first)}"
    if isinstance(error, KeyError):
        return f"no key {error}"
    return str(error) if type(error) is ValueError else "not in the format it was written in"


def read_rows(path: Path, content: str, hint: str, columns: list[str] | None = None) -> pa.Table:
    """Table of a Parquet file of a run; ``RunFolderError`` if damaged. ``content``: the rows' name, a plural."""
    try:
        check_input(path)
        return pq.read_table(path, columns=columns, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise RunFolderError(f"{content} are damaged", where=path, given=error, hint=hint) from error


@contextlib.contextmanager
def open_rows(path: Path, content: str, hint: str) -> Iterator[pq.ParquetFile]:
    """Parquet file of a run, to be read in batches; arguments and errors as in ``read_rows``."""
    try:
        check_input(path)
        with pq.ParquetFile(path, pre_buffer=False) as file:  # buffers are kept until the file is closed
            yield file
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise RunFolderError(f"{content} are damaged", where=path, given=error, hint=hint) from error


DECODE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions of decoding a value of another shape."""

_LAST_POSITION = (1 << 62, 0, 0)
"""A position after all others."""


class Metrics:
    """The append-only ``metrics.jsonl``: one JSON object per line with cycle, stage and step.

    Rows are independent of the clock, so a run that was killed and resumed has the same file, byte for byte, as an
    uninterrupted one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row, unbuffered."""
        with storage_errors(self.path):
            if self._file is None:
                # Unbuffered: the row is passed to the system before append returns, and a full disk is an error here.
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - open between rows
            try:
                line = (json.dumps(row, allow_nan=False) + "\n").encode()
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "a row was cut short")
            except OSError:
                self._file.close()
                self._file = None
                raise

    def rewind(self, cycle: int, stage: int, step: int) -> None:
        """Remove all rows after (cycle, stage, step), and an incomplete last line of a killed process."""
        self.close()
        end = (cycle, stage, step)
        write_atomically(self.path, b"".join(line for line in self._lines() if self._position(line) <= end))

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows."""
        return [parse_json(line) for line in self._lines()]

    def _lines(self) -> list[bytes]:
        """All complete lines; a process may have been killed inside the last one."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        return [line for line in lines if line.endswith(b"\n")]

    def close(self) -> None:
        """Flush to the disk and close the file."""
        if self._file is not None:
            with storage_errors(self.path):
                os.fsync(self._file.fileno())
                self._file.close()
            self._file = None

    @staticmethod
    def _position(line: bytes) -> tuple[int, int, int]:
        """Cycle, stage and step of a row."""
        try:
            row = parse_json(line)
            return int(row["cycle"]), int(row["stage"]), int(row["step"])
        except DECODE_ERRORS:
            return _LAST_POSITION  # a row cut short by a full disk; later rows are written again


def lock(file: IO[Any], path: Path) -> bool:
    """Lock an open file for this process (``flock``), without waiting; False when another process has locked it.

    The lock ends with the file. Raises ``UserError`` for a file system that has no locks. ``path`` names the file.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            "files on this file system cannot be locked, so two processes could write the same results",
            where=path,
            given=error.strerror,
            hint="a folder on another file system; Lustre has locks with the mount option flock",
        ) from error
    return True


def _open_lock(path: Path) -> IO[bytes]:
    """Open the lock file, created if missing; symbolic links are not followed, pipes do not block."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        return open(descriptor, "a+b")
    except BaseException:
        os.close(descriptor)
        raise


def _holder(lock: IO[bytes]) -> str | None:
    """Process id in the lock file, empty for a new file; None when the file has other content."""
    lock.seek(0)
    content = lock.read(32)
    return content.decode("ascii") if not content or content.isdigit() else None


class Record:
    """An open run folder, locked by this process until ``close``; a context manager.

    ``patience``: the longest wait, in seconds, for another process to release the lock. Raises ``RunFolderError`` after
    it, and ``UserError`` for a file system without locks.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0) -> None:
        self.folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _open_lock(folder / ".lock")
        try:
            self._acquire(patience)
        except UserError:
            self._lock.close()
            raise
        if _holder(self._lock) is None:
            self._lock.close()
            raise RunFolderError(
                "the lock file in this folder belongs to another program",
                where=folder / ".lock",
                hint="another folder with --out",
            )
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()).encode())
        self._lock.flush()
        self.metrics = Metrics(folder / "metrics.jsonl")

    def _acquire(self, patience: float) -> None:
        end = time.monotonic() + patience
        while not lock(self._lock, self.folder / ".lock"):
            if time.monotonic() >= end:
                raise RunFolderError(
                    "another process is using this run folder",
                    where=self.folder,
                    given=f"process {_holder(self._lock) or 'unknown'}",
                    hint="wait for it to end, stop it, or choose another folder with --out",
                )
            time.sleep(LOCK_INTERVAL)

    def once(self, key: str, make: Callable[[], Any], decode: Callable[[Any], Any] | None = None) -> Any:
        """The JSON value recorded under ``key``, computed by ``make()`` and recorded if missing.

        With ``decode``, its result for that value; ``RunFolderError`` when it cannot decode a recorded value.
        """
        path = self.folder / key
        if path.exists():
            return read_json(path, decode)
        value = make()
        write_json(path, value)
        return value if decode is None else decode(value)

    def discard(self, key: str) -> None:
        """Remove a folder that is needed only until a later step is recorded."""
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
