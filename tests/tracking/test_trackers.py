"""Trackers receive every row of the metrics and every result of a run once, also when the run is killed and resumed.

Each tracker is the real package; what it stored is read back by the package's own reader.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gradatim.cli.main import main
from gradatim.errors import RunFolderError, TrackerFailed
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.experiment.run_lock import start_afresh
from gradatim.stage import Event
from gradatim.tracking import TRACKERS
from gradatim.tracking.entries import entries
from gradatim.tracking.send import STATE, Sender, read_states

SMALL = [
    "student.preset=tiny",
    "student.context_length=128",
    "train.max_length=128",
    "data.count=120",
    "data.split.test=12",
    "data.split.validation=12",
    "budget.tokens=2000",
    "schedule.name=sequential",
    "train.batch_size=4",
    "train.logging_steps=1",
    "train.checkpoint_seconds=1000",
    "evaluate.suites=[{suite: output, limit: 4}]",
    "evaluate.on_start=true",
]
PACKAGES = {"mlflow": "mlflow", "tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}
SLOW = ("mlflow", "wandb")
"""Trackers that take several seconds to start and to finish."""
EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TRACKERS.names()]
Logged = Mapping[tuple[str, int], list[float]]


class Killed(BaseException):
    """The process ends without saving, as by SIGKILL."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its second stage, after rows of metrics that it will write again."""
    folder = tmp_path_factory.mktemp("killed") / "run"

    def kill_in_second_stage(event: Event) -> None:
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_text().count('"stage": 1') == 2:
            raise Killed

    with pytest.raises(Killed):
        run(load("smoke/baseline", SMALL), folder, events=kill_in_second_stage)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"cycle": 0, "sta')  # a row in progress
    return folder


