"""``gradatim plan``: what would a recipe do, and what would it cost?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Changes, Json

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiment.plan import PlannedCycle, PlannedStage, RunPlan

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
            "--data/--no-data", help="Draw and score the samples to count them. (default: where a run has done so)"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; samples already drawn there are read.")] = None,
    as_json: Json = False,
) -> None:
    """Show a recipe's stages, their data and their cost; nothing is trained.

    Shares, tokens and steps come from the recipe alone. Samples and characters need the data: it is drawn with --data,
    or read where a run has already drawn it; nothing stays on the disk. Of several cycles it tells the questions of
    each, what the student and the teacher are asked, and an estimate of tokens and cost; no teacher is asked for it.
    Where a teacher designs the schedule, that is asked for with the data: one request, at most two, and the run
    pays nothing for them again where replies are kept. --no-data asks nobody.
    """
    from ..api import default_folder
    from ..experiment.plan import plan_run
    from ..experiment.recipe import load
    from .output import output, print_json
    from .progress import watching

    asked = load(recipe, changes or ())
    with watching() as events:
        made = plan_run(asked, data=data, store=(out or default_folder(recipe)) / "data", events=events)
    if as_json:
        print_json(made.plain())
    else:
        _print(made, output())


def _print(made: RunPlan, console: Console) -> None:
    from .output import size, table

    counted = made.data is not None
    console.print(f"{made.title or 'recipe'}: schedule {made.schedule}, difficulty {made.metric}", markup=False)
    bands = [(band.name, _range(band.low, band.high), band.samples) for band in made.bands]
    console.print(table(("band", "difficulty", "samples"), bands, left=2))
    several = len(made.cycles) > 1
    columns = [*(["cycle"] if several else []), "stage", *(band.name for band in made.bands), "order"]
    columns += ["samples", "characters", "passes"] if counted else []
    rows = [[*([stage.cycle] if several else []), *_row(stage, counted)] for stage in made.stages]
    if rows:
        console.print(table([*columns, "tokens", "steps"], rows, left=len(made.bands) + 2 + several))
    for line in _design(made):
        console.print(line, markup=False)
    if made.cycles:
        _print_cycles(made, console)
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


def _print_cycles(made: RunPlan, console: Console) -> None:
    """What each cycle asks of the student and of the teacher, and what that may cost."""
    from .output import table

    kinds = [
        kind
        for kind in ("questions", "answers", "faults", "rubric", "designs")
        if any(cycle.requests.get(kind) for cycle in made.cycles)
    ]
    columns = ("cycle", "new questions", "of grade", "samples at most", "attempts before", "attempts after")
    rows = [(*_cycle(cycle), *(cycle.requests.get(kind, 0) for kind in kinds)) for cycle in made.cycles]
    console.print(table([*columns, *(f"teacher: {kind}" for kind in kinds)], rows))
    if made.teacher is not None:
        for line in _teacher(made.teacher):
            console.print(line, markup=False)


def _design(made: RunPlan) -> Iterator[str]:
    """Who designs the stages, why so, and what asking costs; nothing where nobody does."""
    design, asked = made.design, None if made.teacher is None else made.teacher["name"]
    if design is None:
        return
    again = (
        ", and as many before each later cycle, when it sees what the student has learnt" if design["revises"] else ""
    )
    if not design["asked"]:
        yield f"stages: the teacher {asked} designs them once it sees the samples; --data asks it now"
    else:
        counted = "1 request" if design["requests"] == 1 else f"{design['requests']} requests"
        yield f"stages: designed by the teacher {asked} ({counted}; replies that are kept cost a run nothing more)"
        yield f"its reason: {design['reason']}"
    yield f"to design takes 1 request, at most 2, before the first cycle{again}; they cost as others do"


def _cycle(cycle: PlannedCycle) -> tuple[object, ...]:
    grades = ", ".join(f"{number:,} {grade}" for grade, number in cycle.by_grade.items()) or None
    return (cycle.cycle, cycle.questions, grades, cycle.samples, cycle.attempts, cycle.feedback)


def _teacher(told: Mapping[str, Any]) -> Iterator[str]:
    """The teacher's share of the plan, in lines."""
    asked = sum(told["requests"].values())
    if told["prompt_tokens"] is None:
        yield f"teacher {told['name']}: asked {asked:,} times, writes no text, costs nothing"
        return
    yield (
        f"teacher {told['name']}: about {asked:,} requests, {told['prompt_tokens']:,} prompt tokens (estimated), "
        f"at most {told['completion_tokens']:,} reply tokens ({told['max_tokens']} each)"
    )
    if told["prices"] is not None:
        yield f"cost: about {told['cost']:.4g} if every reply is as long as it may be, in the unit of the prices"
    else:
        yield "cost: nothing" if told["cost"] is not None else "cost: not known, since the recipe names no prices"
    lengths = (
        "measured on the samples" if told["characters"]["measured"] else "assumed, since no samples were looked at"
    )
    yield (
        f"an estimate, with lengths of questions {lengths}; a reply that cannot be read and a question that is not "
        "new are asked for again, and a reply that is kept already is not paid for again"
    )
    limits = [
        f"{told[name]:,} {what}"
        for name, what in (("budget_tokens", "tokens"), ("budget_money", "in money"))
        if told.get(name)
    ]
    if limits:
        yield f"the recipe allows the teacher at most {' and '.join(limits)}"


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
