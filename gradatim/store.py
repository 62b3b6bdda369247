"""Key-value store in one SQLite file: values by namespace and key, for several threads and processes at once.

A write is one transaction. A killed process loses at most the transaction that it had not committed, and the file stays
whole. With ``durable``, a committed transaction also survives a loss of power. Every value has a digest; a value that
does not match it counts as damaged and as missing.

On a local file system the journal is a write-ahead log. That needs memory shared by all processes, so on any other file
system (NFS, Lustre), where they may run on several machines, it is a rollback journal. A folder without permission to
write can be read.

Errors are one line: ``StorageFailed`` for a full disk, a folder that is not writable and a damaged file,
``DataError`` for a file of another program or of a later version.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from .errors import DataError, GradatimError, StorageFailed
from .lazy import lazy_module

if TYPE_CHECKING:
    import sqlite3
else:
    sqlite3 = lazy_module("sqlite3")

APPLICATION = 0x47524144
"""``PRAGMA application_id`` of the file: "GRAD"."""
VERSION = 1
"""``PRAGMA user_version``: another schema takes another number."""
SCHEMA = (
    "CREATE TABLE namespaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, used REAL NOT NULL)",
    "CREATE TABLE entries (namespace INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, digest BLOB NOT NULL, "
    "PRIMARY KEY (namespace, key)) WITHOUT ROWID",
)
WAIT_SECONDS = 60.0
"""Longest wait for a transaction of another process."""
DIGEST_BYTES = 8
LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "zfs", "f2fs", "tmpfs", "overlay"))
"""File systems of one machine, on which processes can share the memory of a write-ahead log."""

_inherited: list[sqlite3.Connection] = []
"""Connections of the parent process: closing one in a forked child could undo a transaction of the parent."""


class _State(NamedTuple):
    """The file behind a connection; the last three only where the connection cannot see the changes of others."""

    device: int
    inode: int
    size: int = 0
    changed: int = 0
    has_log: bool = False


class Store:
    """Values (bytes) by namespace and key (bytes) in the file ``path``, which the first write creates.

    ``durable``: flush each transaction to the disk. ``hint``: a suggestion for a folder that cannot be written.
    ``damaged`` counts the values that did not match their digest.
    """

    def __init__(self, path: Path, *, durable: bool = True, hint: str | None = None) -> None:
        self.path, self.durable, self.hint, self.damaged = path, durable, hint, 0
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._state: _State | None = None
        self._process = 0
        self._in_transaction = False
        self._claims = -1
        self._process_of_claims = 0

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value of ``key``, including one that another process has just written; None without one."""
        query = (
            "SELECT key, value, digest FROM entries WHERE key = ? "
            "AND namespace = (SELECT id FROM namespaces WHERE name = ?)"
        )
        return next((value for _, value in self._select(query, (key, namespace), namespace)), None)

    def items(self, namespace: str) -> dict[bytes, bytes]:
        """All values of ``namespace`` by key."""
        query = "SELECT key, value, digest FROM entries WHERE namespace = (SELECT id FROM namespaces WHERE name = ?)"
        return dict(self._select(query, (namespace,), namespace))

    def put(self, namespace: str, values: Mapping[bytes, bytes], *, replace: bool = True) -> None:
        """Store ``values`` in one transaction. Without ``replace``, a key that has a value keeps it."""
        with self.transaction() as connection:
            number = _namespace(connection, namespace)
            connection.executemany(
                f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO entries VALUES (?, ?, ?, ?)",
                ((number, key, value, _digest(namespace, key, value)) for key, value in values.items()),
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block whose reads and writes take effect together or, on an exception, not at all.

        No other process writes meanwhile. Inside an outer transaction the block is part of that one.
        """
        with self._lock, self._errors():
            if self._in_transaction:
                yield self._open()
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._open(create=True)
            connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have ended the transaction itself
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._in_transaction = False

    def prune(self, limit: int, kept_seconds: float) -> list[str]:
        """Remove the namespaces written longest ago while the store holds more than ``limit`` bytes.

        Namespaces written in the last ``kept_seconds`` stay. Returns the names of those removed.
        """
        removed: list[str] = []
        with self.transaction() as connection:
            before = time.time() - kept_seconds
            rows = connection.execute("SELECT id, name FROM namespaces WHERE used < ? ORDER BY used", (before,))
            for number, name in rows.fetchall():
                pages, unused, size = (
                    connection.execute(f"PRAGMA {property_}").fetchone()[0]
                    for property_ in ("page_count", "freelist_count", "page_size")
                )
                if (pages - unused) * size <= limit:
                    break
                connection.execute("DELETE FROM entries WHERE namespace = ?", (number,))
                connection.execute("DELETE FROM namespaces WHERE id = ?", (number,))
                removed.append(name)
        return removed

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """The subset of ``keys`` (at least 15 hexadecimal digits each) that no other process or store has claimed.

        They are claimed until the block or the process ends. A claim is a lock on one byte of the file ``claims``
        beside the store.
        """
        locked: list[str] = []
        try:
            locked += [key for key in keys if self._lock_key(key, fcntl.F_WRLCK)]
            yield locked
        finally:
            for key in locked:
                self._lock_key(key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the files. The next use opens them again."""
        with self._lock:
            self._disconnect()
            if self._claims >= 0 and self._process_of_claims == os.getpid():
                os.close(self._claims)
            self._claims = -1

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _select(self, query: str, values: tuple[object, ...], namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """The rows of ``query`` that match their digest, as (key, value)."""
        with self._lock, self._errors():
            if not self._in_transaction and not self.path.exists():
                return
            rows: Iterable[tuple[bytes, bytes, bytes]] = self._open().execute(query, values).fetchall()
        for key, value, digest in rows:
            if isinstance(value, bytes) and digest == _digest(namespace, key, value):
                yield key, value
            else:
                self.damaged += 1

    def _open(self, *, create: bool = False) -> sqlite3.Connection:
        """The connection of this process; a new one after a fork, and when the file was removed or replaced."""
        if self._connection is not None and not self._in_transaction and self._state != self._file_state():
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect(create)
            self._process = os.getpid()
            self._state = self._file_state()
        return self._connection

    def _is_wal(self) -> bool:
        """Whether the header of the file states WAL mode (byte 18 is 2); False for an unreadable file."""
        try:
            with self.path.open("rb") as file:
                return file.read(19)[18:] == b"\x02"
        except OSError:
            return False

    def _connect(self, create: bool) -> sqlite3.Connection:
        options = "mode=rwc" if create else "mode=rw"
        if not self._is_writable():
            # A file in WAL mode without a log has no writer at present, and a reader without permission cannot create
            # the log. In rollback mode locks and journal must be respected.
            options = "mode=ro&immutable=1" if self._is_wal() and not self._log().exists() else "mode=ro"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?{options}",
            uri=True,
            timeout=WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if self._is_writable():
                _set_journal(connection, journal_mode(self.path.parent))
                connection.execute(f"PRAGMA synchronous = {'EXTRA' if self.durable else 'NORMAL'}")
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        """Create the tables of an empty file. ``DataError`` for the tables of another program or version."""
        if _is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            if _is_empty(connection):  # not created by another process meanwhile
                for statement in (*SCHEMA, f"PRAGMA application_id={APPLICATION}", f"PRAGMA user_version={VERSION}"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        (application,), (version,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application != APPLICATION:
            raise DataError("this SQLite file belongs to another program", where=self.path, hint="move it away")
        if version != VERSION:
            raise DataError(
                "this file has the format of another version of Gradatim",
                where=self.path,
                given=version,
                allowed=VERSION,
                hint="a later version of Gradatim, or another cache folder",
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            if self._process == os.getpid():
                self._connection.close()
            else:
                _inherited.append(self._connection)
        self._connection = self._state = None

    def _file_state(self) -> _State | None:
        """The state of the file on the disk, None without a file or in another process than that of the connection."""
        if self._connection is not None and self._process not in (0, os.getpid()):
            return None
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        if self._is_writable():
            return _State(state.st_dev, state.st_ino)
        return _State(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, self._log().exists())

    def _is_writable(self) -> bool:
        folder = self.path.parent
        return os.access(folder, os.W_OK, effective_ids=True) and (
            not self.path.exists() or os.access(self.path, os.W_OK, effective_ids=True)
        )

    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _lock_key(self, key: str, kind: int) -> bool:
        """Lock or unlock the key's byte, by a lock of the open file, which also separates stores of one process."""
        with self._lock:
            if self._claims < 0 or self._process_of_claims != os.getpid():  # a fork shares the locks of its parent
                with self._errors():
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    path = self.path.with_name("claims")
                    self._claims = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._process_of_claims = os.getpid()
            lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, int(key[:15], 16), 1, 0)
            try:
                fcntl.fcntl(self._claims, fcntl.F_OFD_SETLK, lock)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:
                return True  # a file system without locks: two processes may do the same work
            return True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of SQLite and of the disk to one line each."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except OSError as error:
            where, cause = error.filename or self.path, error.strerror or error
            raise StorageFailed(f"no access ({cause})", where=where, hint=self.hint) from error

    def _explained(self, error: sqlite3.Error) -> GradatimError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension
        match code:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                hint = "restore it from a copy, or move it away: its content is then requested or computed again"
                return StorageFailed("this file is damaged", where=self.path, given=error, hint=hint)
            case sqlite3.SQLITE_FULL:
                return StorageFailed("the disk is full", where=self.path, hint=self.hint or "free some disk space")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                cause = f"another process has locked this file for {WAIT_SECONDS:.0f} seconds"
                return StorageFailed(cause, where=self.path, hint="wait for it, or end it")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                return StorageFailed(f"cannot write ({error})", where=self.path, hint=self.hint)
        return StorageFailed(f"cannot be read or written ({error})", where=self.path, hint=self.hint)


def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    """Set the journal mode. A change needs the file alone, and SQLite does not wait for that itself."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _namespace(connection: sqlite3.Connection, name: str) -> int:
    """The number of a namespace, which is created if it is new; its time of use is updated."""
    connection.execute(
        "INSERT INTO namespaces (name, used) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET used = excluded.used",
        (name, time.time()),
    )
    return int(connection.execute("SELECT id FROM namespaces WHERE name = ?", (name,)).fetchone()[0])


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _digest(namespace: str, key: bytes, value: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in (namespace.encode(), key):
        digest.update(len(part).to_bytes(8, "big") + part)
    digest.update(value)
    return digest.digest()


def journal_mode(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """``WAL`` for an existing folder on a local file system, ``DELETE`` (a rollback journal) for any other.

    ``mounts``: the mounted file systems, in the format of Linux's ``/proc/self/mountinfo``.
    """
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return "DELETE"
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = {line.split(" - ")[1].split()[0] for line in lines if line.split()[2] == number}
    return "WAL" if kinds and kinds <= LOCAL else "DELETE"
