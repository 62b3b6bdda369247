"""Does the code that a model writes do what its tests ask for?

For each problem the model writes one text (``greedy``) or several (``sampled``), each is tried behind walls
(``judge``), and pass@k is estimated (``passk``). The problems come from a file or a benchmark by name (``problems``),
or, without that option, from the samples that the suite is handed: those with a text in the column ``tests``.

With ``keep`` the raw samples and the verdicts stay in a folder, under a name made from everything they depend on (the
model's weights, the problems, the options), and an evaluation that was stopped goes on where it was:

    FOLDER/<16 hex digits>/settings.json samples.jsonl verdicts.jsonl

CRUXEval has questions of its own and shares the rest (``crux``).
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, RecipeError, WorkFailed
from ..options import strict
from ..record import Metrics, Record
from ..sandbox.limits import Limits
from ..stage import Counts, Event, Events, Suite, SuiteResult, ignore_events
from .generation import Question, Writing, identity, server_options, write
from .intervals import estimate
from .problems import Problem, ProblemSet, read_problems
from .program import Candidate, candidate_of
from .samples import Sample, read_samples, told
from .tally import check_options, chosen
from .verdicts import Judged, cut_torn, judge_once, tallies

if TYPE_CHECKING:
    import pyarrow as pa

    from ..sandbox.verdict import Verdict

__all__ = ["STOPS", "Drawing", "Protocol", "functional", "measure", "problems_in"]


Protocol = Literal["greedy", "sampled"]

STOPS = {
    "python": ("\ndef", "\nclass", "\nif", "\nprint", "\n#"),
    "java": ("\n    }",),
    **dict.fromkeys(("c", "cpp", "go", "javascript", "typescript"), ("\n}",)),
}
"""Where the function that a prompt begins has ended: what follows would be another one, a test, or talk."""
CLOSINGS = {"java": "\n    }\n}\n", **dict.fromkeys(("c", "cpp", "go", "javascript", "typescript"), "\n}\n")}
"""What of a stop belongs to the function."""
WHOLE_STOPS = ("\nassert", '\n"""', "\nprint", "\nif __name__")
"""The same for problems that ask for a whole program."""

REQUEST = """\
Complete this {language} program so that it does what its description says. \
Reply with the whole program in one fenced block of code.

```{language}
{prompt}
```"""

_GROUPS = ("level", "band", "twin")
_SHOWN = 6
_SPEED = ("concurrency", "retries", "seconds", "key")
"""Options of ``server`` that do not change what a model writes."""


@dataclass(frozen=True)
class Drawing:
    """How many texts are written for each problem, and how they are tried; the options that suites share."""

    protocol: Protocol = "greedy"
    samples: int = 1
    k: tuple[int, ...] = (1,)
    temperature: float = 0.8
    tokens: int = 512
    chat: bool = False
    keep: str | None = None
    limit: int | None = None
    batch: int | None = None
    workers: int = 1
    seconds: float | None = None
    unsafe: bool = False
    server: dict[str, Any] | None = None

    def checked(self, suite: str) -> Drawing:
        """This, or a ``RecipeError`` with every value that does not fit."""
        check_options(suite, limit=self.limit, batch=self.batch)
        faults = [
            f"{name}: must be 1 or more (given {value})"
            for name, value in (("samples", self.samples), ("tokens", self.tokens), ("workers", self.workers))
            if value < 1
        ]
        if self.temperature <= 0:
            faults.append(f"temperature: must be above 0 (given {self.temperature}); the protocol greedy has none")
        if self.seconds is not None and self.seconds <= 0:
            faults.append(f"seconds: must be above 0 (given {self.seconds})")
        if self.protocol == "greedy" and self.samples > 1:
            faults.append(f"samples: greedy writes one text a problem (given {self.samples}); protocol: sampled")
        if not self.k or any(not 1 <= k <= self.samples for k in self.k):
            faults.append(f"k: each must lie in 1 … samples = {self.samples} (given {list(self.k)})")
        if self.server is not None:
            server_options(**self.server)
        if faults:
            raise RecipeError(f"the suite {suite!r}: " + "; ".join(faults), faults=faults)
        return self

    @property
    def limits(self) -> Limits | None:
        return None if self.seconds is None else Limits(cpu_seconds=self.seconds)

    def writing(self, seed: int) -> Writing:
        """How the model is to write."""
        temperature = self.temperature if self.protocol == "sampled" else 0.0
        return Writing(self.tokens, temperature, self.chat, seed, self.batch, self.server)


