"""Data files edited after their samples were read: an error, or a note with ``on_change: keep``."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gradatim.corpus import Corpus
from gradatim.errors import DataError
from gradatim.experiment.assemble import corpus_maker
from gradatim.experiment.recipe import changed_keys, dump, parse
from gradatim.experiment.run_lock import differences
from gradatim.source import SOURCES, fingerprint, is_unchanged
from gradatim.stage import Event, Feedback

ROWS = [{"prompt": f"How much is {a} plus 1?", "answer": f"{a + 1}"} for a in range(30)]


def write(path: Path, rows: list[dict[str, Any]] = ROWS, *, old: bool = True) -> Path:
    """JSON lines with a modification time an hour ago, unless they are new."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if old:
        os.utime(path, (time.time() - 3600,) * 2)
    return path


def recipe(path: Path | str, **data: Any) -> Any:
    split = {"by": "text", "validation": 5, "test": 5}
    return parse({"data": {"source": "file", "path": str(path), "split": split, **data}, "budget": {"steps": 1}} | {
        "difficulty": {"metric": "size"}
    })  # fmt: skip


def made(path: Path, store: Path, **data: Any) -> tuple[Corpus, list[str]]:
    """The corpus under ``store`` and the notes on it."""
    heard: list[Event] = []
    corpus = corpus_maker(recipe(path, **data), heard.append).make(store, heard.append)
    return corpus, [event.text for event in heard if event.kind == "note"]


