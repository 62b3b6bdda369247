"""The suite ``functional``: programs that pass their tests, as pass@k.

The model writes one completion (``greedy``) or several (``sampled``) for each problem, each is run in a sandbox
(``verdicts``), and pass@k is estimated (``intervals``). The problems come from a file or a benchmark by name
(``problems``), or, without that option, from the samples of the run with a text in the column ``tests``.

With ``keep`` the raw samples and the verdicts stay in a folder, named after all that they depend on (the model's
weights, the problems, the options), and an interrupted evaluation resumes:

    FOLDER/<16 hex digits>/settings.json samples.jsonl verdicts.jsonl

CRUXEval has other prompts and shares the other steps (``cruxeval``).
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import DataError, RecipeError, WorkFailed
from ..model import prompt_format
from ..options import BatchSize, CpuSeconds, Unsafe, Workers, strict
from ..record import Metrics, Record
from ..renamed_keys import earlier_suite_options
from ..sandbox.limits import Limits
from ..stage import Counts, Event, Events, Model, Suite, SuiteResult, Verdicts, ignore_events
from .generation import Endpoint, Question, ServerOptions, Writing, identity, server_options, write
from .problems import Folds, Problem, ProblemSet, Sample, check_fold, read_problems, read_samples, row_name
from .statistics import SampleLimit, check_options, estimate, gravest, sample_indices
from .verdicts import Candidate, Judged, candidate_of, cut_torn, judge_once, tallies

if TYPE_CHECKING:
    import pyarrow as pa

    from ..sandbox.limits import Verdict


Protocol = Annotated[Literal["greedy", "sampled"], Field(description="Greedy decoding, or sampling at `temperature`.")]
NumSamples = Annotated[
    int, Field(description="Number of completions per problem; more than one requires `protocol: sampled`.")
]
PassAtK = Annotated[list[int] | None, Field(description="Values of k for pass@k, at most `num_samples`. Default: 1.")]
Temperature = Annotated[float, Field(description="Sampling temperature of `protocol: sampled`.")]
ChatReply = Annotated[
    bool, Field(description="Format prompts with the tokenizer's chat template and extract the code from the reply.")
]
OutputFolder = Annotated[
    str | None,
    Field(
        description="Folder for completions and verdicts, from which an interrupted evaluation resumes. Default: none."
    ),
]

STOPS = {
    "python": ("\ndef", "\nclass", "\nif", "\nprint", "\n#"),
    "java": ("\n    }",),
    **dict.fromkeys(("c", "cpp", "go", "javascript", "typescript"), ("\n}",)),
}
"""Stop strings after the function of a prompt: another function, a test, or text follows."""
CLOSINGS = {"java": "\n    }\n}\n", **dict.fromkeys(("c", "cpp", "go", "javascript", "typescript"), "\n}\n")}
"""The part of a stop string that belongs to the function."""
WHOLE_STOPS = ("\nassert", '\n"""', "\nprint", "\nif __name__")
"""Stop strings of problems with a whole program as answer."""

REQUEST = """\
Complete this {language} program so that it does what its description says. \
Reply with the whole program in one fenced block of code.

```{language}
{prompt}
```"""

_GROUPS = ("level", "band", "twin")
_EXAMPLES = 6
_SPEED = ("concurrency", "retries", "seconds", "key")
"""Options of ``server`` that do not change a model's text."""


@dataclass(frozen=True)
class SamplingOptions:
    """Options of sampling and execution that the suites share.

    They are keys of ``settings.json``, with the names of version 0.1.
    """

    protocol: Protocol = "greedy"
    num_samples: int = 1
    k: tuple[int, ...] = (1,)
    temperature: float = 0.8
    max_new_tokens: int = 512
    chat: bool = False
    keep: str | None = None
    limit: int | None = None
    batch: int | None = None
    workers: int = 1
    seconds: float | None = None
    unsafe: bool = False
    server: dict[str, Any] | None = None

    def checked(self, suite: str) -> SamplingOptions:
        """These options; ``RecipeError`` with every value out of range."""
        check_options(suite, limit=self.limit, batch=self.batch)
        faults = [
            f"{name}: must be 1 or more (given {value})"
            for name, value in (
                ("num_samples", self.num_samples),
                ("max_new_tokens", self.max_new_tokens),
                ("workers", self.workers),
            )
            if value < 1
        ]
        if self.temperature <= 0:
            faults.append(f"temperature: must be above 0 (given {self.temperature}); the protocol greedy has none")
        if self.seconds is not None and self.seconds <= 0:
            faults.append(f"seconds: must be above 0 (given {self.seconds})")
        if self.protocol == "greedy" and self.num_samples > 1:
            faults.append(
                f"num_samples: greedy has one text for each problem (given {self.num_samples}); protocol: sampled"
            )
        if not self.k or any(not 1 <= k <= self.num_samples for k in self.k):
            faults.append(f"k: every value must lie in 1 … num_samples = {self.num_samples} (given {list(self.k)})")
        if self.server is not None:
            server_options(**self.server)
        if faults:
            raise RecipeError(f"the suite {suite!r}: " + "; ".join(faults), faults=faults)
        return self

    @property
    def limits(self) -> Limits | None:
        return None if self.seconds is None else Limits(cpu_seconds=self.seconds)

    def writing(self, seed: int) -> Writing:
        """Settings of generation."""
        temperature = self.temperature if self.protocol == "sampled" else 0.0
        return Writing(self.max_new_tokens, temperature, self.chat, seed, self.batch, self.server)


