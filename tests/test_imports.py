"""The layout holds: modules import only from modules above them, and light commands stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import gradatim
from gradatim.cli.environment import KINDS

PACKAGE = Path(gradatim.__file__).parent

LAYERS = (
    "lazy",
    "errors",
    "renamed_keys",
    "files",
    "faults",
    "options",
    "registry",
    "processes",
    "executors",
    "random_streams",
    "record",
    "store",
    "stage",
    "table",
    "sandbox",
    "languages",
    "programs",
    "mobile",
    "difficulty",
    "schedule",
    "model",
    "training",
    "policy",
    "inference",
    "integrate",
    "client",
    "evaluation",
    "teacher",
    "design",
    "distillation",
    "source",
    "corpus",
    "results",
    "experiment.recipe_files",
    "experiment.recipe",
    "experiment.assemble",
    "experiment.run_lock",
    "experiment.ranks",
    "experiment.run",
    "experiment.parts",
    "experiment.workers",
    "experiment.study",
    "experiment.plan",
    "experiment.timing",
    "reporting",
    "tracking",
    "show",
    "export",
    "api",
    "cli",
)
"""The reading order, which is the order of the data flow: a layer imports from those before it, and from itself. The
modules of ``experiment`` are layers of their own."""

OUTSIDE = {"__init__", "__main__", "experiment.__init__"}
"""The entry points of the package, which import ``api`` and ``cli``, and a docstring."""

LAZY = {("table", "programs")}
"""Imports against the order, allowed inside functions only: a split by default asks programs for their canonical form,
while the generator writes tables."""

PATH = re.compile(r"gradatim(\.\w+)+:\w+")
"""A lazy registration: the module and the attribute that a registry imports at first use."""

HEAVY = ("torch", "transformers", "scipy", "matplotlib")


def layer_of(path: Path) -> str:
    """The layer of a file: ``inference`` for ``inference/decode.py``, ``experiment.run`` for ``experiment/run.py``."""
    return layer_name(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_name(parts: Sequence[str]) -> str:
    return ".".join(parts[:2]) if parts[0] == "experiment" else parts[0]


def imported_layers(path: Path) -> Iterator[tuple[int, str]]:
    """(line, layer) of everything that ``path`` imports from this package, inside functions and by the paths of lazy
    registrations (``package.module:attribute``) too."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                place = [*inside[: len(inside) - node.level + 1], *module]
            elif module[:1] == ["gradatim"]:
                place = module[1:]
            else:
                continue
            names = [[*place, alias.name] for alias in node.names] if place in ([], ["experiment"]) else [place]
            yield from ((node.lineno, layer_name(name)) for name in names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("gradatim."):
                    yield node.lineno, layer_name(alias.name.split(".")[1:])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.fullmatch(node.value):
            yield node.lineno, layer_name(node.value.split(":")[0].split(".")[1:])


def module_level_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top package) of what ``path`` imports when it is itself imported."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            yield statement
            for part in ("body", "orelse", "handlers", "finalbody"):
                inner = getattr(statement, part, [])
                lazy = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
                typed = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
                if not lazy and not typed:
                    yield from statements(inner)

    for statement in statements(ast.parse(path.read_text("utf-8")).body):
        if isinstance(statement, ast.Import):
            yield from ((statement.lineno, alias.name.split(".")[0]) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            yield statement.lineno, (statement.module or "").split(".")[0]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if layer_of(path) not in OUTSIDE)


def test_every_module_has_a_place_in_the_order():
    assert {layer_of(path) for path in modules()} == set(LAYERS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_above_it(path):
    own = LAYERS.index(layer_of(path))
    allowed = {name for layer, name in LAZY if layer == layer_of(path)}
    below = [(line, name) for line, name in imported_layers(path) if name in LAYERS[own + 1 :]]
    assert [(line, name) for line, name in below if name not in allowed] == []


def test_the_layer_test_sees_an_import_from_below(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "table").mkdir()
    wrong = tmp_path / "table" / "wrong.py"
    imports = "from ..experiment.run import run\nfrom .. import cli\n\ndef f():\n    import gradatim.api\n"
    wrong.write_text(imports + "PARTS.lazy('api', 'gradatim.teacher.llm_teacher:api')\n")
    assert sorted(name for _, name in imported_layers(wrong)) == ["api", "cli", "experiment.run", "teacher"]


def test_only_models_import_heavy_packages_when_they_are_imported():
    heavy = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if layer_of(path) not in ("model", "training", "policy", "inference", "evaluation", "export")
        for _, name in module_level_imports(path)
        if name in HEAVY
    }
    assert heavy == set()


