"""``gradatim study``: the arms of a study with several seeds, compared statistically."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import WorkFailed
from .options import Changes, words

__all__ = ["EXAMPLES", "study"]

EXAMPLES = (
    "gradatim study demo",
    "gradatim study adaptive --arms baseline,mastery --seeds 5",
    "gradatim study curriculum/baseline curriculum/reverse --out runs/direction --set budget.tokens=500000",
)


def study(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY…",
            help="A study by name (gradatim list studies) or file, or the arms: recipes by name or file.",
        ),
    ],
    arms: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Arms of the study, comma-separated. (default: all)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Study folder. (default: runs/NAME, after the study)")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds per arm; at least 5 to claim a difference. (default: the study's, or 3)"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Arm to compare with. (default: the study's, or the one with schedule `baseline`)"),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Parallel runs (0 = auto).")] = 0,
    changes: Changes = None,
) -> None:
    """Run the arms of a study with several seeds each and compare them.

    All arms share the data and the test set. Repeat the command to resume it or to add seeds and arms. Ends with the
    result table and report.html.
    """
    from ..api import study_plan
    from ..experiment.recipe_files import files_of
    from .output import check_run_output
    from .progress import watching
    from .run import print_report

    plan, folder = study_plan(
        recipes, out, arms=None if arms is None else words(arms), seeds=seeds, baseline=baseline, changes=changes or ()
    )
    check_run_output(folder, "--out", [file for name in recipes for file in files_of(name)])
    try:
        with watching(resumable=True) as events:
            from ..experiment.study import study as run_study

            run_study(plan, folder, workers=workers, events=events)
    except WorkFailed:
        print_report([folder], folder / "report.html")  # finished runs are reported even when others failed
        raise
    print_report([folder], folder / "report.html")
