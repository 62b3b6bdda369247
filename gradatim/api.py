"""The Python API: score, plan, run, study, report and evaluate, each what the command of the same name does.

The functions take paths or objects, names or recipes. They print nothing: ``events`` receives the progress. When it
raises ``Stopped``, the work stops with everything saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import difficulty, evaluation, executors, mobile, reporting
from . import table as tables
from .errors import DataError, RecipeError, UserError
from .evaluation import generation, statistics
from .experiment import parts, recipe_files
from .experiment import plan as plan_module
from .experiment import recipe as recipe_module
from .experiment import run as run_module
from .experiment import study as study_module
from .experiment.assemble import components
from .files import parquet_files
from .inference import sharing
from .model import hardware, hub, load
from .model.settings import Dtype
from .options import option_names
from .policy import masked
from .renamed_keys import suite_options
from .stage import Event, Events, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

    from .difficulty.score import ScoreFunction
    from .experiment.plan import RunPlan
    from .experiment.recipe import Recipe
    from .experiment.recipe_files import StudyFile
    from .experiment.study import Plan
    from .reporting import StudyData
    from .stage import Difficulty, Model, StageResult, Suite, SuiteResult

LONGEST_FOLDER = 100
"""Limit in characters of the default name of a study folder."""


def score(
    samples: pa.Table | str | Path,
    metrics: Sequence[str] | Mapping[str, Difficulty | ScoreFunction] = ("om",),
    *,
    columns: Mapping[str, str] | None = None,
    workers: int = 1,
    events: Events = ignore_events,
) -> pa.Table:
    """The samples with one float64 column per metric; higher is harder, NaN cannot be scored.

    ``samples``: a table, a file (.parquet, .jsonl, .csv, .txt) or a folder of Python files; ``columns``: what a file's
    columns are called, ours: theirs. ``metrics``: names (`gradatim
    list difficulties`), or {column: difficulty}. Raises ``DataError`` for data that cannot be used and
    ``UnknownPart`` for a metric that is not there.

    >>> import gradatim
    >>> from gradatim.table import make_table
    >>> table = make_table({"answer": ["a = 1\\nprint(a)\\n", "for i in range(3) :\\n\\tprint(i * i)\\n"]})
    >>> gradatim.score(table, ["om", "nesting"])["om"].to_pylist()
    [0.5, 1.5]
    """
    if isinstance(samples, str | Path):
        folder = Path(samples)
        samples = difficulty.read_folder(folder)[0] if is_source_folder(folder) else _table(samples, columns, events)
    if not isinstance(metrics, Mapping):
        metrics = {name: components.make_difficulty(name, where="metric") for name in metrics}
    return difficulty.score(samples, metrics, workers=workers, events=events)[0]


def plan(
    recipe: str | Path | Recipe,
    *,
    changes: Sequence[str] = (),
    data: bool | None = None,
    events: Events = ignore_events,
) -> RunPlan:
    """The stages of a recipe, their data and their cost; nothing is trained. See ``plan.plan_run`` for ``data``.

    ``changes`` are written as for ``--set``, for recipes given by name or path. Raises ``RecipeError``.

    >>> import gradatim
    >>> [stage.tokens for stage in gradatim.plan("smoke/baseline", data=False).stages]
    [30000]
    """
    return plan_module.plan_run(_recipe(recipe, changes, events), data=data, events=events)


def run(
    recipe: str | Path | Recipe,
    folder: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    events: Events = ignore_events,
) -> list[StageResult]:
    """Carry out a recipe in ``folder``, or what of it is not done yet; returns the finished stages.

    Without a folder, a recipe given by name or path has ``default_folder``. Raises ``RecipeError``,
    ``RunFolderError`` when the folder is in use or another recipe's, and what the parts raise.
    """
    if folder is None:
        if not isinstance(recipe, str | Path):
            raise RecipeError("a recipe without a name needs a folder", where="gradatim.run", hint="folder=…")
        folder = default_folder(recipe)

    return run_module.run(_recipe(recipe, changes, events), Path(folder), events=events)


def study(
    recipes: str | Path | Sequence[str | Path] | Mapping[str, str | Path | Recipe],
    folder: str | Path | None = None,
    *,
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    baseline: str | None = None,
    changes: Sequence[str] = (),
    workers: int = 0,
    part: str | None = None,
    on: str | None = None,
    events: Events = ignore_events,
) -> StudyData:
    """Train every arm of a study with several seeds in ``folder``, or resume, and return the collected runs.

    ``recipes``: a study by name or path (``"adaptive"``), several recipes or studies, or {arm: recipe}. ``arms``: those
    of the study to run, by default all. ``seeds``: the number of seeds, by default the study file's, or 3.
    ``baseline``: the arm that the others are compared with, by default the study file's, or the one whose schedule is
    ``baseline``. ``workers``: parallel runs, 0 for as many as the machine has cores for. ``part``: every COUNT-th run
    from the N-th on, "N/COUNT", or "slurm" for the task of a job array. ``on``: the address of an executor
    (``executors``), whose tasks are the runs. Without a folder, recipes given by name or path have ``study_folder``.
    Raises ``RecipeError``, ``RunFolderError`` and ``WorkFailed`` (when
    runs failed, after the others are done).
    """
    plan, default = study_plan(
        recipes, folder, arms=arms, seeds=seeds, baseline=baseline, changes=changes, events=events
    )
    share = None if part is None else parts.parse_part(part)
    study_module.study(plan, default, workers=workers, part=share, on=on, events=events)
    return report(default)


def study_plan(
    recipes: str | Path | Sequence[str | Path] | Mapping[str, str | Path | Recipe],
    folder: str | Path | None = None,
    *,
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    baseline: str | None = None,
    changes: Sequence[str] = (),
    events: Events = ignore_events,
) -> tuple[Plan, Path]:
    """The plan and the folder of a study, with the arguments of ``study``. Raises ``RecipeError`` with every fault."""
    if isinstance(recipes, Mapping):
        if folder is None:
            raise RecipeError("recipes without a name need a folder", where="gradatim.study", hint="folder=…")
        if arms is not None:
            raise RecipeError("arms are chosen from a study file", where="arms", given=", ".join(arms))
        plan = study_module.plan_study(
            {arm: _recipe(recipe, changes, events) for arm, recipe in recipes.items()},
            study_module.DEFAULT_SEEDS if seeds is None else seeds,
            baseline=baseline,
            title=Path(folder).name,
        )
        return plan, Path(folder)
    given = [recipes] if isinstance(recipes, str | Path) else list(recipes)
    only, addresses = _addresses(given, arms)
    folder = Path(folder) if folder is not None else study_folder(given, arms_of(addresses))
    loaded = _load_arms(arms_of(addresses), changes, events)
    if only is not None:
        seeds = seeds or only.seeds
        baseline = baseline or (only.baseline if only.baseline in loaded else None)
    plan = study_module.plan_study(
        loaded,
        study_module.DEFAULT_SEEDS if seeds is None else seeds,
        baseline=baseline,
        title=(only.title if only is not None else "") or folder.name,
    )
    return plan, folder


def _addresses(given: Sequence[str | Path], arms: Sequence[str] | None) -> tuple[StudyFile | None, list[str | Path]]:
    """The study file, if it is the only one given, and the recipes by name or path, each study as its arms."""
    studies = [recipe_files.find_study(name) for name in given]
    only = studies[0] if len(given) == 1 else None
    if arms is not None:
        if only is None:
            raise RecipeError("arms are chosen from one study file", where="--arms", given=f"{len(given)} recipes")
        if not arms:
            raise RecipeError("a study has at least one arm", where="--arms", allowed=", ".join(only.arms))
        for arm in arms:
            if arm not in only.arms:
                raise recipe_files.unknown_arm(only, arm)
        return only, [only.address(arm) for arm in arms]
    addresses: list[str | Path] = []
    for name, study in zip(given, studies, strict=True):
        addresses += [name] if study is None else [study.address(arm) for arm in study.arms]
    return only, addresses


def _load_arms(arms: Mapping[str, str | Path], changes: Sequence[str], events: Events) -> dict[str, Recipe]:
    """The recipes of the arms. ``RecipeError`` holds the faults of all."""
    loaded: dict[str, Recipe] = {}
    errors: list[RecipeError] = []
    for arm, name in arms.items():
        try:
            loaded[arm] = recipe_module.load(name, changes, events=events)
        except RecipeError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = list(dict.fromkeys(str(error) for error in errors))
        raise RecipeError("; ".join(lines), faults=lines)
    return loaded


def report(
    folders: str | Path | Sequence[str | Path], page: str | Path | None = None, *, targets: Sequence[float] = ()
) -> StudyData:
    """Collect the runs of run and study folders, finished or not; with ``page``, write the HTML report there.

    ``targets``: accuracies in (0, 1] to which the report gives tokens and training seconds; ``reporting.to_target``
    returns them.

    ``gradatim.reporting`` has the functions for the result: ``summarise``, ``headline``, ``markdown_table``. Raises
    ``DataError`` and ``RunFolderError`` for folders that hold no readable run.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    collected = reporting.collect(paths, targets=targets)
    if page is not None:
        reporting.write_report(paths, Path(page), targets=targets)
    return collected


