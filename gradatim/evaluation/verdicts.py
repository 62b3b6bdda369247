"""Is each sample right?

``judge`` turns samples into programs (``candidate``), has them tried behind walls, and yields one ``Judged`` for
each: Python by warm workers whose checker never runs the candidate's code (``sandbox.PythonChecker``), the other
languages by running program and tests together (``languages``), compiled many at a time where that is faster. The order
of results is the order of the samples, Python's first, and does not depend on which one ends first. While a program
runs, events go on, so that whoever hears them can stop. ``verdicts`` keeps the results.
Nothing is scored here (``passk`` does), and no candidate's code ever runs in this process.

Which verdicts are known already?

Judging thousands of samples takes a while, and may be stopped. Each verdict goes into a file as it comes, with a key
of all that it depends on, and a second start judges only what is missing. A verdict of another text, problem or limit
is never taken for this one: it is an error that names the file. What is true of a sample is decided in ``judge``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..errors import DataError, ToolchainMissing, did_you_mean
from ..files import read_input
from ..languages import LANGUAGES, Program
from ..parsing import parse_json
from ..record import DECODE_ERRORS, Metrics, storage_errors
from ..sandbox.command import Sandbox
from ..sandbox.limits import Limits
from ..sandbox.verdict import Outcome, Verdict
from ..stage import Event, Events, ignore_events
from .intervals import Tally
from .problems import Problem
from .program import Candidate, candidate_of, program_of
from .samples import Sample, shown

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Judged",
    "Reading",
    "Verdicts",
    "check_verdicts",
    "cut_torn",
    "judge",
    "judge_once",
    "key_of",
    "problem_for",
    "tallies",
]


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
    with the reason. Raises ``SandboxMissing`` when there are no walls and ``unsafe`` is not set, ``ToolchainMissing``
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
    from ..sandbox.checker import PythonChecker, PythonJob  # here, so that a plan loads no thread pools

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
    from concurrent.futures import ThreadPoolExecutor

    from ..sandbox.checker import await_verdict

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
                    yield Judged(first.sample, await_verdict(future, beat))
            for last, future in waiting:
                yield Judged(last.sample, await_verdict(future, beat))
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


def judge_once(
    path: Path,
    problems: Mapping[str, Problem],
    samples: Sequence[Sample],
    *,
    limits: Limits | None = None,
    candidate: Reading = candidate_of,
    **how: Any,
) -> list[Judged]:
    """A verdict for each sample, in their order: those that ``path`` has, and the others judged and added to it.

    ``how`` is handed to ``judge``, whose errors these are too; whatever ends it, verdicts that were found are kept.
    """
    with Verdicts(path) as known:
        keys = {sample: key_of(problem_for(problems, sample.task), sample, limits) for sample in samples}
        found = {sample: verdict for sample in samples if (verdict := known.find(sample, keys[sample])) is not None}
        missing = [sample for sample in samples if sample not in found]
        # Closed at once whatever happens, so that no worker outlives an error.
        with closing(judge(problems, missing, limits=limits, candidate=candidate, **how)) as stream:
            for judged in stream:
                known.add(judged, keys[judged.sample])
                found[judged.sample] = judged.verdict
    return [Judged(sample, found[sample]) for sample in samples]


def cut_torn(path: Path) -> None:
    """Cut off a last line that a killed process left without its end. For files of this package alone."""
    if not path.exists():
        return
    with storage_errors(path), open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def key_of(problem: Problem | None, sample: Sample, limits: Limits | None) -> str:
    """16 hex digits that change with anything a verdict depends on."""
    said = [None if problem is None else asdict(problem), sample.form, sample.text, sample.finish]
    if sample.absence is not None:
        said.append(sample.absence)
    said.append(None if limits is None else asdict(limits))
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


class Verdicts:
    """The file in which verdicts are kept as they come: one JSON object a line.

    Keys: task_id, draw, outcome, reason, cpu_seconds and key (what the verdict depends on). Opening it reads what is
    there and cuts off a line that a killed process left torn. Use it as a context manager: it is locked meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = Metrics(path)
        self._known: dict[tuple[str, int], tuple[str, Verdict]] = {}

    def __enter__(self) -> Verdicts:
        check_verdicts(self.path)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path, "ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataError(
                "another process writes these verdicts", where=self.path, hint="wait for it, or --out another file"
            ) from error
        try:
            self._read()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._metrics.close()
        if not self.path.stat().st_size:
            self.path.unlink()  # nothing was judged: leave nothing behind
        self._lock.close()

    def find(self, sample: Sample, key: str) -> Verdict | None:
        """The verdict known for the sample; None when there is none, or none that was decided.

        Raises ``DataError`` when there is one of another text, problem or limit: it is not this command's file.
        """
        known, verdict = self._known.get((sample.task, sample.draw), (key, None))
        if known != key:
            raise DataError(
                f"the verdict on draw {sample.draw} of {shown(sample.task)} is of another sample, problem or limit",
                where=self.path,
                hint="--out another file, or remove this one",
            )
        return None if verdict is None or verdict.outcome == "unjudged" else verdict

    def add(self, judged: Judged, key: str) -> None:
        """Keep one verdict; it reaches the operating system at once."""
        sample, verdict = judged.sample, judged.verdict
        self._metrics.append({"task_id": sample.task, "draw": sample.draw, **asdict(verdict), "key": key})

    def _read(self) -> None:
        """Take what is there, the last verdict on each sample; only then cut off a torn line."""
        for sample, known in _kept(self.path, self.path.read_bytes()):
            self._known[sample] = known
        cut_torn(self.path)


def check_verdicts(path: Path) -> None:
    """Raise ``DataError`` when ``path`` is there and holds something else than verdicts. Changes nothing."""
    if not path.exists():
        return
    try:
        for _ in _kept(path, read_input(path)):
            pass
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror, hint=_ANOTHER) from error


def _kept(path: Path, content: bytes) -> Iterator[tuple[tuple[str, int], tuple[str, Verdict]]]:
    """The verdicts of a file's whole lines by task and draw. Raises ``DataError`` for a line that is none.

    A last line without its end is passed over where ``Verdicts.add`` can have begun it.
    """
    *lines, torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            verdict = Verdict(row["outcome"], str(row["reason"]), float(row["cpu_seconds"]))
            if verdict.outcome not in get_args(Outcome):
                raise ValueError
            yield (str(row["task_id"]), int(row["draw"])), (str(row["key"]), verdict)
        except DECODE_ERRORS as error:
            raise _no_verdicts(path, number) from error
    if torn and not _TORN.match(torn) and not (lines and _BEGUN.startswith(torn[: len(_BEGUN)])):
        raise _no_verdicts(path, len(lines) + 1)


_ANOTHER = "--out another file"
_BEGUN = b'{"task_id": "'
_TORN = re.compile(rb'\{"task_id": "(?:[^"\\]|\\.)*", "draw": \d+, "outcome": "')
"""How a line begins that ``Verdicts.add`` writes, up to where no other file of samples does."""


def _no_verdicts(path: Path, line: int) -> DataError:
    return DataError("this file holds something else than verdicts", where=f"{path}, line {line}", hint=_ANOTHER)
