"""Generation, scores, a plan and checks without an executor, with local processes, and on Ray.

    python benchmarks/executors.py [--count N] [--checks M] [--rounds R] [--on local,ray]

Prints one JSON object. Each step runs in turn with one process (``one``) and with each executor, ``--rounds`` times;
``seconds`` is the median of the wall-clock times. ``ratio`` is the time of one process over that of the executor.

- ``generate``: ``--count`` programs of all levels;
- ``score``: those programs with ``om`` and ``halstead``;
- ``plan``: the samples of ``curriculum/hybrid``, at ``--count`` programs, drawn, scored, split, and its stages;
- ``check``: ``--checks`` candidates, with warm workers.

``start`` is the time to open the executor until its first task has ended, ``task_ms`` the time of a task that does
nothing, of many in a row. ``driver_seconds`` is the processor time of the calling process, which reads the results in
order, drops duplicates and writes: the part that no further machine shortens.

``on_paper`` is computed, not measured: start + max(work / cores, driver) for 10 and 100 machines of 16 cores, for 1.2
million programs and 20,000 checks, as the ratio to one process and to one such machine. The work is the processor time
of one process minus the driver's part; for checks, which other processes run, the wall-clock time, which is the
processor time on an idle machine only. ``pays_from``: the number of items from which 10 machines are faster than one,
with the start; null where one machine is as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gradatim import difficulty, executors, programs
from gradatim.evaluation.problems import Problem, Sample
from gradatim.evaluation.verdicts import judge
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import load
from gradatim.table import SCHEMA, write_stream

CORES = 16
"""Cores of a machine on paper."""
LARGE = {"generate": 1_200_000, "score": 1_200_000, "check": 20_000}
"""Items of each step on paper."""
WARM = 64
"""Checks before the measurement."""
TASKS = 400
"""Empty tasks for the time of one."""
PROBLEM = Problem("p", "python", "def f(x):\n", "def check(candidate):\n    assert candidate(1) == 2\n", "f")


def nothing(number: int) -> int:
    """The empty task."""
    return number


def steps(count: int, checks: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """The work of each step; its result is equal with every executor."""
    table = programs.generate(count, seed=2).table

    def generate() -> bytes:
        out = folder / "programs.parquet"
        write_stream(programs.stream(count, seed=1), out, schema=SCHEMA)
        return out.read_bytes()

    def score() -> Any:
        return difficulty.score(table, ["om", "halstead"])[0]

    def plan() -> Any:
        held_out = max(count // 20, 10)
        changes = [f"data.count={count}", f"data.split.test={held_out}", f"data.split.validation={held_out}"]
        return plan_run(load("curriculum/hybrid", changes), data=True).stages

    return {"generate": generate, "score": score, "plan": plan, "check": lambda: checked(checks)}


def checked(count: int) -> list[tuple[str, str]]:
    """The verdicts on ``count`` candidates, half of them right."""
    samples = [Sample("p", f"    return x + {1 + number % 2}\n", draw=number) for number in range(count)]
    return [(item.verdict.outcome, item.verdict.reason) for item in judge({"p": PROBLEM}, samples)]


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Wall-clock seconds and processor seconds of this process; the result."""
    start, own = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - start, "driver_seconds": time.process_time() - own}, result


def measure(
    address: str | None, work: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of an executor (None: one process), and the result of each step."""
    start = time.perf_counter()
    with executors.use(address) as executor:
        figures: dict[str, Any] = {}
        if executor is not None:
            executor.submit(nothing, 0).result()
            figures["start"] = time.perf_counter() - start
            figures["workers"] = executor.max_workers
            empty, _ = timed(lambda: list(executors.ordered(executor, nothing, range(TASKS))))
            figures["task_ms"] = 1000 * empty["seconds"] / TASKS
            checked(WARM)  # the workers' sandboxes stay for later checks
        results = {}
        for name, step in work.items():
            runs = [timed(step) for _ in range(rounds)]
            figures[name] = {key: statistics.median(run[0][key] for run in runs) for key in runs[0][0]}
            results[name] = runs[0][1]
    return figures, results


def equal(first: Any, second: Any) -> bool:
    """Whether two results are equal; tables have a method for it."""
    return bool(first.equals(second) if hasattr(first, "equals") else first == second)


def on_paper(one: dict[str, Any], engine: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Ratios for more machines, from the measured costs per item; see the docstring of this file."""
    return {name: _step_on_paper(name, large, one, engine, sizes[name]) for name, large in LARGE.items()}


def _step_on_paper(name: str, large: int, one: dict[str, Any], engine: dict[str, Any], size: int) -> dict[str, Any]:
    driver = engine[name]["driver_seconds"] / size
    whole = one[name]["seconds" if name == "check" else "driver_seconds"] / size
    worker = max(whole - driver, 0.0)

    def seconds(machines: int) -> float:
        return large * max(worker / (machines * CORES), driver)

    gain = (seconds(1) - seconds(10)) / large
    paper = {
        f"{machines} machines": {
            "to_one_process": large * whole / (engine["start"] + seconds(machines)),
            "to_one_machine": seconds(1) / (engine["start"] + seconds(machines)),
        }
        for machines in (10, 100)
    }
    pays_from = engine["start"] / gain if gain > 0 else None
    return {"driver_us": 1e6 * driver, "worker_us": 1e6 * worker, **paper, "pays_from": pays_from}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_200_000)
    parser.add_argument("--checks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--on", default="local,ray")
    options = parser.parse_args()
    sizes = {"generate": options.count, "score": options.count, "plan": options.count, "check": options.checks}
    with tempfile.TemporaryDirectory() as folder:
        work = steps(options.count, options.checks, Path(folder))
        one, expected = measure(None, work, options.rounds)
        result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "sizes": sizes}
        result["one"] = one
        for address in options.on.split(","):
            figures, results = measure(address, work, options.rounds)
            assert all(equal(results[name], expected[name]) for name in work), address
            for name in work:
                figures[name]["ratio"] = one[name]["seconds"] / figures[name]["seconds"]
            if address != "local":
                figures["on_paper"] = on_paper(one, figures, sizes)
            result[address] = figures
    print(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
