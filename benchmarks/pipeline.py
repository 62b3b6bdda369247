"""How long do a million programs take from nothing to a plan, how much memory, and does a second worker pay?

    python benchmarks/pipeline.py [--count N] [--workers W] [--compare N] [--rounds R]

Prints one JSON object. Each step is a command as a user types it, in processes of its own:

- ``generate``: programs of all levels, without duplicates, as Parquet;
- ``score``: that file with the columns ``om`` and ``halstead``;
- ``plan``: the scored file as a corpus (read, scored once more by the recipe's own metric, split by canonical form,
  written) and the plan of ``curriculum/hybrid`` on it.

``seconds`` is wall-clock time with the start of the processes. ``processor_seconds`` is what the command and its
workers computed: parted among the workers, it is the least that an idle machine takes. ``peak_mb`` is the greatest sum
of resident memory over the command and its workers, looked at twenty times a second; memory that they share counts for
each, so it is an upper bound. ``second_worker`` is the time of a command with one worker over its time with two, the
median of a few rounds in turn, at ``--compare`` programs; the start of the processes counts, so few programs show less
than many.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Cost = tuple[float, float, int]
"""Seconds, processor seconds and peak bytes of a command and its workers."""


def resident(process: int) -> int:
    """Bytes of resident memory of a process and all below it; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in below)


def measured(*arguments: object) -> Cost:
    """What one ``gradatim`` command costs; raises ``CalledProcessError`` when it fails."""
    command = [sys.executable, "-m", "gradatim", *map(str, arguments)]
    start, computed, peak = time.perf_counter(), processor_seconds(), 0
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, stderr=said.read().decode())
    return seconds, processor_seconds() - computed, peak


def processor_seconds() -> float:
    """What the processes that this one started, and that have ended, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def generate(out: Path, count: int, workers: int) -> Cost:
    """The first step: programs as Parquet."""
    return measured("generate", out, "--count", count, "--seed", 1, "--workers", workers, "--force")


def score(samples: Path, out: Path, workers: int) -> Cost:
    """The second step: two columns of difficulty."""
    return measured("score", samples, "--out", out, "--metric", "om,halstead", "--workers", workers, "--force")


def plan(samples: Path, folder: Path, workers: int) -> Cost:
    """The third step: a corpus and the plan of a run on it."""
    changes = ("data.source=file", f"data.path={samples}", f"workers={workers}")
    flags = [word for change in changes for word in ("--set", change)]
    return measured("plan", "curriculum/hybrid", "--data", "--json", "--out", folder, *flags)


def steps(count: int, workers: int, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds, peak memory and programs per second of each step, and of all together."""
    programs, scored = folder / "programs.parquet", folder / "scored.parquet"
    works: dict[str, Callable[[], Cost]] = {
        "generate": lambda: generate(programs, count, workers),
        "score": lambda: score(programs, scored, workers),
        "plan": lambda: plan(scored, folder / "run", workers),
    }
    found: dict[str, Cost] = {}
    for name, work in works.items():
        found[name] = work()
        print(f"{name}: {found[name][0]:.1f} s", file=sys.stderr, flush=True)
    each = found.values()
    found["all"] = sum(cost[0] for cost in each), sum(cost[1] for cost in each), max(cost[2] for cost in each)
    return {
        name: {
            "seconds": round(seconds, 1),
            "processor_seconds": round(computed, 1),
            "peak_mb": round(peak / 1e6),
            "per_second": round(count / seconds),
        }
        for name, (seconds, computed, peak) in found.items()
    }


def second_worker(count: int, rounds: int, folder: Path) -> dict[str, dict[str, object]]:
    """For generate and score: time with one worker over time with two."""
    programs, out = folder / "programs.parquet", folder / "out.parquet"
    works: dict[str, Callable[[int], Cost]] = {
        "generate": lambda workers: generate(programs, count, workers),
        "score": lambda workers: score(programs, out, workers),
    }
    found: dict[str, dict[str, object]] = {}
    for name, work in works.items():
        pairs = [(work(1)[0], work(2)[0]) for _ in range(rounds)]
        ratios = [round(one / two, 2) for one, two in pairs]
        found[name] = {"ratio": statistics.median(ratios), "ratios": ratios}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_200_000, help="programs of the three steps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compare", type=int, default=200_000, help="programs to compare one worker with two at")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of that comparison; 0 leaves it out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found: dict[str, object] = {
            "count": asked.count,
            "workers": asked.workers,
            "processors": len(os.sched_getaffinity(0)),
            "steps": steps(asked.count, asked.workers, Path(place)),
        }
        if asked.rounds:
            compared = second_worker(asked.compare, asked.rounds, Path(place))
            found["second_worker"] = {"count": asked.compare, **compared}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
