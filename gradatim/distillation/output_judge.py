"""Does the attempt say exactly what is right?

The notion is that of the suite ``output``: the text must be the answer, character for character. For TinyPy that is
what the program prints, so a verdict is a fact. Where the answer is a program that tests can try, an attempt that
differs from it may be right too: it is ``unjudged`` here. Nothing is run and nothing is forgiven: no blanks are
trimmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..options import strict
from ..stage import Events, ignore_events
from .judge import Grader, View, unjudged

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["output"]


NO_ANSWER = "there is no right answer to compare with"
OTHER_TEXT = "it differs from the answer, and a program that differs may be right too"
_SHOWN = 60


@strict("the judge 'output'")
def output(grader: Grader | None = None, /) -> Output:
    """Compares attempts with right answers; asks no teacher."""
    return Output()


@dataclass(frozen=True)
class Output:
    """The judge ``output``; see the module."""

    proves = True

    def __call__(self, samples: pa.Table, attempts: Sequence[str], *, events: Events = ignore_events) -> list[View]:
        """One view per row: 1 and ``passed``, 0 and ``failed``, or unjudged."""
        answers = samples.column("answer").to_pylist()
        tests = samples.column("tests").to_pylist() if "tests" in samples.column_names else [None] * len(answers)
        return [_view(*each) for each in zip(answers, tests, attempts, strict=True)]


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
