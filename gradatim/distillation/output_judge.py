"""The judge ``output``: exact match with the correct answer.

As in the suite ``output``, the text must equal the answer character for character, white space included. For TinyPy
the answer is the output of the program, so the verdict is a fact. Where the answer is a program with tests, a
completion that differs may be correct too: it is ``unjudged`` here. No code is run.
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


NO_ANSWER = "there is no correct answer to compare with"
OTHER_TEXT = "it differs from the answer, and a different program may be correct too"
_SHOWN = 60


@strict("the judge 'output'")
def output(grader: Grader | None = None, /) -> Output:
    """Compare completions with correct answers; needs no teacher."""
    return Output()


@dataclass(frozen=True)
class Output:
    """The judge ``output``; see the module docstring."""

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
