"""What do these run folders say?

Reads studies (``study.json`` and ``<arm>/seed-<n>/`` below it) and single runs into ``StudyData``. It is a pure
reader: it changes nothing, and takes no lock, so that a run still at work can be looked at. What is missing or
cannot be read is not guessed: it becomes a note that the report shows. Only a folder that holds no run at all is
an error. It computes no statistics.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError, RunFolderError
from ..stage import Counts, Fitted, StageResult, StageSpec, SuiteResult
from .data import Arm, Bands, Histogram, PlannedStage, Point, RunData, StudyData, TableFacts

__all__ = ["collect", "read_run"]

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass
class _Found:
    """What the folders have said so far; arms and seeds keep the order in which they were met."""

    title: str | None = None
    baseline: str | None = None
    arms: dict[str, Arm] = field(default_factory=dict)
    seeds: dict[int, None] = field(default_factory=dict)
    controls: dict[str, None] = field(default_factory=dict)
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
            _add_run(found, path, *_arm_and_seed(path, found.notes))
        else:
            raise RunFolderError(
                "there is no run here",
                where=path,
                allowed="a study (study.json) or a run (recipe.yaml, plan.json or cycle-00)",
                hint="check the path, or start one with `gradatim run` or `gradatim study`",
            )
    if found.baseline is None and len(found.arms) > 1 and "baseline" in found.arms:
        found.baseline = "baseline"
        found.notes.append("No study.json names the baseline; the arm called “baseline” is taken for it.")
    _check_same_test(found)
    return StudyData(
        title=found.title or " and ".join(path.resolve().name for path in paths) or "nothing",
        arms=tuple(found.arms.values()),
        seeds=tuple(sorted(found.seeds)),
        runs=tuple(found.runs.values()),
        baseline=found.baseline,
        controls=tuple(found.controls),
        notes=tuple(found.notes),
    )


def read_run(folder: Path, arm: str, seed: int, notes: list[str]) -> RunData:
    """One run's folder; what cannot be read is named in ``notes`` and left out."""
    stages = tuple(_stages(folder, notes))
    environment = _json(folder / "environment.json", notes)
    environment = environment if isinstance(environment, Mapping) else {}
    return RunData(
        arm=arm,
        seed=seed,
        recipe=_text(folder / "recipe.yaml", notes),
        environment=environment,
        plan=_plan(folder / "plan.json", notes),
        curve=tuple(_curve(folder / "metrics.jsonl", notes)),
        tables=tuple(_table(path, notes) for path in sorted(folder.glob("cycle-*/table.json"))),
        stages=stages,
    )


def _add_study(found: _Found, folder: Path) -> None:
    study = _json(folder / "study.json", found.notes)
    if not isinstance(study, Mapping):
        raise DataError("study.json cannot be read", where=folder, hint="start the same `gradatim study` again")
    found.title = found.title or str(study.get("title") or folder.resolve().name)
    baseline = study.get("baseline")
    if found.baseline and baseline and baseline != found.baseline:
        raise DataError(
            "these studies have different baselines", where=folder, given=baseline, allowed=found.baseline
        )
    found.baseline = found.baseline or baseline
    found.controls.update(dict.fromkeys(study.get("controls") or ()))
    seeds = [int(seed) for seed in study.get("seeds") or ()]
    found.seeds.update(dict.fromkeys(seeds))
    for arm in study.get("arms") or ():
        name = str(arm["name"])
        found.arms.setdefault(name, Arm(name, str(arm.get("title") or name)))
        for seed in seeds:
            if (run := folder / name / f"seed-{seed}").is_dir():
                _add_run(found, run, name, seed)


def _add_run(found: _Found, folder: Path, arm: str, seed: int) -> None:
    if (arm, seed) in found.runs:
        raise DataError(
            f"two runs are arm {arm!r} with seed {seed}", where=folder, hint="report on one of them at a time"
        )
    found.arms.setdefault(arm, Arm(arm, arm))
    found.seeds.setdefault(seed)
    found.runs[arm, seed] = read_run(folder, arm, seed, found.notes)


def _is_run(folder: Path) -> bool:
    signs = ("recipe.yaml", "plan.json", "metrics.jsonl")
    return any((folder / sign).is_file() for sign in signs) or any(folder.glob("cycle-*"))