@strict("the suite 'functional'")
def functional(
    *,
    problems: Annotated[
        str | None,
        Field(
            description="File or folder of problems, `humaneval` or `humaneval-x/LANGUAGE`. Default: the test "
            "samples of the run that have `tests`."
        ),
    ] = None,
    protocol: Protocol = "greedy",
    num_samples: NumSamples = 1,
    k: PassAtK = None,
    temperature: Temperature = 0.8,
    max_new_tokens: Annotated[int, Field(description="Maximum number of generated tokens.")] = 512,
    chat: ChatReply = False,
    stop: Annotated[
        list[str] | None, Field(description="Stop strings. Default: those that end a function of the language.")
    ] = None,
    keep: OutputFolder = None,
    folds: Folds = 1,
    fold: Annotated[int, Field(ge=0, description="The fold to evaluate on, from 0.")] = 0,
    limit: SampleLimit = None,
    batch: BatchSize = None,
    workers: Workers = 1,
    seconds: CpuSeconds = None,
    unsafe: Unsafe = False,
    server: ServerOptions = None,
) -> Suite:
    """Programs that pass their tests: pass@k, run in a sandbox. See ``evaluation.problems`` for the file formats."""
    options = SamplingOptions(
        protocol, num_samples, tuple(k or [1]), temperature, max_new_tokens, chat, keep, limit, batch, workers, seconds,
        unsafe, server,
    )  # fmt: skip
    check_fold("the suite 'functional'", folds, fold)
    return Functional(problems, None if stop is None else tuple(stop), options.checked("functional"), folds, fold)


@dataclass(frozen=True)
class Functional(Suite):
    """The suite ``functional`` with its options; see the module docstring."""

    accepts_endpoint = True

    problems: str | None
    stop: tuple[str, ...] | None
    options: SamplingOptions
    folds: int = 1
    fold: int = 0

    def __call__(
        self, student: Model | Endpoint, samples: pa.Table, *, seed: int, events: Events = ignore_events
    ) -> SuiteResult:
        """One result over all problems; ``samples`` is used only without ``problems``.

        ``student`` has ``model`` and ``tokenizer``, or is a ``generation.Endpoint``. Raises ``DataError`` without
        problems, ``SandboxMissing`` and ``ToolchainMissing`` when programs cannot be run on this machine.
        """
        if self.problems is None:
            problem_set, labels = problems_in(samples)
        else:
            problem_set, labels = read_problems(self.problems), {}
        problem_set = problem_set.part(lambda fold: fold == self.fold, self.folds)
        return measure("functional", student, problem_set, self._question, self.options, seed, events, labels=labels)

    def _question(self, problem: Problem, number: int) -> Question:
        if self.options.chat:
            return Question(problem.id, chat_request(problem), number)
        stop = self.stop
        closing = "" if problem.whole or stop is not None else CLOSINGS.get(problem.language, "")
        if stop is None:
            stop = WHOLE_STOPS if problem.whole else STOPS.get(problem.language, ())
        return Question(problem.id, problem.prompt, number, stop=stop, closing=closing)


def measure(
    suite: str,
    student: Model | Endpoint,
    problem_set: ProblemSet,
    question: Callable[[Problem, int], Question],
    options: SamplingOptions,
    seed: int,
    events: Events,
    *,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    candidate: Callable[[Problem, Sample], Candidate | Verdict] = candidate_of,
) -> SuiteResult:
    """Generate completions, run them, and count.

    ``question`` makes the request of a problem and its number; ``candidate`` turns a text into a program. ``labels``
    are further groups: {group: {problem: label}}.
    """
    started = time.perf_counter()
    if not options.chat and not isinstance(student, Endpoint):
        prompt_format.note_plain_prompts(student.tokenizer, suite, events)
    for row in problem_set.rejected:
        events(Event("note", "write", text=f"{problem_set.source}, row {row.row}{row_name(row)}: {row.cause}"))
    problems, judged = judged_samples(suite, student, problem_set, question, options, seed, events, candidate=candidate)
    groups = {"language": {problem.id: problem.language for problem in problems.values()}, **(labels or {})}
    groups["category"] = {problem.id: problem.category for problem in problems.values() if problem.category is not None}
    return _result(suite, options, problems, judged, groups, started)


