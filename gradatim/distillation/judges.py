"""The judges ``output``, ``tests``, ``static`` and ``rubric``, and the verification of answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..errors import RecipeError, ToolchainMissing
from ..evaluation.problems import Problem, Sample
from ..evaluation.verdicts import judge
from ..languages.python import StaticView, static_view
from ..options import CpuSeconds, Unsafe, Workers, strict
from ..sandbox import command
from ..sandbox.limits import Limits, Verdict
from ..stage import Event, Events, ignore_events
from ..table.rows import asks_for_output
from .judge import (
    Grader,
    Judge,
    Points,
    View,
    begins_program,
    distinct,
    form_of,
    language_of,
    need_grader,
    program_text,
    spread,
    taken,
    unjudged,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ..languages import Language
    from .rejected import Right


PassingPoints = Annotated[float, Field(description="Minimum number of points, of 6, of a passed completion.")]

NO_ANSWER = "there is no correct answer to compare with"
OTHER_TEXT = "it differs from the answer, and a different program may be correct too"
_SHOWN = 60


@strict("the judge 'output'")
def output(grader: Grader | None = None, /) -> Output:
    """Compare completions with correct answers; needs no teacher."""
    return Output()


@dataclass(frozen=True)
class Output(Judge):
    """The judge ``output``.

    As in the suite ``output``, the text must equal the answer character for character, white space included. For
    TinyPy the answer is the output of the program, so the verdict is a fact. Where the answer is a program with
    tests, a completion that differs may be correct too: it is ``unjudged`` here. No code is run.
    """

    proves = True

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row: 1 and ``passed``, 0 and ``failed``, or unjudged."""
        answers = samples.column("answer").to_pylist()
        tests = samples.column("tests").to_pylist() if "tests" in samples.column_names else [None] * len(answers)
        return [_view(*row) for row in zip(answers, tests, attempts, strict=True)]


