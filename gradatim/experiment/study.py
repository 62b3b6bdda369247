"""Studies: every arm with every seed on one dataset and one test set.

A study runs every arm (a recipe) with every seed, on the same samples and the same test set, a few runs at a time,
each in its own process with its share of the processors. Arms may only differ in whether duplicates are dropped from
the training samples. It is resumed by the same call: finished runs are not
started again. ``reporting`` compares the results, from the folders alone.

    runs/NAME/{study.json, data/, hybrid/seed-1/, hybrid/seed-2/, …, report.html}

A ``Part`` of a study is every COUNT-th run. Parts are started by as many commands, such as the tasks of a Slurm array,
on machines that share the folder. The folder is locked while ``study.json`` is written, then each run by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from .. import executors
from ..corpus import Corpus
from ..errors import RecipeError, RunFolderError, UserError
from ..processes import available_cores, launch
from ..record import Record, read_json, write_json
from ..schedule import Bands, preview
from ..stage import Events, ignore_events
from .assemble import check, corpus_maker, drawn, only_designs, schedules_of, student_of
from .parts import Part
from .recipe import Recipe, changed_keys, parse
from .run import check_server
from .run_lock import FINISHED, another_recipe, check_run_folder, differences, stored_recipe, study_arms, trained_stage
from .workers import run_in_processes, run_on_executor

CLAIM_PATIENCE = 60.0
"""The longest wait, in seconds, of a part for another one that writes ``study.json``."""
DEFAULT_SEEDS = 3
"""Seeds of a study whose file and call give no number."""


@dataclass(frozen=True)
class Plan:
    """What a study will run: ``arms`` by name, and which of them the others are compared with.

    ``baseline`` is the primary reference; ``controls`` are further ones (a baseline with the same learning-rate
    restarts as the curricula).
    """

    title: str
    arms: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    baseline: str
    controls: tuple[str, ...] = ()

    def runs(self) -> list[tuple[str, int]]:
        """Every (arm, seed), all arms of a seed before the next seed: a stopped study compares whole seeds."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]


def plan_study(recipes: Mapping[str, Recipe], seeds: int, *, baseline: str | None = None, title: str = "") -> Plan:
    """A plan over ``seeds`` seeds, counted from each recipe's own. Tells every fault of every recipe.

    The baseline is the arm whose schedule is ``baseline`` in one stage, or the first arm; arms with the same schedule
    in several stages are controls. Raises ``RecipeError`` when arms differ in data or test set.
    """
    for arm, recipe in recipes.items():
        check(recipe, arm)
    if seeds < 1:
        raise RecipeError("a study has at least one seed", where="--seeds", given=seeds)
    plain = [arm for arm, recipe in recipes.items() if schedules_of(recipe)[0].is_control]
    single = [arm for arm in plain if not recipes[arm].schedule.options]
    chosen = baseline or next(iter([*single, *plain, *recipes]))
    if chosen not in recipes:
        raise RecipeError("the baseline is not an arm", where="--baseline", given=chosen, allowed=", ".join(recipes))
    reference = recipes[chosen]
    shared: dict[str, Callable[[Recipe], Any]] = {
        "data": _common_data,
        "evaluate": attrgetter("evaluate"),
        "seed": attrgetter("seed"),
    }
    for arm, recipe in recipes.items():
        for section, content in shared.items():
            if content(recipe) != content(reference):
                keys = [line for line in changed_keys(reference, recipe) if line.startswith(section)]
                raise RecipeError(
                    f"the arms of a study share their {section}, or their results cannot be compared",
                    where=f"{arm}: {section}",
                    given=f"another {section} than {chosen}" + (f": {'; '.join(keys)}" if keys else ""),
                    hint=f"the same `{section}:` in every recipe, best by `extends`, or --set {section}.…=… for all",
                )
    _check_duplicates(recipes)
    first = reference.seed
    # A sorted baseline is an ordering of its own, not a control for one.
    shuffled = [arm for arm in plain if recipes[arm].schedule.options.get("order", "shuffled") == "shuffled"]
    # Nor is one whose samples, loss or selection of samples differ: the difference is its own.
    controls = tuple(arm for arm in shuffled if arm != chosen and _same_training(recipes[arm], reference))
    return Plan(title or reference.title, dict(recipes), tuple(range(first, first + seeds)), chosen, controls)