LIGHT = (
    "--help",
    "run --help",
    "list",
    "list schedules",
    "list suites",
    "list recipes",
    "plan smoke/baseline --no-data",
    "plan smoke/baseline --data",
    "generate programs.txt --count 20",
    "plan smoke/baseline --set schedule.name=hybird",
)

QUICK = ("numpy", "pyarrow", "multiprocessing", "concurrent.futures", "asyncio", "rich.progress", *HEAVY)
"""What the verbs that only look something up wait for in vain: a plan without data is arithmetic on a recipe, and lays
no faulty answer. Pydantic and PyYAML are not among them: they check and read the recipe, and typer itself imports
pydantic."""

LOOKUPS = {
    "--help": "Commands",
    "list": "curriculum/hybrid",
    **{f"list {kind}": "" for kind in KINDS},
    "plan curriculum/hybrid --no-data": "hard+replay",
    "plan smoke/hybrid": "samples were not counted",
    "plan paper/baseline --no-data --json": '"steps": 120000',
    "plan curriculum/fast --no-data": "difficulty column",
    **{
        f"plan smoke/baseline --no-data --set difficulty.metric={metric}": f"difficulty {metric}"
        for metric in ("halstead", "composite", "rarity")
    },
    "plan smoke/baseline --set schedule.name=hybird": "",
}
"""Commands that look something up, and a part of their output."""

IMPORTS = """
import contextlib, io, sys
from gradatim.cli.main import main
commands, modules = {}
results, before = {{}}, set()
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(command.split())
    now = {{name for name in modules if name in sys.modules}}
    results[command], before = (out.getvalue(), sorted(now - before)), now
print(results)
"""


def imports_of(commands: Sequence[str], modules: Sequence[str], folder: Path) -> dict[str, tuple[str, list[str]]]:
    """By command, its output and the modules that it was the first to import, all in one process."""
    code = IMPORTS.format((list(commands), list(modules)))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    results: dict[str, tuple[str, list[str]]] = ast.literal_eval(done.stdout)
    return results


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    return imports_of(LIGHT, HEAVY, tmp_path_factory.mktemp("light"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    modules = (*QUICK, "gradatim.distillation.python_mutations")
    return imports_of(LOOKUPS, modules, tmp_path_factory.mktemp("quick"))


@pytest.mark.parametrize("command", LIGHT)
def test_a_light_command_imports_no_heavy_package(command, light):
    assert light[command][1] == []


def test_what_a_command_imports_is_seen(tmp_path):
    commands = ("plan smoke/baseline --no-data", "plan smoke/baseline --data", "--help")
    imports = imports_of(commands, ("numpy",), tmp_path)
    assert [imports[command][1] for command in commands] == [[], ["numpy"], []]


@pytest.mark.parametrize(("command", "output"), LOOKUPS.items())
def test_a_verb_that_looks_something_up_waits_for_no_table(command, output, quick):
    assert quick[command][1] == []
    assert output in quick[command][0]


def test_a_plan_of_a_shipped_recipe_waits_for_no_table(tmp_path):
    """Every recipe in one process; what a plan imports is reported under its recipe's name."""
    (tmp_path / "functions.jsonl").write_text('{"answer": "a = 1"}\n')  # the data file of pretrained/…
    code = f"""
import contextlib, io, sys
from gradatim.cli.main import main
from gradatim.experiment.recipe_files import names
quick, planned, loaded = {(*QUICK, "pandas", "gradatim.distillation.python_mutations")!r}, [], {{}}
for name in names():
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["plan", name]) == 0, name
    planned.append(name.split("/")[0])
    if modules := [module for module in quick if module in sys.modules and module not in sum(loaded.values(), [])]:
        loaded[name] = modules
print(sorted(set(planned)), loaded)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    kinds = "adaptive curriculum demo designed distill distinct feedback mobile order paper paper-modern paper-small "
    kinds += "pretrained pretrained-execution smoke strong strong-after-look-ups strong-averaged"
    assert done.stdout == f"{kinds.split()} {{}}\n", done.stderr


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys\nbefore = set(sys.modules)\nimport gradatim\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'numpy', 'pyarrow', 'pydantic', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