def judged_samples(
    suite: str,
    student: Model | Endpoint,
    problem_set: ProblemSet,
    question: Callable[[Problem, int], Question],
    options: SamplingOptions,
    seed: int,
    events: Events,
    *,
    candidate: Callable[[Problem, Sample], Candidate | Verdict] = candidate_of,
) -> tuple[dict[str, Problem], list[Judged]]:
    """The problems of ``options.limit`` by id, and their completions with verdicts; see ``measure``."""
    ids = list(problem_set.problems)
    numbers = [int(index) for index in sample_indices(len(ids), options.limit, seed)]
    problems = {ids[number]: problem_set.problems[ids[number]] for number in numbers}
    prompts = [question(problem_set.problems[ids[number]], number) for number in numbers]
    questions = [replace(prompt, draw=draw) for draw in range(options.num_samples) for prompt in prompts]
    with ExitStack() as stack:
        folder = _folder(stack, suite, student, options, seed, prompts, problems)
        samples = _samples(folder, student, questions, options.writing(seed), events)
        execution: dict[str, Any] = {"workers": options.workers, "unsafe": options.unsafe, "events": events}
        judged = judge_once(
            folder / "verdicts.jsonl", problems, samples, limits=options.limits, candidate=candidate, **execution
        )
    return problems, judged


def chat_request(problem: Problem) -> str:
    """The message that requests a program for a problem from a chat model."""
    return REQUEST.format(language=problem.language, prompt=problem.prompt)


def problems_in(samples: pa.Table) -> tuple[ProblemSet, dict[str, dict[str, str]]]:
    """The rows of a table that have tests, and their labels: {group: {problem: label}}.

    A program is the row's prompt and the completion. Raises ``DataError`` when no row has tests.
    """
    if not samples.num_rows:
        raise DataError("there are no samples to evaluate on", where="evaluate", hint="problems: FILE, or humaneval")
    problems: dict[str, Problem] = {}
    labels: dict[str, dict[str, str]] = {name: {} for name in _GROUPS if name in samples.column_names}
    for number, row in enumerate(samples.to_pylist()):
        if not row.get("tests"):
            continue
        task = str(row.get("id") or number)
        functions = re.findall(r"^def\s+(\w+)", row["prompt"], re.MULTILINE)
        checks = re.search(r"^def\s+check\s*\(", row["tests"], re.MULTILINE)
        name = functions[-1] if functions and checks else None
        language, category = row.get("language") or "python", row.get("category")
        problems[task] = Problem(task, language, row["prompt"], row["tests"], entry_point=name, category=category)
        for group, members in labels.items():
            members[task] = "none" if row[group] is None else str(row[group])
    if not problems:
        raise DataError(
            "no sample has a text in the column 'tests'", where="evaluate", hint="problems: FILE, or humaneval"
        )
    return ProblemSet("the samples", problems), labels