EDITS = {
    "a row more": lambda path: path.write_text(path.read_text() + json.dumps(ROWS[0]) + "\n"),
    "one letter": lambda path: path.write_text(path.read_text().replace("How much is 3", "How much is 4")),
    "one letter, and the old time put back": lambda path: (
        path.write_text(path.read_text().replace("How much is 3", "How much is 4")),
        os.utime(path, ns=(before := path.with_suffix(".time").stat().st_mtime_ns, before)),
    ),
    "another file in its place": lambda path: os.replace(write(path.with_name("other"), ROWS[1:]), path),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused_when_the_run_goes_on_and_nothing_is_lost(tmp_path, edit):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    shutil.copy2(path, path.with_suffix(".time"))
    corpus, said = made(path, store)
    assert said == []
    before = {file: file.read_bytes() for file in corpus.folder.iterdir()}
    EDITS[edit](path)
    with pytest.raises(DataError) as caught:
        made(path, store)
    line = str(caught.value)
    assert line.startswith(f"{path}: the data file has been changed since")
    assert "--set data.on_change=keep" in line
    assert "\n" not in line
    assert caught.value.exit_code == 2
    assert {file: file.read_bytes() for file in corpus.folder.iterdir()} == before


def test_an_edited_file_is_kept_by_choice_and_that_is_said(tmp_path):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    first, _ = made(path, store)
    write(path, ROWS[1:])
    again, said = made(path, store, on_change="keep")
    assert again.folder == first.folder
    assert said == [f"{path} has been changed since its samples were read: the old samples are used"]


def test_a_file_that_was_only_touched_copied_or_put_back_is_the_same(tmp_path):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    first, _ = made(path, store)
    os.utime(path)
    assert made(path, store) == (first, [])
    shutil.copy(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    assert made(path, store) == (first, [])
    write(path, ROWS[1:])
    write(path, ROWS, old=False)
    assert made(path, store) == (first, [])


def test_a_large_file_that_nobody_touched_is_not_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl")
    os.utime(path, (time.time() - 3600,) * 2)
    monkeypatch.setattr("gradatim.source.SETTLED", -1e6)  # as if the entry, too, were old
    kept = json.loads(json.dumps(fingerprint(str(path))))
    monkeypatch.setattr("gradatim.source._digest", lambda file: pytest.fail("read again"))
    assert is_unchanged(kept, str(path))


def test_no_time_is_kept_of_a_file_that_was_just_written(tmp_path):
    assert fingerprint(str(write(tmp_path / "rows.jsonl", old=False)))["stamps"] is None


def test_a_file_that_is_gone_is_said_and_the_samples_stay(tmp_path):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    first, _ = made(path, store)
    path.unlink()
    again, said = made(path, store)
    assert again == first
    assert said == [f"{path} no longer exists: its samples in {first.folder} are used"]


def test_a_corpus_of_a_former_version_opens_under_its_old_name(tmp_path):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    first, _ = made(path, store)
    (first.folder / "origin.json").unlink()
    assert made(path, store) == (first, [])
    write(path, ROWS[1:], old=False)
    os.utime(path, (time.time() + 60,) * 2)
    again, said = made(path, store)
    assert again == first
    assert len(said) == 1
    assert "is newer than its samples" in said[0]


def test_the_name_of_a_corpus_is_that_of_former_versions():
    asked = recipe("rows.jsonl")
    assert corpus_maker(asked).key == corpus_maker(recipe("rows.jsonl", on_change="keep")).key == "da5b03c8d2d1"


def test_the_choice_may_change_when_a_run_goes_on(tmp_path):
    assert changed_keys(recipe("rows.jsonl"), recipe("rows.jsonl", on_change="keep")) == []
    old = dump(recipe("rows.jsonl")).replace("  on_change: refuse\n", "")
    assert "on_change" not in old
    (tmp_path / "recipe.yaml").write_text(old)
    assert differences(tmp_path, recipe("rows.jsonl")) == []


def test_a_later_cycle_refuses_a_file_that_was_edited_in_between(tmp_path):
    path, store = write(tmp_path / "rows.jsonl"), tmp_path / "data"
    maker = corpus_maker(recipe(path, on_change="keep"))
    first = maker.make(store)
    write(path, [*ROWS, {"prompt": "new", "answer": "new"}])
    with pytest.raises(DataError, match="changed since the first cycle read it"):
        maker.make_next(tmp_path / "next", first, lambda: maker.new_samples(first, Feedback(cycle=0)))
    write(path)
    again = maker.make_next(tmp_path / "next", first, lambda: maker.new_samples(first, Feedback(cycle=0)))
    assert again.table("train").num_rows == 20


def test_a_file_that_changes_while_it_is_read_gives_no_samples(tmp_path, monkeypatch):
    import gradatim.table

    path, read = write(tmp_path / "rows.jsonl"), gradatim.table.read_table

    def read_and_edit(*given: Any, **options: Any) -> Any:
        table = read(*given, **options)
        write(path, ROWS[1:])
        return table

    monkeypatch.setattr(gradatim.table, "read_table", read_and_edit)
    with pytest.raises(DataError, match="changed while it was being read"):
        SOURCES.get("file")(path=path).draw(0, Feedback())


def test_an_edited_part_of_a_saved_dataset_is_seen_and_a_cache_beside_it_is_not(tmp_path):
    datasets = pytest.importorskip("datasets")
    place = tmp_path / "saved"
    datasets.Dataset.from_list(ROWS).save_to_disk(str(place))
    kept = fingerprint(str(place))
    (place / "cache-1234.arrow").write_bytes(b"x")
    assert is_unchanged(kept, str(place))
    shutil.rmtree(place)
    datasets.Dataset.from_list(ROWS).save_to_disk(str(place))
    assert is_unchanged(kept, str(place))
    shutil.rmtree(place)
    datasets.Dataset.from_list(ROWS[1:]).save_to_disk(str(place))
    assert not is_unchanged(kept, str(place))
    assert fingerprint("hub:somebody/something") == {}


def test_edited_seeds_of_a_teacher_are_refused_too(tmp_path):
    from gradatim.teacher import TEACHERS

    path = write(tmp_path / "seeds.jsonl")
    teacher = TEACHERS.get("scripted")(replies={"": None})
    first = SOURCES.get("taught")(count=5, seeds=path, teacher=teacher)
    origin = first.draw(0, Feedback()).origin
    assert origin["sha256"] == fingerprint(str(path))["sha256"]
    from gradatim.source import check_origin

    (tmp_path / "origin.json").write_text(json.dumps(origin))
    (tmp_path / "facts.json").write_text("{}")
    check_origin(tmp_path, origin["path"], "refuse", lambda event: None)
    write(path, ROWS[1:])
    with pytest.raises(DataError, match="the data file has been changed"):
        check_origin(tmp_path, origin["path"], "refuse", lambda event: None)


def test_seeds_of_a_teacher_are_read_at_first_use_and_once(tmp_path):
    from gradatim.teacher import TEACHERS

    path = write(tmp_path / "seeds.jsonl")
    teacher = TEACHERS.get("scripted")(replies={"": None})
    source = SOURCES.get("taught")(count=5, seeds=path, teacher=teacher)
    assert source.data_file == str(path)
    write(path, ROWS[1:])
    assert source.seed_samples.table.num_rows == len(ROWS) - 1
    write(path)
    assert source.seed_samples.table.num_rows == len(ROWS) - 1
    assert source.seed_samples.facts["kept"] == len(ROWS) - 1


@pytest.mark.parametrize("name", ["sedes.jsonl", "nowhere/seeds.jsonl", "seeds"])
def test_a_missing_seed_file_is_refused_before_the_first_cycle(name, tmp_path):
    from gradatim.teacher import TEACHERS

    write(tmp_path / "seeds.jsonl")
    with pytest.raises(DataError, match="there is no such file"):
        SOURCES.get("taught")(count=5, seeds=tmp_path / name, teacher=TEACHERS.get("scripted")(replies={"": None}))
