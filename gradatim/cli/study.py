"""``gradatim study``: which recipe is better, and how sure may we be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import WorkFailed
from .options import Changes

__all__ = ["EXAMPLES", "study"]

EXAMPLES = (
    "gradatim study curriculum/baseline curriculum/hybrid --seeds 5 --out runs/hybrid-study",
    "gradatim study curriculum/baseline curriculum/reverse --seeds 3 --out runs/all --set budget.tokens=500000",
)


def study(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE…", help="The arms: recipes by name or file.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm; under 5 nothing can be claimed.")] = 3,
    baseline: Annotated[
        str | None, typer.Option(help="The arm the others are compared with. (default: the one scheduled `baseline`)")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Runs at a time; 0: as many as pay on this machine.")] = 0,
    changes: Changes = None,
) -> None:
    """Run several recipes with several seeds each and compare them.

    All arms share the data and the test set; an arm is named after its recipe. The same command again goes on where
    it stopped, and more seeds or arms may be added. Ends with the result table and report.html.
    """
    from ..api import arms_of
    from ..experiment.recipe import files_of, load
    from ..experiment.study import plan_study
    from .output import check_run_output
    from .progress import watching
    from .run import print_report

    arms = {arm: load(name, changes or ()) for arm, name in arms_of(recipes).items()}
    plan = plan_study(arms, seeds, baseline=baseline, title=out.name)
    check_run_output(out, "--out", [file for name in recipes for file in files_of(name)])
    try:
        with watching(resumable=True) as events:
            from ..experiment.study import study as carry_out

            carry_out(plan, out, workers=workers, events=events)
    except WorkFailed:
        print_report([out], out / "report.html")  # what is done is worth seeing
        raise
    print_report([out], out / "report.html")
