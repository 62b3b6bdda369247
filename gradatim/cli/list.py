"""``gradatim list``: the registered components and the shipped recipes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UnknownPart, did_you_mean
from .options import Json

if TYPE_CHECKING:
    from ..experiment.recipe_files import StudyFile

__all__ = ["EXAMPLES", "listing"]


EXAMPLES = ("gradatim list", "gradatim list schedules", "gradatim list recipes", "gradatim list studies --json")

REGISTRIES = {
    "difficulties": ("gradatim.difficulty", "DIFFICULTIES"),
    "judges": ("gradatim.distillation", "JUDGES"),
    "languages": ("gradatim.languages", "LANGUAGES"),
    "objectives": ("gradatim.training.objective", "OBJECTIVES"),
    "orders": ("gradatim.schedule", "ORDERS"),
    "presets": ("gradatim.model.presets", "PRESETS"),
    "schedules": ("gradatim.schedule", "SCHEDULES"),
    "sources": ("gradatim.source", "SOURCES"),
    "suites": ("gradatim.evaluation", "SUITES"),
    "teachers": ("gradatim.teacher", "TEACHERS"),
}
KINDS = {
    "difficulties": "difficulty metrics: difficulty.metric",
    "judges": "judges of completions: feedback.judges",
    "languages": "programming languages",
    "objectives": "training objectives: train.objective",
    "orders": "sample order within a stage: schedule.order",
    "presets": "model presets: student.preset",
    "recipes": "shipped recipes, the arms of studies included",
    "schedules": "curriculum schedules: schedule.name",
    "sources": "data sources: data.source",
    "studies": "shipped studies: gradatim study NAME",
    "suites": "evaluation suites: evaluate.suites",
    "teachers": "teachers: teacher.name",
}


def listing(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=", ".join(KINDS) + ".")] = None,
    as_json: Json = False,
) -> None:
    """List the components that recipes can name, and the recipes.

    With --json: a list of {"name", "summary"}, of the kinds without KIND.
    """
    from .output import output, print_json, table

    if kind is not None and kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise UnknownPart("unknown kind", given=kind, allowed=", ".join(KINDS), hint=hint)
    if as_json:
        rows = list(KINDS.items()) if kind is None else _members(kind)
        print_json([{"name": name, "summary": summary} for name, summary in rows])
        return
    for name in [kind] if kind else KINDS:
        rows = _grouped_recipes() if name == "recipes" else _members(name)
        output().print(table((name, KINDS[name]), rows, left=2))


def _members(kind: str) -> list[tuple[str, str]]:
    """The names of a kind, each with one line about it."""
    if kind == "recipes":
        return [(name.strip(), summary) for name, summary in _grouped_recipes() if not name.endswith(":")]
    if kind == "studies":
        return [(name, f"{study.title}; {len(study.arms)} arms") for name, study in _listed_studies().items()]
    module, attribute = REGISTRIES[kind]
    return [(entry.name, entry.summary) for entry in getattr(importlib.import_module(module), attribute)]


def _grouped_recipes() -> list[tuple[str, str]]:
    """The recipes with their titles, the arms of each study indented below a line of the study."""
    from ..experiment.recipe_files import names, shipped_studies, title

    rows: list[tuple[str, str]] = []
    in_studies = {study.address(arm) for study in shipped_studies().values() for arm in study.arms}
    for study in _listed_studies().values():
        rows.append((f"{study.name}:", study.title))
        rows += [(f"  {study.address(arm)}", str(content["title"])) for arm, content in study.arms.items()]
    alone = [name for name in names() if name not in in_studies]
    return [*rows, ("other recipes:", ""), *((f"  {name}", title(name)) for name in alone)]


def _listed_studies() -> dict[str, StudyFile]:
    from ..experiment.recipe_files import shipped_studies

    return {name: study for name, study in shipped_studies().items() if not study.hidden}
