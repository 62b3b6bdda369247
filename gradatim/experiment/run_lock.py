"""Whose run folder is this?

A run folder belongs to one recipe. The first start writes ``recipe.yaml`` and ``environment.json``; a later start
must bring the same recipe, but for the keys in ``recipe.MAY_CHANGE``. A changed environment is told, not refused:
the results stay valid, only the bits may differ.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import DataError, RecipeError, RunFolderError
from ..files import read_input
from ..parsing import parse_yaml
from ..record import Record, read_json, write_atomically, write_json
from ..stage import Event, Events
from .recipe import LARGEST_RECIPE, MAY_CHANGE, Recipe, changed_keys, dump, parse

__all__ = ["check_run_folder", "claim", "differences", "is_study", "study_arms"]


FILES = ("environment.json", "finished.json", "metrics.jsonl", "recipe.yaml", "report.html", "study.json", "data")
"""What a run or a study writes into its folder, besides cycles and arms."""


def differences(folder: Path, recipe: Recipe) -> list[str]:
    """What the recipe kept in the run folder and ``recipe`` differ in, of what may not; empty when none is kept."""
    kept = _kept(folder)
    return [] if kept is None else changed_keys(kept[0], recipe)


def _kept(folder: Path) -> tuple[Recipe, str] | None:
    """The recipe kept in a run folder, and its text; None where there is none."""
    path = folder / "recipe.yaml"
    if not os.path.lexists(path):
        return None
    try:
        content = read_input(path, LARGEST_RECIPE)
        return parse(parse_yaml(content), str(path)), content.decode()
    except (RecipeError, DataError, ValueError, OSError) as error:
        raise RunFolderError(
            "the recipe that this run was made by cannot be read",
            where=path,
            given=error.strerror if isinstance(error, OSError) else error,
            hint="another --out",
        ) from error


def check_run_folder(folder: Path) -> None:
    """Raise ``RunFolderError`` when ``folder`` holds files of a run's names that no run has written.

    A run's own recipe has every value written out, or ``environment.json`` beside it. A study's folder has a
    ``study.json`` with arms.
    """
    if not folder.is_dir():
        return
    kept = _kept(folder)
    if kept is not None and not (folder / "environment.json").is_file() and dump(kept[0]) != kept[1]:
        raise RunFolderError(
            "the recipe in this folder was not written by a run, so it is not replaced",
            where=folder / "recipe.yaml",
            hint="another folder with --out",
        )
    if kept is None and not is_study(folder):
        there = [name for name in FILES if os.path.lexists(folder / name)]
        there += [path.name for path in folder.glob("cycle-*")]
        if there:
            raise RunFolderError(
                "this folder holds files that no run of this package has made, or no recipe.yaml",
                where=folder,
                given=", ".join(there[:5]),
                hint="another folder with --out",
            )


def is_study(folder: Path) -> bool:
    """Whether ``folder`` holds a study's own ``study.json``."""
    path = folder / "study.json"
    if not path.is_file():
        return False
    arms = read_json(path, study_arms)
    return bool(arms)


def study_arms(study: Any) -> list[str]:
    """The names of the arms in the content of ``study.json``. Raises as ``record.MISSHAPEN`` for another shape."""
    return [str(arm["name"]) for arm in study["arms"]]


def claim(record: Record, recipe: Recipe, events: Events) -> None:
    """Make the folder this recipe's, or check that it is; ``RunFolderError`` shows what differs."""
    path = record.folder / "recipe.yaml"
    changed = differences(record.folder, recipe)
    if changed:
        raise RunFolderError(
            "this run folder was made by another recipe",
            where=record.folder,
            given="; ".join(changed),
            allowed=f"changes to {', '.join(MAY_CHANGE)}",
            hint="another folder with --out, or the recipe as it was",
        )
    write_atomically(path, dump(recipe).encode())
    from ..model.hardware import environment, use_threads

    use_threads(recipe.threads)
    now = environment()
    kept = record.folder / "environment.json"
    if not kept.exists():
        write_json(kept, now)
        return
    before = read_json(kept, dict)
    moved = [
        f"{key}: {before.get(key)} -> {now[key]}" for key in now if key != "commit" and before.get(key) != now[key]
    ]
    if moved:
        events(Event("note", "environment", text=f"the environment changed since the run began: {'; '.join(moved)}"))
