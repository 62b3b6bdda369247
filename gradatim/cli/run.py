"""``gradatim run``: carry out a recipe, or go on with it."""

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
    "gradatim run smoke/baseline",
    "gradatim run curriculum/hybrid --set seed=2 --out runs/hybrid-2",
)


def run(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE…", help="Recipes by name (gradatim list recipes) or file, run one after another."
        ),
    ],
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. (default: runs/NAME, with the recipe's name)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a student as a recipe says, stage by stage, and evaluate it.

    The same command again goes on where it stopped; Ctrl-C stops with everything saved. Ends with the result on the
    terminal and in the folder's report.html.
    """
    from ..api import default_folder
    from ..experiment.assemble import check
    from ..experiment.recipe import files_of, load
    from .output import check_run_output, print_json

    if out is not None and len(recipes) > 1:
        raise UserError("one folder holds one run", where="--out", given=f"{len(recipes)} recipes")
    asked = {name: load(name, changes or ()) for name in recipes}
    for name, recipe in asked.items():
        check(recipe, name)
    for name in asked:
        check_run_output(out or default_folder(name), "--out", files_of(name))
    done = [_one(recipe, out or default_folder(name), as_json) for name, recipe in asked.items()]
    if as_json:
        print_json(done)


def _one(recipe: Recipe, folder: Path, quiet: bool) -> dict[str, Any]:
    """Run one recipe, write its report and print its result; returns what ``--json`` tells of it."""
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
                "results": {f"{each.suite}-{each.protocol}": summary(each) for each in stage.evaluations},
            }
            for stage in stages
        ],
    }


def print_report(folders: list[Path], page: Path, quiet: bool = False) -> Path:
    """Write the page of ``folders`` and print the result table; returns the page's path."""
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
