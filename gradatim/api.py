"""How is Gradatim used from Python?

Four functions, each what the command of the same name does: ``score``, ``plan``, ``run``, ``evaluate``. They take
paths or objects, names or recipes, and hand on to the modules below. They print nothing: give ``events`` to hear how
far they are. Raise ``Stopped`` from it and the work stops with everything saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import difficulty, evaluation, reporting
from . import table as tables
from .errors import DataError, RecipeError, UserError
from .evaluation import generation
from .experiment import plan as plan_module
from .experiment import recipe as recipe_module
from .experiment import run as run_module
from .experiment import study as study_module
from .experiment.assemble import components
from .model import hardware, load
from .options import option_names
from .stage import Event, Events, ignore_events

if TYPE_CHECKING:
    import pyarrow as pa

    from .experiment.plan import RunPlan
    from .experiment.recipe import Recipe
    from .reporting import StudyData
    from .stage import Difficulty, StageResult, SuiteResult


def score(
    samples: pa.Table | str | Path,
    metrics: Sequence[str] | Mapping[str, Difficulty] = ("om",),
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
    return plan_module.plan_run(_recipe(recipe, changes), data=data, events=events)


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
    return run_module.run(_recipe(recipe, changes), Path(folder), events=events)


def study(
    recipes: Sequence[str | Path] | Mapping[str, str | Path | Recipe],
    folder: str | Path,
    *,
    seeds: int = 3,
    baseline: str | None = None,
    changes: Sequence[str] = (),
    workers: int = 0,
    events: Events = ignore_events,
) -> StudyData:
    """Train every recipe with ``seeds`` seeds in ``folder``, or resume, and return the collected runs.

    ``recipes``: names or paths, each an arm named after its recipe, or {arm: recipe}. ``baseline``: the arm that the
    others are compared with, by default the one whose schedule is ``baseline``. ``workers``: parallel runs, 0 for as
    many as the machine has cores for. Raises ``RecipeError``, ``RunFolderError`` and ``WorkFailed`` (when runs failed,
    after the others are done).
    """
    arms = recipes if isinstance(recipes, Mapping) else arms_of(recipes)
    folder = Path(folder)
    loaded = {arm: _recipe(recipe, changes) for arm, recipe in arms.items()}
    plan = study_module.plan_study(loaded, seeds, baseline=baseline, title=folder.name)
    study_module.study(plan, folder, workers=workers, events=events)
    return report(folder)


def report(folders: str | Path | Sequence[str | Path], page: str | Path | None = None) -> StudyData:
    """Collect the runs of run and study folders, finished or not; with ``page``, write the HTML report there.

    ``gradatim.reporting`` has the functions for the result: ``summarise``, ``headline``, ``markdown_table``. Raises
    ``DataError`` and ``RunFolderError`` for folders that hold no readable run.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    collected = reporting.collect(paths)
    if page is not None:
        reporting.write_report(paths, Path(page))
    return collected


def evaluate(
    model: Any,
    data: pa.Table | str | Path | None,
    suite: str = "output",
    *,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    events: Events = ignore_events,
    **options: Any,
) -> SuiteResult:
    """Ask a student about every sample and count what it gets right; ``evaluate.summary`` makes plain numbers of it.

    ``model``: a model folder, a run folder (its last finished model), an object with ``model`` and ``tokenizer``, or,
    for suites that only read what was written (those with an option ``problems``), ``http://HOST/v1#NAME``: a model
    behind an OpenAI-compatible server. ``data``: the samples, as a table or a file, or None for suites that have
    problems of their own; ``columns`` maps the columns of a file, ours: theirs. ``suite`` and ``options`` as in a
    recipe (`gradatim list suites`). Raises ``DataError`` for a model or file that cannot be used, ``UnknownPart`` and
    ``RecipeError`` for a suite or option that is not there.
    """
    factory = evaluation.SUITES.get(suite, where="suite")
    asked = factory(**options)
    if data is None:
        data = tables.make_table({"answer": []})
    table = _table(data, columns, events) if isinstance(data, str | Path) else data
    student = generation.endpoint(model) if isinstance(model, str) else model
    if isinstance(student, generation.Endpoint) and "problems" not in option_names(factory):
        raise UserError(f"the suite {suite!r} needs the model itself", where="model", given=model, allowed="a folder")
    if student is None or isinstance(student, Path):
        student = open_model(model)
    return asked(student, table, seed=seed, events=events)


def arms_of(recipes: Sequence[str | Path]) -> dict[str, str | Path]:
    """The recipes by arm name: the stem of the file, or the whole name where two recipes share a stem."""
    stems = Counter(Path(recipe).stem for recipe in recipes)
    arms: dict[str, str | Path] = {}
    for recipe in recipes:
        path = Path(recipe)
        arm = path.stem if stems[path.stem] == 1 else "-".join(path.with_suffix("").parts).strip("-/.")
        if arm in arms:
            raise RecipeError(
                "the same recipe is named twice", where="study", given=recipe, hint="--seeds repeats arms"
            )
        arms[arm] = recipe
    return arms


def default_folder(recipe: str | Path) -> Path:
    """Where a recipe given by name or path runs when nothing else is said: ``runs/curriculum-hybrid``."""
    path = recipe_module.find(recipe)
    shipped = path.resolve().is_relative_to(recipe_module.RECIPES.resolve())
    name = (
        "-".join(path.resolve().relative_to(recipe_module.RECIPES.resolve()).with_suffix("").parts)
        if shipped
        else path.stem
    )
    return Path("runs") / name


def open_model(path: str | Path) -> Any:
    """The model that ``path`` names, with its tokenizer; on the accelerator when there is one."""
    return load.load_student(model_folder(path), hardware.device())


def model_folder(path: str | Path) -> Path:
    """The model that ``path`` names: a model folder itself, or the last finished one of a run folder."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    models = sorted(path.glob("cycle-*/stage-*/model/config.json")) or sorted(path.glob("stage-*/model/config.json"))
    if not models and (path / "model" / "config.json").is_file():
        return path / "model"
    if not models:
        raise DataError(
            "there is no such folder" if not path.exists() else "there is no finished model here",
            where=path,
            allowed="a model folder (config.json), or a run folder with a finished stage",
        )
    return models[-1].parent


def is_source_folder(path: Path) -> bool:
    """Whether ``path`` is a folder of source files, not one that the package ``datasets`` saved."""
    saved = ("dataset_info.json", "dataset_dict.json", "state.json")
    return path.is_dir() and not any((path / name).exists() for name in saved)


def _recipe(recipe: str | Path | Recipe, changes: Sequence[str]) -> Recipe:
    return recipe_module.load(recipe, changes) if isinstance(recipe, str | Path) else recipe


def _table(path: str | Path, columns: Mapping[str, str] | None, events: Events) -> pa.Table:
    """The samples of a file; ``events`` hears which of its rows and columns are not used."""
    report = tables.ReadReport()
    table = tables.read_table(path, columns=columns, report=report)
    for line in report.notes():
        events(Event("note", "data", text=line))
    return table
