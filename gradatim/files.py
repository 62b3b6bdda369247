"""Checks of input and output paths, reading with size limits, and atomic replacement of files.

Input comes from regular files only, up to a limit: a pipe without a writer blocks for ever, a device has no end, and a
small gzip file may unpack to more than the memory holds. Output replaces a file only if its content shows that this
package wrote it, and never a file that the same command reads, under any of its names. Both checks come before the
work.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError, StorageFailed, UserError

GZIP = b"\x1f\x8b"
LARGEST_CONTENT = 4 << 30
"""Limit in bytes of a file that is read into memory."""
LARGEST_LINE = 256 << 20
"""Limit in bytes of one line, far above any sample of code."""
LARGEST_UNPACKED = 64 << 20
"""Bytes that any gzip file may unpack to."""
LARGEST_RATIO = 200
"""Ratio of unpacked to packed size above that limit; text reaches 30, a decompression bomb about 1,000."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class Input(io.BufferedReader):
    """A binary stream of a file or of its unpacked content, with lines of at most ``LARGEST_LINE`` bytes.

    ``where``: the location in error messages.
    """

    def __init__(self, raw: io.RawIOBase, where: object) -> None:
        super().__init__(raw, 1 << 17)
        self.where = where

    def __next__(self) -> bytes:
        line = self.readline(LARGEST_LINE)
        if not line:
            raise StopIteration
        if len(line) == LARGEST_LINE:
            raise DataError("a line is too long", where=self.where, allowed=f"{LARGEST_LINE:,} bytes")
        return line


def open_input(path: str | os.PathLike[str], where: object = None) -> Input:
    """Open the regular file ``path`` for reading. ``DataError`` for other kinds of file; ``OSError`` on failure.

    ``where``: the location in error messages.
    """
    check_input(path, where)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # no blocking on a pipe that replaced it
    try:
        _check_regular(os.fstat(descriptor), where or path)
        return Input(io.FileIO(descriptor), where or path)
    except BaseException:
        os.close(descriptor)
        raise


def check_input(path: str | os.PathLike[str], where: object = None) -> None:
    """Raise ``DataError`` unless ``path`` is a regular file, ``OSError`` when it is missing."""
    _check_regular(os.stat(path), where or path)


def _check_regular(state: os.stat_result, where: object) -> None:
    if stat.S_ISREG(state.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(state.st_mode)), "not a regular file")
    raise DataError(f"this is {kind}", where=where, allowed="a regular file", hint="write its content to a file")


def read_input(path: str | os.PathLike[str], limit: int = LARGEST_CONTENT, *, unpack: bool = False) -> bytes:
    """Content of the regular file ``path``, at most ``limit`` bytes. Errors as in ``open_input``.

    ``unpack``: decompress the content of a gzip file.
    """
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            packed = unpack and file.peek(2)[:2] == GZIP
            content = (unpacked(file) if packed else file).read(limit + 1)
            if len(content) <= limit:
                return content
    raise DataError("the file is too large", where=path, given=f"{size:,} bytes", allowed=f"{limit:,}")


def unpacked(file: Input) -> Input:
    """Decompressed stream of the gzip file ``file``. ``DataError`` when it grows beyond the limit for its size."""
    packed = os.fstat(file.fileno()).st_size
    return Input(_Unpacked(file, max(LARGEST_UNPACKED, LARGEST_RATIO * packed)), file.where)


