"""What does one run's folder say?

Reads the files that a run leaves, one function per shape, into ``RunData``. A file that is not there (yet) is no
fault; one that cannot be read, or has another shape, is named in ``notes`` and left out. It looks at one run only:
which runs make a study is ``collect``'s matter.

What do these run folders say?

Reads studies (``study.json`` and ``<arm>/seed-<n>/`` below it) and single runs into ``StudyData``. It is a pure
reader: it changes nothing, and takes no lock, so that a run still at work can be looked at. What is missing or
cannot be read is not guessed: it becomes a note that the report shows. Only a folder that holds no run at all is
an error. It computes no statistics.
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
from ..experiment.recipe import LARGEST_RECIPE
from ..files import read_input
from ..parsing import parse_json, parse_yaml
from ..record import DECODE_ERRORS, fault_of
from ..results import decode_stage
from ..stage import Counts, StageResult
from .cycles import read_cycles, read_designs
from .data import Arm, Bands, Histogram, Point, RunData, StudyData, TableFacts

__all__ = ["UNREADABLE", "collect", "read_json", "read_run"]


UNREADABLE = (DataError, OSError, *DECODE_ERRORS)


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
            return error.message
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


@dataclass
class _Found:
    """What the folders have said so far; arms and seeds keep the order in which they were met."""

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

    Raises ``RunFolderError`` for a folder that holds no run, ``DataError`` when two folders are the same arm and
    seed or name different baselines. Everything else that is wrong becomes a note in ``StudyData.notes``.
    """
    paths = [Path(folders)] if isinstance(folders, Path | str) else [Path(folder) for folder in folders]
    found = _Found()
    for path in paths:
        if (path / "study.json").is_file():
            _add_study(found, path)
        elif _is_run(path):
            _add_run(found, path, *_who(path, found.notes))
        else:
            raise RunFolderError(
                "there is no run here",
                where=path,
                allowed="a study (study.json) or a run (recipe.yaml or cycle-00)",
                hint="check the path, or start one with `gradatim run` or `gradatim study`",
            )
    if found.baseline is None and len(found.arms) > 1 and "baseline" in found.arms:
        found.baseline = "baseline"
        found.notes.append("No study.json names the baseline; the arm called “baseline” is taken for it.")
    _check_same_test(found)
    _count_restarts(found)
    return StudyData(
        title=found.title or " and ".join(_name(path.resolve()) for path in paths) or "nothing",
        arms=tuple(found.arms.values()),
        seeds=tuple(sorted(found.seeds)),
        runs=tuple(found.runs.values()),
        baseline=found.baseline,
        controls=tuple(found.controls),
        restarts=found.restarts,
        notes=tuple(found.notes),
    )


def _count_restarts(found: _Found) -> None:
    """Of arms whose stages were not known beforehand, since a teacher wrote them: as often as a run has stages more."""
    for arm in found.arms if found.restarts else ():
        stages = [len(run.stages) for run in found.runs.values() if run.arm == arm]
        if arm not in found.restarts and stages:
            found.restarts[arm] = max(stages) - 1


def _add_study(found: _Found, folder: Path) -> None:
    try:
        study = _Study.model_validate(read_json(folder / "study.json", found.notes))
    except ValidationError as error:
        raise DataError(
            "study.json cannot be read",
            where=folder,
            given=fault_of(error),
            hint="start the same `gradatim study` again",
        ) from error
    found.title = found.title or study.title or _name(folder.resolve())
    baseline = study.baseline
    if found.baseline and baseline and baseline != found.baseline:
        raise DataError("these studies have different baselines", where=folder, given=baseline, allowed=found.baseline)
    found.baseline = found.baseline or baseline
    found.controls.update(dict.fromkeys(study.controls))
    found.restarts.update(study.restarts)
    for arm, changed in study.differences.items():
        found.notes.append(f"{arm} differs from {baseline} in more than its schedule: {'; '.join(map(str, changed))}.")
    found.seeds.update(dict.fromkeys(study.seeds))
    for each in study.arms:
        found.arms.setdefault(each.name, Arm(each.name, each.title or each.name))
        for seed in study.seeds:
            if (run := folder / each.name / f"seed-{seed}").is_dir():
                _add_run(found, run, each.name, seed)


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


def _add_run(found: _Found, folder: Path, arm: str, seed: int, title: str = "") -> None:
    if (arm, seed) in found.runs:
        raise DataError(
            f"two runs are arm {arm!r} with seed {seed}", where=folder, hint="report on one of them at a time"
        )
    found.arms.setdefault(arm, Arm(arm, title or arm))
    found.seeds.setdefault(seed)
    first = not any(known == arm for known, _ in found.runs)  # one run of an arm gives the examples
    run = found.runs[arm, seed] = read_run(folder, arm, seed, found.notes, lessons=first)
    if run.dry is not None:
        cycles = 1 + max((stage.cycle for stage in run.stages), default=0)
        done = "1 cycle" if cycles == 1 else f"{cycles} cycles"
        found.notes.append(
            f"{found.arms[arm].title}, seed {seed}: ended after {done}, with less than its budget: {run.dry}."
        )


def _is_run(folder: Path) -> bool:
    signs = ("recipe.yaml", "metrics.jsonl")
    return any((folder / sign).is_file() for sign in signs) or any(folder.glob("cycle-*"))


def _who(folder: Path, notes: list[str]) -> tuple[str, int, str]:
    """Arm, seed and title of a run named alone: from ``<arm>/seed-<n>`` where it is so called, and its recipe."""
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
        notes.append(f"{name}: nothing tells the seed of this run; it is shown as 0.")
    return name, seed or 0, title


def _name(folder: Path) -> str:
    """The name of a folder as text; what is no UTF-8 in it is escaped."""
    return folder.name.encode("utf-8", "backslashreplace").decode()


def _check_same_test(found: _Found) -> None:
    """Arms may be compared only on one test set; say so when the folders show that it was not one."""
    tables = {table.test_rows for table in chain.from_iterable(run.tables for run in found.runs.values())}
    sizes = {
        evaluation.counts.get("all", {}).get("all", Counts(0, 0)).total
        for run in found.runs.values()
        if run.finished and (evaluation := run.evaluation("output", "greedy"))
    }
    if len(sizes) > 1 or len(tables - {None}) > 1:
        found.notes.append("The runs were not tested on the same number of programs: do not compare them.")
    elif len({table.corpus for run in found.runs.values() for table in run.tables[:1]} - {None}) > 1:
        found.notes.append("The runs have different samples, so their test sets may differ: compare them with care.")
