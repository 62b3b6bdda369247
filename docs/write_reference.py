"""How do ``docs/recipes.md`` and ``docs/cli.md`` stay true?

They are written by this script from the code itself: recipe keys, defaults and allowed values from the pydantic
models and dataclasses with their meanings (``Field(description=…)``), options of parts from the factories' signatures,
verbs from their ``--help``. The meanings of the options of parts are in ``OPTIONS``; a key or an option without a
meaning, and a meaning without an option, is an error.

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
from gradatim.experiment.recipe import MAY_CHANGE, Recipe, load
from gradatim.experiment.recipe_files import Location, find, names, shipped_studies
from gradatim.options import option_names

OPTIONS = {
    "teachers.levels": "TinyPy levels that seeds and new questions are drawn from.",
    "teachers.digits": "The greatest literal.",
    "teachers.base_url": "The endpoint, such as `https://HOST/v1`.",
    "teachers.model": "The model's name there; of `local`, its folder.",
    "teachers.key": "The environment variable that holds the key; null: the server wants none.",
    "teachers.prompts": "A folder with prompt files of your own; those it lacks come from the package.",
    "teachers.temperature": "Of new questions and faulty answers; right answers and grades are drawn at 0 first.",
    "teachers.max_tokens": "The longest reply.",
    "teachers.language": "The language of questions whose samples name none.",
    "teachers.concurrency": "Requests under way at a time.",
    "teachers.seconds": "The deadline of a request: within it the whole reply is there.",
    "teachers.retries": "How often what stumbles is asked again.",
    "teachers.requests_per_minute": "The endpoint's limit; null: none.",
    "teachers.tokens_per_minute": "The endpoint's limit; null: none.",
    "teachers.budget_tokens": "The most tokens this run may use, however often it is started; null: no limit.",
    "teachers.budget_money": "The most it may cost, in the unit of `prices`; null: no limit.",
    "teachers.prices": "Of a million prompt tokens and a million completion tokens.",
    "teachers.seeded": "Send a seed with each request, so that draws differ on servers that keep to it.",
    "teachers.limit_name": "What the endpoint calls the limit of a reply.",
    "teachers.send_temperature": "Send the temperature; false for servers that take none but their own.",
    "teachers.extra": "Further fields of each request.",
    "teachers.cache": "Where replies are kept; null: the user's cache folder, or `GRADATIM_CACHE`.",
    "teachers.batch": "Requests answered at a time; null: what suits the device.",
    "teachers.replies": "A list, or a mapping from what a request holds to its reply.",
    "judges.workers": "Programs run at a time.",
    "judges.seconds": "CPU seconds of a program; null: the language's own limit.",
    "judges.unsafe": "Run without walls where there are none. Only for programs you trust.",
    "judges.passing": "Points of 6 from which on an attempt passes.",
    "judges.share": "The share of the questions that the teacher grades itself.",
    "judges.held_out": "The share of its grades that the model's agreement is measured on.",
    "judges.least_agreement": "Spearman's correlation below which the model judges nothing.",
    "difficulties.model": "The model that is asked: a folder, a .gguf file, or a name on the hub, which is fetched; "
    "`p_correct` takes a list.",
    "difficulties.chat": "Put prompts through the tokenizer's chat template.",
    "difficulties.batch": "Texts read at a time; left out: what suits the device.",
    "difficulties.teacher": "Who rates: a teacher that is a chat.",
    "difficulties.options": "The teacher's options.",
    "difficulties.prompt": "A prompt file of your own with `{question}`; left out: the package's.",
    "sources.new": "Questions that each later cycle adds; 0: the same samples again. Left out: `count`.",
    "sources.seeds": "A file of questions to begin with; left out: the teacher writes them.",
    "sources.ratio": "Which share of the new questions follows parents of which grade.",
    "sources.grade": "Parents by what the feedback says of them, or at `random`.",
    "sources.rounds": "How many times as many as are wanted are asked for again when questions are refused.",
    "sources.accumulate": "Whether a cycle has the samples learnt before it too.",
    "sources.limit": "A question in words is refused when its ROUGE-L with a known one exceeds this.",
    "schedules.order": "How a stage's samples follow each other: an [order](#orders)'s name, or `{name: …}` "
    "with its options.",
    "schedules.category": "The label column of an order by categories; short for the order's own option.",
    "schedules.warmup_stage": "Share of the budget of a warm-up stage on the easiest band, before the schedule of the "
    "other bands: prerequisites of every arm, the baseline too.",
    "schedules.replay": "Of `hybrid` the part of each easier band that is repeated; elsewhere the share of a stage's "
    "tokens for easier or earlier samples.",
    "schedules.milestones": "{share of the budget: a weight for each band}, from 0 to 1. Left out: see above.",
    "schedules.pace": "Form of the increase of the available share of the samples.",
    "schedules.start": "The share of the samples that is available at the beginning.",
    "schedules.until": "The share of the budget after which all samples are available.",
    "schedules.parts": "Number of equal stages that the budget is divided into. Use `train.reset_optimizer: false`.",
    "schedules.by": "Measure of difficulty: loss per answer token, or probability of the whole answer.",
    "schedules.probe": "Training samples scored by the model after each part; 0: all.",
    "schedules.threshold": "The share of correct validation answers at which a band is mastered.",
    "schedules.patience": "Parts without a gain after which a band ends.",
    "schedules.gain": "The share by which the validation loss must fall in them.",
    "schedules.explore": "Weight of the bonus for rarely used bands.",
    "schedules.window": "Number of a band's last parts that count.",
    "schedules.objectives": "Objectives allowed in a design beside `train.objective`.",
    "schedules.orders": "Orders allowed in a design, as for `order`; the first is the default of a stage.",
    "schedules.stages": "Maximum number of stages in a cycle.",
    "schedules.revise": "Revise the remaining stages before each later cycle, given the validation results.",
    "orders.first": "Which end comes first.",
    "orders.passes": "Every pass the same, or sorted `once` and shuffled from the second pass on.",
    "orders.folds": "Number of runs from easy to hard.",
    "orders.category": "The label column of the categories.",
    "orders.parts": "Number of parts that each category is divided into.",
    "sources.path": "The file: .parquet, .jsonl, .json, .csv, .txt; `FOLDER#SPLIT` that `datasets` saved; "
    "`hub:NAME:CONFIG#SPLIT`.",
    "sources.columns": "What its columns are called, ours: theirs, such as `{prompt: instruction, answer: output}`. "
    "`answer` alone is code to complete; `system` and `history` stand before the prompt. `gradatim score` "
    "takes the same as `--columns`.",
    "sources.format": "`parquet`, `jsonl`, `csv`, `text` or `datasets`, when the ending does not say; `alpaca` or "
    "`chat`, when the "
    "columns do not say that these are instruction data.",
    "sources.language": "The language of samples that do not name one.",
    "sources.duplicates": "Keep them, or keep the first of equal texts or of equal ids.",
    "sources.count": "How many programs, spread evenly over the levels.",
    "sources.levels": "`all`, or some of 1.1, 1.2, 2.1, 2.2, 3.1, 3.2, 4.1; also 0.1 to 0.3, not in `all`.",
    "sources.digits": "The greatest literal, 9 to 65535: 9 in the paper, 255 in its sequel.",
    "sources.dedupe": "No program occurs twice.",
    "difficulties.column": "The column with the number.",
    "difficulties.weights": "{metric: positive weight}; when left out: size, cyclomatic and rarity in equal parts.",
    "difficulties.scale": "How metrics are made comparable: standard deviations, or ranks.",
    "difficulties.unit": "What is counted.",
    "difficulties.of": "The average over a program's constructs, or their sum.",
    "difficulties.limit": "Steps after which a program has no score.",
    "schedules.restarts": "Number of equal stages that the budget is divided into.",
    "schedules.shares": "The stages' shares of the budget; they need not add up to 1. Left out: see above.",
    "schedules.end": "The part of an easier band that is replayed.",
    "schedules.band": "The band's name.",
    "schedules.share": "The curriculum's share of the budget, between 0 and 1.",
    "suites.protocol": "The likeliest token each time, or sampling: as in the paper (`paper`), or at a temperature "
    "(`sampled`).",
    "suites.limit": "Ask about so many only, chosen by `evaluate.seed`.",
    "suites.batch": "Prompts read at a time; left out: what suits the device.",
    "suites.text": "Ask about the program, or about its output too.",
    "suites.problems": "The questions: a file, a folder of files, `humaneval`, `humaneval-x/LANGUAGE` or `cruxeval`. "
    "Left out of `functional`: the run's test samples that have `tests`.",
    "suites.num_samples": "Texts written for each problem; more than one needs `protocol: sampled`.",
    "suites.k": "The k of pass@k, each at most `num_samples`. Left out: 1.",
    "suites.temperature": "Of `sampled`; `greedy` takes the likeliest token.",
    "suites.max_new_tokens": "The most tokens of a text. Left out of `cruxeval`: 128, or 1024 with `reasoning`.",
    "suites.chat": "Ask through the tokenizer's chat template: `functional` and `cruxeval` look for the code in the "
    "reply, `line` and `token` ask about answers alone, `choice` takes an option for the beginning of the reply.",
    "suites.stop": "Texts end before these; left out: where the language's function ends.",
    "suites.keep": "A folder for raw texts and verdicts, in which a stopped evaluation goes on. Left out: nothing is "
    "kept.",
    "suites.workers": "Programs run at a time. Changes no result.",
    "suites.seconds": "CPU time of one program; left out: 3 in Python, 10 in other languages.",
    "suites.unsafe": "Run programs without walls where there are none: they can then do whatever you can.",
    "suites.server": "Options of a model named `http://HOST/v1#NAME`: `concurrency`, `retries`, `seconds` (the "
    "deadline of a request), `key` (the environment variable), `limit_name`, `seeded`, `send_temperature`, "
    "`extra`; as of the teacher `api`.",
    "suites.direction": "Ask for the output of an input, or for an input that gives an output.",
    "suites.reasoning": "Let the model think before it answers.",
}

PARTS = {
    "data.source": "sources",
    "difficulty.metric": "difficulties",
    "schedule.name": "schedules",
    "student.preset": "presets",
    "evaluate.suites[].suite": "suites",
    "teacher.name": "teachers",
    "feedback.judges[].judge": "judges",
}
"""Keys whose values are names of a registry."""

FILLED_IN = {"seed", "workers", "events", "teacher", "evaluation", "right", "account"}
"""Options of sources and teachers that come from other keys of the recipe."""

RECIPES_TOP = """\
# Recipes

