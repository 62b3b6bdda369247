"""Parts of a study: a share of the runs each, at the same time, with the result of one command."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gradatim.errors import RunFolderError, UserError
from gradatim.experiment.parts import Part, parse_part
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.study import plan_study, study
from gradatim.reporting import collect

SMALL = ["data.count=200", "data.split.test=10", "data.split.validation=10", "budget.tokens=1500", "threads=1"]
SMALL += ["train.batch_size=4", "train.evaluations_per_stage=0", "evaluate.suites=[{suite: output, limit: 4}]"]


def arms(*names: str, tokens: int = 1500) -> dict[str, Recipe]:
    return {
        name: load("smoke/baseline", [*SMALL, f"schedule.name={name}", f"budget.tokens={tokens}"]) for name in names
    }


def array(task: int, count: int, first: int = 1, step: int = 1) -> dict[str, str]:
    """The variables that Slurm sets in a task of a job array."""
    values = {"ID": task, "COUNT": count, "MIN": first, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(("seeds", "count"), [(1, 1), (2, 3), (3, 4), (1, 5)])
def test_the_parts_of_a_study_have_each_run_once(seeds: int, count: int) -> None:
    plan = plan_study(arms("baseline", "sequential"), seeds)
    parts = [parse_part(f"{number}/{count}").select(plan.runs()) for number in range(1, count + 1)]
    assert Counter(run for part in parts for run in part) == Counter(plan.runs())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (array(1, 16), Part(1, 16)),
        (array(16, 16), Part(16, 16)),
        (array(0, 4, first=0), Part(1, 4)),
        (array(6, 4, first=0, step=2), Part(4, 4)),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}, Part(2, 3)),
    ],
)
def test_the_part_of_a_slurm_task_is_its_position_in_the_array(environment: dict[str, str], part: Part) -> None:
    assert parse_part("slurm", environment) == part


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/4", {}, r"out of range; given: 0/4; allowed: 1/4 to 4/4"),
        ("5/4", {}, r"out of range; given: 5/4; allowed: 1/4 to 4/4"),
        ("1/0", {}, r"out of range; given: 1/0; allowed: a count from 1"),
        ("3", {}, r"a part is NUMBER/COUNT; given: 3; allowed: 1/16 to 16/16, or slurm"),
        ("slurm", {}, r"not a task of a Slurm job array; given: no variable SLURM_ARRAY_TASK_ID; try: sbatch --array"),
        ("slurm", array(7, 2, first=3), r"not evenly spaced; given: task 7, 2 tasks from 3 in steps of 1; .*_ID/16"),
    ],
)
def test_a_part_that_does_not_exist_is_one_line(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_part(text, environment)


def test_a_part_without_runs_does_nothing_and_another_recipe_is_refused(tmp_path: Path) -> None:
    study(plan_study(arms("baseline", "sequential"), 1), tmp_path, part=Part(5, 8))
    assert not list(tmp_path.glob("*/seed-*"))
    changed = plan_study(arms("baseline", "sequential", tokens=1600), 1)
    with pytest.raises(RunFolderError, match=r"parts of a study have the same recipes, and baseline.*1500 -> 1600"):
        study(changed, tmp_path, part=Part(1, 2))


@pytest.mark.slow
def test_two_parts_at_the_same_time_give_the_study_of_one_command(tmp_path: Path) -> None:
    sets = [part for change in SMALL for part in ("--set", change)]
    command = [sys.executable, "-m", "gradatim", "study", "smoke/baseline", "smoke/sequential", "--seeds", "1", *sets]
    folders = [tmp_path / name / "study" for name in ("parts", "whole")]

    def start(folder: Path, *part: str) -> subprocess.Popen[str]:
        line = [*command, "--workers", "1", "--out", str(folder), *part]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    started = [start(folders[0], "--part", f"{number}/2") for number in (1, 2)]
    outputs = [part.communicate(timeout=600)[0] for part in started]
    assert [part.returncode for part in started] == [0, 0], outputs
    assert all("1 of 2 runs" in output for output in outputs)
    whole = start(folders[1])
    assert "Sequential" in whole.communicate(timeout=600)[0]
    one, joined = files(folders[1]), files(folders[0])
    assert one.keys() == joined.keys()
    assert [name for name in one if one[name] != joined[name]] == []
    assert sum(name.endswith("model.safetensors") for name in one) == 4
    assert collect([folders[0]]).missing == ()


CLOCK = ("seconds", "wall", "duration")


def files(folder: Path) -> dict[str, object]:
    """The files of a study without the report, the locks and all values of a clock."""

    def without_clock(value: object) -> object:
        if isinstance(value, dict):
            return {key: without_clock(part) for key, part in value.items() if not any(word in key for word in CLOCK)}
        return [without_clock(part) for part in value] if isinstance(value, list) else value

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (".lock", "report.html")]
    return {
        str(path.relative_to(folder)): without_clock(json.loads(path.read_bytes()))
        if path.suffix == ".json"
        else path.read_bytes()
        for path in paths
    }


FLOCK = {"x86_64": 73, "aarch64": 32}
WITHOUT_FLOCK = """
import ctypes, sys
program = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, ctypes.addressof(buffer))), 0, 0) == 0
from gradatim.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_file_system_without_locks_is_one_line_at_the_start(tmp_path: Path) -> None:
    steps = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, FLOCK[platform.machine()]),
        (0x06, 0, 0, 0x50000 | 38),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    without_flock = b"".join(struct.pack("HBBI", *step) for step in steps)  # the kernel answers ENOSYS
    command = [sys.executable, "-c", WITHOUT_FLOCK, without_flock.hex(), "study", "smoke/baseline", "--part", "1/2"]
    process = subprocess.run([*command, "--out", str(tmp_path / "study")], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "files on this file system cannot be locked" in process.stderr
    assert "Function not implemented" in process.stderr
    assert "try: a folder on another file system; Lustre has locks with the mount option flock" in process.stderr
