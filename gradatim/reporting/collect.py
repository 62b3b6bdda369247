"""Readers of run folders and studies.

``read_run`` reads the files of one run into ``RunData``; ``collect`` reads studies (``study.json`` and
``<arm>/seed-<n>/``) and single runs into ``StudyData``. The readers change nothing and take no lock, so runs in
progress can be read. A missing file is no error; an unreadable or malformed one is skipped with a note that the
report shows. Only a folder without any run is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..errors import DataError, RunFolderError
from ..experiment.recipe_files import LARGEST_RECIPE
from ..files import read_input
from ..options import parse_json, parse_yaml
from ..record import DECODE_ERRORS, fault_of
from ..results import decode_stage
from ..stage import Counts, StageResult
from .cycles import read_cycles, read_designs
from .data import Arm, Bands, Histogram, Point, RunData, StudyData, TableFacts

UNREADABLE = (DataError, OSError, *DECODE_ERRORS)


def read_run(folder: Path, arm: str, seed: int, notes: list[str], *, examples: bool = True) -> RunData:
    """The run in ``folder``; unreadable files are noted and skipped. ``examples``: also read example questions."""
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
        # Unreadable tables are already in the notes.
        cycles=read_cycles(folder, lambda path: read_json(path, []), notes, examples=examples),
        dry=None if dry is None else str(dry),
        designs=read_designs(folder, lambda path: read_json(path, notes), names, notes),
        folder=folder,
    )


def read_json(path: Path, notes: list[str]) -> Any:
    """The content of the file; None without a file, and with a note when it is unreadable."""
    try:
        return parse_json(read_input(path))
    except FileNotFoundError:
        return None
    except (DataError, OSError, ValueError) as error:
        notes.append(f"{_short(path)} is unreadable and is skipped ({_cause(error)}).")
        return None


def _text(path: Path, notes: list[str]) -> str:
    try:
        return read_input(path).decode("utf-8")
    except FileNotFoundError:
        return ""
    except (DataError, OSError, ValueError) as error:
        notes.append(f"{_short(path)} is unreadable and is skipped ({_cause(error)}).")
        return ""


def _cause(error: Exception) -> str:
    match error:
        case DataError():
            return error.message
        case OSError(strerror=str() as cause):
            return cause
        case UnicodeDecodeError():
            return "not UTF-8"
    return fault_of(error)


def _short(path: Path) -> str:
    """The path from the arm folder on, without the machine's folders above it."""
    cycle = next((i for i, name in enumerate(path.parts) if name.startswith("cycle-")), len(path.parts) - 1)
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
            if line.strip() and number < len(lines):  # the last line of a run in progress may be incomplete
                notes.append(f"{_short(path)}, line {number} is unreadable and is skipped.")


def _table(path: Path, notes: list[str]) -> TableFacts:
    content = read_json(path, notes) or {}
    try:
        counts = {
            "validation samples": content.get("validation_rows"),
            "training characters": content.get("characters"),
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
            facts={**counts, **(content.get("facts") or {})},
        )
    except UNREADABLE as error:
        notes.append(f"{_short(path)} is malformed and is skipped ({fault_of(error)}).")
        return TableFacts()


def _bands(content: Mapping[str, Any] | None) -> Bands | None:
    if not content:
        return None
    names = tuple(str(name) for name in content["names"])
    edges = tuple(float(edge) for edge in content.get("edges") or () if edge is not None)
    if len(edges) == len(names) + 1:  # stored with the outer edges; only the inner ones are thresholds
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
            notes.append(f"{_short(path)} is malformed and is skipped ({fault_of(error)}).")


def _integers(content: Mapping[Any, Any] | None) -> dict[str, int]:
    return {str(name): int(count) for name, count in (content or {}).items()}


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


@dataclass
class _Collection:
    """The collection of the folders read so far; arms and seeds keep their order of appearance."""

    title: str | None = None
    baseline: str | None = None
    arms: dict[str, Arm] = field(default_factory=dict)
    seeds: dict[int, None] = field(default_factory=dict)
    controls: dict[str, None] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    runs: dict[tuple[str, int], RunData] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def collect(folders: Path | str | Iterable[Path | str]) -> StudyData:
    """Read one or more study or run folders as one study.

    Raises ``RunFolderError`` for a folder without a run, ``DataError`` when two folders have the same arm and seed or
    different baselines. All other problems become notes in ``StudyData.notes``.
    """
    paths = [Path(folders)] if isinstance(folders, Path | str) else [Path(folder) for folder in folders]
    collection = _Collection()
    for path in paths:
        if (path / "study.json").is_file():
            _add_study(collection, path)
        elif _is_run(path):
            _add_run(collection, path, *_identity(path, collection.notes))
        else:
            raise RunFolderError(
                "no run in this folder",
                where=path,
                allowed="a study (study.json) or a run (recipe.yaml or cycle-00)",
                hint="check the path, or start one with `gradatim run` or `gradatim study`",
            )
    if collection.baseline is None and len(collection.arms) > 1 and "baseline" in collection.arms:
        collection.baseline = "baseline"
        collection.notes.append("No study.json names the baseline; the arm “baseline” is used.")
    _check_same_test(collection)
    _count_restarts(collection)
    return StudyData(
        title=collection.title or " and ".join(_name(path.resolve()) for path in paths) or "nothing",
        arms=tuple(collection.arms.values()),
        seeds=tuple(sorted(collection.seeds)),
        runs=tuple(collection.runs.values()),
        baseline=collection.baseline,
        controls=tuple(collection.controls),
        restarts=collection.restarts,
        notes=tuple(collection.notes),
    )


