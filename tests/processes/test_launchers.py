"""Launchers: `gradatim run --processes` with its signals, and torchrun. All give the bits of the same ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import SMALL, start
from test_processes import weights

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(folder: Path, *changes: str, recipe: str = "smoke/baseline") -> list[str]:
    sets = [word for change in [*SMALL, *changes] for word in ("--set", change)]
    return ["-m", "gradatim", "run", recipe, "--out", str(folder), *sets]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    assert start(folder) == 0
    return folder


def test_ctrl_c_stops_all_processes_and_the_printed_command_goes_on(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, *arguments(folder), "--processes", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    end = time.monotonic() + 240
    while not any(folder.glob("cycle-00/*/checkpoint/state.json")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 130, errors
    assert "the state is saved; resume with: gradatim run smoke/baseline --processes 2" in errors
    assert "Traceback" not in errors
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=400)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(two)
    assert (folder / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    assert (folder / "report.html").is_file()


def test_torchrun_starts_the_same_training(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, *arguments(folder)], capture_output=True, text=True, env=ENVIRONMENT, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert weights(folder) == weights(two)


def test_a_fault_of_the_recipe_is_one_line_of_torchruns_processes(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *arguments(tmp_path / "run", "train.batch_size=3")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=400)
    assert done.returncode != 0
    assert done.stderr.count("a step cannot be divided evenly among 2 processes") == 1


def test_cycles_with_attempts_of_two_processes_count_as_those_of_one(tmp_path: Path) -> None:
    counts = []
    for size in (1, 2):
        folder = tmp_path / str(size) / "run"
        small = ("cycles=2", "budget.tokens=6000", "schedule.name=baseline", "feedback.questions=40", "data.new=60")
        command = [sys.executable, *arguments(folder, *small, recipe="smoke/distill-tinypy"), "--processes", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=400)
        assert done.returncode == 0, done.stderr
        tables = [json.loads((folder / f"cycle-0{cycle}" / "table.json").read_text())["rows"] for cycle in (0, 1)]
        steps = [
            json.loads(path.read_text())["fitted"]["tokens"] for path in sorted(folder.glob("cycle-*/*/result.json"))
        ]
        counts.append((tables, len(steps)))
        assert sum(steps) >= 6000
    assert counts[0] == counts[1]
