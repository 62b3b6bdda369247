"""Verdicts on samples: execution of their programs in a sandbox, and a store of the results.

``judge`` turns samples into programs (``candidate_of``, ``program_of``), runs them in a sandbox, and yields one
``Judged`` for each: Python by warm workers whose checker never runs the candidate's code (``PythonChecker``), the
other languages by running program and tests together (``languages``), compiled in batches where that is faster.
Results are in the order of the samples, Python's first, whichever ends first. Events continue while a program runs, so
that a listener can stop the work. No candidate's code runs in this process; ``statistics`` computes the score.

``judge_once`` appends each verdict to a file, with a key of all that it depends on, and a second start judges only the
missing samples. A stored verdict of another text, problem or limit is an error that names the file.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .. import executors
from ..errors import DataError, SandboxMissing, ToolchainMissing, did_you_mean
from ..files import read_input
from ..languages import LANGUAGES, Language, Program
from ..languages.thinking import fenced_blocks
from ..options import parse_json
from ..record import DECODE_ERRORS, Metrics, lock, storage_errors, write_atomically
from ..sandbox import command
from ..sandbox.limits import Limits, Outcome, Verdict
from ..stage import Event, Events, ignore_events
from .problems import Absence, Problem, Sample, excerpt
from .statistics import Tally

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..sandbox.interpreter import PythonChecker, PythonJob


_C_LIKE = (
    r"^[ \t]{0,40}+[\w:<>\[\],.?&* \t]{0,200}[ \t&*>\]](?!(?:if|for|while|switch|catch|return|else|new)\b)(\w{1,100})"
    r"[ \t]{0,9}\([^;{}()]{0,1000}\)[^;{}()=]{0,200}\{"
)
"""A function definition in C, C++ or Java. Every span is bounded, so that no text makes the search slow."""

LARGEST = 1 << 20
"""Most characters of a sample: a thousand times those of a solution, and fast for any parser."""


ABSENCES: dict[Absence, str] = {
    "missing": "there is no text: none of the fields completion, reply, solution, or that of --field",
    "null": "there is no text: the {form} is null",
    "not a string": "there is no text: the {form} is not a string",
    "more than one": "there is more than one of the fields completion, reply, solution",
}


@dataclass(frozen=True)
class Candidate:
    """A program: ``before`` is the problem's, and trusted, ``code`` is the model's."""

    before: str
    code: str


_HEADER = re.compile(
    r"^[ \t]{0,40}(?:#[ \t]*include|using\s+namespace|import|package)\b.*$|^.{0,200}\brequire\(.*$", re.MULTILINE
)
"""Header lines of a prompt, which a whole program may rely on."""


def candidate_of(problem: Problem, sample: Sample) -> Candidate | Verdict:
    """The program of a sample; a verdict ``invalid`` with the reason when there is none.

    A truncated completion is used unchanged; a reply whose last block of code is not closed is ``invalid``, because
    its code is incomplete.
    """
    fault = fault_of(sample)
    if fault is not None:
        return Verdict("invalid", fault)
    code, language = sample.text, LANGUAGES.get(problem.language)
    if sample.form == "reply":
        extracted = language.extract(code, problem.entry_point)
        if extracted.state == "incomplete":
            return Verdict("invalid", "the reply's last block of code is not closed")
        if extracted.state == "none" or not extracted.code.strip():
            return Verdict("invalid", "there is no code in the reply")
        code = extracted.code
    if problem.whole:
        return Candidate("", code)
    return Candidate(problem.prompt, code) if sample.form == "completion" else _after_prompt(problem, code, language)


def program_of(problem: Problem, candidate: Candidate) -> Program:
    """The whole program in a language other than Python, tests included.

    A completion follows the prompt unchanged. Of a reply the code is extracted first (``languages``); a program
    that defines the function of the prompt replaces it and keeps the text before it (imports, helpers), any other
    program follows the prompt. In Python a later definition overrides, so such a program can follow the whole
    prompt; the other languages allow one definition only, so only the text before the function is kept. Programs
    are assembled as text, without being run, parsed or repaired.
    """
    language = LANGUAGES.get(problem.language)
    prompt = {"wanted": problem.prompt} if language.name in ("c", "cpp") and not problem.whole else {}
    return language.assemble(candidate.before, candidate.code, problem.tests, setup=problem.setup, **prompt)


def reference(problem: Problem) -> Sample | None:
    """The problem's reference solution as a sample, or None."""
    return Sample(problem.id, problem.reference) if problem.reference.strip() else None