def _view(answer: str | None, tests: str | None, attempt: str) -> View:
    if not answer:
        return unjudged(NO_ANSWER)
    if attempt == answer:
        return View(1.0, "passed", "exactly the answer")
    if tests:
        return unjudged(OTHER_TEXT)
    return View(0.0, "failed", f"{_short(attempt)} instead of {_short(answer)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


NO_TESTS = "the sample has no tests"
NO_LANGUAGE = "programs in this language cannot be run"


@strict("the judge 'tests'")
def run_tests(
    grader: Grader | None = None, /, *, workers: Workers = 1, seconds: CpuSeconds = None, unsafe: Unsafe = False
) -> RunTests:
    """Run the samples' tests; needs no teacher."""
    check_running("tests", workers, seconds)
    return RunTests(workers, None if seconds is None else Limits(cpu_seconds=seconds), unsafe)


def check_running(part: str, workers: int, seconds: float | None) -> None:
    """Raise ``RecipeError`` with every value out of range."""
    faults = [f"workers: must be 1 or more (given {workers})"] if workers < 1 else []
    if seconds is not None and seconds <= 0:
        faults.append(f"seconds: must be above 0 (given {seconds})")
    if faults:
        raise RecipeError(f"the judge {part!r}: " + "; ".join(faults), faults=faults)


@dataclass(frozen=True)
class RunTests(Judge):
    """The judge ``tests`` with its options.

    A sample with a text in the column ``tests`` becomes a problem and its completion a sample of it, which
    ``evaluation.verdicts`` runs in a sandbox: Python by the checker whose verdict is out of the candidate's reach,
    the other languages compiled and run. The verdict is passed, failed, timeout, invalid or unjudged; a sample
    without tests is unjudged.

    Tests that define ``check`` receive the last function that the prompt begins, or, when the prompt is in words,
    the last one of the correct answer; all other tests are plain asserts after the program.
    """

    workers: int = 1
    limits: Limits | None = None
    unsafe: bool = False
    proves = True

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row.

        Raises ``SandboxMissing`` and ``ToolchainMissing`` when programs of these samples cannot be run on this machine.
        """
        rows, index = distinct(samples, attempts)
        views: dict[int, View] = {}
        problems: dict[str, Problem] = {}
        candidates: list[Sample] = []
        for number, (fields, row) in enumerate(zip(taken(samples, rows).to_pylist(), rows, strict=True)):
            language = language_of(fields.get("language"))
            if not (fields.get("tests") or "").strip():
                views[number] = unjudged(NO_TESTS)
            elif language is None:
                views[number] = unjudged(NO_LANGUAGE)
            else:
                problems[str(number)] = problem_of(str(number), fields, language)
                form = form_of(fields["prompt"], attempts[row], language)
                candidates.append(Sample(str(number), attempts[row], form))
        if candidates:
            results = judge(
                problems,
                candidates,
                workers=self.workers,
                limits=self.limits,
                unsafe=self.unsafe,
                events=events,
            )
            with closing(results):
                views |= {int(result.sample.task): _view_tests_judge(result.verdict) for result in results}
        return spread(views, index)


def problem_of(task: str, fields: Mapping[str, Any], language: Language) -> Problem:
    """The problem of a row with tests."""
    prompt, answer, code = fields["prompt"], fields["answer"] or "", fields["tests"]
    is_code = begins_program(prompt, language)
    name = None
    if language.name == "python" and re.search(r"^def\s+check\s*\(", code, re.MULTILINE):
        code_with_function = prompt if is_code else language.extract(answer).code or answer
        names = re.findall(r"^def\s+(\w+)", code_with_function, re.MULTILINE)
        name = names[-1] if names else None
    return Problem(task, language.name, prompt, code, entry_point=name, whole=not is_code)


def _view_tests_judge(verdict: Verdict) -> View:
    if verdict.outcome == "unjudged":
        return unjudged(verdict.reason)
    return View(float(verdict.passed), verdict.outcome, verdict.reason)


NO_PROGRAM = "the answer is an output and no program"


@strict("the judge 'static'")
def static(
    grader: Grader | None = None, /, *, workers: Workers = 1, seconds: CpuSeconds = None, unsafe: Unsafe = False
) -> Static:
    """Parse, compile and lint the code, and run it once; needs no teacher."""
    check_running("static", workers, seconds)
    return Static(workers, None if seconds is None else Limits(cpu_seconds=seconds), unsafe)


@dataclass(frozen=True)
class Static(Judge):
    """The judge ``static`` with its options.

    The second view of 2408.03680: ``languages.static_view`` checks whether the completion has code and all of it,
    whether it parses, compiles and runs without an error, and counts the linter's warnings. The score is the mean
    of five terms:

        (complete + parses + compiles + runs + 1 / (1 + warnings)) / 5     each in {0, 1}; 0 after an earlier 0

    *runs* is left out of the mean for code without an entry point (a C function without ``main``); without any code the
    score is 0 and the verdict ``invalid``. ``passed`` means that all four checks hold; warnings only lower the score.
    The verdict is an opinion: code that only defines a wrong function runs well. A completion that is a program's
    output (TinyPy) is ``unjudged``.
    """

    workers: int = 1
    limits: Limits | None = None
    unsafe: bool = False
    proves = False

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row. Raises ``SandboxMissing``, and ``ToolchainMissing`` before anything is run."""
        rows, index = distinct(samples, attempts)
        views: dict[int, View] = {}
        codes: dict[int, tuple[Language, str]] = {}
        for number, (fields, row) in enumerate(zip(taken(samples, rows).to_pylist(), rows, strict=True)):
            language = language_of(fields.get("language"))
            if asks_for_output(fields["prompt"]):
                views[number] = unjudged(NO_PROGRAM)
            elif language is None:
                views[number] = unjudged(NO_LANGUAGE)
            else:
                codes[number] = language, program_text(fields["prompt"], attempts[row], language)
        _need({language.name: language for language, _ in codes.values()}.values())
        views |= self._views(codes, events)
        return spread(views, index)

    def _views(self, codes: dict[int, tuple[Language, str]], events: Events) -> dict[int, View]:
        events(Event("start", "static", 0, len(codes)))
        views: dict[int, View] = {}
        if codes:
            from concurrent.futures import ThreadPoolExecutor  # here, so that a plan does not load it

            with command.Sandbox(unsafe=self.unsafe) as sandbox, ThreadPoolExecutor(self.workers) as pool:
                results = pool.map(
                    lambda code: static_view(code[0], code[1], sandbox, limits=self.limits), codes.values()
                )
                try:
                    for number, view in zip(codes, results, strict=True):
                        views[number] = static_judgement(view)
                        events(Event("advance", "static", len(views), len(codes)))
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        events(Event("finish", "static", len(codes), len(codes)))
        return views


def _need(languages: Iterable[Language]) -> None:
    for language in languages:
        missing = language.missing()
        if missing is not None:
            raise ToolchainMissing(f"code in {language.title} cannot be checked here", hint=missing)


def score_of(view: StaticView) -> float:
    """The score by the formula of the module docstring."""
    if not view.extracted.code.strip():
        return 0.0
    terms = [float(view.complete), float(view.parses), float(bool(view.compiles))]
    if view.runs is not None or not view.compiles:
        terms.append(float(bool(view.runs)))
    terms.append(1 / (1 + len(view.warnings)) if view.compiles else 0.0)
    return sum(terms) / len(terms)


def static_judgement(view: StaticView) -> View:
    """The score with its verdict, and one line that names the first check that failed."""
    score = score_of(view)
    if not view.extracted.code.strip():
        return View(score, "invalid", "there is no code")
    fault = f": {view.errors[0]}" if view.errors else ""
    for passed, message in (
        (view.complete, "the code is cut off"),
        (view.parses, f"does not parse{fault}"),
        (view.compiles, f"does not compile{fault}"),
        (view.runs is not False, f"does not run: {view.ending}"),
    ):
        if not passed:
            return View(score, "timeout" if view.ending.startswith("timeout") else "failed", message)
    count = len(view.warnings)
    warnings = f"{count} warning{'s' * (count > 1)}, the first: {view.warnings[0]}" if count else "no warnings"
    return View(score, "passed", f"{'runs' if view.runs else 'compiles'}; {warnings}")


MAX_POINTS = 6.0
"""Points of a perfect completion."""
UNREADABLE = "the teacher's reply has no readable points"
OUTSIDE = "the teacher's points are outside 0 … 6"


@strict("the judge 'rubric'")
def rubric(grader: Grader | None = None, /, *, passing: PassingPoints = 5.0) -> Rubric:
    """Request the teacher's points for each completion."""
    check_passing("rubric", passing)
    return Rubric(need_grader("rubric", grader), passing)


def check_passing(part: str, passing: float) -> None:
    """Raise ``RecipeError`` when ``passing`` is out of range."""
    if not 0 < passing <= MAX_POINTS:
        raise RecipeError("points out of range", where=f"the judge {part!r}", given=passing, allowed="(0, 6]")


@dataclass(frozen=True)
class Rubric(Judge):
    """The judge ``rubric`` with its options.

    The rubric of 2408.03680: basic functionality 0 or 2 points; boundary checks, requirement coverage, readability
    and coding practices 0 or 1 each; the analysis comes before the points. The teacher repeats a request once when
    its reply is unreadable; None after that is ``unjudged`` here. The score is points / 6. ``passed`` is an
    opinion: at least ``passing`` points.
    """

    grader: Grader
    passing: float = 5.0
    proves = False
    teacher_share = 1.0

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row; equal questions with equal completions are requested once."""
        rows, index = distinct(samples, attempts)
        events(Event("start", "rubric", 0, len(rows)))
        grades = self.grader.rubric(taken(samples, rows), [attempts[row] for row in rows]) if rows else []
        views = [rubric_view(grade, self.passing) for grade in grades]
        events(Event("finish", "rubric", len(rows), len(rows)))
        return spread(views, index)


def rubric_view(grade: Points | None, passing: float) -> View:
    """The view of a teacher's grade."""
    if grade is None:
        return unjudged(UNREADABLE)
    if not 0 <= grade.points <= MAX_POINTS:
        return unjudged(OUTSIDE)
    verdict = "passed" if grade.points >= passing else "failed"
    return View(grade.points / MAX_POINTS, verdict, f"{grade.points:g} of 6: {grade.analysis}")  # type: ignore[arg-type]


def proof(judge: Judge, events: Events = ignore_events) -> Right:
    """A verifier made from ``judge``. Raises ``RecipeError`` for a judge of opinion.

    ``rejected`` accepts a rejected answer only when it is not proved correct. A ``Right`` takes samples and one
    text for each and returns True, False or None in order. It is made from the judges that prove; their unjudged
    texts are undecided, and judges of opinion (rubric, static) are refused.
    """
    if not judge.proves:
        raise RecipeError("this judge gives opinions, which verify nothing", given=type(judge).__name__.lower())

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        return [_decision(view) for view in judge(samples, attempts, events=events)]

    return right


def by_output() -> Right:
    """Verification by comparison with the correct answer; see ``output_judge``."""
    return proof(Output())


def by_tests(
    *, workers: int = 1, seconds: float | None = None, unsafe: bool = False, events: Events = ignore_events
) -> Right:
    """Verification by the samples' tests; options and errors as for the judge ``tests``."""
    return proof(run_tests(workers=workers, seconds=seconds, unsafe=unsafe), events)


def first_decision(*rights: Right) -> Right:
    """The decision of the first of ``rights`` that has one; later ones receive only undecided answers."""

    def right(samples: pa.Table, attempts: Sequence[str]) -> list[bool | None]:
        decisions: list[bool | None] = [None] * len(attempts)
        for verifier in rights:
            rows = [row for row, decision in enumerate(decisions) if decision is None]
            if not rows:
                break
            results = verifier(samples.take(rows), [attempts[row] for row in rows])
            for row, decision in zip(rows, results, strict=True):
                decisions[row] = decision
        return decisions

    return right


def _decision(view: View) -> bool | None:
    return None if view.verdict == "unjudged" else view.verdict == "passed"