def _folder(
    stack: ExitStack,
    suite: str,
    student: Model | Endpoint,
    options: SamplingOptions,
    seed: int,
    questions: Sequence[Question],
    problems: Mapping[str, Problem],
) -> Path:
    """The folder of this evaluation's texts and verdicts: locked, and named after all that they depend on."""
    if options.keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gradatim-")))
    content = [[asdict(question) for question in questions], [asdict(problem) for problem in problems.values()]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    free = ("keep", "batch", "workers", "unsafe", "limit")
    values = {name: value for name, value in earlier_suite_options(asdict(options)).items() if name not in free}
    server = {name: value for name, value in (values.pop("server") or {}).items() if name not in _SPEED}
    if server:  # left out where it is empty, so that folders of versions without this option resume
        values["server"] = server
    settings = {"suite": suite, "model": identity(student), "seed": seed, "questions": digest, **values}
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    record = stack.enter_context(Record(Path(options.keep) / name))
    record.once("settings.json", lambda: settings)
    return record.folder


def _samples(
    folder: Path, student: Model | Endpoint, questions: Sequence[Question], settings: Writing, events: Events
) -> list[Sample]:
    """The sample of each question, in order: stored ones of the folder, and new ones."""
    path = folder / "samples.jsonl"
    cut_torn(path)
    stored = read_samples(path).samples if path.exists() and path.stat().st_size else ()
    # Without their lines, as new samples: the verdicts of a resumed evaluation are those of an uninterrupted one.
    samples = {(sample.task, sample.draw): replace(sample, line=None) for sample in stored}
    missing = [question for question in questions if (question.task, question.draw) not in samples]
    file = Metrics(path)
    try:
        for group in write(student, missing, settings, events) if missing else ():
            for sample in group:
                file.append(sample.row)
                samples[sample.task, sample.draw] = sample
    finally:
        file.close()
    return [samples[question.task, question.draw] for question in questions]


def _result(
    suite: str,
    options: SamplingOptions,
    problems: Mapping[str, Problem],
    judged: Sequence[Judged],
    groups: Mapping[str, Mapping[str, str]],
    started: float,
) -> SuiteResult:
    """The verdicts as counts. Unjudged samples count as invalid, and are not in pass@k."""
    counts = {"all": _counts(judged, dict.fromkeys(problems, "all"))}
    counts |= {name: _counts(judged, labels) for name, labels in groups.items() if labels}
    ends = Counter(_outcome(item) for item in judged)
    counts["outcome"] = {
        name: Counts(ends[name] if name == "passed" else 0, ends[name])
        for name in ("passed", "failed", "timeout", "invalid")
    }
    by_problem = tallies(problems, judged)
    if not by_problem:
        reason = judged[0].verdict.reason if judged else "there are no samples"
        raise WorkFailed("no sample could be judged", where=suite, given=reason, hint="gradatim doctor")
    maximum = max(tally.samples for tally in by_problem.values())
    estimates = {k: estimate(by_problem, k) for k in (1, *options.k) if k <= maximum}
    scores = {
        f"pass@{k}": (result.value * result.equivalent, result.equivalent) for k, result in sorted(estimates.items())
    }
    # Samples of one problem are not independent: the interval of their share is that of pass@1.
    scores["accuracy"] = scores["pass@1"]
    shown = [*_passed(judged, True)[:_EXAMPLES], *_passed(judged, False)[:_EXAMPLES]]
    examples = tuple(_entry(problems, item, groups) for item in shown)
    verdicts, seconds = _verdicts(problems, judged, groups), time.perf_counter() - started
    texts = partial(_texts, problems, judged, groups)
    return SuiteResult(suite, options.protocol, counts, scores, examples, seconds, verdicts, texts=texts)


def _outcome(item: Judged) -> str:
    outcome = item.verdict.outcome
    return "invalid" if outcome == "unjudged" else outcome


def _verdicts(
    problems: Mapping[str, Problem], judged: Sequence[Judged], groups: Mapping[str, Mapping[str, str]]
) -> Verdicts:
    """The verdict on each problem; its completions are the units."""
    outcomes: dict[str, list[str]] = {}
    for item in judged:
        outcomes.setdefault(item.sample.task, []).append(_outcome(item))
    ids = tuple(task for task in problems if task in outcomes)
    rows = {task: row for row, task in enumerate(problems)}
    return Verdicts(
        ids=ids,
        rows=tuple(rows[task] for task in ids),
        outcomes=tuple(gravest(outcomes[task]) for task in ids),
        passed=tuple(outcomes[task].count("passed") for task in ids),
        total=tuple(len(outcomes[task]) for task in ids),
        labels={name: tuple(labels.get(task, "none") for task in ids) for name, labels in groups.items() if labels},
    )


def _counts(judged: Iterable[Judged], labels: Mapping[str, str]) -> dict[str, Counts]:
    totals: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for item in judged:
        label = labels.get(item.sample.task, "none")
        totals[label] += 1
        passed[label] += item.verdict.outcome == "passed"
    return {label: Counts(passed[label], totals[label]) for label in sorted(totals)}


def _passed(judged: Sequence[Judged], passed: bool) -> list[Judged]:
    return [item for item in judged if (item.verdict.outcome == "passed") is passed]


def _texts(
    problems: Mapping[str, Problem], judged: Sequence[Judged], groups: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """All completions as plain values; ``row`` is the position among the problems."""
    rows = {task: row for row, task in enumerate(problems)}
    for item in judged:
        entry = _entry(problems, item, groups)
        yield {"id": entry.pop("id"), "row": rows[item.sample.task], "draw": item.sample.draw, **entry}


def _entry(problems: Mapping[str, Problem], item: Judged, groups: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """A completion and its verdict as plain values."""
    return {
        "id": item.sample.task,
        "prompt": problems[item.sample.task].prompt,
        "expected": problems[item.sample.task].reference,
        "attempt": item.sample.text,
        "passed": item.verdict.outcome == "passed",
        "outcome": item.verdict.outcome,
        "reason": item.verdict.reason,
        **{name: labels.get(item.sample.task, "none") for name, labels in groups.items() if labels},
    }
