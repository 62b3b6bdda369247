"""``gradatim plan``: what would a recipe do, and what would it cost?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Changes, Json

if TYPE_CHECKING:
    from rich.console import Console

    from ..plan import PlannedStage, RunPlan

__all__ = ["EXAMPLES", "plan"]

EXAMPLES = (
    "gradatim plan curriculum/hybrid",
    "gradatim plan curriculum/hybrid --set schedule.replay=0.25 --data",
)


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name (gradatim list recipes) or file.")],
    changes: Changes = None,
    data: Annotated[
        bool | None,
        typer.Option(
            "--data/--no-data", help="Draw and score the samples to count them. (default: when that is quick)"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; samples already drawn there are read.")] = None,
    as_json: Json = False,
) -> None:
    """Show a recipe's stages, their data and their cost; nothing is trained.

    Shares, tokens and steps come from the recipe alone. Samples and characters need the data: it is drawn when it is
    small or already there, or with --data; nothing stays on the disk.
    """
    from ..api import default_folder
    from ..plan import plan_run
    from ..recipe import load
    from .progress import watching
    from .show import output, print_json

    asked = load(recipe, changes or ())
    with watching() as events:
        made = plan_run(asked, data=data, store=(out or default_folder(recipe)) / "data", events=events)
    if as_json:
        print_json(made.plain())
    else:
        _print(made, output())


def _print(made: RunPlan, console: Console) -> None:
    from .show import size, table

    counted = made.data is not None
    console.print(f"{made.title or 'recipe'}: schedule {made.schedule}, difficulty {made.metric}", markup=False)
    bands = [(band.name, _range(band.low, band.high), band.samples) for band in made.bands]
    console.print(table(("band", "difficulty", "samples"), bands, left=2))
    columns = ["stage", *(band.name for band in made.bands), "order"]
    columns += ["samples", "characters", "passes"] if counted else []
    rows = [_row(stage, counted) for stage in made.stages]
    console.print(table([*columns, "tokens", "steps"], rows, left=len(made.bands) + 2))
    disk = [f"{name} {size(bytes_)}" for name, bytes_ in made.disk.items() if bytes_ is not None]
    large = f"of about {made.parameters:,} numbers" if made.parameters is not None else "of unknown size until fetched"
    console.print(
        f"{made.tokens:,} tokens in about {made.steps:,} steps; a {made.preset} student {large}"
        + (f"; disk: {', '.join(disk)}" if disk else ""),
        markup=False,
    )
    if made.data is not None:
        parts = [f"{made.data[part]:,} {part}" for part in ("train", "validation", "test")]
        console.print(f"samples: {', '.join(parts)}; {made.data['unscored']:,} without a difficulty", markup=False)
    else:
        console.print("samples were not counted; --data draws and counts them", style="dim")


def _row(stage: PlannedStage, counted: bool) -> list[object]:
    row: list[object] = [stage.stage, *(_share(stage, band) for band in stage.fractions), stage.order]
    if counted:
        row += [stage.samples, stage.characters, None if stage.passes is None else f"{stage.passes:.2f}"]
    return [*row, stage.tokens, stage.steps]


def _share(stage: PlannedStage, band: str) -> str:
    """A cell of the matrix: how much of the band, which part of it, and how many samples that is."""
    fraction = stage.fractions[band]
    if not fraction:
        return "·"
    part = f" {stage.ends[band]}" if band in stage.ends else ""
    count = f" ({stage.bands[band]:,})" if stage.bands is not None else ""
    return f"{fraction:.0%}{part}{count}"


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "cut from the data"
    if low is None:
        return f"below {high:g}"
    return f"from {low:g}" if high is None else f"{low:g} to {high:g}"
