"""Bad input of every kind gives one clear line, the right exit code, and leaves everything as it was."""

from __future__ import annotations

import shutil

import pytest

from gradatim.record import Record

RUN = ("run", "smoke/baseline", "--set", "data.count=300", "--set", "data.split.test=20")

RECIPE_FAULTS = {
    "unknown key": (["budgett.tokens=3"], ["budgett", "did you mean 'budget'?"]),
    "unknown key below": (["train.lenght=3"], ["train.lenght", "did you mean 'max_length'?"]),
    "unknown option of a part": (["data.conut=3"], ["'conut'", "did you mean 'count'?"]),
    "unknown part": (["schedule.name=hybird"], ["schedule.name", "did you mean 'hybrid'?"]),
    "two parts at once": (["schedule.name=hybird", "student.preset=tny"], ["'hybrid'", "'tiny'"]),
    "two keys at once": (["sed=1", "train.batch_size=many"], ["sed", "train.batch_size"]),
    "wrong type": (["seed=many"], ["seed", "'many'"]),
    "thresholds out of order": (["difficulty.bands.thresholds=[4, 2]"], ["thresholds must rise", "[4.0, 2.0]"]),
    "thresholds and another part": (
        ["difficulty.bands.thresholds=[4, 2]", "schedule.name=hybird"],
        ["thresholds must rise", "'hybrid'"],
    ),
    "a source without what it needs": (["data.source=file"], ["'file' needs path"]),
    "a line longer than the context": (
        ["student.context_length=64"],
        ["train.max_length", "student.context_length = 64"],
    ),
    "a change without a value": (["seed"], ["KEY=VALUE"]),
    "a value that is no YAML": (["seed=[1"], ["--set seed", "[1"]),
}


