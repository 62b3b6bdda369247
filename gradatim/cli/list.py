"""``gradatim list``: which parts and recipes are there?"""

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
    "difficulties": "how hard a sample is: difficulty.metric",
    "judges": "how an attempt is seen: feedback.judges",
    "languages": "what programs may be written in",
    "objectives": "what a wrong prediction is worth: train.objective",
    "orders": "how the samples of a stage follow each other: schedule.order",
    "presets": "what a student is made like: student.preset",
    "recipes": "what can be run by name",
    "schedules": "what is learnt when: schedule.name",
    "sources": "where samples come from: data.source",
    "suites": "what is measured: evaluate.suites",
    "teachers": "who answers, errs and asks: teacher.name",
}


def listing(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=", ".join(KINDS) + ".")] = None,
    as_json: Json = False,
) -> None:
    """List the parts that recipes can name, and the recipes themselves.

    With --json: a list of {"name", "summary"}; without KIND, of the kinds.
    """
    from .output import output, print_json, table

    if kind is not None and kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise UnknownPart("there is nothing of that kind to list", given=kind, allowed=", ".join(KINDS), hint=hint)
    if as_json:
        rows = list(KINDS.items()) if kind is None else _members(kind)
        print_json([{"name": name, "summary": summary} for name, summary in rows])
        return
    for each in [kind] if kind else KINDS:
        output().print(table((each, KINDS[each]), _members(each), left=2))


def _members(kind: str) -> list[tuple[str, str]]:
    if kind == "recipes":
        from ..experiment.recipe import names, title

        return [(name, title(name)) for name in names()]
    module, attribute = REGISTRIES[kind]
    return [(entry.name, entry.summary) for entry in getattr(importlib.import_module(module), attribute)]
