"""No verb replaces, cuts or adds to a file that it has not written, and none writes what it reads."""

from __future__ import annotations

import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

ADD = {
    "task_id": "add",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
SAMPLE = json.dumps({"task_id": "add", "completion": "    return a + b\n"})
CHECK = ("check", "s.jsonl", "--problems", "p.jsonl")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(said: Any, *words: str) -> None:
    assert said.status == 2, said
    assert said.err.startswith("gradatim: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "p.jsonl").write_text(json.dumps(ADD) + "\n")
    (tmp_path / "s.jsonl").write_text(SAMPLE + "\n")
    return tmp_path


OWN = {
    "one line without its end": b"my only copy",
    "one sample without its end": SAMPLE.encode(),
    "a verdict's beginning alone": b'{"task_id": "add", "draw": 0, "outco',
    "a line, and one without its end": b"first\nsecond",
    "one JSON object": b'{"a": 1}',
    "a gzip file": gzip.compress(b"text"),
}


@pytest.mark.parametrize("content", OWN.values(), ids=OWN)
def test_verdicts_are_not_added_to_a_file_of_the_users(gradatim, files, content):
    (files / "mine.txt").write_bytes(content)
    before = contents(files)
    assert_refused(gradatim(*CHECK, "--out", "mine.txt"), "mine.txt", "--out")
    assert contents(files) == before


def names_of(path: Path) -> dict[str, Path]:
    """Other names of one file."""
    folder = path.parent
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "soft.jsonl").symlink_to(path)
    os.link(path, folder / "hard.jsonl")
    return {
        "its own": Path(path.name),
        "relative": Path("sub") / ".." / path.name,
        "absolute": path,
        "soft link": Path("soft.jsonl"),
        "hard link": Path("hard.jsonl"),
    }


@pytest.mark.parametrize("read", ["s.jsonl", "p.jsonl"])
def test_verdicts_are_not_written_over_what_check_reads_under_any_name(gradatim, files, read):
    others = names_of(files / read)
    before = contents(files)
    for name in others.values():
        assert_refused(gradatim(*CHECK, "--out", name), "read by the same command")
    assert contents(files) == before


def test_verdicts_are_not_written_over_a_file_in_the_folder_of_problems(gradatim, files):
    (files / "problems").mkdir()
    (files / "p.jsonl").rename(files / "problems" / "p.jsonl")
    said = gradatim("check", "s.jsonl", "--problems", "problems", "--out", "problems/p.jsonl")
    assert_refused(said, "read by the same command")


def test_scores_are_not_written_over_what_score_reads_under_any_name(gradatim, tmp_path):
    assert gradatim("generate", "a.jsonl", "--count", 3).status == 0
    others = names_of(tmp_path / "a.jsonl")
    before = contents(tmp_path)
    for name in others.values():
        assert_refused(gradatim("score", "a.jsonl", "--out", name), "read by the same command")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("verb", ["check", "score"])
def test_the_list_of_rejected_rows_does_not_replace_what_is_read(gradatim, files, verb):
    """Its name follows from that of the output, and an older one is removed where nothing is rejected."""
    if verb == "check":
        (files / "s.jsonl").rename(files / "x.rejected.jsonl")
        command = ("check", "x.rejected.jsonl", "--problems", "p.jsonl", "--out", "x.verdicts")
    else:
        (files / "x.rejected.jsonl").write_text('{"answer": "a = 1\\n"}\n')
        command = ("score", "x.rejected.jsonl", "--out", "x.parquet")
    before = contents(files)
    assert_refused(gradatim(*command), "x.rejected.jsonl")
    assert contents(files) == before


def test_the_list_of_rejected_rows_does_not_replace_a_file_of_the_users(gradatim, tmp_path):
    (tmp_path / "mixed.jsonl").write_text('{"answer": "a = 1\\n"}\nnot json\n')
    (tmp_path / "out.rejected.jsonl").write_text('{"my": "notes"}\n')
    before = contents(tmp_path)
    assert_refused(gradatim("score", "mixed.jsonl", "--out", "out.parquet"), "out.rejected.jsonl")
    assert contents(tmp_path) == before


THREE = ("--count", "3")
AGREE = ("score", "a.jsonl", "--correlate", "--metric", "om,size", "--report")
FOREIGN = {
    "notes in text": ("n.txt", b"buy milk\n\nbuy bread\n", ("generate", "n.txt", *THREE)),
    "other columns": ("n.jsonl", b'{"prompt": "a", "answer": "b"}\n', ("generate", "n.jsonl", *THREE)),
    "no Parquet": ("n.parquet", b"PAR1 and then notes", ("generate", "n.parquet", *THREE)),
    "scores over a table": ("n.jsonl", b'{"answer": "b"}\n', ("score", "a.jsonl", "--out", "n.jsonl")),
    "a page": ("n.html", b"<html>mine</html>", (*AGREE, "n.html")),
    "a text": ("n.md", b"# Notes\n", (*AGREE, "n.md")),
}


@pytest.mark.parametrize(("name", "content", "command"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_was_not_written_here_is_not_replaced(gradatim, tmp_path, name, content, command):
    if "a.jsonl" in command:
        gradatim("generate", "a.jsonl", "--count", 3)
    (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    assert_refused(gradatim(*command), name, "not replaced")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_the_same_command_replaces_its_own_file_with_force_and_fills_an_empty_one(gradatim, tmp_path, name):
    (tmp_path / name).touch()
    command = ("generate", name, "--count", 3)
    assert gradatim(*command).status == 0
    first = (tmp_path / name).read_bytes()
    assert gradatim(*command, "--force").status == 0
    assert (tmp_path / name).read_bytes() == first


OVER = {
    "generate": ("a.jsonl", ("generate", "a.jsonl", *THREE, "--seed", "1")),
    "score": ("b.parquet", ("score", "a.jsonl", "--out", "b.parquet", "--metric", "size")),
    "correlations": ("c.html", ("score", "a.jsonl", "--correlate", "--metric", "om,nesting", "--report", "c.html")),
    "report": ("d.html", ("report", "finished", "--out", "d.html")),
    "verdicts": (
        "v.parquet",
        ("evaluate", "finished", "--data", "a.jsonl", "--limit", "2", "--verdicts", "v.parquet"),
    ),
    "report of several": ("report.html", ("report", "finished", "finished")),
}


@pytest.mark.parametrize(("name", "command"), OVER.values(), ids=OVER)
def test_an_existing_file_of_an_earlier_command_is_replaced_with_force_only(
    gradatim, tmp_path, finished, name, command
):
    (tmp_path / "finished").symlink_to(finished)
    assert gradatim("generate", "a.jsonl", *THREE).status == 0
    first = ("score", "a.jsonl", "--out", "b.parquet")
    assert gradatim(*first, "--correlate", "--metric", "om,size", "--report", "c.html").status == 0
    for page in ("d.html", "report.html"):
        assert gradatim("report", "finished", "--out", page).status == 0
    assert gradatim("evaluate", "finished", "--data", "a.jsonl", "--verdicts", "v.parquet").status == 0
    before = contents(tmp_path)
    assert_refused(gradatim(*command), name, "this file exists", "--force")
    assert contents(tmp_path) == before
    assert gradatim(*command, "--force").status == 0
    assert name.startswith(("d.", "report.")) or contents(tmp_path)[name] != before[name]


def test_force_replaces_no_file_of_the_users(gradatim, tmp_path):
    (tmp_path / "n.txt").write_text("buy milk\n\nbuy bread\n")
    before = contents(tmp_path)
    assert_refused(gradatim("generate", "n.txt", *THREE, "--force"), "not replaced")
    assert contents(tmp_path) == before


def test_a_report_inside_the_folder_of_its_run_is_brought_up_to_date(gradatim, finished):
    assert (finished / "report.html").exists()
    assert gradatim("report", finished).status == 0


def test_a_link_is_written_through_and_stays_a_link(gradatim, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").touch()
    (tmp_path / "a.txt").symlink_to("real/a.txt")
    assert gradatim("generate", "a.txt", "--count", 3).status == 0
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").stat().st_size


def test_scores_are_not_written_over_the_samples_that_a_run_keeps(gradatim, tmp_path, finished):
    kept = next(finished.glob("data/*/train.parquet"))
    before = kept.read_bytes()
    gradatim("generate", "a.parquet", "--count", 3)
    assert_refused(gradatim("score", "a.parquet", "--out", kept), "not replaced")
    assert kept.read_bytes() == before


RUN = ("run", "smoke/baseline", "--set", "data.count=300", "--set", "data.split.test=20")


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html", "environment.json", "data/mine.txt", "cycle-00/x"])
@pytest.mark.parametrize("verb", ["run", "study"])
def test_a_folder_with_files_of_a_runs_names_is_not_taken_for_a_run(gradatim, tmp_path, name, verb):
    path = tmp_path / "here" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"loss": 1}\ntorn')
    before = contents(tmp_path)
    extra = ["--seeds", "1"] if verb == "study" else []
    assert_refused(gradatim(verb, *RUN[1:], "--out", "here", *extra), "here")
    assert contents(tmp_path) == before


def test_a_recipe_of_the_users_is_not_replaced_by_the_runs_own(gradatim, tmp_path):
    (tmp_path / "mine").mkdir()
    recipe = tmp_path / "mine" / "recipe.yaml"
    recipe.write_text("# why this: …\nextends: smoke/baseline\ndata: {count: 300, split: {test: 20}}\n")
    before = contents(tmp_path)
    for spelling in ("mine", tmp_path / "mine", "mine/../mine"):
        assert_refused(gradatim("run", "mine/recipe.yaml", "--out", spelling), "read by the same command")
    assert_refused(gradatim(*RUN, "--out", "mine"), "recipe.yaml")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("lock", ["file", "link"])
def test_the_lock_of_another_program_is_not_emptied(gradatim, tmp_path, lock):
    (tmp_path / "here").mkdir()
    (tmp_path / "theirs").write_text("session 12 of another program")
    if lock == "file":
        (tmp_path / "theirs").rename(tmp_path / "here" / ".lock")
    else:
        (tmp_path / "here" / ".lock").symlink_to(tmp_path / "theirs")
    before = contents(tmp_path)
    said = gradatim(*RUN, "--out", "here")
    assert said.status in (1, 2)
    assert said.err.count("\n") == 1
    assert "another program" not in said.err.partition("given")[2]
    assert contents(tmp_path) == before


def test_a_report_replaces_its_own_page_and_no_other_file(gradatim, tmp_path, finished):
    for name in ("recipe.yaml", "metrics.jsonl"):
        before = (finished / name).read_bytes()
        assert_refused(gradatim("report", finished, "--out", finished / name), "not replaced")
        assert (finished / name).read_bytes() == before
    (tmp_path / "page.html").write_bytes((finished / "report.html").read_bytes())
    assert gradatim("report", finished, "--out", "page.html", "--force").status == 0


def model_in(finished: Path) -> Path:
    return next(finished.glob("cycle-00/stage-*/model"))


def test_an_export_touches_nothing_beside_its_folder(gradatim, tmp_path, finished):
    for name in (".out.old", ".out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("kept")
    before = contents(tmp_path)
    assert gradatim("export", finished, "--out", "out").status == 0
    assert {name: value for name, value in contents(tmp_path).items() if name in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.old", ".out.partial", "out"]


def test_an_export_into_the_model_itself_is_refused(gradatim, finished):
    model = model_in(finished)
    before = contents(model)
    for out in (model, model / "copy", model / ".." / "model" / "copy"):
        assert_refused(gradatim("export", finished, "--out", out))
    assert contents(model) == before


UNWRITABLE = {
    "run": ("run", "smoke/baseline", "--out"),
    "study": ("study", "smoke/baseline", "--out"),
    "generate": ("generate", "--count", "3"),
    "score": ("score", "a.jsonl", "--out"),
    "check": (*CHECK, "--out"),
    "report": ("report", "finished", "--out"),
    "export": ("export", "finished", "--out"),
    "evaluate": ("evaluate", "finished", "--suite", "functional", "--problems", "p.jsonl", "--keep"),
}


@pytest.mark.parametrize("verb", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(gradatim, files, finished, verb):
    (files / "finished").symlink_to(finished)
    gradatim("generate", "a.jsonl", "--count", 3)
    (files / "file").write_text("in the way")
    before = contents(files)
    ending = {"generate": ".txt", "score": ".parquet"}.get(verb, "")
    for place in (f"file/x{ending}", f"/proc/gradatim/x{ending}", f"{'n' * 300}{ending}", "/dev/null"):
        said = gradatim(*UNWRITABLE[verb], place)
        if place == "/dev/null" and verb in ("generate", "score"):
            continue  # refused for its ending
        assert_refused(said, place)
        assert "try: " in said.err
    assert contents(files) == before


def test_a_device_is_no_place_for_a_report(gradatim, tmp_path, finished):
    null = os.stat("/dev/null")
    assert_refused(gradatim("report", finished, "--out", "/dev/null"), "a device")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_ino == null.st_ino