def _check_duplicates(recipes: Mapping[str, Recipe]) -> None:
    """Raise ``RecipeError`` where arms that differ in their duplicates would differ in budget or tokenizer too."""
    if len({recipe.data.split.duplicates for recipe in recipes.values()}) < 2:
        return
    for arm, recipe in recipes.items():
        if recipe.data.split.duplicates == "keep":
            continue
        where, hint = f"{arm}: data.split.duplicates", "the same duplicates in all arms"
        if recipe.budget.epochs is not None:
            raise RecipeError(
                "passes over fewer samples are another budget",
                where=where,
                given=f"budget.epochs: {recipe.budget.epochs}",
                hint=f"budget.tokens, or {hint}",
            )
        if recipe.is_language and not recipe.base and recipe.model.tokenizer == "bpe":
            raise RecipeError(
                "the tokenizer is trained on the samples, so arms would have tokens of their own",
                where=where,
                given="student.tokenizer: bpe",
                hint=f"student.tokenizer: character or word_level, or {hint}",
            )


def _common_data(recipe: Recipe) -> dict[str, Any]:
    """The part of ``data`` that all arms share: duplicates are dropped from training only, not from held-out sets."""
    options = drawn(recipe)
    return {**options, "split": {**options["split"], "duplicates": None}}


def _same_training(recipe: Recipe, reference: Recipe) -> bool:
    """Whether both train the same student on the same samples with the same settings, but for stages, in one cycle."""
    of_stages = {"reset_optimizer", "lr_scheduler", "evaluations_per_stage", "checkpoint_seconds", "logging_steps"}
    train, other = vars(recipe.train), vars(reference.train)
    same = all(train[key] == other[key] for key in train.keys() - of_stages) and recipe.student == reference.student
    return same and recipe.cycles == 1 == reference.cycles and drawn(recipe) == drawn(reference)


