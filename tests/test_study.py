"""A study: arms and seeds on one corpus, resumable, faults named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradatim.errors import RecipeError, RunFolderError, Stopped, WorkFailed
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.study import plan_study, runs_at_once, stored_plan, study
from gradatim.experiment.workers import _raise_failed
from gradatim.processes import available_cores
from gradatim.record import Record
from gradatim.reporting import collect, write_report
from gradatim.stage import Event

SMALL = ["data.count=400", "data.split.test=20", "data.split.validation=20", "budget.tokens=2000", "train.batch_size=4"]


def arms(*names: str) -> dict[str, Recipe]:
    return {name: load("smoke/baseline", [*SMALL, f"schedule.name={name}"]) for name in names}


def test_a_study_stopped_in_the_middle_goes_on_and_does_not_repeat(tmp_path: Path) -> None:
    plan = plan_study(arms("baseline", "sequential"), 2)
    folder = tmp_path / "study"

    def stop_after_two_runs(event: Event) -> None:
        if event.task == "runs" and event.kind == "advance" and event.done >= 2:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        study(plan, folder, workers=2, events=stop_after_two_runs)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-*/finished.json")}
    assert 2 <= len(done) < 4
    study(plan, folder, workers=2)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-*/finished.json")}
    assert len(after) == 4
    assert done.items() <= after.items()
    kept = json.loads((folder / "study.json").read_text())
    assert (kept["baseline"], kept["seeds"]) == ("baseline", [1, 2])
    corpora = {json.loads(path.read_text())["corpus"] for path in folder.glob("*/seed-*/cycle-00/table.json")}
    assert len(corpora) == 1


def test_arms_that_cannot_be_compared_are_refused_with_the_keys_that_differ() -> None:
    recipes = {name: load(f"smoke/{name}") for name in ("baseline", "zigzag", "distill-tinypy")}
    with pytest.raises(RecipeError, match=r"zigzag: evaluate.*evaluate\.suites: .* -> "):
        plan_study({name: recipes[name] for name in ("baseline", "zigzag")}, 1)
    with pytest.raises(RecipeError, match=r"distill-tinypy: data.*data\.source: tinypy -> taught; "):
        plan_study({name: recipes[name] for name in ("baseline", "distill-tinypy")}, 1)


@pytest.mark.parametrize(
    ("threads", "cores", "runs"),
    [((0, 0), 2, 2), ((1, 1), 2, 2), ((2, 2), 2, 1), ((4,), 2, 1), ((1, 2), 4, 2), ((0, 3), 7, 2), ((1,), 96, 8)],
)
def test_runs_share_no_core_unless_asked_to(threads: tuple[int, ...], cores: int, runs: int) -> None:
    recipes = [load("smoke/baseline", [f"threads={count}"]) for count in threads]
    assert runs_at_once(recipes, cores) == runs


def test_runs_that_take_all_cores_go_one_after_the_other(tmp_path: Path) -> None:
    cores = available_cores()
    recipe = load("smoke/baseline", [*SMALL, f"threads={cores}"])
    study(plan_study({"baseline": recipe}, 2), tmp_path)
    assert_one_after_the_other(tmp_path / "baseline", 1, 2)


def test_a_study_that_goes_on_with_the_threads_it_began_with_has_no_more_runs_than_cores_for_them(
    tmp_path: Path,
) -> None:
    plan = plan_study({"baseline": load("smoke/baseline", [*SMALL, "threads=0"])}, 3)

    def stop_after_one_run(event: Event) -> None:
        if event.task == "runs" and event.kind == "advance" and event.done >= 1:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        study(plan, tmp_path, workers=1, events=stop_after_one_run)  # which gives a run all cores
    study(plan, tmp_path)
    assert_one_after_the_other(tmp_path / "baseline", 2, 3)


def assert_one_after_the_other(arm: Path, before: int, after: int) -> None:
    first, second = (arm / f"seed-{seed}" for seed in (before, after))
    assert (first / "finished.json").stat().st_mtime_ns <= (second / "environment.json").stat().st_mtime_ns


def test_one_failed_run_does_not_lose_the_others(tmp_path: Path) -> None:
    plan = plan_study(arms("baseline", "sequential"), 1)
    folder = tmp_path / "study"
    broken = folder / "sequential" / "seed-1"
    broken.mkdir(parents=True)
    (broken / "cycle-00").touch()
    with pytest.raises(WorkFailed, match="sequential/seed-1"):
        study(plan, folder, workers=1)
    assert (folder / "baseline" / "seed-1" / "finished.json").exists()


def test_arms_must_share_their_data_and_test_set() -> None:
    mixed = arms("baseline", "sequential")
    mixed["sequential"] = load("smoke/baseline", [*SMALL, "schedule.name=sequential", "data.seed=9"])
    with pytest.raises(RecipeError, match="share their data"):
        plan_study(mixed, 2)


def test_arms_may_drop_duplicates_of_the_training_samples_and_are_then_no_controls(tmp_path: Path) -> None:
    mixed = {
        "plain": load("smoke/baseline", SMALL),
        "distinct": load("smoke/baseline", [*SMALL, "data.split.duplicates=drop"]),
    }
    plan = plan_study(mixed, 1)
    assert plan.controls == ()
    study(plan, tmp_path / "study", workers=1)
    runs = collect([tmp_path / "study"]).runs
    rows = {run.arm: run.tables[0].rows for run in runs}
    assert rows["distinct"] < rows["plain"]
    tests = {run.test_set for run in runs}
    assert len(tests) == 1
    assert None not in tests
    page = write_report(tmp_path / "study", tmp_path / "report.html").read_text()
    assert "distinct: samples" in page


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (["budget={epochs: 1}"], r"distinct: data\.split\.duplicates: .*another budget.*epochs"),
        (["student.tokenizer=bpe"], r"data\.split\.duplicates: .*tokenizer.*bpe"),
    ],
)
def test_arms_that_drop_duplicates_have_the_budget_and_the_tokenizer_of_the_others(
    changes: list[str], fault: str
) -> None:
    mixed = {
        "plain": load("smoke/baseline", [*SMALL, *changes]),
        "distinct": load("smoke/baseline", [*SMALL, *changes, "data.split.duplicates=drop"]),
    }
    with pytest.raises(RecipeError, match=fault):
        plan_study(mixed, 1)


def test_arms_whose_teachers_make_other_test_samples_are_refused(tmp_path: Path) -> None:
    small = ["data.count=160", "data.split.test=20", "data.split.validation=20", "cycles=1"]
    mixed = {
        "one": load("smoke/distill-tinypy", small),
        "other": load("smoke/distill-tinypy", [*small, "teacher.levels=['2.2']"]),
    }
    with pytest.raises(RecipeError, match="share their test set"):
        study(plan_study(mixed, 1), tmp_path / "study", workers=1)
    assert not list((tmp_path / "study").glob("one/*"))


def test_the_baseline_with_restarts_is_a_control() -> None:
    mixed = arms("sequential", "baseline")
    mixed["restarts"] = load("smoke/baseline", [*SMALL, "schedule.restarts=3"])
    plan = plan_study(mixed, 3)
    assert (plan.baseline, plan.controls) == ("baseline", ("restarts",))
    assert plan.runs()[:3] == [("sequential", 1), ("baseline", 1), ("restarts", 1)]


def test_a_baseline_with_another_objective_is_no_control() -> None:
    plain, other = load("smoke/baseline"), load("smoke/baseline", ["train.objective=answer_only"])
    assert plan_study({"plain": plain, "again": plain, "other": other}, 1).controls == ("again",)


def test_a_folder_of_other_arms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"arms": [{"name": "lost"}], "seeds": [1]}))
    with pytest.raises(RunFolderError, match="lost"):
        study(plan_study(arms("baseline"), 1), tmp_path)


def test_what_arms_do_otherwise_than_the_baseline_is_kept_for_the_report(tmp_path: Path) -> None:
    mixed = arms("baseline")
    mixed["longer"] = load("smoke/baseline", [*SMALL, "schedule.name=sequential", "budget.tokens=3000"])
    study(plan_study(mixed, 1), tmp_path / "study", workers=2)
    kept = json.loads((tmp_path / "study" / "study.json").read_text())
    assert kept["differences"] == {"longer": ["budget.tokens: 2000 -> 3000"]}
    assert kept["restarts"] == {"baseline": 0, "longer": 2}
    assert "budget.tokens: 2000" in " ".join(collect([tmp_path / "study"]).notes)


def test_a_killed_study_leaves_no_worker_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    sets = [part for change in [*SMALL, "budget.tokens=60000"] for part in ("--set", change)]
    command = [sys.executable, "-m", "gradatim", "study", "smoke/baseline", "smoke/sequential", "--seeds", "1"]
    process = subprocess.Popen([*command, "--out", str(folder), *sets], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(folder.glob("*/seed-1/metrics.jsonl"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.wait()
    locks = list(folder.glob("*/seed-1/.lock"))
    assert len(locks) == 2
    for lock in locks:
        while time.monotonic() < end:
            try:
                Record(lock.parent).close()
                break
            except RunFolderError:
                time.sleep(0.1)
        else:
            pytest.fail(f"a worker still holds {lock}")


def test_a_worker_that_is_killed_takes_no_other_run_with_it(tmp_path: Path) -> None:
    plan = plan_study(arms("baseline", "sequential", "incremental"), 1)
    folder = tmp_path / "study"
    killed: list[int] = []

    def kill_the_first(event: Event) -> None:
        lock = folder / "baseline" / "seed-1" / ".lock"
        if not killed and event.task.startswith("baseline/seed-1: train") and lock.exists():
            killed.append(int(lock.read_text()))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(WorkFailed, match="baseline/seed-1: its process was killed"):
        study(plan, folder, workers=2, events=kill_the_first)
    assert (folder / "sequential" / "seed-1" / "finished.json").exists()
    assert (folder / "incremental" / "seed-1" / "finished.json").exists()
    study(plan, folder, workers=2)
    assert (folder / "baseline" / "seed-1" / "finished.json").exists()


def test_a_study_with_a_changed_recipe_is_refused_before_anything_runs(tmp_path: Path) -> None:
    study(plan_study(arms("baseline"), 1), tmp_path / "study", workers=1)
    changed = {"baseline": load("smoke/baseline", [*SMALL, "budget.tokens=3000"])}
    stored = (tmp_path / "study" / "study.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"budget\.tokens: 2000 -> 3000") as refused:
        study(plan_study(changed, 2), tmp_path / "study", workers=1)
    assert refused.value.hint is not None
    assert refused.value.hint.endswith(f"gradatim resume {tmp_path / 'study'}")
    assert (tmp_path / "study" / "study.json").read_bytes() == stored
    assert stored_plan(tmp_path / "study").arms["baseline"].budget.tokens == 2000


def test_a_cause_that_several_runs_have_is_named_once(tmp_path):
    faults = {"a/seed-1": "no such model", "a/seed-2": "disk full", "b/seed-1": "no such model"}
    with pytest.raises(WorkFailed) as told:
        _raise_failed(faults, 4, tmp_path)
    assert told.value.message == "3 of 4 runs failed; the others are kept"
    assert told.value.given == "a/seed-1, b/seed-1: no such model; a/seed-2: disk full"