def _count_restarts(collection: _Collection) -> None:
    """Add the restarts of arms with an LLM-designed schedule: one fewer than the stages of a run."""
    for arm in collection.arms if collection.restarts else ():
        stages = [len(run.stages) for run in collection.runs.values() if run.arm == arm]
        if arm not in collection.restarts and stages:
            collection.restarts[arm] = max(stages) - 1


def _add_study(collection: _Collection, folder: Path) -> None:
    try:
        study = _Study.model_validate(read_json(folder / "study.json", collection.notes))
    except ValidationError as error:
        raise DataError(
            "study.json cannot be read",
            where=folder,
            given=fault_of(error),
            hint="start the same `gradatim study` again",
        ) from error
    collection.title = collection.title or study.title or _name(folder.resolve())
    baseline = study.baseline
    if collection.baseline and baseline and baseline != collection.baseline:
        raise DataError(
            "these studies have different baselines", where=folder, given=baseline, allowed=collection.baseline
        )
    collection.baseline = collection.baseline or baseline
    collection.controls.update(dict.fromkeys(study.controls))
    collection.restarts.update(study.restarts)
    for name, changed in study.differences.items():
        collection.notes.append(
            f"{name} differs from {baseline} in more than the schedule: {'; '.join(map(str, changed))}."
        )
    collection.seeds.update(dict.fromkeys(study.seeds))
    for arm in study.arms:
        collection.arms.setdefault(arm.name, Arm(arm.name, arm.title or arm.name))
        for seed in study.seeds:
            if (run := folder / arm.name / f"seed-{seed}").is_dir():
                _add_run(collection, run, arm.name, seed)


class _StudyArm(BaseModel):
    name: Annotated[str, Field(pattern=r"^[^/\x00]*[^/\x00.][^/\x00]*$")]
    title: str | None = None


class _Study(BaseModel):
    """The content of ``study.json``."""

    title: str | None = None
    baseline: str | None = None
    controls: list[str] = []
    restarts: dict[str, Annotated[int, Field(ge=0)]] = {}
    differences: dict[str, list[str]] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=10_000)] = []
    arms: list[_StudyArm] = []


def _add_run(collection: _Collection, folder: Path, arm: str, seed: int, title: str = "") -> None:
    if (arm, seed) in collection.runs:
        raise DataError(
            f"two runs have arm {arm!r} and seed {seed}", where=folder, hint="report on one of them at a time"
        )
    collection.arms.setdefault(arm, Arm(arm, title or arm))
    collection.seeds.setdefault(seed)
    first = not any(name == arm for name, _ in collection.runs)  # examples come from one run of each arm
    run = collection.runs[arm, seed] = read_run(folder, arm, seed, collection.notes, examples=first)
    if run.dry is not None:
        cycles = 1 + max((stage.cycle for stage in run.stages), default=0)
        count = "1 cycle" if cycles == 1 else f"{cycles} cycles"
        collection.notes.append(
            f"{collection.arms[arm].title}, seed {seed}: ended after {count}, below its budget: {run.dry}."
        )


def _is_run(folder: Path) -> bool:
    signs = ("recipe.yaml", "metrics.jsonl")
    return any((folder / sign).is_file() for sign in signs) or any(folder.glob("cycle-*"))


def _identity(folder: Path, notes: list[str]) -> tuple[str, int, str]:
    """Arm, seed and title of a single run, from its path ``<arm>/seed-<n>`` and its recipe."""
    folder = folder.resolve()
    name = _name(folder)
    try:
        recipe = parse_yaml(read_input(folder / "recipe.yaml", LARGEST_RECIPE))
        seed, title = int(recipe["seed"]), str(recipe.get("title") or "")
    except UNREADABLE:
        seed, title = None, ""
    if match := re.fullmatch(r"seed-(\d{1,18})", folder.name):
        return _name(folder.parent), int(match[1]), title
    if seed is None:
        notes.append(f"{name}: the seed of this run is unknown and shown as 0.")
    return name, seed or 0, title


def _name(folder: Path) -> str:
    """The name of a folder as text; bytes that are not UTF-8 are escaped."""
    return folder.name.encode("utf-8", "backslashreplace").decode()


def _check_same_test(collection: _Collection) -> None:
    """Add a note when the runs have different test sets: arms are comparable only on one."""
    tables = {table.test_rows for table in chain.from_iterable(run.tables for run in collection.runs.values())}
    sizes = {
        evaluation.counts.get("all", {}).get("all", Counts(0, 0)).total
        for run in collection.runs.values()
        if run.finished and (evaluation := run.evaluation("output", "greedy"))
    }
    if len(sizes) > 1 or len(tables - {None}) > 1:
        collection.notes.append("The runs have test sets of different sizes and are not comparable.")
    elif len({table.corpus for run in collection.runs.values() for table in run.tables[:1]} - {None}) > 1:
        collection.notes.append("The runs have different samples, so their test sets may differ.")
