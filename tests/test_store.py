"""The key-value store: nothing committed is lost, no process disturbs another, and every error is one line."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradatim.errors import DataError, StorageFailed
from gradatim.store import Store, journal_mode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.sqlite"


def test_values_are_read_by_namespace_and_key_also_by_another_store(path: Path) -> None:
    store = Store(path)
    assert (store.get("a", b"k"), store.items("a")) == (None, {})
    assert not path.parent.exists()  # reading creates nothing
    store.put("a", {b"k": b"1", b"\x00\xff": b""})
    store.put("b", {b"k": b"2"})
    other = Store(path)
    assert (other.get("a", b"k"), other.get("b", b"k"), other.get("b", b"x")) == (b"1", b"2", None)
    store.put("a", {b"k": b"3"})
    store.put("a", {b"k": b"4", b"n": b"5"}, replace=False)
    assert other.items("a") == {b"k": b"3", b"\x00\xff": b"", b"n": b"5"}


def test_a_transaction_takes_effect_as_a_whole_or_not_at_all(path: Path) -> None:
    store = Store(path)
    store.put("a", {b"k": b"1"})

    def two_writes() -> None:
        with store.transaction():
            store.put("b", {b"k": b"2"})
            store.put("a", {b"k": "no bytes"})  # type: ignore[dict-item]

    with pytest.raises(TypeError):
        two_writes()
    assert (store.get("a", b"k"), store.items("b")) == (b"1", {})


ENDLESS = """
import sys
from pathlib import Path
from gradatim.store import Store
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    store.put("n", {f"{number}/{part}".encode(): bytes(3000) for part in range(4)})
    print(number, flush=True)