class _Unpacked(io.RawIOBase):
    """A gzip stream that raises ``DataError`` after ``limit`` bytes."""

    def __init__(self, file: Input, limit: int) -> None:
        self._stream, self._where = gzip.GzipFile(fileobj=file), file.where
        self._limit = self._remaining = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._remaining -= count
        if self._remaining < 0:
            raise DataError(
                "this gzip file unpacks to far more than text does",
                where=self._where,
                allowed=f"{self._limit:,} bytes",
                hint="unpack it yourself if the size is right",
            )
        return count


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces ``path`` when the block succeeds, and is removed otherwise.

    A symbolic link is followed and its target replaced. No other file is touched.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageFailed("the file cannot be written", where=path, given=error.strerror or error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files directly in ``folder`` in the order of their names, without hidden ones; none for a file."""
    return sorted(file for file in folder.glob("*.parquet") if file.is_file() and not file.name.startswith((".", "_")))


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths name one file, links and relative paths resolved; the file may not exist yet."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def check_output(
    path: Path,
    option: str,
    *,
    ours: Callable[[Path], bool],
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Raise ``UserError`` unless the file ``path`` can be written without loss of data.

    An existing file is replaced only if it is empty or ``ours`` is true of it (this package wrote it). ``inputs``: the
    files that the same command reads; other names than paths may be among them.
    """
    check_not_input(path, option, inputs)
    try:
        state = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError("this link is broken", where=option, given=path, hint="remove it") from None
    except OSError as error:
        raise _cannot_write(path, option, error) from error
    else:
        if not stat.S_ISREG(state.st_mode):
            kind = next((name for test, name in _KINDS if test(state.st_mode)), "not a regular file")
            raise UserError(f"the output is a file, and this is {kind}", where=option, given=path, hint="another path")
        if state.st_size and not _is(ours, path):
            raise UserError(
                "this file was not written by this command, so it is not replaced",
                where=option,
                given=path,
                hint="another path, or move the file away",
            )
    _check_writable(path, option)


def check_not_input(path: Path, option: str, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Raise ``UserError`` when ``path`` is one of ``inputs``, under any of its names."""
    for source in inputs:
        if source is not None and same_file(path, source):
            raise UserError("this file is read by the same command", where=option, given=path, hint="another path")


def check_output_folder(path: Path, option: str) -> None:
    """Raise ``UserError`` unless ``path`` is a writable folder or can be created."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError("this link is broken", where=option, given=path, hint="remove it") from None
        _check_writable(path, option)
        return
    except OSError as error:
        raise _cannot_write(path, option, error) from error
    if not stat.S_ISDIR(state.st_mode):
        raise UserError("the output is a folder, and this is a file", where=option, given=path, hint="another path")
    _check_writable(path / "x", option)


def check_new_folder(path: Path, option: str, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise ``UserError`` unless ``path`` can be created or is an empty folder, and lies in none of ``inputs``."""
    check_output_folder(path, option)
    for source in inputs:
        inside = Path(os.path.realpath(path))
        if any(same_file(folder, source) for folder in (inside, *inside.parents)):
            raise UserError("this path lies in the input folder", where=option, given=path, hint="another path")
    if path.is_dir() and any(path.iterdir()):
        raise UserError("this folder is not empty", where=option, given=path, hint="a new or empty folder")


def _is(ours: Callable[[Path], bool], path: Path) -> bool:
    try:
        return ours(path)
    except (DataError, OSError, ValueError):
        return False


def _check_writable(path: Path, option: str) -> None:
    """Create and remove a file, so that the system reports any obstacle: permissions, mount, length of the name."""
    parent = path.parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    token = secrets.token_hex(4)
    probe = parent / f".{path.name}.{token}.part" if parent == path.parent else parent / f".{token}.part"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(probe)
    except OSError as error:
        raise _cannot_write(path, option, error) from error


_ADVICE = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your quota",
    errno.ENAMETOOLONG: "a shorter name",
    errno.ENOTDIR: "a path whose parents are folders",
}


def _cannot_write(path: Path, option: str, error: OSError) -> UserError:
    hint = _ADVICE.get(error.errno or 0, "a folder that you may write to")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UserError(f"cannot write ({reason})", where=option, given=path, hint=hint)


def is_hub(path: str) -> bool:
    """Whether ``path`` names a dataset on the hub: ``hub:NAME``, or ``hub-stream:NAME`` for a streamed one."""
    return path.startswith(("hub:", "hub-stream:"))
