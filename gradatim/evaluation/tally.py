"""Selection of samples for a suite, and counts of its results.

Every suite ends with one ``Attempt`` per item, and ``tally`` turns them into a ``SuiteResult``. Every item is in a
total: one that could not be evaluated counts under the outcome of its cause.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, RecipeError
from ..stage import Counts, SuiteResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = [
    "GROUPS",
    "Attempt",
    "Mode",
    "check_chat",
    "check_options",
    "check_samples",
    "example_indices",
    "program_texts",
    "sample_indices",
    "tally",
    "text_column",
]


Mode = Literal["greedy", "paper"]
"""A suite's protocol: the likeliest token each time, or sampling with the limits of 2407.10194."""

GROUPS = ("level", "band", "twin", "category")
"""Columns with counts for each of their values, where the table has them."""

_OUTCOMES = ("passed", "failed", "too_long", "invalid")
_EXAMPLES = 6


@dataclass(frozen=True)
class Attempt:
    """Result of one item of row ``row`` of the table: numbers of units that passed, failed, or were not evaluated.

    A unit is an output or a line, or a character in the suite ``token``. ``too_long``: beyond the student's context;
    ``invalid``: a character outside its vocabulary, or no correct answer for a comparison.
    """

    row: int
    prompt: str
    expected: str
    attempt: str = ""
    passed: int = 0
    failed: int = 0
    too_long: int = 0
    invalid: int = 0

    @property
    def total(self) -> int:
        return self.passed + self.failed + self.too_long + self.invalid

    @property
    def outcome(self) -> str:
        """The gravest outcome of the units: invalid, too_long, failed, or passed."""
        return next((name for name in reversed(_OUTCOMES[1:]) if getattr(self, name)), "passed")


def check_options(suite: str, **counts: int | None) -> None:
    """Raise ``RecipeError`` with every option of ``counts`` below one; None is valid."""
    numbers = {name: count for name, count in counts.items() if count is not None}
    faults = [f"{name}: must be 1 or more (given {count})" for name, count in numbers.items() if count < 1]
    if faults:
        raise RecipeError(f"the suite {suite!r}: " + "; ".join(faults), faults=faults)


def check_chat(suite: str, chat: bool, text: str) -> None:
    """Raise ``RecipeError`` for ``text: all`` with a chat template: the prompt is the user's message there."""
    if chat and text == "all":
        raise RecipeError(
            "with a chat template only answers are evaluated", where=f"the suite {suite!r}", given="text: all",
            hint="leave out text, or chat",
        )  # fmt: skip


def check_samples(samples: pa.Table) -> None:
    """Raise ``DataError`` for a table without rows, prompts or answers."""
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing:
        names = ", ".join(samples.column_names)
        raise DataError(f"the samples have no column {missing[0]!r}", where="evaluate", given=names)
    if not samples.num_rows:
        raise DataError("there are no samples to evaluate on", where="evaluate", hint="a table with rows")


def text_column(samples: pa.Table, name: str) -> list[str]:
    """A column as strings; missing values are empty."""
    return [value or "" for value in samples.column(name).to_pylist()]


def program_texts(samples: pa.Table, text: Literal["program", "all"]) -> list[str]:
    """Texts to complete: the prompt (the answer, for code without a prompt), or both together."""
    both = zip(text_column(samples, "prompt"), text_column(samples, "answer"), strict=True)
    return [prompt + answer if text == "all" else prompt or answer for prompt, answer in both]


def sample_indices(count: int, limit: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Sorted indices of ``limit`` of ``count`` items (all when None): the first of a permutation by ``seed``.

    A larger limit includes the items of a smaller one, so that a quick and a full evaluation agree on them.
    """
    import numpy as np

    if limit is None or limit >= count:
        return np.arange(count)
    generator = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, 2**64 - 1], dtype=np.uint64)))
    return np.sort(generator.permutation(count)[:limit])


def tally(
    suite: str,
    protocol: str,
    samples: pa.Table,
    attempts: Sequence[Attempt],
    *,
    started: float,
    scores: Mapping[str, tuple[float, int]] | None = None,
) -> SuiteResult:
    """The attempts as counts: ``all``, one group per present column of ``GROUPS``, and ``outcome``.

    ``counts["outcome"]`` always has the entries passed, failed, too_long and invalid.
    ``started`` is a reading of ``time.perf_counter``.
    """
    groups = {name: _labels(samples, name) for name in GROUPS if name in samples.column_names}
    counts = {"all": {"all": _counts(attempts)}}
    for name, labels in groups.items():
        members: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            members.setdefault(labels[attempt.row], []).append(attempt)
        counts[name] = {label: _counts(members[label]) for label in sorted(members)}
    ends = {name: sum(getattr(attempt, name) for attempt in attempts) for name in _OUTCOMES}
    counts["outcome"] = {name: Counts(end if name == "passed" else 0, end) for name, end in ends.items()}
    seconds = time.perf_counter() - started
    return SuiteResult(suite, protocol, counts, dict(scores or {}), _examples(samples, groups, attempts), seconds)


def example_indices(attempts: Sequence[Attempt]) -> list[int]:
    """Indices of the attempts that become examples: the first correct and the first wrong ones."""
    correct = [index for index, attempt in enumerate(attempts) if attempt.outcome == "passed" and attempt.total]
    wrong = [index for index, attempt in enumerate(attempts) if attempt.outcome != "passed"]
    return [*correct[:_EXAMPLES], *wrong[:_EXAMPLES]]


def _counts(attempts: Iterable[Attempt]) -> Counts:
    both = [(attempt.passed, attempt.total) for attempt in attempts]
    return Counts(sum(passed for passed, _ in both), sum(total for _, total in both))


def _labels(samples: pa.Table, name: str) -> list[str]:
    return ["none" if value is None else str(value) for value in samples.column(name).to_pylist()]


def _examples(
    samples: pa.Table, groups: Mapping[str, Sequence[str]], attempts: Sequence[Attempt]
) -> tuple[dict[str, Any], ...]:
    """The examples as plain values."""
    ids = samples.column("id") if "id" in samples.column_names else None
    return tuple(
        {
            "id": str(ids[attempt.row].as_py()) if ids is not None else str(attempt.row),
            "prompt": attempt.prompt,
            "expected": attempt.expected,
            "attempt": attempt.attempt,
            "passed": attempt.outcome == "passed",
            "outcome": attempt.outcome,
            **{name: labels[attempt.row] for name, labels in groups.items()},
        }
        for attempt in (attempts[index] for index in example_indices(attempts))
    )