def _arm_and_seed(folder: Path, notes: list[str]) -> tuple[str, int]:
    """From ``<arm>/seed-<n>``, else the folder's name and the recipe's seed."""
    folder = folder.resolve()
    if match := re.fullmatch(r"seed-(\d+)", folder.name):
        return folder.parent.name, int(match[1])
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
        return folder.name, int(recipe["seed"])
    except (*UNREADABLE, yaml.YAMLError):
        notes.append(f"{folder.name}: nothing tells the seed of this run; it is shown as 0.")
        return folder.name, 0


def _json(path: Path, notes: list[str]) -> Any:
    """The file's content; None with a note when it cannot be read, without one when it is not there (yet)."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{_place(path)} cannot be read and is left out ({error}).")
        return None


def _text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        notes.append(f"{_place(path)} cannot be read and is left out ({error}).")
        return ""


def _place(path: Path) -> str:
    """The path from its arm on: where to look, without telling readers of the page about the machine."""
    cycle = next((i for i, part in enumerate(path.parts) if part.startswith("cycle-")), len(path.parts) - 1)
    return "/".join(path.parts[max(0, cycle - 2) :])


def _plan(path: Path, notes: list[str]) -> tuple[PlannedStage, ...]:
    content = _json(path, notes)
    if content is None:
        return ()
    try:
        return tuple(
            PlannedStage(str(stage["name"]), int(stage["tokens"]), _integers(stage.get("samples")))
            for stage in content["stages"]
        )
    except UNREADABLE as error:
        notes.append(f"{_place(path)} does not have the shape of a plan and is left out ({error!r}).")
        return ()


def _curve(path: Path, notes: list[str]) -> Iterator[Point]:
    lines = _text(path, notes).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
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
    content = _json(path, notes) or {}
    try:
        return TableFacts(
            rows=content.get("rows"),
            test_rows=content.get("test_rows"),
            levels=_integers(content.get("levels")),
            bands=_bands(content.get("bands")),
            histogram=_histogram(content.get("histogram")),
            facts=content.get("facts") or {},
        )
    except UNREADABLE as error:
        notes.append(f"{_place(path)} does not have the shape of a table's facts and is left out ({error!r}).")
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
        content = _json(path, notes)
        if content is None:
            continue
        try:
            yield _stage_result(content)
        except UNREADABLE as error:
            notes.append(f"{_place(path)} does not have the shape of a result and is left out ({error!r}).")


def _stage_result(content: Mapping[str, Any]) -> StageResult:
    spec = content["spec"]
    return StageResult(
        cycle=int(content["cycle"]),
        index=int(content["index"]),
        spec=StageSpec(
            name=str(spec["name"]),
            fractions=tuple(map(float, spec["fractions"])),
            tokens=int(spec["tokens"]),
            ends=tuple(spec.get("ends") or ()),
            order=str(spec.get("order", "shuffled")),
            objective=spec.get("objective"),
        ),
        samples=int(content["samples"]),
        composition=_integers(content.get("composition")),
        fitted=_fitted(content["fitted"]),
        evaluations=tuple(_suite(found) for found in content.get("evaluations") or ()),
    )


def _fitted(content: Mapping[str, Any]) -> Fitted:
    return Fitted(
        steps=int(content["steps"]),
        tokens=int(content["tokens"]),
        parameters=int(content["parameters"]),
        dropped=int(content["dropped"]),
        loss=float(content["loss"]),
        seconds=float(content["seconds"]),
        weights=str(content["weights"]),
        resumed_at=int(content.get("resumed_at", 0)),
    )


def _suite(content: Mapping[str, Any]) -> SuiteResult:
    return SuiteResult(
        suite=str(content["suite"]),
        protocol=str(content["protocol"]),
        counts={
            str(group): {str(value): Counts(int(n["passed"]), int(n["total"])) for value, n in values.items()}
            for group, values in content["counts"].items()
        },
        scores={str(name): (float(total), int(n)) for name, (total, n) in (content.get("scores") or {}).items()},
        examples=tuple(dict(example) for example in content.get("examples") or ()),
        seconds=float(content.get("seconds", 0.0)),
    )


def _integers(content: Mapping[Any, Any] | None) -> dict[str, int]:
    return {str(name): int(count) for name, count in (content or {}).items()}


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


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