@pytest.fixture(scope="module")
def whole(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, resumed to its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(killed, folder)
    run(load("smoke/baseline", SMALL), folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to which all trackers write, without network."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path


def read_tensorboard(folder: Path) -> Logged:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged: dict[tuple[str, int], list[float]] = defaultdict(list)
    for path in sorted(folder.glob("tensorboard/run/seed-1/events.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for scalar in events.Scalars(tag):
                logged[tag, scalar.step].append(scalar.value)
    return logged


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 kB; a checksum, a length and a kind before each part."""
    position, parts = 7, b""  # after the header of W&B
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def read_wandb(folder: Path) -> Logged:
    from wandb.proto import wandb_internal_pb2

    logged: dict[tuple[str, int], list[float]] = defaultdict(list)
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            for tag, value in items.items():
                if not tag.startswith("_") and tag != "step":
                    logged[tag, int(json.loads(items["step"]))].append(json.loads(value))
    return logged


def read_trackio(folder: Path) -> Logged:
    from trackio.sqlite_storage import SQLiteStorage

    logged: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in SQLiteStorage.get_logs("gradatim", "run seed-1"):
        for tag, value in row.items():
            if "/" in tag:
                logged[tag, row["step"]].append(value)
    return logged


def read_mlflow(folder: Path) -> Logged:
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "gradatim"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["train.batch_size"] == "4"
    logged: dict[tuple[str, int], list[float]] = defaultdict(list)
    for tag in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, tag):
            logged[tag, metric.step].append(metric.value)
    return logged


READERS: dict[str, Callable[[Path], Logged]] = {
    "mlflow": read_mlflow,
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
    "wandb": read_wandb,
}


def expected(folder: Path) -> dict[tuple[str, int], list[float]]:
    """All values of a run, read from its files without the code under test."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {(row["stage"]): row["step"] for row in rows}
    for row in rows:
        step = row["step"] + sum(last[stage] for stage in last if stage < row["stage"])
        for ours, theirs in {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "validation_loss": "validation/loss",
        }.items():
            if ours in row:
                values[theirs, step].append(row[ours])
    for path in sorted(folder.glob("cycle-00/stage-*/result.json")):
        result = json.loads(path.read_text())
        counts = result["evaluations"][0]["counts"]["all"]["all"]
        step = sum(last[stage] for stage in last if stage <= result["index"])
        values["evaluation/output-greedy", step].append(counts["passed"] / counts["total"])
    return values


@pytest.mark.parametrize("name", EVERY)
def test_a_tracker_has_every_value_once_after_a_run_was_killed_and_resumed(name, killed, whole, place):
    if name not in READERS:
        pytest.skip("a tracker of another package")
    pytest.importorskip(PACKAGES[name])
    folder = place / "run"
    shutil.copytree(killed, folder)
    with Sender([folder], name, folder=place) as sender:
        assert sender.send() is False
    (sent,) = sender.sent.values()
    assert sent.now == (killed / "metrics.jsonl").read_text().count("\n") + 2, "results before training, of one stage"
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    with Sender([folder], name, folder=place) as sender:
        assert sender.send() is True
        assert sender.send() is True, "nothing is new"
    (sent,) = sender.sent.values()
    assert 0 < sent.now < sent.total == len(entries(whole))
    assert sent.address
    logged, values = READERS[name](place), expected(whole)
    assert {key: logged.get(key) for key in values} == {key: pytest.approx(value) for key, value in values.items()}
    twice = [key for key, found in logged.items() if len(found) > 1 and not key[0].startswith("progress/")]
    assert twice == [], "only the position is logged with every row"
    assert len(values) > 15


def test_the_step_counts_from_the_start_of_the_run_and_results_follow_their_stage(whole: Path) -> None:
    all_entries = entries(whole)
    steps = [entry.step for entry in all_entries]
    assert steps == sorted(steps)
    assert steps[-1] == sum(json.loads(p.read_text())["steps"] for p in whole.glob("cycle-00/stage-*/fitted.json"))
    assert all_entries[0].position < all_entries[1].position
    assert "evaluation/output-greedy" in all_entries[0].values, "the model before training"
    assert set(all_entries[-1].values) == {"evaluation/output-greedy"}
    middle = all_entries[len(all_entries) // 2].position
    assert [entry.position for entry in entries(whole, middle)] == [
        entry.position for entry in all_entries if entry.position > middle
    ]


def test_the_runs_of_a_study_are_grouped_by_arm(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    study = tmp_path / "study"
    for name in ("baseline/seed-1", "hybrid/seed-1", "hybrid/seed-2"):
        shutil.copytree(whole, study / name, ignore=shutil.ignore_patterns("data", "model"))
    arms = [{"name": "baseline"}, {"name": "hybrid"}]
    (study / "study.json").write_text(json.dumps({"arms": arms, "seeds": [1, 2], "baseline": "baseline"}))
    with Sender([study], "tensorboard") as sender:
        assert sender.send() is False, "seed 2 of the baseline has not begun"
    groups = sorted(str(path.parent.relative_to(study)) for path in study.glob("tensorboard/*/*/events.*"))
    assert groups == [f"tensorboard/{name}" for name in ("baseline/seed-1", "hybrid/seed-1", "hybrid/seed-2")]
    with Sender([study / "hybrid" / "seed-2"], "tensorboard") as sender:
        assert sender.send() is True
    assert [sent.now for sent in sender.sent.values()] == [0], "sent with its study"


def test_a_tracker_that_fails_gets_everything_later(whole: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the tracker needs a folder")
    words = ["track", str(folder), "--to", "tensorboard", "--dir", str(blocked)]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("gradatim: tracker tensorboard: the tracker cannot be reached")
    assert error.count("\n") == 1
    assert not (folder / STATE.format("tensorboard")).exists()
    blocked.unlink()
    assert main([*words, "--json"]) == 0
    (sent,) = json.loads(capsys.readouterr().out)
    assert sent["sent"] == sent["total"] == len(entries(folder))
    assert main([*words, "--follow"]) == 0, "all runs are finished"


def test_an_entry_that_the_tracker_refuses_is_sent_again(whole: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    add, calls = SummaryWriter.add_scalar, []

    def refuse_the_tenth(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == 10:
            raise OSError("connection reset")
        return add(self, *arguments, **options)

    monkeypatch.setattr(SummaryWriter, "add_scalar", refuse_the_tenth)
    with Sender([folder], "tensorboard") as sender:
        with pytest.raises(TrackerFailed, match="OSError: connection reset"):
            sender.send()
        sent = read_states(folder, "tensorboard")["tensorboard"]
        assert 0 < sent.sent < 10
        assert sender.send() is True
    assert sender.sent[folder].total == len(entries(folder))


def test_two_processes_do_not_send_one_run(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with Sender([folder], "tensorboard") as first, Sender([folder], "tensorboard", folder=tmp_path) as second:
        first.send()
        with pytest.raises(RunFolderError, match="another process sends the metrics of this run to tensorboard"):
            second.send()


def test_bad_input_is_one_line(whole: Path, tmp_path: Path, capsys) -> None:
    for words, line in {
        ("track", str(whole), "--to", "tensorbord"): "there is no tracker called 'tensorbord'",
        ("track", str(tmp_path), "--to", "tensorboard"): "no run in this folder",
        ("run", "smoke/baseline", "--out", str(tmp_path / "r"), "--track", "wandbb"): "did you mean 'wandb'?",
        ("study", "demo", "--out", str(tmp_path / "r"), "--track", "wandbb"): "did you mean 'wandb'?",
    }.items():
        assert main(list(words)) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_damaged_state_is_named(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / STATE.format("tensorboard")).write_text('{"tensorboard": {}}')
    with pytest.raises(RunFolderError, match=r"tracking-tensorboard\.json: this file is damaged.*no key 'id'"):
        Sender([folder], "tensorboard").send()


def test_a_fresh_start_forgets_what_was_sent(killed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    for stage in folder.glob("cycle-00/stage-*"):
        shutil.rmtree(stage)
    state = folder / STATE.format("wandb")
    state.write_text("{}")
    start_afresh(folder)
    assert not state.exists()


@pytest.mark.slow
def test_a_tracked_training_has_the_same_bits_and_its_process_ends_with_it(killed: Path, whole: Path, tmp_path: Path):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "run"
    sets = [part for change in SMALL for part in ("--set", change)]
    command = [sys.executable, "-m", "gradatim", "run", "smoke/baseline", "--out", str(folder), *sets]
    environment = {**os.environ, "WANDB_MODE": "online", "WANDB_API_KEY": "", "WANDB_DIR": str(tmp_path)}
    command += ["--track", "tensorboard", "--track", "wandb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert "tracker wandb: the tracker cannot be reached" in done.stderr
    assert read_states(folder, "tensorboard")["tensorboard"].sent == len(entries(folder))
    assert not (folder / STATE.format("wandb")).exists()
