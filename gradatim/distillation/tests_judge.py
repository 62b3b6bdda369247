"""The judge ``tests``: the sample's tests, run on the program that a completion makes.

A sample with a text in the column ``tests`` becomes a problem and its completion a sample of it, which
``evaluation.verdicts`` runs in a sandbox: Python by the checker whose verdict is out of the candidate's reach, the
other languages compiled and run. The verdict is passed, failed, timeout, invalid or unjudged; a sample without tests is
unjudged.

Tests that define ``check`` receive the last function that the prompt begins, or, when the prompt is in words, the last
one of the correct answer; all other tests are plain asserts after the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..evaluation.problems import Problem
from ..evaluation.samples import Sample
from ..evaluation.verdicts import judge
from ..options import strict
from ..sandbox.limits import Limits
from ..sandbox.verdict import Verdict
from ..stage import Events, ignore_events
from .answer_kind import begins_program, form_of, language_of
from .judge import Grader, View, distinct, spread, taken, unjudged

if TYPE_CHECKING:
    import pyarrow as pa

    from ..languages import Language

__all__ = ["RunTests", "run_tests"]


NO_TESTS = "the sample has no tests"
NO_LANGUAGE = "programs in this language cannot be run"


@strict("the judge 'tests'")
def run_tests(
    grader: Grader | None = None, /, *, workers: int = 1, seconds: float | None = None, unsafe: bool = False
) -> RunTests:
    """Run the samples' tests, ``workers`` at a time; ``seconds`` of CPU for each program, by default its language's;
    ``unsafe`` runs without a sandbox. Needs no teacher."""
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
class RunTests:
    """The judge ``tests`` with its options; see the module docstring."""

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
                views |= {int(result.sample.task): _view(result.verdict) for result in results}
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


def _view(verdict: Verdict) -> View:
    if verdict.outcome == "unjudged":
        return unjudged(verdict.reason)
    return View(float(verdict.passed), verdict.outcome, verdict.reason)