def fault_of(sample: Sample) -> str | None:
    """Cause why a sample's text cannot be run, whatever the problem is; None for a usable one."""
    if sample.absence is not None:
        return ABSENCES[sample.absence].format(form=sample.form)
    if sample.finish == "too_long":
        return "no text was generated: the prompt is longer than the model's context"
    if sample.finish == "unknown_character":
        return "no text was generated: the prompt has a character outside the model's vocabulary"
    if len(sample.text) > LARGEST:
        return f"the {sample.form} has {len(sample.text):,} characters; at most {LARGEST:,} are allowed"
    if not sample.text.strip():
        return f"the {sample.form} is empty"
    try:
        sample.text.encode()
    except UnicodeEncodeError:
        return f"the {sample.form} is not Unicode: it has half of a surrogate pair"
    return None


def _after_prompt(problem: Problem, code: str, language: Language) -> Candidate:
    """Code from a reply, after the part of the prompt that it lacks."""
    prompt = problem.prompt
    if problem.language == "python":
        # An indented beginning is the body of the prompt's function.
        return Candidate(prompt, code if code[:1].isspace() and not language.defined(code) else f"\n{code}")
    functions, names = _definitions(language, prompt), {name for _, name in _definitions(language, code)}
    if not functions or functions[-1][1] not in names:
        return Candidate(prompt, code)
    header = "".join(f"{line}\n" for line in _HEADER.findall(prompt))
    before = prompt[: functions[-1][0]]
    if problem.language == "java":
        bare = re.search(r"\bclass\s+Solution\b", code) is None
        return Candidate(before, f"{code}\n}}\n") if bare else Candidate(header, code)
    return Candidate(header if names & {name for _, name in functions[:-1]} else before, code)


def _definitions(language: Language, text: str) -> list[tuple[int, str]]:
    """(position, name) of every function that ``text`` defines."""
    pattern = _C_LIKE if language.name in ("c", "cpp", "java") else language.definition
    matches = re.finditer(pattern, text, re.MULTILINE)
    return [(match.start(), next(name for name in match.groups() if name)) for match in matches]


PACKAGES = ("numpy",)
"""Imports of the known benchmarks' tests beside the standard library."""
AHEAD = 2
"""Programs in the queue for each worker."""
BATCH = 16
"""Programs prepared in one batch: Java compiles 16 in the time of four."""

Reading = Callable[[Problem, Sample], Candidate | Verdict]
"""The program of a sample, or a verdict for a sample without one."""


@dataclass(frozen=True)
class Judged:
    """A sample and its verdict."""

    sample: Sample
    verdict: Verdict


@dataclass(frozen=True)
class _Task:
    """A sample that can be run."""

    sample: Sample
    problem: Problem
    candidate: Candidate


@dataclass(frozen=True)
class FailureCause:
    """Samples that did not pass for one cause. ``task``: the first of them. The fields are JSON keys."""

    outcome: Outcome
    cause: str
    samples: int
    task: str


_EXCEPTION = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Interrupt|Iteration|Exit))\b")
_VARIABLE_PART = re.compile(r"'[^']*'|\"[^\"]*\"|\b\d+(?:\.\d+)?\b")


def failure_causes(results: Iterable[Judged]) -> list[FailureCause]:
    """The results that did not pass, grouped by outcome and cause, the most frequent first.

    The cause is the exception's name where the reason has one, else the reason, without the numbers and quoted names in
    which the reasons of a group differ.
    """
    groups: dict[tuple[Outcome, str], list[Judged]] = {}
    for result in results:
        outcome, reason = result.verdict.outcome, result.verdict.reason
        if outcome != "passed":
            exception = _EXCEPTION.search(reason)
            cause = exception[1] if exception else _VARIABLE_PART.sub("…", reason)
            groups.setdefault((outcome, excerpt(cause)), []).append(result)
    causes = []
    for (outcome, cause), group in groups.items():
        reasons = {result.verdict.reason for result in group}
        same = len(reasons) == 1 and "…" in cause
        causes.append(
            FailureCause(outcome, excerpt(reasons.pop()) if same else cause, len(group), group[0].sample.task)
        )
    return sorted(causes, key=lambda cause: -cause.samples)


