"""Comparisons of models item by item: stages of a run, arms of a study by seed, and single evaluations.

``compare_models`` reads the verdict on every item and compares the models by McNemar's exact test:

    one run folder            each stage with the one before it
    one study folder          each arm with the baseline, for each seed
    several evaluations       each with the first: run folders (their last stage), Parquet files of
                              `gradatim evaluate --verdicts`, and files or folders of verdicts of `gradatim check`
                              and `evaluate --keep`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, UserError
from ..evaluation.paired_items import Items, compare_items
from ..evaluation.verdicts import read_verdicts_file
from ..record import read_rows
from ..results import VERDICT_COLUMNS, is_verdicts
from .collect import collect
from .verdicts import evaluations, read_verdicts

if TYPE_CHECKING:
    import pyarrow as pa

    from ..evaluation.paired_items import ItemComparison


def compare_models(paths: Sequence[str | Path], suite: str = "output") -> tuple[ItemComparison, ...]:
    """The comparisons of ``paths``, see the module docstring. ``suite``: as for ``read_verdicts``, for run folders.

    Raises ``UserError`` for paths that give nothing to compare, ``DataError`` for evaluations without common items or
    with items of several units, ``RunFolderError`` for runs without verdicts.
    """
    if len(paths) == 1:
        path = Path(paths[0])
        if (path / "study.json").is_file():
            return _arms(path, suite)
        if _is_run(path):
            return _stages(path, suite)
        raise UserError(
            "one evaluation has nothing to be compared with", where=path,
            allowed="a study, a run with several stages, or several evaluations", hint="gradatim compare A B",
        )  # fmt: skip
    names = [str(path) for path in paths]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise UserError("an evaluation is named twice", where="compare", given=repeated[0])
    items = {name: _items_of(Path(name), suite) for name in names}
    return compare_items(items, [(name, names[0]) for name in names[1:]])


def _is_run(path: Path) -> bool:
    return any(path.glob("cycle-*"))


def _stages(run: Path, suite: str) -> tuple[ItemComparison, ...]:
    """Each stage with an evaluation, compared with the one before it."""
    stages = {(item.cycle, item.stage): item for item in evaluations(run) if suite in (item.label, item.result.suite)}
    if not stages:
        read_verdicts(run, suite)  # raises with the allowed names
    several = max(cycle for cycle, _ in stages) > 0
    items = {
        (f"cycle {cycle}, " if several else "") + f"stage {stage} {item.stage_name}": _items(
            read_verdicts(run, suite, cycle=cycle, stage=stage), item.path
        )
        for (cycle, stage), item in stages.items()
    }
    if len(items) < 2:
        raise UserError(
            "only one stage has this evaluation", where=run, given=suite, hint="gradatim compare RUN OTHER-RUN"
        )
    names = list(items)
    return compare_items(items, list(zip(names[1:], names, strict=False)))


def _arms(folder: Path, suite: str) -> tuple[ItemComparison, ...]:
    """Each arm compared with the baseline, seed by seed, over the finished runs."""
    study = collect([folder])
    if study.baseline is None:
        raise UserError("the study has no baseline", where=folder)
    runs = {(run.arm, run.seed): folder / run.arm / f"seed-{run.seed}" for run in study.runs if run.finished}
    keys = [
        (arm.name, seed)
        for arm in study.arms
        for seed in study.seeds
        if arm.name != study.baseline and {(arm.name, seed), (study.baseline, seed)} <= runs.keys()
    ]
    if not keys:
        raise UserError("no seed is finished in an arm and in the baseline", where=folder, given=study.baseline)
    used = {*keys, *((study.baseline, seed) for _, seed in keys)}
    items = {
        f"{arm}, seed {seed}": _items(read_verdicts(runs[arm, seed], suite), runs[arm, seed]) for arm, seed in used
    }
    return compare_items(items, [(f"{arm}, seed {seed}", f"{study.baseline}, seed {seed}") for arm, seed in keys])


def _items_of(path: Path, suite: str) -> Items:
    """The items of an evaluation at ``path``; raises ``UserError`` for a path without verdicts."""
    if path.is_dir():
        if _is_run(path):
            return _items(read_verdicts(path, suite), path)
        files = [file for file in (path / "verdicts.jsonl", *path.glob("*/verdicts.jsonl")) if file.is_file()]
        if len(files) != 1:
            raise UserError(
                "there are no verdicts here" if not files else "there are several evaluations here", where=path,
                allowed=", ".join(str(file.parent) for file in files) or "a run folder, or a folder of --keep",
            )  # fmt: skip
        path = files[0]
    if path.suffix == ".parquet":
        if not is_verdicts(path):
            columns = ", ".join(VERDICT_COLUMNS)
            raise UserError(
                "this file has no verdicts", where=path, allowed=f"Parquet with the columns {columns}",
                hint="gradatim evaluate MODEL … --verdicts FILE.parquet",
            )  # fmt: skip
        return _items(read_rows(path, "the verdicts", "evaluate again"), path)
    if not path.is_file():
        raise UserError("there is no such file", where=path, allowed="a run folder, or a file of verdicts")
    outcomes: dict[str, list[str]] = {}
    for task, verdict in read_verdicts_file(path):
        outcomes.setdefault(task, []).append(verdict.outcome)
    if max(map(len, outcomes.values()), default=0) > 1:
        raise _several_units(path)
    return {task: ends[0] == "passed" for task, ends in outcomes.items() if ends[0] != "unjudged"}


def _items(table: pa.Table, where: Path) -> Items:
    """The evaluated items of a table of verdicts by id; equal ids are numbered."""
    seen: Counter[str] = Counter()
    items: dict[str, bool] = {}
    for id, passed, total in zip(*(table[name].to_pylist() for name in ("id", "passed", "total")), strict=True):
        if total > 1:
            raise _several_units(where)
        seen[id] += 1
        if total:
            items[f"{id} ({seen[id]})" if seen[id] > 1 else id] = passed == total
    return items


def _several_units(where: Path) -> DataError:
    return DataError(
        "McNemar's test needs one verdict per item, and an item here has several (lines, characters, completions)",
        where=where,
        hint="a suite of whole outputs, or num_samples: 1",
    )
