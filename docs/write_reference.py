"""Write ``docs/recipes.md`` and ``docs/cli.md`` from the code.

Sources: recipe keys, defaults and allowed values from the pydantic models
and dataclasses, options of components from the factories' signatures, both with their ``Field(description=…)``, and
commands from their ``--help``. A key or an option without a description is an error.

    python docs/write_reference.py [FOLDER]        (default: the folder of this script)

A test runs it and compares, so pages that are out of date fail. Nothing is trained and no torch is imported.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

from gradatim.cli.environment import REGISTRIES
from gradatim.cli.main import COMMANDS, app, load_command
from gradatim.design import SCHEMA
from gradatim.experiment.assemble import student_of
from gradatim.experiment.recipe import MAY_CHANGE, Recipe, load
from gradatim.experiment.recipe_files import Location, find, names, shipped_studies
from gradatim.options import option_names

PARTS = {
    "data.source": "sources",
    "difficulty.metric": "difficulties",
    "schedule.name": "schedules",
    "student.kind": "students",
    "student.preset": "presets",
    "evaluate.suites[].suite": "suites",
    "teacher.name": "teachers",
    "feedback.judges[].judge": "judges",
}
"""Keys whose values are names of a registry."""

FILLED_IN = {
    "seed",
    "workers",
    "events",
    "teacher",
    "evaluation",
    "right",
    "account",
    "student",
    "answer_format",
    "keep_replies",
    "settings",
    "train",
}
"""Options of sources, teachers and kinds of students that come from other keys of the recipe."""

RECIPES_TOP = """\
# Recipes

*Written by `docs/write_reference.py` from the code. Do not edit this page; run the script.*

A recipe is a YAML file with all settings that affect a run. A key that is left out has the default below.

```yaml
extends: curriculum/baseline      # a recipe by name, or a file beside this one
schedule: {name: hybrid, replay: 0.25}
```

Any value can be changed for one command with `--set schedule.replay=0.25`. Unknown keys and components, wrong types and
settings that exclude each other are reported together before anything is drawn or trained, with the nearest known
name. A run folder belongs to its recipe: on resume only MAY_CHANGE may differ.
`gradatim plan RECIPE` shows what a recipe would do.
"""

DESIGN_TOP = """\
## The form of a design

The reply of a teacher when the schedule is `designed`, as a JSON Schema. The shares of all remaining stages of all
cycles add up to 1, within a hundredth, or those of each cycle do, and all cycles have equal budgets; names of bands,
orders and objectives are those of the recipe. All errors of a reply are reported at once, and one corrected reply is
requested.
"""

CLI_TOP = """\
# The command line

*Written by `docs/write_reference.py` from `gradatim VERB --help`. Do not edit this page; run the script.*

Results go to stdout, everything else to stderr: progress as bars, without a terminal as a line every half minute. Exit
codes: 0 done, 1 the work failed, 2 an error in the input (one line: where, what is wrong, what was given, what is
allowed, what to try), 130 stopped with everything saved. Finished work is kept, and the same command resumes.

`generate`, `score`, `plan`, `run`, `evaluate`, `check`, `sample`, `export`, `doctor` and `list` print JSON of a stable
shape with `--json`. `gradatim list KIND --json` is a list of `{"name", "summary"}`; `gradatim evaluate … --json` and
`gradatim check … --json` are `{"counts": {"passed", "failed", "timeout", "invalid", "total"}, "scores": {NAME:
{"value", "low", "high"}}}`, with 95 % intervals over the samples asked, or the problems; `check` adds `"causes"` (of
samples that did not pass) and `"tasks"` (the results of each task). `resume` prints JSON for a run, as `run` does.
"""


def recipes_page() -> str:
    """``docs/recipes.md``. ``SystemExit`` for a key or an option without a description."""
    sections = [RECIPES_TOP.replace("MAY_CHANGE", _listed(MAY_CHANGE)), "## Keys\n", *_keys(), "## Parts\n", *_parts()]
    return "\n".join([*sections, DESIGN_TOP, _code(json.dumps(SCHEMA, indent=1), "json"), *_shipped()])


def cli_page() -> str:
    """``docs/cli.md``: every verb's help, as plain text 100 wide whatever the terminal."""
    group: Any = typer.main.get_command(app)
    lines = [CLI_TOP]
    for name in COMMANDS:
        verb = load_command(name)
        # Without markup, help is plain text; examples are shown apart, where they can be copied.
        verb.rich_markup_mode, verb.epilog = None, None
        context = group.context_class(
            verb,
            info_name=f"gradatim {name}",
            terminal_width=100,
            max_content_width=100,
            help_option_names=["-h", "--help"],
        )
        module = vars(import_module(verb.callback.__module__))
        examples = "\n".join(module.get(f"{name.upper()}_EXAMPLES") or module["EXAMPLES"])
        lines += [f"## {name}\n", _code(verb.get_help(context)), _code(examples, "sh")]
    return "\n".join(lines)


