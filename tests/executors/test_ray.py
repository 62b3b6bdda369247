"""Ray: the files of a command are those of this machine alone, also when workers are killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_tasks import TOKEN, end_process
from test_executors import needs_sandbox
from test_study_parts import arms, files

from gradatim import api, executors, programs
from gradatim.cli.main import main
from gradatim.errors import Stopped, UserError, WorkFailed
from gradatim.evaluation.verdicts import judge_once
from gradatim.executors import Executor
from gradatim.executors.ray import RETRIES
from gradatim.experiment.study import plan_study, study
from gradatim.reporting import collect
from gradatim.stage import Event

pytestmark = pytest.mark.slow


def worker_of(executor: Executor) -> int:
    """The process id of a worker that is idle, which gets the next task."""
    pid: int = executor.submit(os.getpid).result()
    return pid


def killing(executor: Executor, at: int) -> tuple[Callable[[Event], None], list[int]]:
    """A listener that kills the known workers at its ``at``-th event about progress, and the ids of those killed."""
    workers, killed, seen = {worker_of(executor) for _ in range(6)}, [], [0]

    def listen(event: Event) -> None:
        seen[0] += event.kind == "advance"
        if seen[0] >= at and not killed:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    return listen, killed


def test_generated_programs_are_the_same_bytes_when_workers_are_killed(ray_of_two: Executor, tmp_path: Path) -> None:
    with executors.use(ray_of_two):
        listen, killed = killing(ray_of_two, 2)
        table = programs.generate(30_000, events=listen).table
    assert killed
    assert table.equals(programs.generate(30_000).table)

    for name, options in {"here": [], "ray": ["--on", "ray"]}.items():
        assert main(["generate", str(tmp_path / f"{name}.parquet"), "--count", "2000", *options]) == 0
        scored = [str(tmp_path / f"{name}.parquet"), "--metric", "om,rarity", "--out", str(tmp_path / f"{name}.jsonl")]
        assert main(["score", *scored, *options]) == 0
    for end in ("parquet", "jsonl"):
        assert (tmp_path / f"ray.{end}").read_bytes() == (tmp_path / f"here.{end}").read_bytes()


@needs_sandbox
def test_each_verdict_is_written_once_when_a_worker_is_killed(ray_of_two: Executor, tmp_path: Path) -> None:
    from test_executors import PROBLEMS, SAMPLES

    judge_once(tmp_path / "here.jsonl", PROBLEMS, SAMPLES)
    with executors.use(ray_of_two):
        listen, killed = killing(ray_of_two, 1)
        judge_once(tmp_path / "ray.jsonl", PROBLEMS, SAMPLES, events=listen)
    assert killed

    def rows(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / name).read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "cpu_seconds"} for line in lines]

    assert len(rows("ray.jsonl")) == len(SAMPLES)
    assert rows("ray.jsonl") == rows("here.jsonl")


@needs_sandbox
def test_check_on_ray_prints_the_same_result(
    ray_of_two: Executor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = "def check(candidate):\n    assert candidate() is False\n"
    problem = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "test": tests}
    (tmp_path / "problems.jsonl.gz").write_bytes(gzip.compress(json.dumps(problem).encode()))
    lines = [{"task_id": "HumanEval/0", "completion": f"    return {number % 4 > 0}\n"} for number in range(40)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = []
    for name, options in {"here": [], "ray": ["--on", "ray"]}.items():
        command = [
            "check",
            str(tmp_path / "samples.jsonl"),
            "--problems",
            str(tmp_path / "problems.jsonl.gz"),
            "--json",
        ]
        assert main([*command, "--out", str(tmp_path / f"{name}.jsonl"), *options]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    assert results[0]["counts"]["passed"] == 10


def test_a_task_that_ends_each_worker_is_given_up_after_the_retries(ray_of_two: Executor, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=rf"the process of a task was lost each time; given: {RETRIES + 1} attempts"):
        ray_of_two.submit(end_process, str(tmp_path)).result()
    assert len(list(tmp_path.iterdir())) == RETRIES + 1


def test_errors_of_a_task_are_one_line(ray_of_two: Executor) -> None:
    with pytest.raises(WorkFailed, match=r"ray: a task failed on a worker; given: ValueError: invalid literal"):
        ray_of_two.submit(int, "x").result()
    with pytest.raises(UserError, match=r"there is no executor called 'no'"):
        ray_of_two.submit(executors.open_executor, "no").result()
    with pytest.raises(UserError, match=r"no machine of the cluster has enough cores; given: 3; allowed: 2"):
        executors.open_executor("ray", threads=3)


def test_a_study_on_ray_stops_with_its_state_and_ends_as_the_study_without_it(
    ray_of_two: Executor, tmp_path: Path
) -> None:
    plan = plan_study(arms("baseline", "sequential"), 1)
    whole, on_ray = tmp_path / "whole" / "study", tmp_path / "ray" / "study"
    study(plan, whole, workers=1)

    def stop_when_training(event: Event) -> None:
        if list(on_ray.glob("*/seed-1/cycle-00")):
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        study(plan, on_ray, on="ray", workers=1, events=stop_when_training)
    assert len(list(on_ray.glob("*/seed-1/finished.json"))) < 2
    assert not list(on_ray.glob(".stop-*"))
    study(plan, on_ray, on="ray", workers=1)
    one, other = files(whole), files(on_ray)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []

    model, samples = on_ray / "baseline" / "seed-1", programs.generate(40, levels=["1.1", "2.1"], seed=5).table
    assert collect([on_ray]).missing == ()
    alone = api.evaluate(model, samples)
    with executors.use(ray_of_two):
        shared = api.evaluate(model, samples)
    assert (shared.counts, shared.suite) == (alone.counts, alone.suite)
    assert shared.verdicts == alone.verdicts


def test_a_cluster_refuses_a_process_without_its_token(ray_address: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in TOKEN} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-m", "gradatim", "generate", str(tmp_path / "a.txt"), "--count", "10"]
    command += ["--level", "1.1", "--on", f"ray:{ray_address}"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "the Ray cluster answers, but does not accept this process" in refused.stderr
    assert "try: its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in refused.stderr
    assert not (tmp_path / "a.txt").exists()
    accepted = subprocess.run(command, env=environment | TOKEN, capture_output=True, text=True)
    assert accepted.returncode == 0, accepted.stderr
    assert "10 programs in" in accepted.stdout


def test_scores_through_the_client_server_are_the_same_bytes(ray_client_address: str, tmp_path: Path) -> None:
    samples = tmp_path / "programs.parquet"
    assert main(["generate", str(samples), "--count", "6000"]) == 0
    for name, address in {"local": "local:1", "client": ray_client_address}.items():
        # A process of its own: the tests' process is connected to the cluster without the client server.
        command = [sys.executable, "-m", "gradatim", "score", str(samples), "--metric", "om,size", "--on", address]
        command += ["--out", str(tmp_path / f"{name}.parquet")]
        done = subprocess.run(command, env=os.environ | TOKEN, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "client.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