def fenced_completions(results: Iterable[Judged]) -> int:
    """The number of completions that did not pass and have a fenced block of code, as replies of chat models do."""
    return sum(
        result.sample.form == "completion" and result.verdict.outcome != "passed" and bool(fenced_blocks(text))
        for result in results
        if "```" in (text := result.sample.text) or "~~~" in text
    )


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

    ``limits`` apply to each program, by default its language's; ``candidate`` turns a text into a program; ``workers``
    programs run at a time. The executor of this block of code, if there is one, runs them instead, each of its workers
    in a sandbox of its own. Samples that cannot be run (no such problem, no text) are ``invalid`` with the reason.
    Raises ``SandboxMissing`` without a sandbox unless ``unsafe`` is set, ``ToolchainMissing`` for a language without a
    toolchain, before any program runs.
    """
    queue = list(samples)
    unusable, groups = _tasks(problems, queue, candidate)
    executor = executors.current()
    for language in groups if executor is None else ():
        _check_toolchain(language)
    events(Event("start", "check", 0, len(queue)))
    done = 0

    def advance() -> None:
        events(Event("advance", "check", done, len(queue)))

    streams = [(judged for judged in unusable)]
    for language, tasks in groups.items():
        if executor is not None:
            streams.append(_by_executor(executor, tasks, limits, unsafe, advance))
            continue
        trial = _python if language == "python" else _program
        streams.append(trial(tasks, workers, limits, unsafe, advance))
    for stream in streams:
        with closing(stream):  # workers end at once when a listener stops the work
            for judged in stream:
                yield judged
                done += 1
                advance()
    events(Event("finish", "check", len(queue), len(queue)))


def problem_for(problems: Mapping[str, Problem], task: str) -> Problem | None:
    """The problem of a sample's id; MBPP's ids may be bare numbers."""
    return problems.get(task) or problems.get(f"Mbpp/{task}")


def _tasks(
    problems: Mapping[str, Problem], samples: Iterable[Sample], reading: Reading
) -> tuple[list[Judged], dict[str, list[_Task]]]:
    """Verdicts on samples that cannot be run, and the others by language."""
    unusable: list[Judged] = []
    groups: dict[str, list[_Task]] = {}
    for sample in samples:
        problem = problem_for(problems, sample.task)
        if problem is None:
            near = did_you_mean(sample.task, problems)
            reason = "there is no usable problem with this id" + (f"; {near}" if near else "")
            unusable.append(Judged(sample, Verdict("invalid", reason)))
            continue
        candidate = reading(problem, sample)
        if isinstance(candidate, Verdict):
            unusable.append(Judged(sample, candidate))
        else:
            groups.setdefault(problem.language, []).append(_Task(sample, problem, candidate))
    return unusable, groups


def _check_toolchain(language: str) -> None:
    missing = LANGUAGES.get(language).missing()
    if missing is not None:
        raise ToolchainMissing(f"programs in {language} cannot be run here", hint=missing)


def _python(
    tasks: Sequence[_Task], workers: int, limits: Limits | None, unsafe: bool, beat: Callable[[], None]
) -> Generator[Judged, None, None]:
    from ..sandbox.interpreter import PythonChecker  # here, so that a plan loads no thread pools

    jobs = map(_python_job, tasks)

    def listen(event: Event) -> None:
        if event.kind == "advance":
            beat()

    with PythonChecker(workers=workers, limits=limits, packages=_packages(tasks), unsafe=unsafe) as checker:
        for task, verdict in zip(tasks, checker.check(jobs, listen), strict=True):
            yield Judged(task.sample, verdict)


def _python_job(task: _Task) -> PythonJob:
    from ..sandbox.interpreter import PythonJob

    return PythonJob(
        prompt=task.candidate.before,
        completion=task.candidate.code,
        tests=task.problem.tests,
        entry_point=task.problem.entry_point,
    )


def _packages(tasks: Sequence[_Task]) -> list[str]:
    """The packages that the tests import."""
    return [name for name in PACKAGES if any(re.search(rf"\bimport {name}\b", task.problem.tests) for task in tasks)]


def _program(
    tasks: Sequence[_Task], workers: int, limits: Limits | None, unsafe: bool, beat: Callable[[], None]
) -> Generator[Judged, None, None]:
    from concurrent.futures import ThreadPoolExecutor

    language = LANGUAGES.get(tasks[0].problem.language)

    def verdict_of(program: Program, prepared: Future[None]) -> Verdict:
        prepared.result()
        return language.check(sandbox, program, limits=limits)

    with ThreadPoolExecutor(workers) as pool, command.Sandbox(unsafe=unsafe) as sandbox:
        queue: deque[tuple[_Task, Future[Verdict]]] = deque()
        try:
            for task, program, prepared in _prepared(
                tasks, lambda batch: pool.submit(language.prepare, sandbox, batch)
            ):
                queue.append((task, pool.submit(verdict_of, program, prepared)))
                if len(queue) >= AHEAD * workers:
                    first, future = queue.popleft()
                    yield Judged(first.sample, executors.await_result(future, beat))
            for last, future in queue:
                yield Judged(last.sample, executors.await_result(future, beat))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the sandbox, closed next, ends running programs


def _prepared(
    tasks: Sequence[_Task], prepare: Callable[[Sequence[Program]], Future[None]]
) -> Iterator[tuple[_Task, Program, Future[None]]]:
    """Each task with its program and the future of its preparation.

    The pool works in order, so no program waits for a preparation that has not begun; one worker prepares a batch while
    others run the batch before it.
    """
    previous: list[tuple[_Task, Program, Future[None]]] = []
    for start in range(0, len(tasks), BATCH):
        batch = [(task, program_of(task.problem, task.candidate)) for task in tasks[start : start + BATCH]]
        prepared = prepare([program for _, program in batch])
        yield from previous
        previous = [(task, program, prepared) for task, program in batch]
    yield from previous


CHECKS_PER_TASK = 16
"""Programs of an executor's task: in Python some tenths of a second."""