*Written by `docs/write_reference.py` from the code. Do not edit this page; run the script.*

A recipe is a YAML file that says everything that decides what a run does. What it leaves out has the default below.

```yaml
extends: curriculum/baseline      # a recipe by name, or a file beside this one
schedule: {name: hybrid, replay: 0.25}
```

Any value can be changed for one command with `--set schedule.replay=0.25`. Keys and parts that do not exist, wrong
types and parts that do not fit together are told all at once, before anything is drawn or trained, with the nearest
name that does exist. A run folder belongs to its recipe: on resume only MAY_CHANGE may differ.
`gradatim plan RECIPE` shows what a recipe would do.
"""

DESIGN_TOP = """\
## The form of a design

What a teacher replies with when the schedule is `designed`, as a JSON Schema. The shares of all stages of all cycles
that are left add up to 1, give or take a hundredth; names of bands, orders and objectives are those of the recipe. All
faults of a reply are told at once, and mended once.
"""

CLI_TOP = """\
# The command line

*Written by `docs/write_reference.py` from `gradatim VERB --help`. Do not edit this page; run the script.*

Results go to stdout, everything else to stderr. Work over two seconds shows how far it is. Exit codes: 0 done, 1 the
work failed, 2 your mistake (one line: where, what is wrong, what was given, what is allowed, what to try), 130
stopped with everything saved. Nothing that was finished is lost, and the same command goes on.

