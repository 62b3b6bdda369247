"""Is each sample right?

``judge`` turns samples into programs (``candidate``), has them tried behind walls, and yields one ``Judged`` for
each: Python by warm workers whose checker never runs the candidate's code (``sandbox.PythonChecker``), the other
languages by running program and tests together (``languages``), compiled many at a time where that is faster. The order
of results is the order of the samples, Python's first, and does not depend on which one ends first. While a program
runs, events go on, so that whoever hears them can stop. ``verdicts`` keeps the results.
Nothing is scored here (``passk`` does), and no candidate's code ever runs in this process.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from ..errors import ToolchainMissing, did_you_mean
from ..languages import LANGUAGES, Program
from ..sandbox.checker import PythonChecker, PythonJob, awaited
from ..sandbox.command import Sandbox
from ..sandbox.limits import Limits
from ..sandbox.verdict import Verdict
from ..stage import Event, Events, ignore_events
from .candidate import Candidate, candidate_of, program_of
from .passk import Tally
from .problems import Problem
from .samples import Sample

__all__ = ["Judged", "Reading", "judge", "problem_for", "tallies"]

PACKAGES = ("numpy",)
"""What the tests of known benchmarks import beside the standard library."""
AHEAD = 2
"""Programs handed to the pool for each worker before the first of them is waited for."""
TOGETHER = 16
"""Programs that are prepared together: Java compiles so many in the time of four."""

Reading = Callable[[Problem, Sample], Candidate | Verdict]
"""How a text becomes a program, or a verdict when it cannot."""


@dataclass(frozen=True)
class Judged:
    """A sample and what came of it."""

    sample: Sample
    verdict: Verdict


@dataclass(frozen=True)
class _Task:
    """A sample that can be tried."""

    sample: Sample
    problem: Problem
    candidate: Candidate


def judge(
    problems: Mapping[str, Problem],
    samples: Iterable[Sample],
    *,
    workers: int = 1,
    limits: Limits | None = None,
    unsafe: bool = False,
    events: Events = ignore_events,
    candidate: Reading = candidate_of,
) -> Generator[Judged, None, None]:
    """A verdict for each sample.

    ``limits`` are each program's, the language's own when left out; ``candidate`` turns a text into a program;
    ``workers`` programs run at a time. Samples that cannot be tried (no such problem, nothing written) are ``invalid``
    with the reason. Raises ``WallsMissing`` when there are no walls and ``unsafe`` is not set, ``ToolchainMissing``
    when a language cannot be run here, before anything is run in it.
    """
    asked = list(samples)
    unfit, groups = _sorted_out(problems, asked, candidate)
    for language in groups:
        _need(language)
    events(Event("start", "check", 0, len(asked)))
    done = 0

    def advance() -> None:
        events(Event("advance", "check", done, len(asked)))

    parts = [(each for each in unfit)]
    for language, tasks in groups.items():
        trial = _python if language == "python" else _program
        parts.append(trial(tasks, workers, limits, unsafe, advance))
    for part in parts:
        with closing(part):  # at once when hearing of it stops the work
            for judged in part:
                yield judged
                done += 1
                advance()
    events(Event("finish", "check", len(asked), len(asked)))


def problem_for(problems: Mapping[str, Problem], task: str) -> Problem | None:
    """The problem that a sample means; MBPP's are known by their bare number too."""
    return problems.get(task) or problems.get(f"Mbpp/{task}")


def _sorted_out(
    problems: Mapping[str, Problem], samples: Iterable[Sample], reading: Reading
) -> tuple[list[Judged], dict[str, list[_Task]]]:
    """Samples that cannot be tried, judged, and the others by language."""
    unfit: list[Judged] = []
    groups: dict[str, list[_Task]] = {}
    for sample in samples:
        problem = problem_for(problems, sample.task)
        if problem is None:
            near = did_you_mean(sample.task, problems)
            told = "there is no usable problem with this id" + (f"; {near}" if near else "")
            unfit.append(Judged(sample, Verdict("invalid", told)))
            continue
        candidate = reading(problem, sample)
        if isinstance(candidate, Verdict):
            unfit.append(Judged(sample, candidate))
        else:
            groups.setdefault(problem.language, []).append(_Task(sample, problem, candidate))
    return unfit, groups