def evaluate(
    model: Any,
    data: pa.Table | str | Path | None,
    suite: str = "output",
    *,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    dtype: Dtype | None = None,
    events: Events = ignore_events,
    **options: Any,
) -> SuiteResult:
    """Evaluate a model on a dataset; ``evaluation.summary`` returns the result as plain numbers.

    ``model``: as for ``open_model``, an object with ``model`` and ``tokenizer``, or,
    for suites that only read what was written (those with an option ``problems``), ``http://HOST/v1#NAME``: a model
    behind an OpenAI-compatible server. ``dtype``: type of the weights of a local model, by default fp32 on a CPU and
    that of the files elsewhere. ``data``: the samples, as a table or a file, or None for suites that have
    problems of their own; ``columns`` maps the columns of a file, ours: theirs. ``suite`` and ``options`` as in a
    recipe (`gradatim list suites`). Raises ``DataError`` for a model or file that cannot be used and for samples
    without an item for the suite, ``UnknownPart`` and ``RecipeError`` for a suite or option that is not there.
    """
    measure: Suite = evaluation.SUITES.make(suite, where="suite", options=suite_options(suite, options, where="suite"))
    if data is None:
        data = tables.make_table({"answer": []})
    table = _table(data, columns, events) if isinstance(data, str | Path) else data
    student = generation.endpoint(model) if isinstance(model, str) else model
    if isinstance(student, generation.Endpoint) and not measure.accepts_endpoint:
        raise UserError(f"the suite {suite!r} needs the model itself", where="model", given=model, allowed="a folder")
    if student is None or isinstance(student, Path):
        student = open_model(model, dtype)
        if (executor := executors.current()) is not None:
            if dtype is not None:
                raise UserError("workers load models in fp32", where="dtype", given=dtype, hint="leave out --on")
            name = str(model)
            path = str(model_folder(name).absolute()) if hub.is_local_name(name) else name
            sharing.share_model_on(student.model, executor, path)
    result = measure(cast("Model", student), table, seed=seed, events=events)
    if not result.counts["all"]["all"].total:
        raise DataError(
            f"the suite {suite!r} has no item in these samples: nothing was evaluated",
            where=data if isinstance(data, str | Path) else "data",
            given=f"{table.num_rows:,} samples",
            hint="--set text=all, to evaluate the answers too"
            if "text" in option_names(evaluation.SUITES.get(suite))
            else None,
        )
    return result


