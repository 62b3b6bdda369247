"""Does the program that an attempt makes pass the sample's tests?

A sample with a text in the column ``tests`` is a problem, its attempt a sample of it, and ``evaluate.judge`` tries it
behind walls: Python by the checker whose verdict no candidate can reach, the other languages compiled and run. The
verdict is its: passed, failed, timeout, invalid or unjudged. A sample without tests is unjudged.

Tests that define ``check`` are handed the last function that the prompt begins, or, when the prompt is in words, the
last one of the right answer; all other tests are plain asserts that stand after the program.
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
NO_LANGUAGE = "no program in this language can be tried"


@strict("the judge 'tests'")
def run_tests(
    grader: Grader | None = None, /, *, workers: int = 1, seconds: float | None = None, unsafe: bool = False
) -> RunTests:
    """Runs the samples' tests, ``workers`` at a time; ``seconds`` of CPU are each program's, its language's own if not
    given; ``unsafe`` goes on without walls. Asks no teacher."""
    check_running("tests", workers, seconds)
    return RunTests(workers, None if seconds is None else Limits(cpu_seconds=seconds), unsafe)


def check_running(part: str, workers: int, seconds: float | None) -> None:
    """Raises ``RecipeError`` with every value that does not fit."""
    faults = [f"workers: must be 1 or more (given {workers})"] if workers < 1 else []
    if seconds is not None and seconds <= 0:
        faults.append(f"seconds: must be above 0 (given {seconds})")
    if faults:
        raise RecipeError(f"the judge {part!r}: " + "; ".join(faults), faults=faults)


@dataclass(frozen=True)
class RunTests:
    """The judge ``tests`` with its options; see the module."""

    workers: int = 1
    limits: Limits | None = None
    unsafe: bool = False
    proves = True

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row.

        Raises ``SandboxMissing`` and ``ToolchainMissing`` when programs of these samples cannot be run on this machine.
        """
        rows, place = distinct(samples, attempts)
        views: dict[int, View] = {}
        problems: dict[str, Problem] = {}
        tried: list[Sample] = []
        for number, (fields, row) in enumerate(zip(taken(samples, rows).to_pylist(), rows, strict=True)):
            language = language_of(fields.get("language"))
            if not (fields.get("tests") or "").strip():
                views[number] = unjudged(NO_TESTS)
            elif language is None:
                views[number] = unjudged(NO_LANGUAGE)
            else:
                problems[str(number)] = problem_of(str(number), fields, language)
                form = form_of(fields["prompt"], attempts[row], language)
                tried.append(Sample(str(number), attempts[row], form))
        how: dict[str, Any] = {"workers": self.workers, "limits": self.limits, "unsafe": self.unsafe, "events": events}
        if tried:
            with closing(judge(problems, tried, **how)) as judged:
                views |= {int(each.sample.task): _view(each.verdict) for each in judged}
        return spread(views, place)


def problem_of(task: str, fields: Mapping[str, Any], language: Language) -> Problem:
    """The problem that a row with tests is."""
    prompt, answer, code = fields["prompt"], fields["answer"] or "", fields["tests"]
    begun = begins_program(prompt, language)
    name = None
    if language.name == "python" and re.search(r"^def\s+check\s*\(", code, re.MULTILINE):
        wanted = prompt if begun else language.extract(answer).code or answer
        found = re.findall(r"^def\s+(\w+)", wanted, re.MULTILINE)
        name = found[-1] if found else None
    return Problem(task, language.name, prompt, code, entry_point=name, whole=not begun)


def _view(verdict: Verdict) -> View:
    if verdict.outcome == "unjudged":
        return unjudged(verdict.reason)
    return View(float(verdict.passed), verdict.outcome, verdict.reason)
