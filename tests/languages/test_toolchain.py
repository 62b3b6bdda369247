"""The cache of compiled programs: built once, complete or not at all, within its size limit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from gradatim.errors import StorageFailed, ToolchainMissing
from gradatim.languages.language import Fault
from gradatim.languages.toolchain import cache_folder, cached_folder, compile_once, prune, stored, tool_version
from gradatim.sandbox.limits import Execution


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path))


def write(text: str):
    return lambda folder: (folder / "file").write_text(text) and None


def test_an_entry_is_made_once():
    place = cached_folder("kind", ("a", b"b"), write("first"))
    assert cached_folder("kind", ("a", "b"), write("second")) == place
    assert (place / "file").read_text() == "first"


def test_keys_that_join_to_the_same_text_are_different():
    assert cached_folder("kind", ("ab", "c"), write("1")) != cached_folder("kind", ("a", "bc"), write("2"))


def test_a_making_that_fails_leaves_nothing():
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyError("no")

    with pytest.raises(KeyError):
        cached_folder("kind", ("a",), fill)
    assert stored("kind", ("a",)) is None
    assert list((cache_folder() / "kind").iterdir()) == []


def test_several_at_once_agree_on_one_entry():
    gate, places = threading.Barrier(4), []

    def work(number: int) -> None:
        def fill(folder: Path) -> None:
            gate.wait(10)
            (folder / "file").write_text(str(number))

        places.append(cached_folder("kind", ("a",), fill))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(places)) == 1
    assert (places[0] / "file").read_text() in "0123"
    assert len(list((cache_folder() / "kind").iterdir())) == 1


def test_pruning_takes_what_was_not_used_for_longest():
    places = [cached_folder("kind", (str(number),), write("x" * 1000)) for number in range(4)]
    for age, place in enumerate(reversed(places)):
        os.utime(place, (time.time() - 10_000 * age - 10_000,) * 2)
    assert stored("kind", ("0",)) == places[0]  # used now
    assert prune(cache_folder() / "kind", limit=2000) == 2
    assert [place.exists() for place in places] == [True, False, False, True]


def test_pruning_keeps_what_was_used_in_the_last_hour():
    cached_folder("kind", ("a",), write("x" * 1000))
    assert prune(cache_folder() / "kind", limit=0) == 0


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageFailed):
        cached_folder("kind", ("a",), write("x"))


def execution(**values) -> Execution:
    told = {"ending": "exited", "code": 0, "stdout": b"", "stderr": b"", "cut": False}
    return Execution(**{**told, "cpu_seconds": 1.0, "wall_seconds": 1.0, **values})


def test_what_does_not_compile_is_not_kept():
    runs = []

    def run() -> Execution:
        runs.append(1)
        return execution(code=1, stderr=b"bad")

    def faults(told: bytes) -> tuple[Fault, ...]:
        return (Fault(1, 1, told.decode()),)

    for _ in range(2):
        built = compile_once(("a",), run, ("program",), faults)
        assert (built.folder, built.faults[0].message, built.stopped) == (None, "bad", "")
    assert len(runs) == 2
    assert compile_once(("a",), lambda: execution(ending="timeout"), ("program",), faults).stopped == "timeout"


def test_a_compiled_file_cannot_be_put_outside_its_folder():
    with pytest.raises(ValueError, match="cannot be called"):
        compile_once(("a",), lambda: execution(files={"x": b""}), ("x",), lambda told: (), lambda files: {"../x": b""})
    assert not (cache_folder() / "x").exists()


def test_a_tool_that_tells_no_version_is_named():
    with pytest.raises(ToolchainMissing, match="/bin/true does not report its version"):
        tool_version(("/bin/true",))
