"""``gradatim resume``: continue the run or study in a folder by the recipe that the folder stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RunFolderError, UserError
from ..experiment import assemble
from ..experiment import study as study_module
from ..experiment.recipe import load
from ..experiment.run_lock import check_run_folder, is_study
from .output import Changes, Json, check_run_output, print_json, print_notes
from .track import Track, check_trackers, tracking
from .training import Server, run_recipe, run_study

if TYPE_CHECKING:
    from collections.abc import Sequence

RESUME_EXAMPLES = (
    "gradatim resume runs/demo-baseline",
    "gradatim resume runs/demo --workers 2",
)


def resume(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Run or study folder.")],
    changes: Changes = None,
    workers: Annotated[int, typer.Option(min=0, help="Parallel runs of a study (0 = auto).")] = 0,
    server: Server = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Continue the run or study in a folder by the recipe that the folder stores.

    Files that the recipe names are looked up from the current folder, as at the start. --set changes what may change on
    resume, such as the limits of a teacher.
    """
    if not folder.is_dir():
        raise UserError("there is no such folder", where="FOLDER", given=folder)
    check_run_folder(folder)
    check_run_output(folder, "FOLDER")
    trackers = check_trackers(track)
    if is_study(folder):
        _resume_study(folder, changes or (), workers, as_json, trackers, server)
        return
    if not (folder / "recipe.yaml").is_file():
        raise RunFolderError("there is no run to resume", where=folder, hint="gradatim run RECIPE --out FOLDER")
    recipe = load(folder / "recipe.yaml", changes or (), events=print_notes)
    assemble.check(recipe, str(folder))
    study = folder.resolve().parent.parent
    with tracking([folder], trackers):
        result = run_recipe(recipe, folder, as_json, study / "data" if is_study(study) else None, server)
    if as_json:
        print_json([result])


def _resume_study(
    folder: Path, changes: Sequence[str], workers: int, as_json: bool, trackers: Sequence[str], server: str | None
) -> None:
    for option, value in {"--set": bool(changes), "--json": as_json}.items():
        if value:
            raise UserError("a study is resumed without this option", where=option)
    plan = study_module.stored_plan(folder)
    for arm, recipe in plan.arms.items():
        assemble.check(recipe, arm)
    with tracking([folder], trackers):
        run_study(plan, folder, workers, server=server)
