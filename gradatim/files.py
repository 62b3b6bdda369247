"""Files that a user names: which may be read, how much of them, and which may be written.

Input is read from regular files alone, up to a limit: a pipe without a writer blocks for ever, a device has no end, and
a small gzip file may unpack to more than the memory holds. Output replaces a file only where its content shows that
this package wrote it, and never a file that the same command reads, under whichever name. Both are checked before the
work, so that a refusal costs nothing.
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

__all__ = [
    "LARGEST_LINE",
    "Input",
    "check_input",
    "check_new_folder",
    "check_not_input",
    "check_output",
    "check_output_folder",
    "open_input",
    "read_input",
    "replacing",
    "same_file",
    "unpacked",
]

GZIP = b"\x1f\x8b"
LARGEST_CONTENT = 4 << 30
"""Bytes of a file that is held in memory as a whole."""
LARGEST_LINE = 256 << 20
"""Bytes of one line; no sample of code comes near it."""
LARGEST_UNPACKED = 64 << 20
"""Bytes that a gzip file may unpack to, however small it is."""
LARGEST_RATIO = 200
"""Unpacked to packed size above that limit; text reaches 30, a file made to exhaust the memory about 1,000."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class Input(io.BufferedReader):
    """A file, or what it unpacks to. Its lines are at most ``LARGEST_LINE`` long; ``where`` is what errors call it."""

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
    """The regular file ``path``, open for reading. ``DataError`` for everything else; ``OSError`` when it cannot be.

    ``where`` is what errors call it.
    """
    check_input(path, where)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe may have taken its name meanwhile
    try:
        _check_regular(os.fstat(descriptor), where or path)
        return Input(io.FileIO(descriptor), where or path)
    except BaseException:
        os.close(descriptor)
        raise


def check_input(path: str | os.PathLike[str], where: object = None) -> None:
    """``DataError`` when ``path`` is no regular file, for readers that open it themselves; ``OSError`` without one."""
    _check_regular(os.stat(path), where or path)


def _check_regular(state: os.stat_result, where: object) -> None:
    if stat.S_ISREG(state.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(state.st_mode)), "no regular file")
    raise DataError(f"this is {kind}", where=where, allowed="a regular file", hint="write its content to a file")


def read_input(path: str | os.PathLike[str], most: int = LARGEST_CONTENT, *, unpack: bool = False) -> bytes:
    """The content of the regular file ``path``, at most ``most`` bytes. ``DataError`` and ``OSError`` as above.

    ``unpack``: what it unpacks to, where it begins as gzip files do.
    """
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            packed = unpack and file.peek(2)[:2] == GZIP
            content = (unpacked(file) if packed else file).read(most + 1)
            if len(content) <= most:
                return content
    raise DataError("the file is too large", where=path, given=f"{size:,} bytes", allowed=f"{most:,}")


def unpacked(file: Input) -> Input:
    """What the gzip file ``file`` unpacks to. Reading more than its size allows is a ``DataError``."""
    packed = os.fstat(file.fileno()).st_size
    return Input(_Unpacked(file, max(LARGEST_UNPACKED, LARGEST_RATIO * packed)), file.where)


class _Unpacked(io.RawIOBase):
    """A gzip stream that refuses to go on past ``most`` bytes."""

    def __init__(self, file: Input, most: int) -> None:
        self._stream, self._left, self._most, self._where = gzip.GzipFile(fileobj=file), most, most, file.where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise DataError(
                "this gzip file unpacks to far more than text does",
                where=self._where,
                allowed=f"{self._most:,} bytes",
                hint="unpack it, if it is right",
            )
        return count


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file whose content takes the place of ``path`` when the block ends well, and vanishes otherwise.

    Through a link, what it leads to is replaced. No other file is touched on the way.
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


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two names mean one file, through links and relative spellings too; also where it does not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def check_output(
    path: Path,
    option: str,
    *,
    ours: Callable[[Path], bool],
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Raise ``UserError`` unless the file ``path`` can be written without a loss.

    A file that is there is replaced only where ``ours`` says that this package wrote it (an empty one holds nothing).
    ``inputs`` are the files that the same command reads; names of something else than a file may be among them.
    """
    check_not_input(path, option, inputs)
    try:
        state = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError("this link leads nowhere", where=option, given=path, hint="remove it") from None
    except OSError as error:
        raise _cannot_write(path, option, error) from error
    else:
        if not stat.S_ISREG(state.st_mode):
            kind = next((name for test, name in _KINDS if test(state.st_mode)), "no regular file")
            raise UserError(f"a file is written, and this is {kind}", where=option, given=path, hint="another path")
        if state.st_size and not _is(ours, path):
            raise UserError(
                "this file is not one that this command has written, so it is not replaced",
                where=option,
                given=path,
                hint="another path, or move the file away",
            )
    _check_writable(path, option)


def check_not_input(path: Path, option: str, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Raise ``UserError`` when ``path`` is one of ``inputs``, under whichever name."""
    for source in inputs:
        if source is not None and same_file(path, source):
            raise UserError("this file is read by the same command", where=option, given=path, hint="another path")


def check_output_folder(path: Path, option: str) -> None:
    """Raise ``UserError`` unless ``path`` is a folder that can be written, or can be made one."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError("this link leads nowhere", where=option, given=path, hint="remove it") from None
        _check_writable(path, option)
        return
    except OSError as error:
        raise _cannot_write(path, option, error) from error
    if not stat.S_ISDIR(state.st_mode):
        raise UserError("a folder is written, and this is a file", where=option, given=path, hint="another path")
    _check_writable(path / "x", option)


def check_new_folder(path: Path, option: str, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise ``UserError`` unless ``path`` can be made, or is an empty folder, and lies in none of ``inputs``."""
    check_output_folder(path, option)
    for source in inputs:
        inside = Path(os.path.realpath(path))
        if any(same_file(each, source) for each in (inside, *inside.parents)):
            raise UserError("this lies in the folder that is read", where=option, given=path, hint="another path")
    if path.is_dir() and any(path.iterdir()):
        raise UserError("there is something already", where=option, given=path, hint="a folder that is new or empty")


def _is(ours: Callable[[Path], bool], path: Path) -> bool:
    try:
        return ours(path)
    except (DataError, OSError, ValueError):
        return False


def _check_writable(path: Path, option: str) -> None:
    """Try it: rights, a read-only mount, a name too long and a file in the way are all told by the system itself."""
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
