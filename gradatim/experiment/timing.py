"""Duration of a run on this machine, estimated from a few measured steps.

``measure_run`` makes the dataset, trains a few steps of the first stage in a temporary folder and runs every suite on a
few test samples with that model. The rest is proportion: tokens per step are those measured, not the recipe's maximum.
Attempts between cycles, requests to a teacher and suites with problems of their own are not included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..processes import available_cores
from ..random_streams import stage_seed
from ..record import Metrics
from ..schedule import is_designed, preview, select_rows
from ..stage import Event, Events, ignore_events
from .assemble import Components, assemble, check
from .plan import needs_requests
from .recipe import Recipe
from .study import Plan, runs_at_once

STEPS = 12
"""Steps that are trained."""
ROLLOUTS = 3
"""Rollouts of a policy that are trained."""
WARM_UP = 3
"""First steps that are not measured: compilation, memory, caches."""
SAMPLES = 32
"""Test samples that each suite is run on."""


@dataclass(frozen=True)
class RunTime:
    """Estimated seconds of a run: ``preparation`` of the data, ``training``, ``validation``, ``evaluation`` by suites.

    ``step``: the median of ``measured`` steps, of ``steps``. ``evaluation`` is an upper estimate: a model that has not
    learnt to end its answers generates longer ones. ``omitted``: suites that were not measured.
    """

    preparation: float
    training: float
    validation: float
    evaluation: float
    step: float
    steps: int
    measured: int
    omitted: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Estimated seconds of the run."""
        return self.preparation + self.training + self.validation + self.evaluation

    def plain(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return {"total": self.total, **asdict(self)}


def measure_run(recipe: Recipe, *, store: Path | None = None, events: Events = ignore_events) -> RunTime:
    """The estimated duration of ``recipe`` on this machine; nothing stays on the disk.

    ``store``: a folder that may hold the dataset already. Raises ``RecipeError`` for a schedule or samples that need a
    teacher's replies, which a measurement does not request.
    """
    check(recipe)
    if is_designed(assemble(recipe).schedules[0]) or needs_requests(recipe):
        raise RecipeError("the duration depends on a teacher's replies, which are not requested here", where="--time")
    with tempfile.TemporaryDirectory() as folder:
        return _measure(recipe, Path(folder), store, events)


def _measure(recipe: Recipe, folder: Path, store: Path | None, events: Events) -> RunTime:
    parts = assemble(recipe, events)
    made = store is not None and (store / parts.corpus.key / "facts.json").exists()
    started = time.monotonic()
    dataset = parts.first_dataset(store if made and store is not None else folder / "data")
    bands = parts.cut(dataset)
    trainer = parts.trainer(dataset, Metrics(folder / "metrics.jsonl"))
    count, warm_up = (STEPS, WARM_UP) if recipe.is_language else (ROLLOUTS, 0)
    if recipe.is_language:
        settings = replace(recipe.train, evaluations_per_stage=1, checkpoint_seconds=1e9)
        trainer = replace(trainer, train=settings)  # type: ignore[type-var]
    preparation = time.monotonic() - started
    stages = [len(preview(schedule, bands)) for schedule in parts.schedules]
    first = preview(parts.schedules[0], bands)[0]
    stage = select_rows(
        replace(first, tokens=count * parts.student.step),
        bands,
        dataset.difficulty("train", parts.metric),
        seed=stage_seed(recipe.seed, 0, 0),
        index=0,
        first_token=0,
        run_tokens=parts.tokens,
        categories=dataset.categories,
    )
    ends: list[float] = []

    def listen(event: Event) -> None:
        if event.kind == "advance":
            ends.append(time.monotonic())
        events(event)

    fitted = trainer.fit(stage, folder / "stage", None, listen)
    lengths = [after - before for before, after in pairwise(ends)]
    # The last step ends with the validation.
    step = statistics.median(lengths[warm_up:-1] or lengths[:-1] or lengths or [0.0])
    validation = max(lengths[-1] - step, 0.0) if lengths else 0.0
    steps = round(parts.tokens * fitted.steps / max(fitted.tokens, 1))
    evaluation, omitted = _evaluation(recipe, parts, folder / "stage", parts.samples("test", dataset, bands), stages)
    return RunTime(
        preparation=preparation,
        training=steps * step,
        validation=validation * recipe.train.evaluations_per_stage * sum(stages) if recipe.is_language else 0.0,
        evaluation=evaluation,
        step=step,
        steps=steps,
        measured=len(lengths[warm_up:-1]),
        omitted=omitted,
    )


def _evaluation(
    recipe: Recipe, parts: Components, stage: Path, samples: Any, stages: list[int]
) -> tuple[float, tuple[str, ...]]:
    """Seconds of all evaluations of the run, and the suites that were not measured."""
    seconds, omitted = 0.0, []
    model = parts.load(stage) if parts.suites else None
    for section, suite in zip(recipe.evaluate.suites, parts.suites, strict=True):
        if "problems" in section.options or section.suite == "cruxeval" or model is None:
            omitted.append(section.suite)
            continue
        count = min(section.options.get("limit") or samples.num_rows, samples.num_rows)
        few = samples.slice(0, min(SAMPLES, count))
        started = time.monotonic()
        parts.evaluate(suite, model, few)
        once = (time.monotonic() - started) * count / max(few.num_rows, 1)
        seconds += once * (len(stages) if suite.only_last else sum(stages))
    return seconds, tuple(omitted)


@dataclass(frozen=True)
class StudyTime:
    """Estimated seconds of a study: ``total`` by the clock, with ``parallel`` runs at a time, and each arm's run."""

    total: float
    parallel: int
    arms: Mapping[str, RunTime]

    def plain(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        arms = {arm: estimate.plain() for arm, estimate in self.arms.items()}
        return {"total": self.total, "parallel": self.parallel, "arms": arms}


def measure_study(plan: Plan, *, events: Events = ignore_events) -> StudyTime:
    """The estimated duration of a study, one run after the other measured with the threads that it will have.

    Arms with the same model, training, evaluation and number of stages are measured once.
    """
    cores = available_cores()
    parallel = runs_at_once(plan.arms.values(), cores)
    threads = max(1, cores // parallel)
    measured: dict[str, RunTime] = {}
    arms: dict[str, RunTime] = {}
    for arm, recipe in plan.arms.items():
        own = recipe.model_copy(update={"threads": recipe.threads or threads})
        stages = [len(preview(schedule, own.difficulty.bands.names)) for schedule in assemble(own).schedules]
        key = repr((own.student, own.train, own.evaluate, own.budget, own.data, stages))
        if key not in measured:
            measured[key] = measure_run(own, events=events)
        arms[arm] = measured[key]
    runs = len(plan.seeds) * sum(estimate.total for estimate in arms.values())
    return StudyTime(runs / min(parallel, len(plan.runs())), parallel, arms)
