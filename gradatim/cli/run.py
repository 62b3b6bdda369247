"""``gradatim run``: train a recipe, or resume it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from .options import Changes, Json

if TYPE_CHECKING:
    from ..experiment.recipe import Recipe

__all__ = ["EXAMPLES", "run"]

EXAMPLES = (
    "gradatim run demo/baseline",
    "gradatim run curriculum/hybrid --set seed=2 --out runs/hybrid-2",
)


def run(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE…", help="Recipes by name (gradatim list recipes) or file, run in sequence."),
    ],
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. (default: runs/NAME, after the recipe)")] = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate a model by a recipe, stage by stage.

    Repeat the command to resume; Ctrl-C saves the state first. Ends with the result table and report.html in the run
    folder.
    """
    from ..api import default_folder
    from ..experiment.assemble import check
    from ..experiment.recipe import load
    from ..experiment.recipe_files import files_of
    from .output import check_run_output, print_json

    if out is not None and len(recipes) > 1:
        raise UserError("one folder holds one run", where="--out", given=f"{len(recipes)} recipes")
    loaded = {name: load(name, changes or ()) for name in recipes}
    for name, recipe in loaded.items():
        check(recipe, name)
    for name in loaded:
        check_run_output(out or default_folder(name), "--out", files_of(name))
    results = [_run_recipe(recipe, out or default_folder(name), as_json) for name, recipe in loaded.items()]
    if as_json:
        print_json(results)


def _run_recipe(recipe: Recipe, folder: Path, quiet: bool) -> dict[str, Any]:
    """Run one recipe, write its report and print its result; return the entry for ``--json``."""
    from .progress import watching

    with watching(resumable=True) as events:
        from ..evaluation import summary
        from ..experiment.run import run as run_recipe

        stages = run_recipe(recipe, folder, events=events)
    report = print_report([folder], folder / "report.html", quiet)
    return {
        "folder": str(folder),
        "report": str(report),
        "stages": [
            {
                "stage": stage.spec.name,
                "samples": stage.samples,
                "tokens": stage.fitted.tokens,
                "steps": stage.fitted.steps,
                "loss": stage.fitted.loss,
                "results": {f"{result.suite}-{result.protocol}": summary(result) for result in stage.evaluations},
            }
            for stage in stages
        ],
    }


def print_report(folders: list[Path], page: Path, quiet: bool = False) -> Path:
    """Write the report of ``folders``, print the result table and return the path of the report."""
    from ..reporting import collect, terminal_table, write_report
    from .output import output

    path = write_report(folders, page)
    if not quiet:
        study = collect(folders)
        for note in study.notes:
            output().print(f"note: {note}", markup=False, soft_wrap=True)
        output().print(terminal_table(study))
        output().print(f"report: {path}", markup=False, soft_wrap=True)
    return path