@strict("the suite 'functional'")
def functional(
    *,
    problems: str | None = None,
    protocol: Protocol = "greedy",
    samples: int = 1,
    k: list[int] | None = None,
    temperature: float = 0.8,
    tokens: int = 512,
    chat: bool = False,
    stop: list[str] | None = None,
    keep: str | None = None,
    limit: int | None = None,
    batch: int | None = None,
    workers: int = 1,
    seconds: float | None = None,
    unsafe: bool = False,
    server: dict[str, Any] | None = None,
) -> Suite:
    """Programs that pass their tests: pass@k, run behind walls. See ``evaluate.problems`` for the files it reads."""
    drawing = Drawing(
        protocol, samples, tuple(k or [1]), temperature, tokens, chat, keep, limit, batch, workers, seconds, unsafe,
        server,
    )  # fmt: skip
    return Functional(problems, None if stop is None else tuple(stop), drawing.checked("functional"))


@dataclass(frozen=True)
class Functional:
    """The suite ``functional`` with its options; see the module."""

    problems: str | None
    stop: tuple[str, ...] | None
    drawing: Drawing

    def __call__(self, student: Any, samples: pa.Table, *, seed: int, events: Events = ignore_events) -> SuiteResult:
        """One result over all problems; ``samples`` is used only when no ``problems`` were named.

        ``student`` has ``model`` and ``tokenizer``, or is a ``generation.Endpoint``. Raises ``DataError`` without
        problems, ``SandboxMissing`` and ``ToolchainMissing`` when programs cannot be run here.
        """
        if self.problems is None:
            asked, labels = problems_in(samples)
        else:
            asked, labels = read_problems(self.problems), {}
        return measure("functional", student, asked, self._question, self.drawing, seed, events, labels=labels)

    def _question(self, problem: Problem, number: int) -> Question:
        if self.drawing.chat:
            return Question(problem.id, REQUEST.format(language=problem.language, prompt=problem.prompt), number)
        stop = self.stop
        closing = "" if problem.whole or stop is not None else CLOSINGS.get(problem.language, "")
        if stop is None:
            stop = WHOLE_STOPS if problem.whole else STOPS.get(problem.language, ())
        return Question(problem.id, problem.prompt, number, stop=stop, closing=closing)


def measure(
    suite: str,
    student: Any,
    asked: ProblemSet,
    question: Callable[[Problem, int], Question],
    drawing: Drawing,
    seed: int,
    events: Events,
    *,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    candidate: Callable[[Problem, Sample], Candidate | Verdict] = candidate_of,
) -> SuiteResult:
    """Let the student write, try what it wrote, and count.

    ``question`` turns a problem and its number into what the student is shown; ``candidate`` turns a text into a
    program. ``labels`` are further groups: {group: {problem: label}}.
    """
    started = time.perf_counter()
    for row in asked.rejected:
        events(Event("note", "write", text=f"{asked.source}, row {row.row}{told(row)}: {row.cause}"))
    ids = list(asked.problems)
    picked = [int(each) for each in chosen(len(ids), drawing.limit, seed)]
    problems = {ids[number]: asked.problems[ids[number]] for number in picked}
    once = [question(asked.problems[ids[number]], number) for number in picked]
    questions = [replace(each, draw=draw) for draw in range(drawing.samples) for each in once]
    with ExitStack() as stack:
        folder = _folder(stack, suite, student, drawing, seed, once, problems)
        texts = _texts(folder, student, questions, drawing.writing(seed), events)
        how: dict[str, Any] = {"workers": drawing.workers, "unsafe": drawing.unsafe, "events": events}
        judged = judge_once(
            folder / "verdicts.jsonl", problems, texts, limits=drawing.limits, candidate=candidate, **how
        )
    groups = {"language": {each.id: each.language for each in problems.values()}, **(labels or {})}
    groups["category"] = {each.id: each.category for each in problems.values() if each.category is not None}
    return _result(suite, drawing, problems, judged, groups, started)


def problems_in(samples: pa.Table) -> tuple[ProblemSet, dict[str, dict[str, str]]]:
    """The rows of a table that have tests, and their labels: {group: {problem: label}}.

    A program is the row's prompt and what the model writes after it. Raises ``DataError`` when no row has tests.
    """
    if not samples.num_rows:
        raise DataError("there are no samples to evaluate on", where="evaluate", hint="problems: FILE, or humaneval")
    problems: dict[str, Problem] = {}
    labels: dict[str, dict[str, str]] = {name: {} for name in _GROUPS if name in samples.column_names}
    for number, row in enumerate(samples.to_pylist()):
        if not row.get("tests"):
            continue
        task = str(row.get("id") or number)
        defined = re.findall(r"^def\s+(\w+)", row["prompt"], re.MULTILINE)
        checks = re.search(r"^def\s+check\s*\(", row["tests"], re.MULTILINE)
        name = defined[-1] if defined and checks else None
        language, category = row.get("language") or "python", row.get("category")
        problems[task] = Problem(task, language, row["prompt"], row["tests"], entry_point=name, category=category)
        for group, found in labels.items():
            found[task] = "none" if row[group] is None else str(row[group])
    if not problems:
        raise DataError(
            "no sample has a text in the column 'tests'", where="evaluate", hint="problems: FILE, or humaneval"
        )
    return ProblemSet("the samples", problems), labels