def arms_of(recipes: Sequence[str | Path]) -> dict[str, str | Path]:
    """The recipes by arm name: the stem of the file, or the whole name where two recipes share a stem."""
    stems = {recipe: recipe_files.split_arm(str(recipe))[1] or Path(recipe).stem for recipe in recipes}
    counts = Counter(stems[recipe] for recipe in recipes)
    arms: dict[str, str | Path] = {}
    for recipe in recipes:
        arm = stems[recipe] if counts[stems[recipe]] == 1 else _whole_name(recipe)
        if arm in arms:
            raise RecipeError(
                "the same recipe is named twice", where="study", given=recipe, hint="--seeds repeats arms"
            )
        arms[arm] = recipe
    return arms


def _whole_name(recipe: str | Path) -> str:
    """The path of a recipe as one word: ``my-study.yaml:hybrid`` is ``my-study-hybrid``."""
    file, arm = recipe_files.split_arm(str(recipe))
    return "-".join([*Path(file).with_suffix("").parts, *([arm] if arm else [])]).strip("-/.")


def default_folder(recipe: str | Path) -> Path:
    """The default run folder of a recipe given by name or path: ``runs/curriculum-hybrid``."""
    path, arm = recipe_files.find(recipe)
    file = (
        path.resolve().relative_to(recipe_files.RECIPES.resolve()) if recipe_files.is_shipped(path) else Path(path.name)
    )
    return Path("runs") / "-".join([*file.with_suffix("").parts, *([arm] if arm else [])])