def assert_one_line(said, status: int, words: list[str]) -> None:
    assert said.status == status
    assert said.err.startswith("gradatim: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize(("changes", "words"), RECIPE_FAULTS.values(), ids=RECIPE_FAULTS)
def test_a_faulty_recipe_is_told_before_anything_is_written(gradatim, tmp_path, verb, changes, words):
    said = gradatim(verb, "smoke/baseline", *[part for change in changes for part in ("--set", change)])
    assert_one_line(said, 2, words)
    assert list(tmp_path.iterdir()) == []


def test_the_faults_of_the_second_recipe_stop_the_first_one_too(gradatim, tmp_path):
    (tmp_path / "wrong.yaml").write_text("extends: smoke/baseline\nschedule: {name: hybird}\n")
    assert_one_line(gradatim("run", "smoke/baseline", "wrong.yaml"), 2, ["wrong.yaml", "'hybrid'"])
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_is_not_there_names_the_nearest(gradatim):
    assert_one_line(gradatim("run", "smoke/baselin"), 2, ["smoke/baselin", "did you mean 'smoke/baseline'?"])


def test_a_recipe_that_is_no_yaml_is_told_with_its_path(gradatim, tmp_path):
    (tmp_path / "torn.yaml").write_text("data: [1,\n")
    assert_one_line(gradatim("run", "torn.yaml"), 2, ["torn.yaml", "not YAML"])


def test_a_band_without_samples_stops_before_training(gradatim, tmp_path):
    said = gradatim(*RUN, "--set", "difficulty.bands.thresholds=[2, 400]")
    assert_one_line(said, 2, ["'hard'", "400"])
    assert not list(tmp_path.rglob("stage-*"))


def test_data_that_is_not_there_is_told_by_plan_and_run_alike(gradatim, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {source: file, path: mine.jsonl}\n")
    for verb in ("plan", "run"):
        assert_one_line(gradatim(verb, "mine.yaml"), 2, ["mine.jsonl", "no such file"])


BAD_FILES = {
    "missing.parquet": (None, "no such file"),
    "empty.jsonl": (b"", "no samples"),
    "torn.parquet": (b"PAR1 and then nothing", "torn.parquet"),
    "table.xlsx": (b"a,b\n", "no format has this ending"),
    "rows.jsonl": (b'{"prompt": "a"}\n', "answer"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("verb", ["score", "evaluate"])
def test_a_file_that_cannot_be_used_is_told_by_its_name(gradatim, tmp_path, finished, verb, name):
    content, words = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = [name, "--out", "out.parquet"] if verb == "score" else [finished, "--data", name]
    assert_one_line(gradatim(verb, *arguments), 2, [name, words])
    assert not (tmp_path / "out.parquet").exists()


def test_rows_that_cannot_be_used_are_named_and_kept_beside_the_output(gradatim, tmp_path):
    (tmp_path / "mixed.jsonl").write_text('{"answer": "a = 1\\n"}\nnot json\n{"answer": null}\n')
    said = gradatim("score", "mixed.jsonl", "--out", "out.parquet")
    assert said.status == 0
    assert "row 2" in said.err
    assert "row 3" in said.err
    assert (tmp_path / "out.rejected.jsonl").read_text().count("\n") == 2


def test_a_file_of_the_wrong_kind_is_refused_before_the_work(gradatim, tmp_path):
    assert_one_line(gradatim("generate", "a.csv", "--count", 3), 2, ["a.csv", ".parquet"])
    (tmp_path / "a.txt").write_text("a = 1\n")
    assert_one_line(gradatim("score", "a.txt", "--out", "b.txt"), 2, ["--out", ".parquet"])


def test_a_level_that_is_not_there_names_those_that_are(gradatim, tmp_path):
    said = gradatim("generate", "a.txt", "--count", 3, "--level", "1.1,5.1")
    assert_one_line(said, 2, ["given: 5.1", "4.1"])
    assert list(tmp_path.iterdir()) == []


def test_a_level_that_runs_dry_leaves_no_half_of_a_file(gradatim, tmp_path, monkeypatch):
    from dataclasses import replace

    from gradatim.programs import grammar

    # A level of its own, so small that it runs dry in a moment.
    tiny = replace(grammar.LEVELS["1.1"], initialisations=(1, 1), assignments=(0, 0), letters="ab", prints=("v",))
    monkeypatch.setitem(grammar.LEVELS, "1.1", tiny)
    said = gradatim("generate", "a.txt", "--count", 5000, "--level", "1.1")
    assert_one_line(said, 2, ["level 1.1", "too few distinct programs", "5000 requested", "at most"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("run", "smoke/baseline", "--out"), ("generate", "--count", "3")])
def test_a_place_that_cannot_be_written_is_told_before_the_work(gradatim, tmp_path, arguments):
    (tmp_path / "file").write_text("in the way")
    said = gradatim(*arguments, "file/run.txt")
    assert_one_line(said, 2, ["file/run.txt", "cannot", "try: "])


def test_a_folder_of_another_recipe_is_refused_and_the_difference_shown(gradatim, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "mine")
    before = (tmp_path / "mine" / "recipe.yaml").read_bytes()
    said = gradatim("run", "smoke/baseline", "--out", "mine", "--set", "seed=9")
    assert_one_line(said, 2, ["mine", "seed: 1 -> 9", "data.count", "train.checkpoint_seconds", "--out"])
    assert (tmp_path / "mine" / "recipe.yaml").read_bytes() == before


def test_a_folder_in_use_is_refused_with_the_process_that_holds_it(gradatim, tmp_path):
    with Record(tmp_path / "busy"):
        assert_one_line(gradatim(*RUN, "--out", "busy"), 2, ["busy", "another process", "given: process"])


def test_a_folder_that_holds_no_run_has_no_report(gradatim, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert_one_line(gradatim("report", "nothing"), 2, ["nothing", "no run"])


@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_a_folder_without_a_model_is_told(gradatim, tmp_path, verb):
    (tmp_path / "a.txt").write_text("a = 1\nprint(a)\n# output\n# 1\n")
    extra = ["--data", "a.txt"] if verb == "evaluate" else []
    assert_one_line(gradatim(verb, "nowhere", *extra), 2, ["nowhere", "no such folder"])
    assert_one_line(gradatim(verb, tmp_path, *extra), 2, ["no finished model"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "outputs"], ["did you mean 'output'?"]),
        (["--protocol", "gredy"], ["protocol", "'gredy'"]),
    ],
)
def test_an_evaluation_that_is_not_there_is_told_without_loading_the_model(gradatim, tmp_path, arguments, words):
    assert_one_line(gradatim("evaluate", "nowhere", "--data", "nothing.txt", *arguments), 2, words)


def test_arms_of_a_study_that_differ_in_data_are_refused(gradatim, tmp_path):
    (tmp_path / "other.yaml").write_text("extends: smoke/baseline\ndata: {seed: 8}\n")
    said = gradatim("study", "smoke/baseline", "other.yaml", "--out", "s")
    assert_one_line(said, 2, ["other: data", "baseline"])


def test_one_recipe_twice_is_no_study(gradatim):
    assert_one_line(gradatim("study", "smoke/baseline", "smoke/baseline", "--out", "s"), 2, ["twice", "--seeds"])


def test_several_recipes_do_not_share_a_folder(gradatim):
    assert_one_line(gradatim("run", "smoke/baseline", "x.yaml", "--out", "o"), 2, ["--out", "2 recipes"])


def test_a_kind_that_cannot_be_listed_names_the_nearest(gradatim):
    assert_one_line(gradatim("list", "schedule"), 2, ["did you mean 'schedules'?"])