def _folder(
    stack: ExitStack,
    suite: str,
    student: Any,
    drawing: Drawing,
    seed: int,
    questions: Sequence[Question],
    problems: Mapping[str, Problem],
) -> Path:
    """Where this evaluation's texts and verdicts are kept: locked, and named after all that they depend on."""
    if drawing.keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gradatim-")))
    asked = hashlib.sha256(json.dumps([[asdict(each) for each in questions], _plain(problems)]).encode()).hexdigest()
    free = ("keep", "batch", "workers", "unsafe", "limit")
    said = {name: value for name, value in asdict(drawing).items() if name not in free}
    server = {name: value for name, value in (said.pop("server") or {}).items() if name not in _SPEED}
    if server:  # left out where it is empty, so that folders of versions without this option go on
        said["server"] = server
    settings = {"suite": suite, "model": identity(student), "seed": seed, "questions": asked, **said}
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    record = stack.enter_context(Record(Path(drawing.keep) / name))
    record.once("settings.json", lambda: settings)
    return record.folder


def _plain(problems: Mapping[str, Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems.values()]


def _texts(folder: Path, student: Any, questions: Sequence[Question], how: Writing, events: Events) -> list[Sample]:
    """What is written for each question, in their order: what is in the folder, and the rest anew."""
    path = folder / "samples.jsonl"
    cut_torn(path)
    there = read_samples(path).samples if path.exists() and path.stat().st_size else ()
    found = {(sample.task, sample.draw): sample for sample in there}
    missing = [each for each in questions if (each.task, each.draw) not in found]
    file = Metrics(path)
    try:
        for some in write(student, missing, how, events) if missing else ():
            for sample in some:
                file.append(sample.row)
                found[sample.task, sample.draw] = sample
    finally:
        file.close()
    return [found[each.task, each.draw] for each in questions]


def _result(
    suite: str,
    drawing: Drawing,
    problems: Mapping[str, Problem],
    judged: Sequence[Judged],
    groups: Mapping[str, Mapping[str, str]],
    started: float,
) -> SuiteResult:
    """The verdicts as counts. What could not be judged stands with the invalid, and is not in pass@k."""
    parts = {"all": _counted(judged, dict.fromkeys(problems, "all"))}
    parts |= {name: _counted(judged, of) for name, of in groups.items() if of}
    ends = Counter(_end(each) for each in judged)
    parts["outcome"] = {
        name: Counts(ends[name] if name == "passed" else 0, ends[name])
        for name in ("passed", "failed", "timeout", "invalid")
    }
    counted = tallies(problems, judged)
    if not counted:
        why = judged[0].verdict.reason if judged else "nothing was asked"
        raise WorkFailed("no sample could be judged", where=suite, given=why, hint="gradatim doctor")
    most = max(each.samples for each in counted.values())
    found = {k: estimate(counted, k) for k in (1, *drawing.k) if k <= most}
    scores = {f"pass@{k}": (each.value * each.equivalent, each.equivalent) for k, each in sorted(found.items())}
    # Draws of one problem are no samples of their own: the interval of their share is that of pass@1.
    scores["accuracy"] = scores["pass@1"]
    examples = _examples(problems, judged, groups)
    return SuiteResult(suite, drawing.protocol, parts, scores, examples, time.perf_counter() - started)


def _end(judged: Judged) -> str:
    outcome = judged.verdict.outcome
    return "invalid" if outcome == "unjudged" else outcome


def _counted(judged: Iterable[Judged], labels: Mapping[str, str]) -> dict[str, Counts]:
    totals: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for each in judged:
        label = labels.get(each.sample.task, "none")
        totals[label] += 1
        passed[label] += each.verdict.outcome == "passed"
    return {label: Counts(passed[label], totals[label]) for label in sorted(totals)}


def _examples(
    problems: Mapping[str, Problem], judged: Sequence[Judged], groups: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Any], ...]:
    """A few right and a few wrong texts as plain values."""
    right = [each for each in judged if each.verdict.outcome == "passed"][:_SHOWN]
    wrong = [each for each in judged if each.verdict.outcome != "passed"][:_SHOWN]
    return tuple(
        {
            "id": each.sample.task,
            "prompt": problems[each.sample.task].prompt,
            "expected": problems[each.sample.task].reference,
            "attempt": each.sample.text,
            "passed": each.verdict.outcome == "passed",
            "outcome": each.verdict.outcome,
            "reason": each.verdict.reason,
            **{name: of.get(each.sample.task, "none") for name, of in groups.items() if of},
        }
        for each in [*right, *wrong]
    )
