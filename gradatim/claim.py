"""Whose run folder is this?

A run folder belongs to one recipe. The first start writes ``recipe.yaml`` and ``environment.json``; a later start
must bring the same recipe, but for the keys in ``recipe.MAY_CHANGE``. A changed environment is told, not refused:
the results stay valid, only the bits may differ.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from .errors import RecipeError, RunFolderError
from .recipe import MAY_CHANGE, Recipe, changed_keys, dump, parse
from .record import Record, read_json, write_atomically, write_json
from .stage import Event, Events

__all__ = ["claim", "differences"]


def differences(folder: Path, recipe: Recipe) -> list[str]:
    """What the recipe kept in the run folder and ``recipe`` differ in, of what may not; empty when none is kept."""
    path = folder / "recipe.yaml"
    if not path.exists():
        return []
    try:
        kept = parse(yaml.safe_load(path.read_text()), str(path))
    except (yaml.YAMLError, RecipeError, UnicodeDecodeError) as error:
        raise RunFolderError(
            "the recipe that this run was made by cannot be read", where=path, given=error, hint="another --out"
        ) from error
    return changed_keys(kept, recipe)


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
    if not path.exists() and any(record.folder.glob("cycle-*")):
        raise RunFolderError(
            "this folder holds a run but no recipe.yaml", where=record.folder, hint="another folder with --out"
        )
    write_atomically(path, dump(recipe).encode())
    from .student.hardware import environment, use_threads

    use_threads(recipe.threads)
    now = environment()
    kept = record.folder / "environment.json"
    if not kept.exists():
        write_json(kept, now)
        return
    before = read_json(kept)
    moved = [
        f"{key}: {before.get(key)} -> {now[key]}" for key in now if key != "commit" and before.get(key) != now[key]
    ]
    if moved:
        events(Event("note", "environment", text=f"the environment changed since the run began: {'; '.join(moved)}"))
