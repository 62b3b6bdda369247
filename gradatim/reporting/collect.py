"""Readers of run folders and studies.

``read_run`` reads the files of one run into ``RunData``; ``collect`` reads studies (``study.json`` and
``<arm>/seed-<n>/``) and single runs into ``StudyData``. The readers change nothing and take no lock, so runs in
progress can be read. A missing file is no error; an unreadable or malformed one is skipped with a note that the
report shows. Only a folder without any run is an error.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..errors import DataError, RunFolderError
from ..experiment.recipe_files import LARGEST_RECIPE
from ..files import read_input
from ..lazy import pq
from ..options import parse_json, parse_yaml
from ..record import DECODE_ERRORS, fault_of
from ..renamed_keys import renamed
from ..results import answer_notes, cycle_folder, decode_answer_losses, decode_stage, decode_suite, initial_folder
from ..stage import Counts, StageResult, SuiteResult
from .comparison import arm_settings
from .cycles import read_cycles, read_designs
from .data import Arm, Bands, Examination, Histogram, Point, RunData, StudyData, TableFacts

CURVES = (
    "loss",
    "validation_loss",
    "answer_loss",
    "validation_answer_loss",
    "learning_rate",
    "gradient_norm",
    "reward",
)
"""The values of a row of the metrics that a report shows."""
UNREADABLE = (DataError, OSError, *DECODE_ERRORS)


def read_run(
    folder: Path, arm: str, seed: int, notes: list[str], *, examples: bool = True, study: Path | None = None
) -> RunData:
    """The run in ``folder``, of ``study`` unless None; unreadable files are noted and skipped.

    ``examples``: also read example questions.
    """
    stages = tuple(_stages(folder, notes))
    environment = read_json(folder / "environment.json", notes)
    environment = environment if isinstance(environment, Mapping) else {}
    finished = read_json(folder / "finished.json", notes)
    dry = finished.get("dry") if isinstance(finished, Mapping) else None
    notes += _answer_notes(folder, notes)
    tables = tuple(_table(path, notes) for path in sorted(folder.glob("cycle-*/table.json")))
    names = next((table.bands.names for table in tables if table.bands), ())
    recipe = _text(folder / "recipe.yaml", notes)
    curve, examinations = _metrics(folder / "metrics.jsonl", notes)
    return RunData(
        arm=arm,
        seed=seed,
        recipe=recipe,
        environment=environment,
        curve=curve,
        tables=tables,
        stages=stages,
        complete=(folder / "finished.json").is_file(),
        # Unreadable tables are already in the notes.
        cycles=read_cycles(folder, lambda path: read_json(path, []), notes, examples=examples),
        dry=None if dry is None else str(dry),
        designs=read_designs(folder, lambda path: read_json(path, notes), names, notes),
        settings=_settings(recipe),
        test_set=_test_set((study or folder) / "data", tables),
        study=None if study is None else str(study.resolve()),
        examinations=examinations,
        folder=folder,
        initial=tuple(_initial(folder, notes)),
    )


def _settings(recipe: str) -> Mapping[str, Any]:
    """The values of a recipe in present names; empty for a text that is none."""
    try:
        content = renamed(parse_yaml(recipe.encode())).content
    except UNREADABLE:
        return {}
    return content if isinstance(content, Mapping) else {}


def _test_set(store: Path, tables: Sequence[TableFacts]) -> str | None:
    """A digest of the prompts and answers of the test samples; None without their file."""
    corpus = next((table.corpus for table in tables), None)
    if corpus is None or Path(corpus).name != corpus:
        return None
    path = store / corpus / "test.parquet"
    return _digest(path, path.stat().st_mtime_ns) if path.is_file() else None


@functools.lru_cache(maxsize=64)
def _digest(path: Path, modified: int) -> str | None:
    """The digest of a table's prompts and answers; None for an unreadable file. ``modified`` is part of the key."""
    try:
        samples = pq.read_table(path, columns=["prompt", "answer"]).to_pylist()
    except (DataError, OSError, *DECODE_ERRORS):
        return None
    return hashlib.sha256(json.dumps(samples, sort_keys=True).encode()).hexdigest()[:12]


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


def _metrics(path: Path, notes: list[str]) -> tuple[tuple[Point, ...], tuple[Examination, ...]]:
    """The losses and the evaluations during stages of a file of metrics."""
    points: list[Point] = []
    examinations: list[Examination] = []
    lines = _text(path, notes).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            position = (int(row["run_tokens"]), int(row.get("cycle", 0)), int(row.get("stage", 0)))
            values: dict[str, Any] = {name: _finite(row.get(name)) for name in CURVES}
            if "evaluations" in row:
                examinations += [_examination(position, counts) for counts in row["evaluations"]]
            else:
                points.append(Point(*position, **values))
        except UNREADABLE:
            if line.strip() and number < len(lines):  # the last line of a run in progress may be incomplete
                notes.append(f"{_short(path)}, line {number} is unreadable and is skipped.")
    return tuple(points), tuple(examinations)