def study_folder(given: Sequence[str | Path], arms: Iterable[str]) -> Path:
    """The default folder of a study: ``runs/adaptive`` for a study file or arms of it.

    Otherwise ``runs/study-`` with the names of the arms. ``RecipeError`` if that is too long for a folder.
    """
    files = {recipe_files.find(name).path for name in given}
    if len(files) == 1 and recipe_files.is_study(recipe_files.read_mapping(file := files.pop())):
        return Path("runs") / file.stem
    name = "-".join(["study", *arms])
    if len(name) > LONGEST_FOLDER:
        raise RecipeError("a study of so many recipes needs a folder", where="--out", hint="--out runs/NAME")
    return Path("runs") / name


def open_model(path: str | Path, dtype: Dtype | None = None) -> Any:
    """The model that ``path`` names, with its tokenizer; on the accelerator when there is one.

    ``path``: a model or run folder, or as ``student.base`` a .gguf file, an adapter or a name on the hub. ``dtype``:
    type of the weights, by default fp32 on a CPU and that of the files elsewhere; a policy has fp32.
    """
    name = str(path)
    if not hub.is_local_name(name):
        return load.load_model(name, hardware.device(), dtype=dtype)
    folder = model_folder(path)
    if is_policy(folder):
        mobile.require_packages(str(path))
        return masked.load_policy(folder)
    return load.load_student(folder, hardware.device(), dtype=dtype)


def model_folder(path: str | Path) -> Path:
    """The model that ``path`` names: a model folder itself, or the last finished one of a run folder."""
    path = Path(path)
    if hub.is_model_folder(path) or is_policy(path):
        return path
    stages = sorted(path.glob("cycle-*/stage-*/model")) or sorted(path.glob("stage-*/model"))
    models = [folder for folder in stages or [path / "model"] if hub.is_model_folder(folder) or is_policy(folder)]
    if not models:
        runs = sorted({model.parents[2] for model in path.glob("*/seed-*/cycle-*/stage-*/model")})
        message = "there is no finished model here" if path.exists() else "there is no such folder"
        raise DataError(
            f"this is a study with {len(runs)} trained run{'s' * (len(runs) > 1)}" if runs else message,
            where=path,
            allowed="a model folder (config.json), or a run folder with a finished stage",
            hint=f"one of the runs, such as {runs[0]}" if runs else None,
        )
    return models[-1]


def is_policy(folder: Path) -> bool:
    """Whether ``folder`` has the files of a policy (``policy.masked``)."""
    return (folder / "policy.json").is_file()


def is_source_folder(path: Path) -> bool:
    """Whether ``path`` is a folder of source files, not of Parquet files or one that the package ``datasets`` saved."""
    saved = ("dataset_info.json", "dataset_dict.json", "state.json")
    return path.is_dir() and not any((path / name).exists() for name in saved) and not parquet_files(path)


def _recipe(recipe: str | Path | Recipe, changes: Sequence[str], events: Events) -> Recipe:
    return recipe_module.load(recipe, changes, events=events) if isinstance(recipe, str | Path) else recipe


def _table(path: str | Path, columns: Mapping[str, str] | None, events: Events) -> pa.Table:
    """The samples of a file; ``events`` hears which of its rows and columns are not used."""
    report = tables.ReadReport()
    table = tables.read_table(path, columns=columns, report=report)
    for line in report.notes():
        events(Event("note", "data", text=line))
    return table


def read_samples_of(
    path: str | Path, columns: Mapping[str, str] | None = None, limit: int | None = None, events: Events = ignore_events
) -> pa.Table:
    """The samples of a file, or ``limit`` of them, drawn by seed 0 as a suite draws them."""
    table = _table(path, columns, events)
    return table.take(statistics.sample_indices(table.num_rows, limit, 0))