"""


def test_a_killed_writer_loses_at_most_the_batch_that_it_was_writing(path: Path) -> None:
    committed = -1
    for round_ in range(4):
        command = [sys.executable, "-c", ENDLESS, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5 + 7 * round_):
                committed = max(committed, int(process.stdout.readline()))
            os.kill(process.pid, signal.SIGKILL)
        items = Store(path).items("n")
        assert {f"{number}/{part}".encode() for number in range(committed + 1) for part in range(4)} <= set(items)
        assert len(items) % 4 == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _write(path: Path, number: int) -> None:
    store = Store(path)
    for step in range(100):
        store.put("n", {f"{number}/{step}".encode(): b"x" * 500})
        with store.transaction():
            store.put("sum", {b"": str(int(store.get("sum", b"") or 0) + 1).encode()})


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_write, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store = Store(path)
    assert len(store.items("n")) == 400
    assert store.get("sum", b"") == b"400"


def test_a_forked_process_uses_a_connection_of_its_own(path: Path) -> None:
    store = Store(path)
    store.put("a", {b"k": b"1"})
    worker = multiprocessing.get_context("fork").Process(target=lambda: store.put("a", {b"child": b"2"}))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    store.put("a", {b"later": b"3"})
    assert store.items("a") == {b"k": b"1", b"child": b"2", b"later": b"3"}


def test_a_file_that_was_removed_or_replaced_is_not_written_to_any_more(path: Path) -> None:
    store = Store(path)
    store.put("a", {b"k": b"1"})
    path.unlink()
    assert store.get("a", b"k") is None
    store.put("a", {b"n": b"2"})
    assert Store(path).items("a") == {b"n": b"2"}


def test_a_claim_is_of_one_store_until_its_block_ends(path: Path) -> None:
    first, second = Store(path), Store(path)
    one, two = "1" * 64, "2" * 64
    with first.claim([one]) as claims, second.claim([one, two]) as others:
        assert (claims, others) == ([one], [two])
    with second.claim([one]) as claims:
        assert claims == [one]


def test_a_changed_value_counts_as_damaged_and_missing(path: Path) -> None:
    store = Store(path)
    store.put("a", {b"k": b"1", b"n": b"2"})
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET value = ? WHERE key = ?", (b"9", b"k"))
    assert store.items("a") == {b"n": b"2"}
    assert store.get("a", b"k") is None
    assert store.damaged == 2


@pytest.mark.parametrize("harm", ["rubbish", "cut", "overwritten"])
def test_a_damaged_file_is_one_line_that_names_it(harm: str, path: Path) -> None:
    store = Store(path)
    store.put("a", {str(number).encode(): bytes(1000) for number in range(50)})
    store.close()
    content = path.read_bytes()
    damaged = {"rubbish": b"rubbish" * 1000, "cut": content[:5000], "overwritten": content[:4096] + b"x" * 50_000}
    path.write_bytes(damaged[harm])
    with pytest.raises(StorageFailed) as raised:
        Store(path).items("a")
    line = str(raised.value)
    assert line.startswith(f"{path}: this file is damaged")
    assert "try: restore it from a copy, or move it away" in line
    assert "\n" not in line


def test_a_full_disk_is_one_line_and_what_is_stored_stays(path: Path) -> None:
    store = Store(path, hint="another disk")
    store.put("a", {b"k": b"1"})
    with store.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(StorageFailed, match=r"store.sqlite: the disk is full; try: another disk"):
        store.put("a", {b"large": bytes(10**6)})
    assert store.items("a") == {b"k": b"1"}


def test_a_file_that_may_not_grow_is_one_line_and_what_is_stored_stays(path: Path) -> None:
    store = Store(path, hint="another disk")
    store.put("a", {b"k": b"1"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFailed, match=r"store.sqlite: .*; try: another disk"):
            store.put("a", {b"large": bytes(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Store(path).items("a") == {b"k": b"1"}


@contextlib.contextmanager
def without_permission_to_write(folder: Path) -> Iterator[None]:
    """``folder`` without permission to write; root, whom permissions do not bind, becomes another user."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())  # tmp_path may be reached by its owner only
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_without_permission_can_be_read_and_a_write_is_one_line(public_folder: Path) -> None:
    path = public_folder / "store.sqlite"
    writer = Store(path)
    writer.put("a", {b"k": b"1"})
    writer.close()
    reader = Store(path, hint="another folder")
    with without_permission_to_write(public_folder):
        assert reader.get("a", b"k") == b"1"
        with pytest.raises(StorageFailed, match=r"store.sqlite: cannot write .*; try: another folder"):
            reader.put("a", {b"n": b"2"})
        with pytest.raises(StorageFailed, match=r"new.sqlite: cannot write .*; try: another folder"):
            Store(public_folder / "new.sqlite", hint="another folder").put("a", {b"n": b"2"})
    writer.put("a", {b"n": b"2"})
    writer.close()
    with without_permission_to_write(public_folder):
        assert reader.get("a", b"n") == b"2"


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file: no access"):
        Store(tmp_path / "file" / "store.sqlite").put("a", {b"k": b"1"})


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE other (x)", "belongs to another program"),
        ("PRAGMA user_version = 2", "another version of Gradatim; given: 2; allowed: 1"),
    ],
)
def test_a_file_of_another_program_or_version_is_refused(statement: str, message: str, path: Path) -> None:
    path.parent.mkdir()
    if statement.startswith("PRAGMA"):
        Store(path).put("a", {b"k": b"1"})
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(DataError, match=message):
        Store(path).put("a", {b"k": b"1"})


def test_pruning_removes_the_namespaces_written_longest_ago(path: Path) -> None:
    store = Store(path)
    for name in ("old", "new"):
        store.put(name, {str(number).encode(): bytes(100) for number in range(1000)})
    assert store.prune(limit=0, kept_seconds=60) == []
    assert store.prune(limit=200_000, kept_seconds=-1) == ["old"]
    assert (len(store.items("old")), len(store.items("new"))) == (0, 1000)
    assert store.prune(limit=200_000, kept_seconds=-1) == []


@pytest.mark.parametrize(("kind", "mode"), [("ext4", "WAL"), ("nfs4", "DELETE"), ("fuse.sshfs", "DELETE")])
def test_the_journal_suits_the_file_system(kind: str, mode: str, tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    line = f"27 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {kind} /dev/x rw\n"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(line)
    assert journal_mode(tmp_path, mounts) == mode
    assert journal_mode(tmp_path, tmp_path / "missing") == "DELETE"


def test_a_rollback_journal_keeps_what_is_stored_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradatim.store.journal_mode", lambda folder: "DELETE")
    _write(path, 0)
    assert len(Store(path).items("n")) == 100
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.sqlite"]