def _code(text: str, language: str = "text") -> str:
    body = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return f"```{language}\n{body}\n```\n"


def _keys() -> Iterator[str]:
    """A table for each section of a recipe."""
    schema = Recipe.model_json_schema()
    found = dict(_leaves(schema, schema, ""))
    defaults = dict(_values(Recipe().model_dump(mode="json")))
    sections: dict[str, list[str]] = {}
    for key, node in found.items():
        part = PARTS.get(key)
        allowed = f"a name of [{part}](#{part})" if part else _allowed(node, schema)
        default = node.get("default") if "[]" in key else defaults.get(key, node.get("default"))
        required = "[]" in key and "default" not in node
        shown = "required" if required else _value(default)
        row = f"| `{key}` | {shown} | {allowed} | {_meaning(key, node)} |"
        sections.setdefault(key.partition(".")[0] if "." in key else "The run", []).append(row)
    for name, rows in sections.items():
        heading = name if name == "The run" else f"`{name}`"
        yield "\n".join([f"### {heading}\n", "| key | default | allowed | meaning |", "|---|---|---|---|", *rows, ""])


def _meaning(key: str, node: Mapping[str, Any]) -> str:
    """The description of a key or an option; ``SystemExit`` where there is none."""
    if "description" not in node:
        raise SystemExit(f"{key} has no description")
    return str(node["description"]).replace(" x ", " × ")


