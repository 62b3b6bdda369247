"""Which samples did a student pass?

``read_passes`` reads it from a file of results, or from what a run has left: its feedback, which has a verdict on every
attempt at a cycle's questions, or else the few examples that its last evaluation kept. No student is asked here, and
what a difficulty has to do with it is a matter of ``correlation``.
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
    """Whether the sample of each id was passed; ``told`` says in words whose results these are."""

    by_id: Mapping[str, bool]
    told: str


def read_passes(path: str | Path) -> Passes:
    """What was passed, by a file of results (.parquet or .jsonl) or by the folder of a run.

    A file's columns: ``id``, and ``passed`` (true or false) or ``verdict`` (as in a run's feedback: ``passed`` or not;
    ``unjudged`` says nothing). A sample with several rows is passed when more than half of them are. Of a run, the
    feedback of its last cycle that has any counts, else the examples of its last stage. Raises ``DataError`` for a file
    that cannot be read or has not those columns, a row with something else in them, and a run without results.
    """
    path = Path(path)
    if not path.is_dir():
        return Passes(_of_file(path), f"Passed or not as {path.name} says.")
    asked = sorted(path.glob("cycle-*/feedback.parquet"))
    if asked:
        return Passes(_of_file(asked[-1]), f"Passed or not as judged after {asked[-1].parent.name} of {path.name}.")
    found = next(_with_examples(path), None)
    if found is None:
        raise DataError(
            "no run with results by sample", where=path, allowed="a run folder with feedback.parquet or evaluations"
        )
    told = f"the examples that the suite {found.suite} ({found.protocol}) kept, a few right and a few wrong ones"
    return Passes(
        {str(each["id"]): bool(each["passed"]) for each in found.examples},
        f"Passed or not by {told}, after the last stage of {path.name}: its shares of passed ones mean nothing.",
    )


def _with_examples(folder: Path) -> Iterator[SuiteResult]:
    """The evaluations of the last stage that kept examples; the one that decides is the first."""
    notes: list[str] = []
    stages = read_run(folder, "run", 0, notes, lessons=False).stages
    if notes:
        raise DataError("the run's results cannot be read", where=folder, given=notes[0])
    found = [each for each in (stages[-1].evaluations if stages else ()) if each.examples]
    yield from sorted(found, key=lambda each: (each.suite, each.protocol) != HEADLINE)


def _of_file(path: Path) -> dict[str, bool]:
    from ..table.formats import chunks_of, format_of

    where, counts = str(path), dict[str, list[int]]()
    for chunk in chunks_of(where, format_of(where), 65_536, _refused(where)):
        kind = next((name for name in ("passed", "verdict") if name in chunk.columns), None)
        if kind is None or "id" not in chunk.columns:
            allowed = "id, and passed or verdict"
            raise DataError("these are no results", where=where, given=", ".join(chunk.columns), allowed=allowed)
        names, verdicts = _plain(chunk.columns["id"]), _plain(chunk.columns[kind])
        for number, name, verdict in zip(chunk.numbers, names, verdicts, strict=True):
            if verdict == "unjudged":
                continue
            if name is None or not isinstance(verdict, bool if kind == "passed" else str):
                given = f"{kind} {verdict!r}"
                raise DataError("this row is no result", where=f"{where}, row {number}", given=given)
            told = counts.setdefault(str(name), [0, 0])
            told[0] += verdict is True or verdict == "passed"
            told[1] += 1
    return {name: 2 * passed > total for name, (passed, total) in counts.items()}


def _plain(values: Any) -> Any:
    return values if isinstance(values, list) else values.to_pylist()


def _refused(where: str) -> Any:
    from ..table.read import UNPARSED

    def refuse(row: int, cause: str, content: str) -> None:
        given = None if cause in UNPARSED else repr(content[:60])
        raise DataError(cause, where=f"{where}, row {row}", given=given)

    return refuse
