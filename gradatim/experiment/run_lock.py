"""Ownership of run folders: one recipe per folder.

The first start writes ``recipe.yaml`` and ``environment.json``; later starts need the same recipe, except for the keys
in ``recipe.MAY_CHANGE``. A changed environment causes a note, not an error: the results stay valid, only the bits may
differ. ``start_afresh`` gives up a folder in which nothing was learnt, after a start that failed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ..errors import DataError, RecipeError, RunFolderError
from ..files import read_input
from ..model import hardware
from ..options import parse_yaml
from ..processes import launch
from ..record import Record, read_json, write_atomically, write_json
from ..results import TEACHER_CHECK
from ..stage import Event, Events
from .recipe import MAY_CHANGE, MOST_CYCLES, Recipe, changed_keys, dump, dump_earlier, parse
from .recipe_files import LARGEST_RECIPE

FINISHED = "finished.json"
FILES = ("environment.json", FINISHED, "metrics.jsonl", "recipe.yaml", "report.html", "study.json", "data")
"""Files that a run or a study writes into its folder, besides those of cycles and arms."""


def differences(folder: Path, recipe: Recipe) -> list[str]:
    """Differences from the recipe of the run folder, permitted changes excluded; empty for a new folder."""
    stored = _stored_recipe(folder)
    return [] if stored is None else changed_keys(stored[0], recipe)


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe of the run in ``folder``; None without one. ``RunFolderError`` if it cannot be read."""
    stored = _stored_recipe(folder)
    return None if stored is None else stored[0]


def _stored_recipe(folder: Path) -> tuple[Recipe, str] | None:
    """The recipe in a run folder and its text; None without one."""
    path = folder / "recipe.yaml"
    if not os.path.lexists(path):
        return None
    try:
        content = read_input(path, LARGEST_RECIPE)
        return parse(parse_yaml(content), str(path)), content.decode()
    except (RecipeError, DataError, ValueError, OSError) as error:
        raise RunFolderError(
            "the recipe of this run cannot be read",
            where=path,
            given=error.strerror if isinstance(error, OSError) else error,
            hint="another --out",
        ) from error


def check_run_folder(folder: Path) -> None:
    """Raise ``RunFolderError`` when ``folder`` has files with the names of a run's that no run has written.

    A recipe written by a run has all values spelled out or ``environment.json`` beside it. A study's folder has a
    ``study.json`` with arms.
    """
    if not folder.is_dir():
        return
    stored = _stored_recipe(folder)
    if (
        stored is not None
        and not (folder / "environment.json").is_file()
        and stored[1] not in (dump(stored[0]), dump_earlier(stored[0]))
    ):
        raise RunFolderError(
            "the recipe in this folder was not written by a run, so it is not replaced",
            where=folder / "recipe.yaml",
            hint="another folder with --out",
        )
    if stored is None and not is_study(folder):
        names = [name for name in FILES if os.path.lexists(folder / name)]
        names += [path.name for path in folder.glob("cycle-*")]
        if names:
            raise RunFolderError(
                "this folder has files that were not written by a run of this package, or lacks recipe.yaml",
                where=folder,
                given=", ".join(names[:5]),
                hint="another folder with --out",
            )


TRAINED = ("stage-*/checkpoint", "stage-*/fitted.json", "stage-*/model")
"""Results of training inside the folder of a cycle."""
STARTED = ("environment.json", "metrics.jsonl", "report.html", "study.json", TEACHER_CHECK, "recipe.yaml")
"""Files of a run or study that is given up, the recipe last."""
DATASET = re.compile(r"\.?[0-9a-f]{12}(\.partial|\.old)?")
"""Name of the folder of a dataset, complete or not."""


def trained_stage(folder: Path) -> Path | None:
    """A stage folder with a result of training below the folder of a run or study; None if nothing was learnt."""
    results = (
        path
        for cycles in ("cycle-*", "*/seed-*/cycle-*")
        for name in TRAINED
        for path in sorted(folder.glob(f"{cycles}/{name}"))
    )
    return next((path.parent for path in results), None)


