"""``gradatim list``: the registered components and the shipped recipes."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from ..errors import UnknownPart, did_you_mean
from .options import Json

__all__ = ["EXAMPLES", "listing"]


EXAMPLES = ("gradatim list", "gradatim list schedules", "gradatim list recipes --json")

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
    "recipes": "shipped recipes",
    "schedules": "curriculum schedules: schedule.name",
    "sources": "data sources: data.source",
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
        output().print(table((name, KINDS[name]), _members(name), left=2))


def _members(kind: str) -> list[tuple[str, str]]:
    if kind == "recipes":
        from ..experiment.recipe import names, title

        return [(name, title(name)) for name in names()]
    module, attribute = REGISTRIES[kind]
    return [(entry.name, entry.summary) for entry in getattr(importlib.import_module(module), attribute)]
