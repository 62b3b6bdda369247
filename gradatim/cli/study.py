"""``gradatim study``: several recipes with several seeds, compared statistically."""

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
    out: Annotated[Path, typer.Option(help="Study folder.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per arm; at least 5 to claim a difference.")] = 3,
    baseline: Annotated[
        str | None, typer.Option(help="Arm to compare with. (default: the one with schedule `baseline`)")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Parallel runs (0 = auto).")] = 0,
    changes: Changes = None,
) -> None:
    """Run several recipes with several seeds each and compare them.

    All arms share the data and the test set; an arm is named after its recipe. Repeat the command to resume it or to
    add seeds and arms. Ends with the result table and report.html.
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
            from ..experiment.study import study as run_study

            run_study(plan, out, workers=workers, events=events)
    except WorkFailed:
        print_report([out], out / "report.html")  # finished runs are reported even when others failed
        raise
    print_report([out], out / "report.html")
