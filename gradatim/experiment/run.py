"""The training loop: curriculum learning within a cycle, iterative distillation between cycles.

    first dataset: draw samples, score their difficulty, split them
    for each cycle:
        cut the training samples into difficulty bands
        while the schedule names a next stage:         curriculum learning
            select the stage's samples, train on them, evaluate
        complete the cycle's questions and judge the completions         iterative distillation
        request new questions where the model fails, add rejected answers: the next dataset

``Cycle`` (in ``cycle``) has one method for each of these steps. Every costly step is recorded by ``record.once``, so
the same call resumes a run: finished steps are read back.
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

FINISHED = "finished.json"


def run(
    recipe: Recipe, folder: Path, *, store: Path | None = None, events: Events = ignore_events
) -> list[StageResult]:
    """Train the recipe in ``folder``, or resume it; return the results of all stages, cycle by cycle.

    ``store``: folder of the first cycle's dataset (shared within a study), by default ``folder / "data"``. ``events``
    may raise ``Stopped``: the state is saved and the same call resumes. When the source has no new question for a
    cycle (``RanDry``), the run ends after the previous one and counts as finished.
    """
    check(recipe)
    check_run_folder(folder)
    with Record(folder) as record:
        claim(record, recipe, events)
        components = assemble(recipe, events)
        datasets = [components.corpus.make(store or folder / "data", events)]  # draw, score, split
        results: list[StageResult] = []
        end: dict[str, int | str] = {}
        # A run that ended early stays finished: the source might have new questions today.
        cycles = read_json(folder / FINISHED, _cycles) if record.done(FINISHED) else components.cycles
        for number in range(cycles):
            cycle = Cycle(record, components, datasets[-1], number, results, events)
            results += cycle.run()
            end = {"cycles": number + 1, "stages": len(results)}
            if number + 1 < cycles:
                try:
                    datasets.append(cycle.next_dataset(datasets))
                except RanDry as dry:
                    events(Event("note", "run", text=f"the run ends after cycle {number}: {dry}"))
                    end["dry"] = str(dry)
                    break
        record.once(FINISHED, lambda: end)
        return results


def _cycles(end: Any) -> int:
    """The number of cycles of a finished run."""
    cycles = end["cycles"]
    if not isinstance(cycles, int) or not 1 <= cycles <= MOST_CYCLES:
        raise ValueError("cycles: not a number of cycles")
    return cycles