@dataclass(frozen=True)
class ProgramBatch:
    """Programs of one language for ``check_batch``, ``PythonJob`` in Python, with the arguments of ``judge``."""

    language: str
    programs: tuple[Any, ...]
    limits: Limits | None
    packages: tuple[str, ...]
    unsafe: bool


def check_batch(batch: ProgramBatch) -> list[Verdict]:
    """In a worker of an executor: the verdicts on some programs, in order.

    The sandbox is tested once per process, and its interpreters stay for later batches. Raises ``SandboxMissing`` and
    ``ToolchainMissing`` with the name of the machine: a worker without a sandbox runs nothing.
    """
    try:
        if batch.language == "python":
            return list(_warm_checker(batch.limits, batch.packages, batch.unsafe).check(batch.programs))
        _check_toolchain(batch.language)
        language = LANGUAGES.get(batch.language)
        with command.Sandbox(unsafe=batch.unsafe) as sandbox:
            language.prepare(sandbox, batch.programs)
            return [language.check(sandbox, program, limits=batch.limits) for program in batch.programs]
    except (SandboxMissing, ToolchainMissing) as error:
        where = f"worker on {socket.gethostname()}"
        raise type(error)(error.message, where=where, given=error.given, hint=error.hint) from error


@functools.lru_cache(maxsize=4)
def _warm_checker(limits: Limits | None, packages: tuple[str, ...], unsafe: bool) -> PythonChecker:
    """A checker of this process that ends with it."""
    from ..sandbox.interpreter import PythonChecker

    checker = PythonChecker(limits=limits, packages=packages, unsafe=unsafe)
    atexit.register(checker.close)
    return checker


def _by_executor(
    executor: executors.Executor,
    tasks: Sequence[_Task],
    limits: Limits | None,
    unsafe: bool,
    beat: Callable[[], None],
) -> Generator[Judged, None, None]:
    """The verdicts on programs of one language, by the workers of ``executor``."""
    language = tasks[0].problem.language
    packages = tuple(_packages(tasks)) if language == "python" else ()
    chunks = [tasks[start : start + CHECKS_PER_TASK] for start in range(0, len(tasks), CHECKS_PER_TASK)]
    batches = (
        ProgramBatch(language, tuple(_runnable(task) for task in chunk), limits, packages, unsafe) for chunk in chunks
    )
    for chunk, verdicts in zip(chunks, executors.ordered(executor, check_batch, batches, beat), strict=True):
        for task, verdict in zip(chunk, verdicts, strict=True):
            yield Judged(task.sample, verdict)