def _leaves(node: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted key, its schema) of everything below a section."""
    for name, inner in _resolved(node, schema)["properties"].items():
        key, below = f"{prefix}{name}", _resolved(inner, schema)
        if "properties" in below:
            yield from _leaves(below, schema, f"{key}.")
            continue
        yield key, inner
        items = _resolved(below.get("items", {}), schema)
        if "properties" in items:
            yield from _leaves(items, schema, f"{key}[].")


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference refers to; of a section that may be left out, the section."""
    choices = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    choices += node.get("oneOf", ())[:1]  # of the kinds of students the language model, whose options are keys
    if len(choices) == 1 and "$ref" in choices[0]:
        node = choices[0]
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _values(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _parts() -> Iterator[str]:
    """Each registry with its members and their options."""
    for kind in (
        "sources", "difficulties", "schedules", "orders", "students", "presets", "rewards", "teachers", "judges",
        "suites",
    ):  # fmt: skip
        module, attribute = REGISTRIES[kind]
        registry = getattr(import_module(module), attribute)
        yield f"### {kind.capitalize()}\n"
        if kind == "presets":
            yield _presets(registry)
            continue
        for entry in registry:
            factory = registry.get(entry.name)
            text = inspect.getdoc(factory) or entry.summary
            # Members without options of their own need no heading.
            rows = list(_options(kind, entry.name, factory))
            yield f"**`{entry.name}`** {text.replace('``', '`')}\n"
            if rows:
                yield "\n".join(["| option | default | allowed | meaning |", "|---|---|---|---|", *rows, ""])


def _options(kind: str, component: str, factory: Callable[..., Any]) -> Iterator[str]:
    """A row for each option of a component. ``SystemExit`` for an option without a description."""
    hints, parameters = typing.get_type_hints(factory, include_extras=True), inspect.signature(factory).parameters
    for name in option_names(factory):
        if kind in ("sources", "students", "teachers") and name in FILLED_IN:
            continue
        schema = TypeAdapter(hints[name]).json_schema()
        default = parameters[name].default
        shown = "required" if default is inspect.Parameter.empty else _value(default)
        meaning = _meaning(f"{kind}.{component}.{name}", schema)
        yield f"| `{name}` | {shown} | {_allowed(schema, schema)} | {meaning} |"


def _presets(registry: Any) -> str:
    rows = [
        f"| `{entry.name}` | {shape.family} | {shape.width} | {shape.layers} | {shape.heads} | {shape.mlp} "
        f"| {entry.summary} |"
        for entry in registry
        for shape in [registry.get(entry.name)]
    ]
    head = "| name | family | width | layers | heads | feed-forward | |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows, ""])


def _shipped() -> Iterator[str]:
    """Every recipe and study of the package: the first line of its comment, its schedule and budget."""
    yield "## Study files\n"
    yield STUDY_FILES
    studies = {name: study for name, study in shipped_studies().items() if not study.hidden}
    yield "| study | what it compares | baseline | arms |\n|---|---|---|---|"
    for name, study in studies.items():
        yield f"| `{name}` | {study.title} | `{study.baseline}` | {len(study.arms)} |"
    yield "\n## Recipes that ship with Gradatim\n"
    yield "| name | what it is | schedule | student | tokens |\n|---|---|---|---|---|"
    hidden = tuple(f"{name}/" for name, study in shipped_studies().items() if study.hidden)
    for name in names():
        if name.startswith(hidden):
            continue
        recipe = load(name)
        options = ", ".join(f"{key} {_value(value)}" for key, value in recipe.schedule.options.items())
        schedule = recipe.schedule.name + (f" ({options})" if options else "")
        student = student_of(recipe)
        budget = f"{recipe.tokens:,}" + ("" if recipe.is_language else f" {student.unit}s")
        yield f"| `{name}` | {_about(find(name)) or recipe.title} | {schedule} | {student.name} | {budget} |"
    yield ""


STUDY_FILES = """A study file holds recipes that differ in a few keys: a `base`, by name or written out, and `arms`
with their overrides. `gradatim study FILE` runs all arms, `--arms a,b` some; `gradatim plan FILE` shows how they
differ. An arm is a recipe of its own, for `run`, `plan`, `study` and `extends`: `curriculum/hybrid`, or
`my-study.yaml:hybrid`.

```yaml
title: Two schedules
base: curriculum/baseline           # a recipe by name or file, or a mapping of its keys
baseline: baseline                  # the arm that the others are compared with
seeds: 5                            # optional; --seeds overrides it
arms:
  baseline: {}
  hybrid: {title: Hybrid, schedule: {name: hybrid}}
```
"""


def _about(location: Location) -> str:
    """The first line of the comment above a recipe or an arm; of an arm that is the base itself, of the file."""
    lines = location.path.read_text("utf-8").splitlines()
    start = 0 if location.arm is None else lines.index(f"  {location.arm}:", lines.index("arms:"))
    while start and lines[start - 1].startswith("  #"):
        start -= 1
    if not lines[start].lstrip().startswith("#"):
        start = 0
    return lines[start].lstrip("# ").rstrip(":") if lines[start].lstrip().startswith("#") else ""


def _allowed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    node = _resolved(node, schema)
    if "enum" in node:
        return _listed(node["enum"])
    if "anyOf" in node:
        choices = [each for each in node["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(_allowed(each, schema) for each in choices))
    if "prefixItems" in node:
        return f"{len(node['prefixItems'])} numbers"
    if node.get("type") == "array":
        inner = _resolved(node["items"], schema)
        return "a list" if "properties" in inner else f"a list: {_allowed(inner, schema)}"
    if node.get("type") == "object":
        return "a mapping"
    if "type" not in node:
        return "anything"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    least = node.get("minimum")
    return words[node["type"]] + (f" ≥ {least}" if least is not None else "")


def _listed(values: Any) -> str:
    return ", ".join(f"`{json.dumps(value) if isinstance(value, bool) else value}`" for value in values)


def _value(value: Any) -> str:
    """A default as it would stand in YAML; a dash when nothing is set."""
    if value is None or value == "":
        return "–"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def main() -> None:
    """Write both pages."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "recipes.md").write_text(recipes_page(), encoding="utf-8")
    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
