"""The judge ``static``: code quality of a completion without tests.

The second view of 2408.03680: ``languages.static_view`` checks whether the completion has code and all of it, whether
it parses, compiles and runs without an error, and counts the linter's warnings. The score is the mean of five terms:

    (complete + parses + compiles + runs + 1 / (1 + warnings)) / 5     each in {0, 1}; 0 after an earlier 0

*runs* is left out of the mean for code without an entry point (a C function without ``main``); without any code the
score is 0 and the verdict ``invalid``. ``passed`` means that all four checks hold; warnings only lower the score. The
verdict is an opinion: code that only defines a wrong function runs well. A completion that is a program's output
(TinyPy) is ``unjudged``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ToolchainMissing
from ..languages.static import StaticView, static_view
from ..options import strict
from ..sandbox.command import Sandbox
from ..sandbox.limits import Limits
from ..stage import Event, Events, ignore_events
from .answer_kind import asks_for_output, language_of, program_text
from .judge import Grader, View, distinct, spread, taken, unjudged
from .tests_judge import NO_LANGUAGE, check_running

if TYPE_CHECKING:
    import pyarrow as pa

    from ..languages import Language

__all__ = ["score_of", "static"]


NO_PROGRAM = "the answer is an output and no program"


@strict("the judge 'static'")
def static(
    grader: Grader | None = None, /, *, workers: int = 1, seconds: float | None = None, unsafe: bool = False
) -> Static:
    """Parse, compile and lint the code, and run it once; options as for the judge 'tests'. Needs no teacher."""
    check_running("static", workers, seconds)
    return Static(workers, None if seconds is None else Limits(cpu_seconds=seconds), unsafe)


@dataclass(frozen=True)
class Static:
    """The judge ``static`` with its options; see the module docstring."""

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

            with Sandbox(unsafe=self.unsafe) as sandbox, ThreadPoolExecutor(self.workers) as pool:
                results = pool.map(
                    lambda code: static_view(code[0], code[1], sandbox, limits=self.limits), codes.values()
                )
                try:
                    for number, view in zip(codes, results, strict=True):
                        views[number] = view_of(view)
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


def view_of(view: StaticView) -> View:
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