def _examination(position: tuple[int, int, int], counts: Mapping[str, Any]) -> Examination:
    passed, total = counts["passed"], int(counts["total"])
    passed = passed if isinstance(passed, float) else int(passed)
    if not 0 <= passed <= total:
        raise ValueError(f"{passed} of {total}")
    protocol = _protocol(str(counts["protocol"]), str(counts.get("split", "test")))
    return Examination(*position, str(counts["suite"]), protocol, passed, total)


def _protocol(protocol: str, split: str) -> str:
    """The protocol in a report: results on validation samples have names of their own and are never averaged with, or
    compared to, results on the test set."""
    return protocol if split == "test" else f"{protocol}, {split}"


def _table(path: Path, notes: list[str]) -> TableFacts:
    content = read_json(path, notes) or {}
    try:
        counts = {
            "validation samples": content.get("validation_rows"),
            "training characters": content.get("characters"),
            "samples without a difficulty": (content.get("bands") or {}).get("unscored"),
        }
        guessed = (content.get("commonest") or {}).get("test")
        return TableFacts(
            rows=content.get("rows"),
            test_rows=content.get("test_rows"),
            corpus=content.get("corpus"),
            guessed=_integers({"test": guessed})["test"] if guessed is not None else None,
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


def _answer_notes(folder: Path, notes: list[str]) -> list[str]:
    """The loss of the answers before training, in words; empty for a run without it."""
    path = folder / cycle_folder(0) / "answer-loss.json"
    content = read_json(path, notes) if path.is_file() else None
    try:
        lines = answer_notes(decode_answer_losses(content)) if content else []
    except DECODE_ERRORS as error:
        return [f"{_short(path)} is malformed and is skipped ({fault_of(error)})."]
    return [f"{folder.name}: {line}." for line in lines]


def _stages(folder: Path, notes: list[str]) -> Iterator[StageResult]:
    for path in sorted(folder.glob("cycle-*/stage-*/result.json")):
        content = read_json(path, notes)
        if content is None:
            continue
        try:
            stage = decode_stage(content)
            shown = [replace(result, protocol=_protocol(result.protocol, result.split)) for result in stage.evaluations]
            yield replace(stage, evaluations=tuple(shown))
        except UNREADABLE as error:
            notes.append(f"{_short(path)} is malformed and is skipped ({fault_of(error)}).")


def _initial(folder: Path, notes: list[str]) -> Iterator[SuiteResult]:
    for path in sorted((folder / initial_folder()).glob("evaluation-*.json")):
        content = read_json(path, notes)
        if content is None:
            continue
        try:
            result = decode_suite(content)
            yield replace(result, protocol=_protocol(result.protocol, result.split))
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
    folders: dict[tuple[str, int], Path] = field(default_factory=dict)
    planned: dict[tuple[str, int], None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def collect(folders: Path | str | Iterable[Path | str], *, targets: Sequence[float] = ()) -> StudyData:
    """Read one or more study or run folders as one study. ``targets``: see ``StudyData``.

    Raises ``RunFolderError`` for a folder without a run, ``DataError`` when two folders have the same arm and seed or
    different baselines. All other problems become notes in ``StudyData.notes``.
    """
    paths = [Path(folders)] if isinstance(folders, Path | str) else [Path(folder) for folder in folders]
    collection = _Collection()
    for path in paths:
        if (path / "study.json").is_file():
            _add_study(collection, path)
        elif _is_run(path):
            arm, seed, title = _identity(path, collection.notes)
            settings = _settings(_text(path / "recipe.yaml", []))
            _add_run(collection, path, _own_name(collection, path, arm, seed, settings), seed, title)
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
    _note_validation(collection)
    _count_restarts(collection)
    _distinguish_titles(collection)
    return StudyData(
        title=collection.title or " and ".join(_name(path.resolve()) for path in paths) or "nothing",
        arms=tuple(collection.arms.values()),
        seeds=tuple(sorted(collection.seeds)),
        runs=tuple(collection.runs.values()),
        baseline=collection.baseline,
        controls=tuple(collection.controls),
        restarts=collection.restarts,
        planned=tuple(collection.planned),
        notes=tuple(collection.notes),
        targets=tuple(targets),
    )


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, which need not exist yet; ``study``: the folder of its study, None without one."""

    arm: str
    seed: int
    folder: Path
    study: Path | None = None


def run_folders(folder: Path) -> list[RunFolder]:
    """The runs of a study, planned ones included, or the single run in ``folder``; empty without a run.

    Raises ``DataError`` for an invalid ``study.json``.
    """
    if (folder / "study.json").is_file():
        study = _read_study(folder, [])
        return [
            RunFolder(arm.name, seed, folder / arm.name / f"seed-{seed}", folder)
            for arm in study.arms
            for seed in study.seeds
        ]
    if not _is_run(folder):
        return []
    arm, seed, _ = _identity(folder, [])
    study_folder = folder.resolve().parent.parent
    return [RunFolder(arm, seed, folder, study_folder if (study_folder / "study.json").is_file() else None)]


def _distinguish_titles(collection: _Collection) -> None:
    """Add the name to a title that several arms have."""
    titles = [arm.title for arm in collection.arms.values()]
    for name, arm in collection.arms.items():
        if titles.count(arm.title) > 1 and arm.title != name:
            collection.arms[name] = Arm(name, f"{arm.title} ({name})")


def _count_restarts(collection: _Collection) -> None:
    """Add the restarts of arms with an LLM-designed schedule: one fewer than the stages of a run."""
    for arm in collection.arms if collection.restarts else ():
        stages = [len(run.stages) for run in collection.runs.values() if run.arm == arm]
        if arm not in collection.restarts and stages:
            collection.restarts[arm] = max(stages) - 1


def _read_study(folder: Path, notes: list[str]) -> _Study:
    try:
        return _Study.model_validate(read_json(folder / "study.json", notes))
    except ValidationError as error:
        raise DataError(
            "study.json cannot be read",
            where=folder,
            given=fault_of(error),
            hint="start the same `gradatim study` again",
        ) from error


def _add_study(collection: _Collection, folder: Path) -> None:
    study = _read_study(folder, collection.notes)
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
        runs = [(seed, run) for seed in study.seeds if (run := folder / arm.name / f"seed-{seed}").is_dir()]
        name = arm.name
        if runs and name in collection.arms:  # an arm of another study or run
            name = _own_name(collection, runs[0][1], name, -1, _settings(_text(runs[0][1] / "recipe.yaml", [])))
        collection.arms.setdefault(name, Arm(name, arm.title or name))
        collection.planned.update(dict.fromkeys((name, seed) for seed in study.seeds))
        for seed, run in runs:
            _add_run(collection, run, name, seed, study=folder)


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


def _add_run(
    collection: _Collection, folder: Path, arm: str, seed: int, title: str = "", study: Path | None = None
) -> None:
    if (arm, seed) in collection.runs:
        raise DataError(
            f"two runs have arm {arm!r} and seed {seed}", where=folder, hint="report on one of them at a time"
        )
    collection.arms.setdefault(arm, Arm(arm, title or arm))
    collection.seeds.setdefault(seed)
    collection.planned.setdefault((arm, seed))
    first = not any(name == arm for name, _ in collection.runs)  # examples come from one run of each arm
    run = read_run(folder, arm, seed, collection.notes, examples=first, study=study)
    collection.runs[arm, seed], collection.folders[arm, seed] = run, folder.resolve()
    if run.dry is not None:
        cycles = 1 + max((stage.cycle for stage in run.stages), default=0)
        count = "1 cycle" if cycles == 1 else f"{cycles} cycles"
        collection.notes.append(
            f"{collection.arms[arm].title}, seed {seed}: ended after {count}, below its budget: {run.dry}."
        )


def _own_name(collection: _Collection, folder: Path, arm: str, seed: int, settings: Mapping[str, Any]) -> str:
    """``arm``, with as many folders above it as tell it from an arm of that name with another recipe.

    A folder that is read twice keeps its name, and ``_add_run`` refuses it.
    """
    above = list(folder.resolve().parents)
    if re.fullmatch(r"seed-\d{1,18}", folder.resolve().name):
        above = above[1:]
    while len(above) > 1 and folder.resolve() not in collection.folders.values():
        others = [run for (name, _), run in collection.runs.items() if name == arm]
        same = all(arm_settings(run.settings) == arm_settings(settings) for run in others)
        if (arm, seed) not in collection.runs and same:
            return arm
        arm, above = f"{_name(above[0])}/{arm}", above[1:]
    return arm


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


def _note_validation(collection: _Collection) -> None:
    """Add a note when the last results of a run are on validation samples only."""
    splits = [
        {result.split for result in run.stages[-1].evaluations} for run in collection.runs.values() if run.finished
    ]
    if {"validation"} in splits:
        collection.notes.append(
            "Accuracies on validation samples serve to choose between recipes; the chosen one is confirmed on the test "
            "set of a fresh data.seed."
        )


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
    elif None not in (sets := {run.test_set for run in collection.runs.values()}) and len(sets) < 2:
        return
    elif len({table.corpus for run in collection.runs.values() for table in run.tables[:1]} - {None}) > 1:
        collection.notes.append("The runs have different samples, so their test sets may differ.")