def _runnable(task: _Task) -> PythonJob | Program:
    return _python_job(task) if task.problem.language == "python" else program_of(task.problem, task.candidate)


def tallies(problems: Mapping[str, Problem], judged: Iterable[Judged]) -> dict[str, Tally]:
    """Numbers of samples and of correct ones of each problem with samples, in the problems' order.

    An ``invalid`` sample counts as wrong; an ``unjudged`` one is no evidence about the model and is not counted, nor is
    one of an unknown problem.
    """
    results: dict[str, list[bool]] = {}
    for item in judged:
        problem = problem_for(problems, item.sample.task)
        if problem is not None and item.verdict.outcome != "unjudged":
            results.setdefault(problem.id, []).append(item.verdict.outcome == "passed")
    return {task: Tally(len(results[task]), sum(results[task])) for task in problems if task in results}


def judge_once(
    path: Path,
    problems: Mapping[str, Problem],
    samples: Sequence[Sample],
    *,
    limits: Limits | None = None,
    candidate: Reading = candidate_of,
    force: bool = False,
    **options: Any,
) -> list[Judged]:
    """A verdict for each sample, in order: those stored in ``path``, and the others judged and appended to it.

    With ``force`` all samples are judged, and the stored verdicts are removed when the first new one arrives. Stored
    verdicts whose lines or other fields have changed in the file of samples are written again with these.
    ``options`` go to ``judge``, whose errors are raised here too; verdicts before an error stay stored.
    """
    with Verdicts(path) as store:
        keys = {sample: key_of(problem_for(problems, sample.task), sample, limits) for sample in samples}
        verdicts: dict[Sample, Verdict] = {}
        if not force:
            stored = {sample: store.find(sample, keys[sample]) for sample in samples}
            verdicts = {sample: verdict for sample, verdict in stored.items() if verdict is not None}
        missing = [sample for sample in samples if sample not in verdicts]
        # Closed on every exit, so that no worker outlives an error.
        with closing(judge(problems, missing, limits=limits, candidate=candidate, **options)) as stream:
            for judged in stream:
                if force and not verdicts:
                    store.clear()
                store.add(judged, keys[judged.sample])
                verdicts[judged.sample] = judged.verdict
        results = [Judged(sample, verdicts[sample]) for sample in samples]
        if store.has_other_origins(samples):
            store.replace((judged, keys[judged.sample]) for judged in results)
    return results


def cut_torn(path: Path) -> None:
    """Remove an incomplete last line of a killed process. For files of this package only."""
    if not path.exists():
        return
    with storage_errors(path), open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def key_of(problem: Problem | None, sample: Sample, limits: Limits | None) -> str:
    """16 hex digits of all that a verdict depends on."""
    content = [None if problem is None else asdict(problem), sample.form, sample.text, sample.finish]
    if sample.absence is not None:
        content.append(sample.absence)
    content.append(None if limits is None else asdict(limits))
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