def _need(language: str) -> None:
    missing = LANGUAGES.get(language).missing()
    if missing is not None:
        raise ToolchainMissing(f"programs in {language} cannot be run here", hint=missing)


def _python(
    tasks: Sequence[_Task], workers: int, limits: Limits | None, unsafe: bool, beat: Callable[[], None]
) -> Generator[Judged, None, None]:
    jobs = (
        PythonJob(
            prompt=task.candidate.before,
            completion=task.candidate.code,
            tests=task.problem.tests,
            entry_point=task.problem.entry_point,
        )
        for task in tasks
    )
    wanted = [name for name in PACKAGES if any(re.search(rf"\bimport {name}\b", task.problem.tests) for task in tasks)]

    def heard(event: Event) -> None:
        if event.kind == "advance":
            beat()

    with PythonChecker(workers=workers, limits=limits, packages=wanted, unsafe=unsafe) as checker:
        for task, verdict in zip(tasks, checker.check(jobs, heard), strict=True):
            yield Judged(task.sample, verdict)


def _program(
    tasks: Sequence[_Task], workers: int, limits: Limits | None, unsafe: bool, beat: Callable[[], None]
) -> Generator[Judged, None, None]:
    language = LANGUAGES.get(tasks[0].problem.language)

    def verdict_of(program: Program, prepared: Future[None]) -> Verdict:
        prepared.result()
        return language.check(sandbox, program, limits=limits)

    with ThreadPoolExecutor(workers) as pool, Sandbox(unsafe=unsafe) as sandbox:
        waiting: deque[tuple[_Task, Future[Verdict]]] = deque()
        try:
            for task, program, prepared in _prepared(tasks, lambda some: pool.submit(language.prepare, sandbox, some)):
                waiting.append((task, pool.submit(verdict_of, program, prepared)))
                if len(waiting) >= AHEAD * workers:
                    first, future = waiting.popleft()
                    yield Judged(first.sample, awaited(future, beat))
            for last, future in waiting:
                yield Judged(last.sample, awaited(future, beat))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the sandbox, closed next, ends what already runs


def _prepared(
    tasks: Sequence[_Task], prepare: Callable[[Sequence[Program]], Future[None]]
) -> Iterator[tuple[_Task, Program, Future[None]]]:
    """Each task with its program and what to wait for before that is tried.

    The pool takes its work in order, so nothing waits for what has not begun; the next programs are prepared by one
    worker while another tries those before them.
    """
    behind: list[tuple[_Task, Program, Future[None]]] = []
    for start in range(0, len(tasks), TOGETHER):
        some = [(task, program_of(task.problem, task.candidate)) for task in tasks[start : start + TOGETHER]]
        prepared = prepare([program for _, program in some])
        yield from behind
        behind = [(task, program, prepared) for task, program in some]
    yield from behind


def tallies(problems: Mapping[str, Problem], judged: Iterable[Judged]) -> dict[str, Tally]:
    """Samples and right ones of each problem that has any, in the problems' order.

    A sample that was ``invalid`` was an answer and not a right one; one that was ``unjudged`` says nothing about the
    model and is not counted, nor is one for a problem that is not there.
    """
    found: dict[str, list[bool]] = {}
    for each in judged:
        problem = problem_for(problems, each.sample.task)
        if problem is not None and each.verdict.outcome != "unjudged":
            found.setdefault(problem.id, []).append(each.verdict.outcome == "passed")
    return {task: Tally(len(found[task]), sum(found[task])) for task in problems if task in found}
