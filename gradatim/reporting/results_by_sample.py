"""Per-sample results: the samples that a model passed or failed.

``read_passes`` reads them from a file, or from a run: its feedback, with a verdict on every completion, or else the
examples that its last evaluation stored. ``correlation`` uses them to test difficulty metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..stage import SuiteResult
from .collect import read_run
from .summary import HEADLINE

__all__ = ["Passes", "read_passes"]


@dataclass(frozen=True)
class Passes:
    """Whether the model passed the sample of each id; ``description`` names the source of the results."""

    by_id: Mapping[str, bool]
    description: str


def read_passes(path: str | Path) -> Passes:
    """Per-sample results of a file (.parquet or .jsonl) or a run folder.

    Columns of a file: ``id``, and ``passed`` (boolean) or ``verdict`` (as in a run's feedback; ``unjudged`` rows are
    skipped). A sample with several rows is passed when more than half of them are. For a run: the feedback of the last
    cycle that has one, else the examples of the last stage. Raises ``DataError`` for an unreadable file, missing
    columns, invalid values, and a run without results.
    """
    path = Path(path)
    if not path.is_dir():
        return Passes(_of_file(path), f"Results of {path.name}.")
    feedback = sorted(path.glob("cycle-*/feedback.parquet"))
    if feedback:
        return Passes(_of_file(feedback[-1]), f"Verdicts after {feedback[-1].parent.name} of {path.name}.")
    result = next(_with_examples(path), None)
    if result is None:
        raise DataError(
            "no run with per-sample results", where=path, allowed="a run folder with feedback.parquet or evaluations"
        )
    return Passes(
        {str(example["id"]): bool(example["passed"]) for example in result.examples},
        f"Stored examples of the suite {result.suite} ({result.protocol}) after the last stage of {path.name}: a few "
        "correct and wrong ones, so the share passed is not an accuracy.",
    )


def _with_examples(folder: Path) -> Iterator[SuiteResult]:
    """The evaluations of the last stage with examples, the main one first."""
    notes: list[str] = []
    stages = read_run(folder, "run", 0, notes, examples=False).stages
    if notes:
        raise DataError("the run's results cannot be read", where=folder, given=notes[0])
    results = [result for result in (stages[-1].evaluations if stages else ()) if result.examples]
    yield from sorted(results, key=lambda result: (result.suite, result.protocol) != HEADLINE)


def _of_file(path: Path) -> dict[str, bool]:
    from ..table.formats import chunks_of, format_of

    where, counts = str(path), dict[str, list[int]]()
    for chunk in chunks_of(where, format_of(where), 65_536, _refused(where)):
        kind = next((name for name in ("passed", "verdict") if name in chunk.columns), None)
        if kind is None or "id" not in chunk.columns:
            allowed = "id, and passed or verdict"
            raise DataError(
                "a column is missing",
                where=where,
                given=", ".join(chunk.columns),
                allowed=allowed,
            )
        names, verdicts = _plain(chunk.columns["id"]), _plain(chunk.columns[kind])
        for number, name, verdict in zip(chunk.numbers, names, verdicts, strict=True):
            if verdict == "unjudged":
                continue
            if name is None or not isinstance(verdict, bool if kind == "passed" else str):
                given = f"{kind} {verdict!r}"
                raise DataError("invalid result", where=f"{where}, row {number}", given=given)
            tally = counts.setdefault(str(name), [0, 0])
            tally[0] += verdict is True or verdict == "passed"
            tally[1] += 1
    return {name: 2 * passed > total for name, (passed, total) in counts.items()}


def _plain(values: Any) -> Any:
    return values if isinstance(values, list) else values.to_pylist()


def _refused(where: str) -> Any:
    from ..table.read import UNPARSED

    def refuse(row: int, cause: str, content: str) -> None:
        given = None if cause in UNPARSED else repr(content[:60])
        raise DataError(cause, where=f"{where}, row {row}", given=given)

    return refuse
