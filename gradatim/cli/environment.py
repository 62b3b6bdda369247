"""``gradatim doctor``: installed packages, sandbox, toolchains and hardware of this machine; or what a server supports.

``gradatim list``: the registered components and the shipped recipes.
"""

from __future__ import annotations

import importlib
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from .. import languages
from ..client import capabilities
from ..errors import ToolchainMissing, UnknownPart, UserError, did_you_mean
from ..experiment import recipe_files
from ..lazy import torch
from ..model import hardware
from ..processes import available_cores
from ..sandbox import command, limits
from .output import Json, output, print_json, table

if TYPE_CHECKING:
    from ..experiment.recipe_files import StudyFile

DOCTOR_EXAMPLES = (
    "gradatim doctor",
    "gradatim doctor --json",
    "gradatim doctor --endpoint http://localhost:8000/v1 --model NAME",
)

LEAST_DISK = 2_000_000_000
State = Literal["good", "slower", "absent", "missing"]
STYLES: dict[State, str] = {"good": "green", "slower": "yellow", "absent": "yellow", "missing": "red"}


@dataclass(frozen=True)
class Finding:
    """The result of one check, with advice.

    States: ``good``; ``slower``: works, with a limitation; ``absent``: an optional feature is not available;
    ``missing``: training is not possible. The fields are JSON keys.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def doctor(
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Check an OpenAI-compatible server instead: http://HOST/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of the server. (default: the first that it lists)")] = None,
    key: Annotated[
        str, typer.Option(metavar="VARIABLE", help="Environment variable with the server's key.")
    ] = "OPENAI_API_KEY",
    as_json: Json = False,
) -> None:
    """Check this machine: packages, sandbox, toolchains, hardware, and how to install what is missing.

    Exit code 1 when a requirement of training is missing. With --endpoint: the models of a server, a chat reply, a
    completion, log-probabilities, echo, and what the server does not support; a few requests of a few tokens each.
    """
    if endpoint is None and model is not None:
        raise UserError("a model belongs to a server", where="--model", given=model, hint="--endpoint URL")
    findings = list(_findings() if endpoint is None else _endpoint(endpoint, model, key))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in findings:
            advice = Text(finding.advice, style="dim")
            state = Text(finding.state, style=STYLES[finding.state])
            table.add_row(finding.name, state, Text(finding.found), advice)
        output().print(table)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


ADVICE = {
    "models": "name the model as the server does: --model",
    "chat": "a teacher needs it; evaluate without --set chat=true",
    "completion": "evaluate with --set chat=true",
    "parameters": "left out of the requests, by themselves",
    "log-probabilities": "not needed here; lm-evaluation-harness reads them",
    "echo": "log-likelihoods need the model itself: --suite choice with a folder",
    "token counts": "a budget counts an upper bound of each request",
}
"""Advice for a capability that a server lacks."""


def _endpoint(address: str, model: str | None, key: str) -> Iterator[Finding]:
    base, _, name = address.partition("#")
    for item in capabilities.capabilities(base.rstrip("/"), model or name or None, key):
        yield Finding(
            item.name, "good" if item.supported else "absent", item.detail, "" if item.supported else ADVICE[item.name]
        )


def _findings() -> Iterator[Finding]:
    yield Finding("system", "good", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _torch()
    for package in ("transformers", "tokenizers", "pyarrow", "scipy", "matplotlib"):
        yield _package(package)
    yield _package("datasets", required=False)
    yield _compiler()
    yield _sandbox()
    yield from _languages()
    yield _disk()


def _torch() -> Iterator[Finding]:
    try:
        from ..model.hardware import device, environment, native_bf16
    except ImportError as error:
        yield Finding("torch", "missing", str(error), "pip install torch; see https://pytorch.org/get-started for GPUs")
        return
    cores = available_cores()
    yield Finding("processor", "good", str(environment()["processor"]))
    yield Finding("threads", "good", f"{torch.get_num_threads()} used by torch, {cores} cores allowed")
    bf16 = "training in bf16" if native_bf16() else "not supported by this processor; training in fp32"
    yield Finding("bf16", "good" if native_bf16() else "slower", bf16)
    yield Finding("torch", "good", f"{torch.__version__}, computing on {device()}")


def _package(name: str, required: bool = True) -> Finding:
    try:
        return Finding(name, "good", version(name))
    except PackageNotFoundError:
        advice = (
            f"pip install {name}" if required else f"pip install {name}, to read datasets from the Hugging Face hub"
        )
        return Finding(name, "missing" if required else "slower", "not installed", advice)


def _compiler() -> Finding:
    if compiler := hardware.cpp_compiler():
        return Finding("compiler", "good", f"{Path(compiler).name}, for torch.compile")
    return Finding(
        "compiler", "slower", "none; torch.compile is not available", "apt install g++ (train.compile: true)"
    )


def _sandbox() -> Finding:
    walls = command.sandbox_support()
    if walls.available:
        limit = (
            "memory limited by a control group" if limits.find_cgroup() else "no control group; memory use is polled"
        )
        return Finding("sandbox", "good", f"complete; {limit}")
    reason = f"untrusted programs need --unsafe: {walls.reason}"
    return Finding("sandbox", "absent", reason, walls.advice)


def _languages() -> Iterator[Finding]:
    """The toolchain of every language, with the version that its compiler or runtime reports."""
    for entry in languages.LANGUAGES:
        language = languages.LANGUAGES.get(entry.name)
        name = f"language {language.name}"
        command = language.missing()
        if command is not None:
            yield Finding(name, "absent", f"no toolchain; {language.title} programs cannot be checked", command)
            continue
        try:
            yield Finding(name, "good", language.version())
        except ToolchainMissing as error:
            yield Finding(name, "absent", str(error))


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    state: State = "good" if free >= LEAST_DISK else "slower"
    advice = "" if state == "good" else "use a disk with more space, or remove old runs"
    return Finding("disk", state, f"{free / 1e9:.1f} GB free here", advice)


LIST_EXAMPLES = ("gradatim list", "gradatim list schedules", "gradatim list recipes", "gradatim list studies --json")

REGISTRIES = {
    "difficulties": ("gradatim.difficulty", "DIFFICULTIES"),
    "executors": ("gradatim.executors", "EXECUTORS"),
    "exporters": ("gradatim.export", "EXPORTERS"),
    "judges": ("gradatim.distillation", "JUDGES"),
    "languages": ("gradatim.languages", "LANGUAGES"),
    "objectives": ("gradatim.training.objective", "OBJECTIVES"),
    "orders": ("gradatim.schedule", "ORDERS"),
    "presets": ("gradatim.model.settings", "PRESETS"),
    "rewards": ("gradatim.mobile.rewards", "REWARDS"),
    "schedules": ("gradatim.schedule", "SCHEDULES"),
    "sources": ("gradatim.source", "SOURCES"),
    "students": ("gradatim.experiment.assemble", "STUDENTS"),
    "suites": ("gradatim.evaluation", "SUITES"),
    "teachers": ("gradatim.teacher", "TEACHERS"),
    "trackers": ("gradatim.tracking", "TRACKERS"),
}
KINDS = {
    "difficulties": "difficulty metrics: difficulty.metric",
    "executors": "executors of parallel work: --on",
    "exporters": "export formats: gradatim export --to",
    "judges": "judges of completions: feedback.judges",
    "languages": "programming languages",
    "objectives": "training objectives: train.objective",
    "orders": "sample order within a stage: schedule.order",
    "presets": "model presets: student.preset",
    "recipes": "shipped recipes, the arms of studies included",
    "rewards": "rewards of a policy: student.reward",
    "schedules": "curriculum schedules: schedule.name",
    "sources": "data sources: data.source",
    "students": "kinds of students: student.kind",
    "studies": "shipped studies: gradatim study NAME",
    "suites": "evaluation suites: evaluate.suites",
    "teachers": "teachers: teacher.name",
    "trackers": "trackers of metrics: gradatim track --to",
}


def listing(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=", ".join(KINDS) + ".")] = None,
    as_json: Json = False,
) -> None:
    """List the components that recipes can name, and the recipes.

    With --json: a list of {"name", "summary"}, of the kinds without KIND.
    """
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
    rows: list[tuple[str, str]] = []
    in_studies = {study.address(arm) for study in recipe_files.shipped_studies().values() for arm in study.arms}
    for study in _listed_studies().values():
        rows.append((f"{study.name}:", study.title))
        rows += [(f"  {study.address(arm)}", str(content["title"])) for arm, content in study.arms.items()]
    alone = [name for name in recipe_files.names() if name not in in_studies]
    return [*rows, ("other recipes:", ""), *((f"  {name}", recipe_files.title(name)) for name in alone)]


def _listed_studies() -> dict[str, StudyFile]:
    return {name: study for name, study in recipe_files.shipped_studies().items() if not study.hidden}
