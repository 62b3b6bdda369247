"""The shell and YAML files of ``examples/cluster``: their syntax, and the commands that they start.

No scheduler is installed here. A stub of ``srun`` writes the command that it would start; its options are then
parsed by the real command line.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from gradatim.cli.main import load_command
from gradatim.experiment.parts import Part, parse_part
from gradatim.experiment.recipe_files import find_study

CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sbatch"))
JOB = {
    "SLURM_JOB_ID": "70123", "SLURM_JOB_NODELIST": "node[1-4]", "SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_PER_TASK": "32",
    "SLURM_GPUS_ON_NODE": "4",
}  # fmt: skip


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with ``srun``, which writes its arguments, one a line, and ``scontrol``, which names the machines."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name, body in {"srun": 'printf "%s\\n" "$@"', "scontrol": 'printf "node%s\\n" 1 2 3 4'}.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def started(script: str, arguments: list[str], stubs: Path, **variables: str) -> list[str]:
    """The words of the command that ``srun`` would start on each machine."""
    environment = os.environ | JOB | variables | {"PATH": f"{stubs}:{os.environ['PATH']}"}
    command = ["bash", str(CLUSTER / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def parsed(words: list[str]) -> dict[str, object]:
    """The parameters of the command ``gradatim VERB …`` by the real command line; an unknown option is an error."""
    return load_command(words[0]).make_context(words[0], words[1:]).params


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_batch_script_is_valid_bash_and_states_its_usage(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).stderr == b""
    without_arguments = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert without_arguments.returncode != 0
    assert f"usage: sbatch {script.name} " in without_arguments.stderr


def test_a_stub_of_srun_gets_one_torchrun_for_each_machine_of_a_training(stubs: Path) -> None:
    words = started("train.sbatch", ["paper/baseline", "/shared/run"], stubs)
    assert words[:2] == ["--kill-on-bad-exit=1", "torchrun"]
    options = dict(zip(words[2:12:2], words[3:12:2], strict=True))
    assert (options["--nnodes"], options["--nproc-per-node"]) == ("4", "4")
    assert options["--rdzv-endpoint"] == "node1:20123"
    assert words[12:14] == ["-m", "gradatim"]
    assert parsed(words[14:])["out"] == Path("/shared/run")


def test_a_stub_of_srun_gets_the_part_of_each_task_of_an_array(stubs: Path) -> None:
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MIN": "1"}
    words = started("study.sbatch", ["curriculum", "/shared/study", "--seeds", "5"], stubs, **array)
    assert words[0] == "gradatim"
    parameters = parsed(words[1:])
    assert (parameters["recipes"], parameters["seeds"], parameters["workers"]) == (["curriculum"], 5, 1)
    assert parse_part(str(parameters["part"]), array) == Part(3, 16)


def test_a_stub_of_srun_gets_ray_on_all_machines_with_one_command_on_it(stubs: Path) -> None:
    words = started("ray.sbatch", ["generate", "/shared/programs.parquet", "--count", "100"], stubs)
    assert words[:5] == ["--kill-on-bad-exit=1", "ray", "symmetric-run", "--address", "node1:20123"]
    assert words[words.index("--min-nodes") + 1] == "4"
    command = words[words.index("--") + 1 :]
    assert command[0] == "gradatim"
    assert parsed(command[1:])["on"] == "ray:node1:20123"


def test_the_cloud_example_names_a_study_and_a_part_for_each_machine() -> None:
    task = yaml.safe_load((CLUSTER / "sky.yaml").read_text("utf-8"))
    assert find_study(task["envs"]["STUDY"]) is not None
    script = task["run"].replace("gradatim ", "printf '%s\\n' ", 1)
    variables = {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": str(task["num_nodes"]), "STUDY": "curriculum"}
    result = subprocess.run(
        ["bash", "-euc", script],
        env=os.environ | variables | {"SEEDS": "5"},
        capture_output=True,
        text=True,
        check=True,
    )
    parameters = parsed(result.stdout.splitlines())
    assert parse_part(str(parameters["part"])) == Part(1, 4)
    assert parameters["out"] == Path("/runs/part-0")
