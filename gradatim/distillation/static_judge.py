"""What can be said of an attempt's code without tests?

The second view of 2408.03680: ``languages.static_view`` asks whether there is code and all of it, whether it
parses, compiles and runs without an error, and what the linter warns of. The score is the mean of five answers:

    (whole + parses + compiles + runs + 1 / (1 + warnings)) / 5        whole, … in {0, 1}; 0 where an earlier one was no

*runs* is left out of the mean for code that has no beginning of its own (a C function without ``main``), and without
any code the score is 0 and the verdict ``invalid``. ``passed`` says that no answer was no; warnings cost points only.
That is an opinion: code that only defines a wrong function runs well. An attempt that is a program's output and no
program (TinyPy) is ``unjudged``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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


NO_PROGRAM = "what was asked for is an output and no program"


@strict("the judge 'static'")
def static(
    grader: Grader | None = None, /, *, workers: int = 1, seconds: float | None = None, unsafe: bool = False
) -> Static:
    """Asks parser, compiler and linter, and runs the code once; options as for the judge 'tests'. Asks no teacher."""
    check_running("static", workers, seconds)
    return Static(workers, None if seconds is None else Limits(cpu_seconds=seconds), unsafe)


@dataclass(frozen=True)
class Static:
    """The judge ``static`` with its options; see the module."""

    workers: int = 1
    limits: Limits | None = None
    unsafe: bool = False
    proves = False

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row. Raises ``SandboxMissing``, and ``ToolchainMissing`` before anything is run."""
        rows, place = distinct(samples, attempts)
        views: dict[int, View] = {}
        asked: dict[int, tuple[Language, str]] = {}
        for number, (fields, row) in enumerate(zip(taken(samples, rows).to_pylist(), rows, strict=True)):
            language = language_of(fields.get("language"))
            if asks_for_output(fields["prompt"]):
                views[number] = unjudged(NO_PROGRAM)
            elif language is None:
                views[number] = unjudged(NO_LANGUAGE)
            else:
                asked[number] = language, program_text(fields["prompt"], attempts[row], language)
        _need({language.name: language for language, _ in asked.values()}.values())
        views |= self._views(asked, events)
        return spread(views, place)

    def _views(self, asked: dict[int, tuple[Language, str]], events: Events) -> dict[int, View]:
        events(Event("start", "static", 0, len(asked)))
        views: dict[int, View] = {}
        if asked:
            with Sandbox(unsafe=self.unsafe) as sandbox, ThreadPoolExecutor(self.workers) as pool:
                found = pool.map(
                    lambda each: static_view(each[0], each[1], sandbox, limits=self.limits), asked.values()
                )
                try:
                    for number, view in zip(asked, found, strict=True):
                        views[number] = view_of(view)
                        events(Event("advance", "static", len(views), len(asked)))
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        events(Event("finish", "static", len(asked), len(asked)))
        return views


def _need(languages: Iterable[Language]) -> None:
    for language in languages:
        missing = language.missing()
        if missing is not None:
            raise ToolchainMissing(f"code in {language.title} cannot be looked at here", hint=missing)


def score_of(view: StaticView) -> float:
    """The score by the module's formula."""
    if not view.extracted.code.strip():
        return 0.0
    answers = [float(view.complete), float(view.parses), float(bool(view.compiles))]
    if view.runs is not None or not view.compiles:
        answers.append(float(bool(view.runs)))
    answers.append(1 / (1 + len(view.warnings)) if view.compiles else 0.0)
    return sum(answers) / len(answers)


def view_of(view: StaticView) -> View:
    """The score with its verdict, and a line that names the first answer that was no."""
    score = score_of(view)
    if not view.extracted.code.strip():
        return View(score, "invalid", "there is no code")
    fault = f": {view.errors[0]}" if view.errors else ""
    for good, told in (
        (view.complete, "the code is cut off"),
        (view.parses, f"does not parse{fault}"),
        (view.compiles, f"does not compile{fault}"),
        (view.runs is not False, f"does not run: {view.ending}"),
    ):
        if not good:
            return View(score, "timeout" if view.ending.startswith("timeout") else "failed", told)
    many = len(view.warnings)
    warned = f"{many} warning{'s' * (many > 1)}, the first: {view.warnings[0]}" if many else "no warnings"
    return View(score, "passed", f"{'runs' if view.runs else 'compiles'}; {warned}")
