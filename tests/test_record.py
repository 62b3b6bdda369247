"""Run folders: recorded steps are permanent, incomplete writes are never visible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradatim.errors import RunFolderError, StorageFailed
from gradatim.record import Metrics, Record, read_json, settle, write_atomically, write_folder, write_json


def test_once_makes_a_value_only_the_first_time(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"count": len(made)}

    with Record(tmp_path / "run") as record:
        assert record.once("a/b.json", make) == {"count": 1}
        assert record.once("a/b.json", make) == {"count": 1}
    with Record(tmp_path / "run") as record:
        assert record.once("a/b.json", make) == {"count": 1}
        assert record.done("a/b.json")
    assert made == [1]


def test_a_failed_make_leaves_nothing_behind(tmp_path: Path) -> None:
    with Record(tmp_path) as record:
        with pytest.raises(ZeroDivisionError):
            record.once("value.json", lambda: 1 / 0)
        assert record.once("value.json", lambda: 3) == 3


def test_a_locked_run_folder_names_the_process_that_uses_it(tmp_path: Path) -> None:
    with Record(tmp_path), pytest.raises(RunFolderError, match=f"process {os.getpid()}"):
        Record(tmp_path)
    Record(tmp_path).close()


def test_the_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from gradatim.record import Record
record = Record(Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    Record(tmp_path).close()


def test_a_partial_write_never_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["value.json"]


def test_write_folder_replaces_the_old_folder_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", lambda folder: (folder / "one").touch())
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "rest of a killed process").touch()
    write_folder(tmp_path / "model", lambda folder: (folder / "two").touch())
    assert [each.name for each in (tmp_path / "model").iterdir()] == ["two"]
    assert not (tmp_path / ".model.partial").exists()


def test_a_kill_between_the_two_renames_loses_neither_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "checkpoint", lambda folder: (folder / "one").touch())
    code = f"""
import os, signal
from pathlib import Path
from gradatim import record
replace, calls = os.replace, []
def stop_at_the_second(*names):
    calls.append(names)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
os.replace = stop_at_the_second
record.write_folder(Path({str(tmp_path / "checkpoint")!r}), lambda folder: (folder / "two").touch())
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    settle(tmp_path / "checkpoint")
    assert [each.name for each in (tmp_path / "checkpoint").iterdir()] == ["one"]
    write_folder(tmp_path / "checkpoint", lambda folder: (folder / "three").touch())
    assert [each.name for each in (tmp_path / "checkpoint").iterdir()] == ["three"]
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "value.json").write_text('{"a": ')
    with Record(tmp_path) as record, pytest.raises(RunFolderError, match=r"value\.json"):
        record.once("value.json", lambda: 1)


def test_a_full_disk_is_one_clear_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    metrics = Metrics(Path("/dev/full"))
    with pytest.raises(StorageFailed, match=r"No space left.*same command again"):
        metrics.append({"cycle": 0, "stage": 0, "step": 1})


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="--out"):
        Record(tmp_path / "file" / "run")


def test_rewind_forgets_later_rows_and_a_torn_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for stage, step in [(0, 10), (0, 20), (1, 10), (1, 20)]:
        metrics.append({"cycle": 0, "stage": stage, "step": step})
    metrics.close()
    with open(metrics.path, "ab") as file:
        file.write(b'{"cycle": 0, "sta')
    metrics.rewind(0, 1, 10)
    metrics.append({"cycle": 0, "stage": 1, "step": 15})
    metrics.close()
    assert [(row["stage"], row["step"]) for row in metrics.rows()] == [(0, 10), (0, 20), (1, 10), (1, 15)]


def test_write_atomically_makes_missing_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
