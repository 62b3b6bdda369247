"""The loop: what happens in a run, in order?

Rows are cycles, columns are stages. Each cycle draws and scores its samples; the schedule, which sees only what has
happened, names the next stage; the student learns it and is examined; then it is asked what it still gets wrong, and
the next cycle's samples come from that. Every costly thing goes through ``record.once``, so the same command again
walks through what is done and goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..distillation import RanDry
from ..record import Record, read_json
from ..stage import Event, Events, StageResult, ignore_events
from .assemble import assemble, check
from .cycle import Cycle
from .recipe import MOST_CYCLES, Recipe
from .run_lock import check_run_folder, claim

__all__ = ["run"]

FINISHED = "finished.json"


def run(
    recipe: Recipe, folder: Path, *, store: Path | None = None, events: Events = ignore_events
) -> list[StageResult]:
    """Carry out the recipe in ``folder``, or what of it is not done yet; returns every stage, cycle by cycle.

    ``store`` is where the first cycle's corpora are kept (a study shares one), ``folder / "data"`` when left out.
    ``events`` may raise ``Stopped``: the state is then saved, and the same call goes on from there. When a source has
    no new question for a cycle, the run ends well after the one before.
    """
    check(recipe)
    check_run_folder(folder)
    with Record(folder) as record:
        claim(record, recipe, events)
        parts = assemble(recipe, events)
        corpora = [parts.corpus.make(store or folder / "data", events)]
        stages: list[StageResult] = []
        end: dict[str, int | str] = {}
        # A run that ran dry stays ended: to ask again might bring what could not be had then.
        cycles = read_json(folder / FINISHED, _cycles) if record.done(FINISHED) else parts.cycles
        for number in range(cycles):
            cycle = Cycle(record, parts, corpora[-1], number, stages, events)
            stages += cycle.run()
            end = {"cycles": number + 1, "stages": len(stages)}
            if number + 1 < cycles:
                try:
                    corpora.append(cycle.next_corpus(corpora))
                except RanDry as dry:
                    events(Event("note", "run", text=f"the run ends after cycle {number}: {dry}"))
                    end["dry"] = str(dry)
                    break
        record.once(FINISHED, lambda: end)
        return stages


def _cycles(end: Any) -> int:
    """The cycles that a finished run had."""
    cycles = end["cycles"]
    if not isinstance(cycles, int) or not 1 <= cycles <= MOST_CYCLES:
        raise ValueError("cycles: not a number of cycles")
    return cycles