def study(
    plan: Plan,
    folder: Path,
    *,
    workers: int = 0,
    part: Part | None = None,
    on: str | None = None,
    events: Events = ignore_events,
    server: str | None = None,
) -> None:
    """Carry out what of the plan is not done yet, ``workers`` runs at a time (0: as many as pay on this machine).

    ``part``: only the runs of this part; the other parts may run at the same time, in other processes. ``on``: the
    address of an executor (``executors``), whose tasks are the runs; its machines share the folder under one path.
    ``server``: a command line that each run starts a server of its own by, see ``run``.

    Raises ``Stopped`` when ``events`` does, after every running run has saved its state, and ``WorkFailed`` when
    runs failed, after the others are done. ``RunFolderError`` when the folder is in use or holds another study.
    """
    if (launched := launch().size) > 1:
        raise UserError(
            "a study starts its own processes, one for each run",
            where="WORLD_SIZE",
            given=launched,
            hint="gradatim study without a launcher, or gradatim run for one training over several processes",
        )
    if server is not None:
        for recipe in plan.arms.values():
            check_server(recipe, server)
    cores = available_cores()
    begun = workers or runs_at_once(plan.arms.values(), cores)
    check_run_folder(folder)
    with contextlib.ExitStack() as claimed:
        record = claimed.enter_context(Record(folder, patience=0.0 if part is None else CLAIM_PATIENCE))
        content = _checked_content(record, plan, max(1, cores // begun), part)
        threads = int(content["threads"])
        recipes = {
            (arm, seed): plan.arms[arm].model_copy(update={"seed": seed, "threads": plan.arms[arm].threads or threads})
            for arm, seed in plan.runs()
        }
        for run, recipe in recipes.items():
            changed = differences(folder / run_folder(*run), recipe)
            if changed:
                message, stage = "this study was begun with another recipe", trained_stage(folder)
                raise another_recipe(folder / run_folder(*run), message, changed, stage, folder)
        write_json(record.folder / "study.json", content)
        if part is not None:
            claimed.close()
            recipes = {run: recipes[run] for run in part.select(plan.runs())}
        # A study that goes on keeps the threads that it began with, perhaps on a machine with more cores.
        workers = workers or runs_at_once(recipes.values(), cores)
        corpora = {
            arm: corpus_maker(recipe.model_copy(update={"workers": cores}), events).make(folder / "data", events)
            for arm, recipe in plan.arms.items()
        }
        _check_held_out(plan, corpora)
        names = {run_folder(*run): recipe for run, recipe in recipes.items()}
        waiting = {name: recipe for name, recipe in names.items() if not _finished(folder / name, recipe)}
        if on is None:
            run_in_processes(waiting, folder, min(workers, max(len(waiting), 1)), events, len(recipes), server)
            return
        run_threads = max((recipe.threads for recipe in recipes.values()), default=1)
        with executors.use(on, threads=run_threads, accelerator=True) as executor:
            assert executor is not None
            run_on_executor(executor, waiting, folder.absolute(), events, len(recipes), server)


def finished_runs(plan: Plan, folder: Path) -> int:
    """The number of runs of the plan that are finished in ``folder``."""
    return sum((folder / run_folder(*run) / FINISHED).exists() for run in plan.runs())


def runs_at_once(recipes: Iterable[Recipe], cores: int) -> int:
    """The number of runs that have a core for each of their threads, at most 8.

    Threads that share a core wait for each other after every product: two runs of two threads on two cores took twelve
    times as long as one after the other.
    """
    threads = max((recipe.threads for recipe in recipes), default=0)
    return max(1, min(cores // max(threads, 1), 8))


def _check_held_out(plan: Plan, corpora: Mapping[str, Corpus]) -> None:
    """Raise ``RecipeError`` for an arm with another test set: a teacher's samples depend on more than ``data``."""
    test_sets = {arm: corpus.table("test").select(["prompt", "answer"]) for arm, corpus in corpora.items()}
    for arm, samples in test_sets.items():
        if not samples.equals(test_sets[plan.baseline]):
            raise RecipeError(
                "the arms of a study share their test set, or their results cannot be compared",
                where=arm,
                given=f"{samples.num_rows} test samples that are not those of {plan.baseline}",
                hint="the same `teacher:` and the same `rejected_answers.verify` in every recipe",
            )


def run_folder(arm: str, seed: int) -> str:
    """Where one run lies inside the study."""
    return f"{arm}/seed-{seed}"


def _checked_content(record: Record, plan: Plan, threads: int, part: Part | None) -> dict[str, Any]:
    """The content of ``study.json`` for this plan, after a check of the one that is stored.

    A study folder keeps its arms' recipes; more seeds or arms may be added, none changed. A part needs the recipes that
    are stored, as no run of another part may have begun yet. The threads of each run are those of the study's first
    start, since another number gives other bits.
    """
    path = record.folder / "study.json"
    now: dict[str, Any] = {
        "title": plan.title,
        "arms": [{"name": arm, "title": title} for arm, title in _titles(plan).items()],
        "seeds": list(plan.seeds),
        "baseline": plan.baseline,
        "controls": list(plan.controls),
        "threads": threads,
        "recipes": {arm: recipe.model_dump(mode="json") for arm, recipe in plan.arms.items()},
        "differences": {arm: _differences(plan, arm) for arm in plan.arms if _differences(plan, arm)},
        "restarts": {arm: count for arm, recipe in plan.arms.items() if (count := _restarts(recipe)) is not None},
    }
    if path.exists():
        arms, seeds, threads = read_json(path, _kept)
        now["threads"] = threads or now["threads"]
        if part is not None:
            _check_same_recipes(record.folder, plan)
        lost = [arm for arm in arms if arm not in plan.arms]
        if lost:
            raise RunFolderError(
                "this folder holds a study with other arms",
                where=record.folder,
                given=f"without {', '.join(lost)}",
                hint="name all arms of the study, or choose another folder with --out"
                + (", or --fresh, as nothing was learnt there yet" if trained_stage(record.folder) is None else ""),
            )
        now["seeds"] = sorted({*seeds, *plan.seeds})
    elif (record.folder / "recipe.yaml").exists():
        raise RunFolderError("this folder holds a single run", where=record.folder, hint="another folder with --out")
    return now


def _check_same_recipes(folder: Path, plan: Plan) -> None:
    """Raise ``RunFolderError`` for an arm whose recipe is not that of the parts that began before."""
    stored = stored_plan(folder)
    for arm in plan.arms:
        if arm in stored.arms and (changed := changed_keys(stored.arms[arm], plan.arms[arm])):
            message, stage = f"the parts of a study have the same recipes, and {arm} differs", trained_stage(folder)
            raise another_recipe(folder, message, changed, stage)


def stored_plan(folder: Path) -> Plan:
    """The plan of the study in ``folder``, as its last start recorded it.

    Raises ``RunFolderError`` for a damaged ``study.json``, and for an arm without a stored recipe and without a run:
    earlier versions stored the recipes of runs only.
    """
    path = folder / "study.json"
    arms, seeds, _ = read_json(path, _kept)
    content = read_json(path, dict)
    recipes = content.get("recipes", {})
    loaded: dict[str, Recipe] = {}
    for arm in arms:
        if arm in recipes:
            loaded[arm] = parse(recipes[arm], f"{path}: recipes.{arm}")
            continue
        stored = [recipe for seed in seeds if (recipe := stored_recipe(folder / run_folder(arm, seed))) is not None]
        if not stored:
            raise RunFolderError(
                "this study does not store the recipe of an arm", where=path, given=arm, hint="the study's own command"
            )
        loaded[arm] = stored[0].model_copy(update={"seed": seeds[0]})
    baseline = content.get("baseline")
    if baseline not in loaded:
        raise RunFolderError("the baseline of this study is not an arm", where=path, given=baseline)
    return Plan(content.get("title", ""), loaded, tuple(seeds), baseline, tuple(content.get("controls", ())))


def _kept(before: Any) -> tuple[list[str], list[int], int]:
    """The arms, the seeds and the threads of each run that a ``study.json`` names; 0 threads where it names none."""
    threads = before.get("threads", 0)
    seeds = before["seeds"]
    if not all(isinstance(each, int) for each in (threads, *seeds)):
        raise TypeError
    return study_arms(before), seeds, threads


def _differences(plan: Plan, arm: str) -> list[str]:
    """What an arm does otherwise than the baseline besides its schedule; a fair comparison has nothing here."""
    changed = changed_keys(plan.arms[plan.baseline], plan.arms[arm])
    own = ("schedule.", "teacher") if only_designs(plan.arms[arm]) else ("schedule.",)
    return [line for line in changed if not line.startswith(own)]


def _restarts(recipe: Recipe) -> int | None:
    """How often the optimizer and the learning rate begin anew in a run, as far as is known beforehand; None where a
    teacher has yet to write the stages."""
    if not student_of(recipe).restarts:
        return 0
    empty, schedules = Bands(recipe.difficulty.bands.names, (), np.empty(0, np.int8)), schedules_of(recipe)
    if any(schedule.needs_teacher for schedule in schedules):
        return None
    return sum(len(preview(schedule, empty)) for schedule in schedules) - 1


def _titles(plan: Plan) -> dict[str, str]:
    """What each arm is called: its recipe's title, or its own name where that is missing or another arm's too."""
    given = [recipe.title for recipe in plan.arms.values()]
    return {
        arm: recipe.title if recipe.title and given.count(recipe.title) == 1 else arm
        for arm, recipe in plan.arms.items()
    }


def _finished(folder: Path, recipe: Recipe) -> bool:
    return (folder / FINISHED).exists() and not differences(folder, recipe)