class Verdicts:
    """A file of verdicts, appended one by one: one JSON object a line.

    Keys: task_id, draw, outcome, reason, cpu_seconds, key (``key_of``), and of samples from a file line and fields, its
    other fields. As a context manager it locks and reads the file, and removes an incomplete last line of a killed
    process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = Metrics(path)
        self._stored: dict[tuple[str, int], tuple[str, Verdict]] = {}
        self._origins: dict[tuple[str, int], dict[str, Any]] = {}

    def __enter__(self) -> Verdicts:
        check_verdicts(self.path)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path, "ab")
        try:
            if not lock(self._lock, self.path):
                raise DataError(
                    "another process writes these verdicts", where=self.path, hint="wait for it, or --out another file"
                )
            self._read()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._metrics.close()
        if not self.path.stat().st_size:
            self.path.unlink()  # no verdicts: no file
        self._lock.close()

    def find(self, sample: Sample, key: str) -> Verdict | None:
        """The stored verdict of the sample; None without one, and for an unjudged one.

        Raises ``DataError`` for one of another text, problem or limit: the file belongs to another command.
        """
        stored_key, verdict = self._stored.get((sample.task, sample.draw), (key, None))
        if stored_key != key:
            raise DataError(
                f"the verdict on draw {sample.draw} of {excerpt(sample.task)} is of another sample, problem or limit",
                where=self.path,
                hint="gradatim check --force runs all samples again; or --out another file",
            )
        return None if verdict is None or verdict.outcome == "unjudged" else verdict

    def clear(self) -> None:
        """Remove all stored verdicts."""
        with storage_errors(self.path):
            os.truncate(self.path, 0)
        self._stored.clear()
        self._origins.clear()

    def add(self, judged: Judged, key: str) -> None:
        """Append one verdict, without buffering."""
        self._metrics.append(_row(judged, key))

    def has_other_origins(self, samples: Iterable[Sample]) -> bool:
        """Whether a stored verdict on one of ``samples`` names another line or other fields than the sample has."""
        pairs = ((self._origins.get((sample.task, sample.draw)), sample.origin) for sample in samples)
        return any(stored is not None and stored != origin for stored, origin in pairs)

    def replace(self, results: Iterable[tuple[Judged, str]]) -> None:
        """Replace the content of the file, atomically, by these verdicts with their keys."""
        self._metrics.close()
        lines = [json.dumps(_row(judged, key), allow_nan=False) + "\n" for judged, key in results]
        write_atomically(self.path, "".join(lines).encode())

    def _read(self) -> None:
        """Read the last verdict on each sample; remove an incomplete line only after that."""
        for sample, entry, origin in _entries(self.path, self.path.read_bytes()):
            self._stored[sample], self._origins[sample] = entry, origin
        cut_torn(self.path)


def _row(judged: Judged, key: str) -> dict[str, Any]:
    """The line of a verdict in a file."""
    sample = judged.sample
    return {"task_id": sample.task, "draw": sample.draw, **asdict(judged.verdict), "key": key, **sample.origin}


def check_verdicts(path: Path) -> None:
    """Raise ``DataError`` when ``path`` exists and has other content than verdicts. Changes nothing."""
    if not path.exists():
        return
    try:
        for _ in _entries(path, read_input(path)):
            pass
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror, hint=_ANOTHER) from error


def read_verdicts_file(path: Path) -> list[tuple[str, Verdict]]:
    """(task, verdict) of every sample in a file of verdicts, the last one on each. ``DataError`` for another file."""
    stored = {sample: verdict for sample, (_, verdict), _ in _entries(path, read_input(path))}
    return [(task, verdict) for (task, _), verdict in stored.items()]


_Entry = tuple[tuple[str, int], tuple[str, Verdict], dict[str, Any]]
"""Task and draw, key and verdict, and ``Sample.origin``."""


def _entries(path: Path, content: bytes) -> Iterator[_Entry]:
    """The verdicts of a file's complete lines. Raises ``DataError`` for another line.

    An incomplete last line is skipped where ``Verdicts.add`` may have written it.
    """
    *lines, tail = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            verdict = Verdict(row["outcome"], str(row["reason"]), float(row["cpu_seconds"]))
            if verdict.outcome not in get_args(Outcome):
                raise ValueError
            origin = {name: row[name] for name in ("line", "fields") if name in row}
            yield (str(row["task_id"]), int(row["draw"])), (str(row["key"]), verdict), origin
        except DECODE_ERRORS as error:
            raise _not_verdicts(path, number) from error
    if tail and not _INCOMPLETE.match(tail) and not (lines and _PREFIX.startswith(tail[: len(_PREFIX)])):
        raise _not_verdicts(path, len(lines) + 1)


_ANOTHER = "--out another file"
_PREFIX = b'{"task_id": "'
_INCOMPLETE = re.compile(rb'\{"task_id": "(?:[^"\\]|\\.)*", "draw": \d+, "outcome": "')
"""Beginning of a line of ``Verdicts.add``, up to a key that no file of samples has."""


def _not_verdicts(path: Path, line: int) -> DataError:
    return DataError("this file holds other content than verdicts", where=f"{path}, line {line}", hint=_ANOTHER)
