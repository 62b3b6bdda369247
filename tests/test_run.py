"""A run: killed at any moment and started again it ends the same, and finished work is never done twice."""

import hashlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_commands import ForkedCommand

from gradatim.errors import RunFolderError, Stopped, StorageFailed
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.run import run
from gradatim.record import Record
from gradatim.stage import Event

SMALL = [
    "data.count=500",
    "data.split.test=24",
    "data.split.validation=24",
    "budget.tokens=24000",
    "schedule.name=sequential",
    "train.reset_optimizer=false",
    "train.checkpoint_seconds=0.15",
    "train.batch_size=4",
    "train.logging_steps=2",
]


def recipe(*changes: str) -> Recipe:
    return load("smoke/baseline", [*SMALL, *changes])


def start(folder: Path) -> ForkedCommand:
    """The run in a process of its own, as the command line starts it."""
    sets = [part for change in SMALL for part in ("--set", change)]
    return ForkedCommand(["run", "smoke/baseline", "--out", str(folder), *sets])


def weights(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("cycle-*/stage-*/model/model.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for(ready: Callable[[], bool], process: ForkedCommand, seconds: float = 180) -> None:
    """Until ``ready``; the test fails when the process ends first or nothing comes."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            errors = process.communicate()[1]
            pytest.fail(f"the run ended (exit {process.returncode}) before the moment to kill it: {errors[-1500:]}")
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(recipe(), folder)
    return folder


@pytest.mark.parametrize("which", [(1, 4), pytest.param((0, 1, 2, 3, 4, 5), marks=pytest.mark.slow)])
def test_a_run_killed_at_several_moments_ends_with_the_same_weights_and_metrics(
    whole: Path, tmp_path: Path, which: tuple[int, ...]
) -> None:
    """Kill the run at these of six moments: in its first and second stage at least, so that both are resumed."""
    folder = tmp_path / "run"
    moments: list[Callable[[], bool]] = [
        lambda: any(folder.glob("data/*/train.parquet")),
        lambda: any(folder.glob("cycle-00/stage-00-easy/checkpoint/state.json")),
        lambda: any(folder.glob("cycle-00/stage-00-easy/fitted.json")),
        lambda: any(folder.glob("cycle-00/stage-01-medium/checkpoint/state.json")),
        lambda: any(folder.glob("cycle-00/stage-02-hard/model/config.json")),
    ]
    delay = random.Random(2).randrange(40) / 50  # and a moment that nobody chose
    after = [*[(ready, 0.0) for ready in moments[:2]], (moments[1], delay)]
    every = [*after, *[(ready, 0.0) for ready in moments[2:]]]
    for ready, delay in [every[index] for index in which]:
        process = start(folder)
        wait_for(ready, process)
        time.sleep(delay)
        process.kill()
        process.wait()
    first = folder / "cycle-00" / "stage-00-easy"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    process = start(folder)
    errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    assert weights(folder) == weights(whole)
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before
    resumed = [json.loads(path.read_text())["resumed_at"] for path in sorted(folder.glob("cycle-00/*/fitted.json"))]
    assert resumed[0] > 0
    assert resumed[1] > 0


def test_a_finished_run_is_not_done_again(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    assert [stage.spec.name for stage in run(recipe(), whole)] == ["easy", "medium", "hard"]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before


def test_the_stages_spend_the_budget_and_tell_their_composition(whole: Path) -> None:
    stages = run(recipe(), whole)
    assert sum(stage.spec.tokens for stage in stages) == 24000
    planned = learnt = 0
    for stage, band in zip(stages, ["easy", "medium", "hard"], strict=True):
        planned, learnt = planned + stage.spec.tokens, learnt + stage.fitted.tokens
        assert planned <= learnt < planned + 4 * 192, "what a stage takes too much is taken off the next"
        assert stage.composition[band] == stage.samples
        counts = stage.evaluations[0].counts
        assert counts["all"]["all"].total == 24
        assert sum(each.total for each in counts["band"].values()) == 24


def test_another_recipe_is_refused_and_the_difference_shown(whole: Path) -> None:
    with pytest.raises(RunFolderError, match=r"budget\.tokens: 24000 -> 25000"):
        run(recipe("budget.tokens=25000"), whole)
    run(recipe("title=another title"), whole)


def test_damaged_samples_and_recipes_of_a_run_are_named(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "cycle-00" / "table.json").unlink()
    samples = next(folder.glob("data/*/train.parquet"))
    samples.write_bytes(samples.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=r"train\.parquet.*created again"):
        run(recipe(), folder)
    shutil.rmtree(samples.parent)
    run(recipe(), folder)
    (folder / "recipe.yaml").write_text("a: [")
    with pytest.raises(RunFolderError, match=r"recipe\.yaml"):
        run(recipe(), folder)


def test_a_folder_in_use_is_refused(whole: Path) -> None:
    with Record(whole), pytest.raises(RunFolderError, match="another process"):
        run(recipe(), whole)


def test_a_run_stopped_between_events_goes_on(whole: Path, tmp_path: Path) -> None:
    heard = 0

    def stop_sometimes(event: Event) -> None:
        nonlocal heard
        heard += 1
        if heard % 23 == 0:
            raise Stopped("stopped")

    for _ in range(60):
        try:
            run(recipe(), tmp_path / "run", events=stop_sometimes)
            break
        except Stopped:
            continue
    assert weights(tmp_path / "run") == weights(whole)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "kilobytes", [pytest.param(250, marks=pytest.mark.slow), 420, pytest.param(480, marks=pytest.mark.slow)]
)
def test_a_disk_that_fills_up_is_one_clear_line_and_the_run_goes_on_when_there_is_room(
    whole: Path, tmp_path: Path, kilobytes: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(StorageFailed, match="No space left"):
            run(recipe("train.checkpoint_seconds=0"), disk / "run")
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        run(recipe(), disk / "run")
        assert weights(disk / "run") == weights(whole)
        assert (disk / "run" / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_run_seed_changes_the_weights_but_not_the_test_set(whole: Path, tmp_path: Path) -> None:
    stages = run(recipe("seed=2"), tmp_path / "run", store=whole / "data")
    assert weights(tmp_path / "run") != weights(whole)
    assert json.loads((tmp_path / "run/cycle-00/table.json").read_text()) == json.loads(
        (whole / "cycle-00/table.json").read_text()
    )
    assert len(stages) == 3


@pytest.mark.parametrize(
    "changes",
    [
        ["train.batching=random_crops", "train.max_length=96", "student.context_length=96"],
        ["student.tokenizer=bpe", "student.vocab_size=300"],
        ["train.block_diagonal_attention=true", "train.objective=answer_only"],
        ["train.reset_optimizer=false", "train.lr_scheduler.name=cosine", "train.optimizer.name=adamw"],
        ["difficulty.metric=size", "difficulty.bands={quantiles: [0.5], names: [short, long]}"],
    ],
)
def test_every_way_to_train_runs_to_its_end(tmp_path: Path, changes: list[str]) -> None:
    stages = run(recipe("budget.tokens=3000", "schedule.name=hybrid", *changes), tmp_path / "run")
    assert stages[-1].evaluations[0].counts["all"]["all"].total == 24