`generate`, `score`, `plan`, `run`, `evaluate`, `check`, `sample`, `export`, `doctor` and `list` print JSON of a stable
shape with `--json`. `gradatim list KIND --json` is a list of `{"name", "summary"}`; `gradatim evaluate … --json` and
`gradatim check … --json` are `{"counts": {"passed", "failed", "timeout", "invalid", "total"}, "scores": {NAME:
{"value", "low", "high"}}}`, with 95 % intervals over the samples asked, or the problems.
"""


def recipes_page() -> str:
    """``docs/recipes.md``. ``SystemExit`` names keys and options without a meaning, and meanings without an option."""
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
    """The description of a key's field; ``SystemExit`` for a field without one."""
    if "description" not in node:
        raise SystemExit(f"{key}: its field has no description")
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
    used: set[str] = set()
    for kind in ("sources", "difficulties", "schedules", "orders", "presets", "teachers", "judges", "suites"):
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
            rows = list(_options(kind, factory, used))
            yield f"**`{entry.name}`** {text.replace('``', '`')}\n"
            if rows:
                yield "\n".join(["| option | default | allowed | meaning |", "|---|---|---|---|", *rows, ""])
    _same("OPTIONS", set(OPTIONS), used)


def _options(kind: str, factory: Callable[..., Any], used: set[str]) -> Iterator[str]:
    hints, parameters = typing.get_type_hints(factory), inspect.signature(factory).parameters
    for name in option_names(factory):
        if kind in ("sources", "teachers") and name in FILLED_IN:
            continue
        key = f"{kind}.{name}"
        used.add(key)
        schema = TypeAdapter(hints[name]).json_schema()
        default = parameters[name].default
        shown = "required" if default is inspect.Parameter.empty else _value(default)
        yield f"| `{name}` | {shown} | {_allowed(schema, schema)} | {OPTIONS.get(key, '')} |"


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
        student = recipe.student.base or recipe.student.preset
        yield f"| `{name}` | {_about(find(name)) or recipe.title} | {schedule} | {student} | {recipe.tokens:,} |"
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
    return ", ".join(f"`{value}`" for value in values)


def _value(value: Any) -> str:
    """A default as it would stand in YAML; a dash when nothing is set."""
    if value is None or value == "":
        return "–"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _same(table: str, said: set[str], there: set[str]) -> None:
    if said != there:
        raise SystemExit(f"{table}: no meaning for {sorted(there - said)}; nothing called {sorted(said - there)}")


def main() -> None:
    """Write both pages."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "recipes.md").write_text(recipes_page(), encoding="utf-8")
    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