def start_afresh(folder: Path) -> None:
    """Remove the recipe and records of a run or study in which nothing was learnt, so that another can start there.

    Raises ``RunFolderError`` if there is any result of training, and changes nothing then.
    """
    if not folder.is_dir():
        return
    check_run_folder(folder)
    with Record(folder):
        if (stage := trained_stage(folder)) is not None:
            raise RunFolderError(
                "this folder has results of training, which --fresh does not discard",
                where=folder,
                given=stage.relative_to(folder),
                hint=f"another folder with --out, or gradatim resume {folder}",
            )
        if is_study(folder):
            for recipe in sorted(folder.glob("*/seed-*/recipe.yaml")):
                start_afresh(recipe.parent)
        for part in (*folder.glob("cycle-*"), *folder.glob("data/*")):
            if part.is_dir() and (part.parent == folder or DATASET.fullmatch(part.name)):
                shutil.rmtree(part)
        with contextlib.suppress(OSError):  # missing, or with files of others
            (folder / "data").rmdir()
        for path in folder.glob("tracking-*.json"):  # what was sent of the run that is given up
            path.unlink()
        for name in STARTED:
            (folder / name).unlink(missing_ok=True)


def another_recipe(
    folder: Path, message: str, changed: list[str], stage: Path | None, study: Path | None = None
) -> RunFolderError:
    """The error for a folder of another recipe. ``stage``: a stage that was trained there, None if there is none.
    ``study``: the folder of the study that the run belongs to.
    """
    return RunFolderError(
        message,
        where=folder,
        given="; ".join(changed),
        allowed=f"changes to {', '.join(MAY_CHANGE)}",
        hint="--fresh, as nothing was learnt there yet, or another folder with --out"
        if stage is None
        else f"another folder with --out, or the earlier recipe: gradatim resume {study or folder}",
    )


def is_study(folder: Path) -> bool:
    """Whether ``folder`` holds the ``study.json`` of a study."""
    path = folder / "study.json"
    if not path.is_file():
        return False
    arms = read_json(path, study_arms)
    return bool(arms)


def study_arms(study: Any) -> list[str]:
    """Names of the arms in the content of ``study.json``. Raises ``record.DECODE_ERRORS`` for another shape."""
    return [str(arm["name"]) for arm in study["arms"]]


def finished_cycles(record: Record) -> int | None:
    """The number of cycles of a finished run, None before its end.

    A run that ended early, for lack of new questions, stays finished even if its source has some today.
    """

    def cycles_of(end: Any) -> int:
        cycles = end["cycles"]
        if not isinstance(cycles, int) or not 1 <= cycles <= MOST_CYCLES:
            raise ValueError("cycles: not a number of cycles")
        return cycles

    return read_json(record.folder / FINISHED, cycles_of) if record.done(FINISHED) else None


def claim(record: Record, recipe: Recipe, events: Events, processes: int = 1, server: str | None = None) -> None:
    """Assign the folder to this recipe, or check that it belongs to it; ``RunFolderError`` lists the differences.

    ``processes``: their number, and ``server``: the program that serves the model, are parts of the environment.
    """
    path = record.folder / "recipe.yaml"
    changed = differences(record.folder, recipe)
    if changed:
        stage = trained_stage(record.folder)
        raise another_recipe(record.folder, "this run folder was made by another recipe", changed, stage)
    write_atomically(path, dump(recipe).encode())

    hardware.use_threads(recipe.threads, launch().local_size)
    now = {**hardware.environment(), "processes": processes, "server": server}
    stored = record.folder / "environment.json"
    if not stored.exists():
        write_json(stored, now)
        return
    before = {"processes": 1, "server": None, **read_json(stored, dict)}
    changes = [
        f"{key}: {before.get(key)} -> {now[key]}" for key in now if key != "commit" and before.get(key) != now[key]
    ]
    if changes:
        text = f"the environment changed since the run began: {'; '.join(changes)}"
        events(Event("note", "environment", text=text))
