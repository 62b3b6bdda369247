"""Log entries of a run folder: rows of ``metrics.jsonl`` and results of evaluations, in the order of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import evaluation
from ..errors import DataError
from ..files import read_input
from ..options import parse_json, parse_yaml
from ..record import DECODE_ERRORS, read_json
from ..results import decode_stage, decode_suite, initial_folder
from ..stage import SuiteResult

Position = tuple[int, int, int, int]
"""Cycle, stage, step of the stage, and number of the row among those of this step. Ordered as the entries are."""

BEFORE_TRAINING = (-1, 0, 0, 0)
AFTER_STAGE = 1 << 62
"""The step of the results of a stage, which follow all of its rows."""
PLACE = ("cycle", "stage", "name", "step", "tokens", "run_tokens", "evaluations")
"""Keys of a row of metrics that are no metrics."""


@dataclass(frozen=True)
class Entry:
    """Values for one log call. ``step``: optimizer steps since the start of the run."""

    position: Position
    step: int
    values: Mapping[str, float]


def entries(folder: Path, after: Position | None = None) -> list[Entry]:
    """The entries of the run in ``folder`` after a position, all without one; empty before the run has any.

    Only complete rows are read, so that a run in progress can be read. Rows that a resumed run writes again have the
    positions that they had before.
    """
    rows = list(_rows(folder / "metrics.jsonl"))
    steps: dict[tuple[int, int], int] = {}
    for (cycle, stage, step, _), _ in rows:
        steps[cycle, stage] = max(step, steps.get((cycle, stage), 0))
    first = _first_steps(steps)
    all_entries = [Entry(position, first[position[:2]] + position[2], _values(row)) for position, row in rows]
    all_entries += _stage_results(folder, first, steps, after)
    if all_entries and (after is None or after < BEFORE_TRAINING):
        values = _scores(
            decode_suite_file(path) for path in sorted((folder / initial_folder()).glob("evaluation-*.json"))
        )
        all_entries += [Entry(BEFORE_TRAINING, 0, values)] if values else []
    return sorted(
        (entry for entry in all_entries if after is None or entry.position > after), key=lambda entry: entry.position
    )


def decode_suite_file(path: Path) -> SuiteResult:
    """The result of an evaluation. Raises ``RunFolderError``."""
    result: SuiteResult = read_json(path, decode_suite)
    return result


def _rows(path: Path) -> Iterator[tuple[Position, Mapping[str, Any]]]:
    """Complete rows of the metrics with their positions.

    A line that is none was cut short by a full disk: it is skipped, as the run writes it again.
    """
    previous: tuple[int, int, int] | None = None
    number = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            row = parse_json(line) if line.endswith(b"\n") else {}
            place = int(row["cycle"]), int(row["stage"]), int(row["step"])
        except DECODE_ERRORS:
            continue
        number = number + 1 if place == previous else 0
        previous = place
        yield (*place, number), row


def _first_steps(steps: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """The optimizer steps of the run before each stage."""
    total, first = 0, {}
    for stage in sorted(steps):
        first[stage] = total
        total += steps[stage]
    return first


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    values = {f"progress/{name}": float(row[name]) for name in ("cycle", "stage")}
    values["progress/tokens"] = float(row["run_tokens"])
    for name, value in row.items():
        if name not in PLACE and isinstance(value, int | float):
            group, rest = (
                ("validation", name.removeprefix("validation_")) if name.startswith("validation_") else ("train", name)
            )
            values[f"{group}/{rest}"] = float(value)
    for counts in row.get("evaluations", ()):
        label = _label(str(counts["suite"]), str(counts["protocol"]), str(counts.get("split", "test")))
        values[label] = counts["passed"] / counts["total"] if counts["total"] else 0.0
    return values


def _label(suite: str, protocol: str, split: str) -> str:
    return f"evaluation/{suite}-{protocol}{'' if split == 'test' else f'-{split}'}"


def _scores(results: Iterable[SuiteResult]) -> dict[str, float]:
    """The scores of evaluations; accuracy has the name of the suite alone."""
    values = {}
    for result in results:
        label = _label(result.suite, result.protocol, result.split)
        for name, score in evaluation.summary(result)["scores"].items():
            values[label if name == "accuracy" else f"{label}/{name}"] = float(score["value"])
    return values


def _stage_results(
    folder: Path, first: Mapping[tuple[int, int], int], steps: Mapping[tuple[int, int], int], after: Position | None
) -> Iterator[Entry]:
    for path in sorted(folder.glob("cycle-*/stage-*/result.json")):
        match = re.search(r"cycle-(\d+)/stage-(\d+)-", path.as_posix())
        stage = (int(match[1]), int(match[2])) if match else None
        if stage is None or stage not in first or (after is not None and (*stage, AFTER_STAGE, 0) <= after):
            continue
        result = read_json(path, decode_stage)
        if values := _scores(result.evaluations):
            yield Entry((*stage, AFTER_STAGE, 0), first[stage] + steps[stage], values)


def configuration(folder: Path) -> dict[str, Any]:
    """The recipe and the environment of a run as flat names and plain values, lists as JSON."""
    flat: dict[str, Any] = {}
    try:
        _flatten("", parse_yaml(read_input(folder / "recipe.yaml")), flat)
    except (DataError, OSError, ValueError) as error:
        raise DataError("the recipe of this run cannot be read", where=folder / "recipe.yaml", given=error) from error
    path = folder / "environment.json"
    _flatten("environment.", read_json(path, dict) if path.exists() else {}, flat)
    return flat


def _flatten(prefix: str, content: Mapping[str, Any], flat: dict[str, Any]) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            _flatten(f"{prefix}{name}.", value, flat)
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            flat[f"{prefix}{name}"] = value if plain else json.dumps(value)
