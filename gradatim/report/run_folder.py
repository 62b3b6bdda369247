"""What does one run's folder say?

Reads the files that a run leaves, one function per shape, into ``RunData``. A file that is not there (yet) is no
fault; one that cannot be read, or has another shape, is named in ``notes`` and left out. It looks at one run only:
which runs make a study is ``collect``'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import read_input
from ..parsing import parse_json
from ..record import MISSHAPEN, fault_of
from ..results import decode_stage
from ..stage import StageResult
from .cycle_facts import read_cycles
from .data import Bands, Histogram, Point, RunData, TableFacts
from .designs import read_designs

__all__ = ["UNREADABLE", "read_json", "read_run"]

UNREADABLE = (DataError, OSError, *MISSHAPEN)


def read_run(folder: Path, arm: str, seed: int, notes: list[str], *, lessons: bool = True) -> RunData:
    """One run's folder; what cannot be read is named in ``notes`` and left out. ``lessons``: open tables."""
    stages = tuple(_stages(folder, notes))
    environment = read_json(folder / "environment.json", notes)
    environment = environment if isinstance(environment, Mapping) else {}
    finished = read_json(folder / "finished.json", notes)
    dry = finished.get("dry") if isinstance(finished, Mapping) else None
    tables = tuple(_table(path, notes) for path in sorted(folder.glob("cycle-*/table.json")))
    names = next((table.bands.names for table in tables if table.bands), ())
    return RunData(
        arm=arm,
        seed=seed,
        recipe=_text(folder / "recipe.yaml", notes),
        environment=environment,
        curve=tuple(_curve(folder / "metrics.jsonl", notes)),
        tables=tables,
        stages=stages,
        complete=(folder / "finished.json").is_file(),
        # Tables that cannot be read were told of above.
        cycles=read_cycles(folder, lambda path: read_json(path, []), notes, lessons=lessons),
        dry=None if dry is None else str(dry),
        designs=read_designs(folder, lambda path: read_json(path, notes), names, notes),
    )


def read_json(path: Path, notes: list[str]) -> Any:
    """The file's content; None with a note when it cannot be read, without one when it is not there (yet)."""
    try:
        return parse_json(read_input(path))
    except FileNotFoundError:
        return None
    except (DataError, OSError, ValueError) as error:
        notes.append(f"{_place(path)} cannot be read and is left out ({_why(error)}).")
        return None


def _text(path: Path, notes: list[str]) -> str:
    try:
        return read_input(path).decode("utf-8")
    except FileNotFoundError:
        return ""
    except (DataError, OSError, ValueError) as error:
        notes.append(f"{_place(path)} cannot be read and is left out ({_why(error)}).")
        return ""


def _why(error: Exception) -> str:
    match error:
        case DataError():
            return error.what
        case OSError(strerror=str() as why):
            return why
        case UnicodeDecodeError():
            return "not UTF-8"
    return fault_of(error)


def _place(path: Path) -> str:
    """The path from its arm on: where to look, without telling readers of the page about the machine."""
    cycle = next((i for i, part in enumerate(path.parts) if part.startswith("cycle-")), len(path.parts) - 1)
    return "/".join(path.parts[max(0, cycle - 2) :])


def _curve(path: Path, notes: list[str]) -> Iterator[Point]:
    lines = _text(path, notes).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            yield Point(
                run_tokens=int(row["run_tokens"]),
                cycle=int(row.get("cycle", 0)),
                stage=int(row.get("stage", 0)),
                loss=_finite(row.get("loss")),
                validation_loss=_finite(row.get("validation_loss")),
            )
        except UNREADABLE:
            if line.strip() and number < len(lines):  # the last line of a run at work may be half written
                notes.append(f"{_place(path)}, line {number} cannot be read and is left out.")


def _table(path: Path, notes: list[str]) -> TableFacts:
    content = read_json(path, notes) or {}
    try:
        more = {
            "validation samples": content.get("validation_rows"),
            "characters to learn from": content.get("characters"),
            "samples without a difficulty": (content.get("bands") or {}).get("unscored"),
        }
        return TableFacts(
            rows=content.get("rows"),
            test_rows=content.get("test_rows"),
            corpus=content.get("corpus"),
            guessed=(content.get("commonest") or {}).get("test"),
            levels=_integers(content.get("levels")),
            bands=_bands(content.get("bands")),
            histogram=_histogram(content.get("histogram")),
            facts={**more, **(content.get("facts") or {})},
        )
    except UNREADABLE as error:
        notes.append(f"{_place(path)} does not have the shape of a table's facts and is left out ({fault_of(error)}).")
        return TableFacts()


def _bands(content: Mapping[str, Any] | None) -> Bands | None:
    if not content:
        return None
    names = tuple(str(name) for name in content["names"])
    edges = tuple(float(edge) for edge in content.get("edges") or () if edge is not None)
    if len(edges) == len(names) + 1:  # written with the outer edges: only the inner ones part bands
        edges = edges[1:-1]
    return Bands(names, edges, tuple(int(count) for count in content["counts"]))


def _histogram(content: Mapping[str, Any] | None) -> Histogram | None:
    if not content or not content.get("counts"):
        return None
    edges, counts = tuple(map(float, content["edges"])), tuple(map(int, content["counts"]))
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(edges)} edges for {len(counts)} counts")
    return Histogram(str(content.get("metric", "difficulty")), edges, counts)


def _stages(folder: Path, notes: list[str]) -> Iterator[StageResult]:
    for path in sorted(folder.glob("cycle-*/stage-*/result.json")):
        content = read_json(path, notes)
        if content is None:
            continue
        try:
            yield decode_stage(content)
        except UNREADABLE as error:
            notes.append(f"{_place(path)} does not have the shape of a result and is left out ({fault_of(error)}).")


def _integers(content: Mapping[Any, Any] | None) -> dict[str, int]:
    return {str(name): int(count) for name, count in (content or {}).items()}


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
