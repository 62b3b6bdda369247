"""Recipes and folders of version 0.1, whose recipe keys had other names: they load, resume and report.

``data/kept-run`` holds recipes with the earlier keys and, in ``folders.tar.xz``, what that version made of them: a run
of two cycles that was stopped before the training of the second, and a study with one finished arm of two.
"""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from forked_commands import run_command

import gradatim
from gradatim.errors import RecipeError, RunFolderError
from gradatim.experiment.assemble import corpus_maker
from gradatim.experiment.recipe import Recipe, dump, dump_earlier, load, parse
from gradatim.experiment.run import run
from gradatim.experiment.run_lock import differences
from gradatim.experiment.study import plan_study, study
from gradatim.renamed_keys import earlier_names, renamed, renamed_keys, suite_options
from gradatim.stage import Event

KEPT = Path(__file__).parent / "data" / "kept-run"
DISTILLATION = KEPT / "distillation.yaml"
ARMS = ("study-base", "study-warmup")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    with tarfile.open(KEPT / "folders.tar.xz") as archive:
        archive.extractall(tmp_path / "kept", filter="data")
    return tmp_path / "kept"


def notes_of(name: Path, *changes: str) -> tuple[Recipe, list[str]]:
    notes: list[Event] = []
    recipe = load(name, changes, events=notes.append)
    return recipe, [str(event.text) for event in notes]


def weights(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.glob("cycle-*/stage-*/model/model.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_recipe_with_earlier_keys_is_the_recipe_with_the_present_ones() -> None:
    recipe, (note,) = notes_of(DISTILLATION, "train.size=2", "teacher.levels=['1.1']")
    assert (recipe.train.batch_size, recipe.train.max_length, recipe.student.tokenizer) == (2, 160, "word_level")
    assert recipe.train.preference.reference_free is True
    assert recipe.train.objective == "sft_dpo"
    assert recipe.rejected_answers is not None
    assert dict(recipe.rejected_answers.sources) == {"student": 1, "mutation": 1}
    for pair in (
        "train.size is now train.batch_size",
        "delivery.faulty is now rejected_answers.sources",
        "train.contrast.target is now train.preference.gamma",
        "student.tokenizer: lexical is now word_level",
    ):
        assert note.count(pair) == 1
    assert parse(yaml.safe_load(dump(recipe))) == recipe == parse(yaml.safe_load(dump_earlier(recipe)))
    assert "correct_and_fault" not in note  # the paper's name of the objective stays valid


def test_a_recipe_with_present_keys_has_no_note(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(load(DISTILLATION)))
    assert notes_of(path) == (load(DISTILLATION), [])


@pytest.mark.parametrize(("earlier", "present"), sorted(renamed_keys()))
def test_every_earlier_key_has_its_present_name_and_is_refused_beside_it(earlier: str, present: str) -> None:
    def nested(path: str, value: object) -> dict[str, object]:
        for key in reversed(path.split(".")):
            value = {key: value}
        assert isinstance(value, dict)
        return value

    assert renamed(nested(earlier, 7)).content == nested(present, 7)
    assert earlier_names(nested(present, 7)) == nested(earlier, 7)
    section, _, old = earlier.rpartition(".")
    new = present.rpartition(".")[2]
    both = {old: 7, new: 7}
    with pytest.raises(RecipeError, match=f"{earlier} is now {present}, and the recipe has both"):
        renamed(nested(section, both) if section else both)


def test_options_of_suites_have_earlier_names_too() -> None:
    suites = "evaluate.suites=[{suite: functional, protocol: sampled, samples: 3, tokens: 9, problems: humaneval}]"
    recipe, (note,) = notes_of(DISTILLATION, suites)
    (suite,) = recipe.evaluate.suites
    assert (suite.options["num_samples"], suite.options["max_new_tokens"]) == (3, 9)
    assert "evaluate.suites: samples is now num_samples" in note
    with pytest.raises(RecipeError, match="tokens is now max_new_tokens"):
        suite_options("functional", {"tokens": 1, "max_new_tokens": 1})


@pytest.mark.parametrize(
    ("content", "hint"),
    [({"train": {"sise": 3}}, "'batch_size'"), ({"student": {"log_every": 3}}, "train.logging_steps")],
)
def test_the_hint_for_an_unknown_key_is_a_present_name(content: dict[str, object], hint: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean {hint}"):
        parse(content)


def test_an_interrupted_run_resumes_and_keeps_its_finished_stage(folders: Path) -> None:
    """A new run has other weights: the warm-up of the learning rate has begun one step earlier since then."""
    interrupted, recipe = folders / "interrupted", load(DISTILLATION)
    first = (interrupted / "cycle-00/stage-00-all/result.json").read_bytes()
    assert differences(interrupted, recipe) == []
    notes: list[Event] = []
    stages = run(recipe, interrupted, events=notes.append)
    assert not [event.text for event in notes if event.kind == "note" and "is now" in str(event.text)]
    assert len(stages) == 2
    assert (interrupted / "cycle-00/stage-00-all/result.json").read_bytes() == first
    assert len(weights(interrupted)) == 2


def test_the_terminal_shows_one_note_and_a_key_given_twice_is_one_line() -> None:
    def plan(recipe: str, *changes: str) -> subprocess.CompletedProcess[str]:
        sets = [word for change in changes for word in ("--set", change)]
        return run_command(["plan", recipe, "--no-data", *sets])

    done = plan(str(DISTILLATION))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train.size is now train.batch_size") == 1
    assert len(done.stderr.splitlines()) == 1
    assert plan("smoke/baseline").stderr == ""
    refused = plan("smoke/baseline", "train={size: 3, batch_size: 4}")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "gradatim: --set: train.size is now train.batch_size, and the recipe has both; allowed: train.batch_size alone"
    ]


def test_another_recipe_is_still_refused(folders: Path) -> None:
    changed = load(DISTILLATION, ["train.batch_size=5"])
    assert differences(folders / "interrupted", changed) == ["train.batch_size: 4 -> 5"]
    with pytest.raises(RunFolderError, match=r"train\.batch_size: 4 -> 5"):
        run(changed, folders / "interrupted")


def test_a_kept_study_reports_evaluates_and_goes_on(folders: Path, tmp_path: Path) -> None:
    before = gradatim.report(folders / "study", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert [run_.arm for run_ in before.runs] == ["study-base"]
    run_folder = folders / "study" / "study-base" / "seed-1"
    test = next((folders / "study" / "data").glob("*/test.parquet"))
    result = gradatim.evaluate(run_folder, test, limit=4)
    assert result.counts["all"]["all"].total == 4
    made = weights(run_folder)
    study(plan_study({arm: load(KEPT / f"{arm}.yaml") for arm in ARMS}, 1, title="study"), folders / "study", workers=1)
    assert weights(run_folder) == made
    assert {run_.arm for run_ in gradatim.report(folders / "study").runs} == set(ARMS)


def test_the_names_of_kept_datasets_are_those_of_the_earlier_version(folders: Path) -> None:
    for folder, name in (("interrupted", "distillation"), ("study", "study-base")):
        (dataset,) = (path for path in (folders / folder / "data").iterdir() if path.is_dir())
        assert corpus_maker(load(KEPT / f"{name}.yaml")).key == dataset.name
        assert (dataset / "tokens-lexical300").is_dir()


def test_the_archive_holds_no_path_outside_its_folder() -> None:
    with tarfile.open(fileobj=io.BytesIO((KEPT / "folders.tar.xz").read_bytes())) as archive:
        assert all(name.split("/")[0] in ("interrupted", "study") and ".." not in name for name in archive.getnames())
