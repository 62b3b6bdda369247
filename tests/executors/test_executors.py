"""Executors: addresses, order of results, and the same results as without one."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import neg
from pathlib import Path
from typing import Any

import pytest

from gradatim import difficulty, executors, programs
from gradatim.cli.main import main
from gradatim.errors import RecipeError, SandboxMissing, Stopped, UnknownPart, UserError, WorkFailed
from gradatim.evaluation.problems import Problem, Sample
from gradatim.evaluation.verdicts import judge
from gradatim.executors.local import LocalExecutor
from gradatim.executors.ray import running_cluster
from gradatim.sandbox.command import sandbox_support

needs_sandbox = pytest.mark.skipif(not sandbox_support().available, reason=sandbox_support().reason)


def problem(number: int) -> Problem:
    tests = f"def check(candidate):\n    assert candidate() == {number}\n"
    return Problem(f"p{number}", "python", "def f():\n", tests, entry_point="f")


PROBLEMS = {f"p{number}": problem(number) for number in range(24)}
SAMPLES = [Sample(f"p{number}", f"    return {number if number % 3 else -1}\n") for number in range(24)]
SAMPLES.append(Sample("p1", "    return 'a' +\n", draw=1))


def verdicts(**options: Any) -> list[tuple[str, str, str]]:
    judged = judge(PROBLEMS, SAMPLES, **options)
    return [(item.sample.task, item.verdict.outcome, item.verdict.reason) for item in judged]


def slow_first(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)
    return number


def exit_process(number: int) -> None:
    os._exit(9)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rey", r"--on: there is no executor called 'rey'; allowed: local, ray; try: did you mean 'ray'"),
        ("ray:", r"--on: an executor has an address after the colon; given: ray:; try: ray"),
        ("local:many", r"no number of processes; given: many; allowed: local:1 to 1024"),
        ("local:0", r"no number of processes; given: 0"),
        ("ray:node1", r"no address of a Ray cluster; given: node1; allowed: ray, ray:HOST:6379, ray://HOST:10001"),
    ],
)
def test_an_address_that_names_no_executor_is_one_line(address: str, message: str) -> None:
    with pytest.raises((UserError, UnknownPart), match=message):
        executors.open_executor(address)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that is taken and does not accept connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("form", ["ray:127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1:{}"])
def test_a_cluster_that_does_not_answer_is_reported_within_seconds(form: str, closed_port: int) -> None:
    started = time.monotonic()
    message = rf"no Ray cluster answers at this address; given: .*{closed_port}: Connection refused; try: `ray status`"
    with pytest.raises(UserError, match=message):
        executors.open_executor(form.format(closed_port))
    assert time.monotonic() - started < 5


def test_the_address_of_a_cluster_that_was_killed_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert running_cluster() is None
    stored = tmp_path / "ray" / "ray_current_cluster"
    stored.parent.mkdir()
    stored.write_text(f"127.0.0.1:{closed_port}")
    assert running_cluster() is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stored.write_text(f"127.0.0.1:{listening.getsockname()[1]}")
        assert running_cluster() == stored.read_text()


def test_without_ray_the_command_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # which Python treats as a package that is not installed
    assert main(["generate", str(tmp_path / "programs.txt"), "--count", "10", "--on", "ray"]) == 2
    assert "Ray is not installed; try: pip install 'gradatim[ray]' on each machine" in capsys.readouterr().err
    assert not (tmp_path / "programs.txt").exists()


def test_results_come_in_the_order_of_the_chunks_which_are_read_as_needed(two_processes: LocalExecutor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(30):
            read.append(number)
            yield number

    results = executors.ordered(two_processes, slow_first, numbers())
    assert [next(results), next(results)] == [0, 1]
    assert len(read) <= 2 + executors.PENDING * 2
    assert list(results) == list(range(2, 30))


def test_a_listener_stops_the_wait_for_a_result(two_processes: LocalExecutor) -> None:
    def stop() -> None:
        raise Stopped("stopped")

    started = time.monotonic()
    with pytest.raises(Stopped):
        list(executors.ordered(two_processes, time.sleep, [4.0], stop))
    assert time.monotonic() - started < 3


def test_an_error_of_a_task_is_raised_unchanged(two_processes: LocalExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        list(executors.ordered(two_processes, (1).__truediv__, [1, 0]))


def test_a_killed_process_of_this_machine_is_a_failure_of_the_work() -> None:
    executor = LocalExecutor(1)
    with pytest.raises(WorkFailed, match="a process was killed, perhaps for lack of memory"):
        list(executors.ordered(executor, exit_process, [1]))
    executor.shutdown()


def test_programs_and_scores_do_not_depend_on_the_executor(two_processes: LocalExecutor) -> None:
    table, metrics = programs.generate(1500, levels=["1.1", "2.2"]).table, ["om", "rarity"]
    with executors.use(two_processes):
        assert executors.current() is two_processes
        assert programs.generate(1500, levels=["1.1", "2.2"]).table.equals(table)
        scored = difficulty.score(table, metrics)[0]
    assert executors.current() is None
    assert scored.equals(difficulty.score(table, metrics)[0])


@needs_sandbox
def test_verdicts_do_not_depend_on_the_executor(two_processes: LocalExecutor) -> None:
    with executors.use(two_processes):
        by_executor = verdicts()
    assert by_executor == verdicts(workers=2)
    assert {outcome for _, outcome, _ in by_executor} == {"passed", "failed", "invalid"}


@needs_sandbox
def test_a_worker_without_a_sandbox_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where a worker finds no bubblewrap; this process has tested its own
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    executor = LocalExecutor(1)
    trace = tmp_path / "trace"
    sample = Sample("p1", f"    open({str(trace)!r}, 'w')\n    return 1\n")
    with (
        executors.use(executor),
        pytest.raises(SandboxMissing, match=f"worker on {socket.gethostname()}: .*bubblewrap"),
    ):
        list(judge(PROBLEMS, [sample]))
    assert not trace.exists()
    executor.shutdown()


def test_an_executor_of_another_package_is_used_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Threads(ThreadPoolExecutor):
        max_workers = 2

    def threads(address: str | None, *, threads: int = 1, accelerator: bool = False) -> executors.Executor:
        return Threads(2)

    monkeypatch.setattr(executors.EXECUTORS, "_entries", dict(executors.EXECUTORS._entries))
    executors.EXECUTORS.register("threads", "threads of this process")(threads)
    with executors.use("threads") as executor:
        assert executor is not None
        assert list(executors.ordered(executor, neg, range(5))) == [0, -1, -2, -3, -4]
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(neg, 1)

    executors.EXECUTORS.register("pool", "no executor")(lambda address, *, threads=1, accelerator=False: object())
    with pytest.raises(RecipeError, match=r"executor 'pool'.*it lacks max_workers, submit, shutdown"):
        executors.open_executor("pool")
