"""The documents agree with the code: pages written from the code are current, links and names exist, commands parse,
recipes load, and the examples run."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

import gradatim
from gradatim.cli.main import COMMANDS, load_command
from gradatim.experiment.recipe import load, parse
from gradatim.experiment.recipe_files import find_study, names
from gradatim.model.settings import TrainSettings
from gradatim.training.objective import check_objective

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(gradatim.__file__).parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
WRITTEN = ("recipes.md", "cli.md")
"""Pages that docs/write_reference.py writes."""

FOLDERS = ("gradatim", "tests", "benchmarks", "docs", "recipes", "examples")

RUNNABLE = (
    "README.md",
    pytest.param("docs/own-data.md", marks=pytest.mark.slow),
    pytest.param("docs/extend.md", marks=pytest.mark.slow),
    pytest.param("docs/check.md", marks=pytest.mark.xdist_group("sandbox")),
    "docs/teacher.md",
    "docs/reproduce.md",
    "docs/troubleshooting.md",
    "docs/mobile.md",
    pytest.param("docs/beyond-one-machine.md", marks=pytest.mark.slow),
    pytest.param("docs/curricula.md", marks=pytest.mark.slow),
    pytest.param("docs/python.md", marks=pytest.mark.slow),
)
"""Pages whose ``sh`` and ``python`` blocks run in order in one folder. Commands after a $ in ``console`` blocks need a
network, a model or minutes; they are parsed only."""

PERSONIFIED = re.compile(r"\b(told|tells|knows|nobody|somebody|whoever|hangs? on|behind walls)\b", re.IGNORECASE)

RENAMED = re.compile(
    r"\b(batch_size|max_length|gradient_accumulation_steps|max_grad_norm|lr_scheduler|reset_optimizer"
    r"|prompt_loss_weight|block_diagonal_attention|context_length|chat_template|rejected_answers|max_new_tokens"
    r"|teacher_model|warmup_stage|(objective|trace_supervision|preference|distillation): *"
    r"(trace_supervision|preference|sft_dpo|distillation|\{))"
)
KEYS_ARE_RENAMED = "batch_size" in {field.name for field in fields(TrainSettings)}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True)
class Block:
    """A fenced block of code. ``file``: the name in its first line, written as a comment, or None."""

    page: Path
    language: str
    text: str

    @property
    def file(self) -> str | None:
        match = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return match[1] if match else None


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    pattern = r"^```(\w+)\n(.*?)^```"
    return tuple(Block(page, *match) for match in re.findall(pattern, page.read_text("utf-8"), flags=re.S | re.M))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)


@cache
def anchors(page: Path) -> set[str]:
    """The fragments that a link to the page may have: its headings in small letters, with hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def facts_tested() -> set[str]:
    texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^ *def (test_\w+)", text, flags=re.M)}


@dataclass(frozen=True)
class Command:
    """A `gradatim` command of a page: its words after `gradatim`. ``complete``: it can be given as it is, unlike a span
    in a sentence, which may leave out arguments."""

    page: Path
    words: tuple[str, ...]
    complete: bool = True

    def __str__(self) -> str:
        return f"{self.page.name}: gradatim {shlex.join(self.words)}"


def shell_lines(block: Block) -> Iterator[str]:
    """Command lines of a block; of a ``console`` block those after a $. Continuations are joined, here-documents and
    output are left out."""
    text = re.sub(r"<< *'?(\w+)'?\n.*?^\1$", "", block.text, flags=re.S | re.M).replace("\\\n", " ")
    for line in text.splitlines():
        if block.language != "console":
            yield line
        elif line.startswith("$ "):
            yield line.removeprefix("$ ")


def commands() -> Iterator[Command]:
    """Each `gradatim` command in a shell block, a span of code or a table of a page."""
    for page in PAGES:
        shells = [block for block in blocks(page) if block.language in ("sh", "bash", "console")]
        lines = [(line, True) for block in shells for line in shell_lines(block)]
        lines += [(span, False) for span in re.findall(r"`(gradatim [a-z][^`]*)`", prose(page))]
        for line, complete in lines:
            match = re.search(r"(?:^|&& |\| )gradatim ([a-z].*)", line)
            if match:
                text = re.split(r" && | > | \| ", match[1])[0]
                yield Command(page, tuple(shlex.split(text, comments=True)), complete)


def test_pages_written_from_the_code_are_up_to_date(tmp_path: Path) -> None:
    # In a process of its own: other tests add components to the registries.
    subprocess.run([sys.executable, str(ROOT / "docs/write_reference.py"), str(tmp_path)], check=True, timeout=60)
    outdated = [
        name for name in WRITTEN if (tmp_path / name).read_text("utf-8") != (ROOT / "docs" / name).read_text("utf-8")
    ]
    assert outdated == [], "run: python docs/write_reference.py"


def test_an_option_without_a_description_is_an_error_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def described(*, folds: Annotated[int, Field(description="Number of folds.")] = 5) -> None: ...

    def undescribed(*, folds: int = 5) -> None: ...

    monkeypatch.syspath_prepend(ROOT / "docs")
    script = importlib.import_module("write_reference")
    assert list(script._options("orders", "zigzag", described)) == [
        "| `folds` | `5` | whole number | Number of folds. |"
    ]
    with pytest.raises(SystemExit, match=r"orders\.zigzag\.folds has no description"):
        list(script._options("orders", "zigzag", undescribed))


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


@every_page
def test_every_recipe_named_exists(page: Path) -> None:
    kinds = {name.split("/")[0] for name in names()}
    mentions = re.findall(
        rf"(?<![\w/-])({'|'.join(sorted(kinds))})/([a-z][a-z0-9-]*)(?![\w/.])", page.read_text("utf-8")
    )
    assert {f"{kind}/{name}" for kind, name in mentions} - set(names()) == set()


@every_page
def test_every_file_and_test_named_exists(page: Path) -> None:
    text = prose(page)
    files = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert set(re.findall(r"`(test_\w+)`", text)) - facts_tested() == set()


@cache
def verbs() -> dict[str, Any]:
    """The commands by name; to build them from their signatures takes 60 ms."""
    return {verb: load_command(verb) for verb in COMMANDS}


@pytest.mark.parametrize("command", [pytest.param(command, id=str(command)) for command in dict.fromkeys(commands())])
def test_every_command_of_a_page_parses_and_its_recipes_load(command: Command) -> None:
    verb, *words = command.words
    assert verb in verbs()
    options = {name for parameter in verbs()[verb].params for name in [*parameter.opts, *parameter.secondary_opts]} | {
        "--help"
    }
    assert {word.partition("=")[0] for word in words if word.startswith("--")} - options == set()
    if not command.complete:
        return
    parameters = verbs()[verb].make_context(verb, words).params  # raises for missing arguments and wrong values
    recipes = parameters.get("recipe") or parameters.get("recipes") or ()
    own = {block.file for block in blocks(command.page)}
    for recipe in [recipes] if isinstance(recipes, str) else recipes:
        if recipe not in own:
            study = find_study(recipe)
            for name in [recipe] if study is None else map(study.address, study.arms):
                load(name, parameters["changes"] or ())


def test_every_command_is_shown_in_a_page() -> None:
    assert {command.words[0] for command in commands()} == set(verbs())


def yaml_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from (block for block in blocks(page) if block.language == "yaml")


@pytest.mark.parametrize(
    "block", yaml_blocks(), ids=lambda block: f"{block.page.name}-{block.file or block.text[:30]!r}"
)
def test_every_recipe_of_a_page_loads_and_its_objective_accepts_the_settings(block: Block, tmp_path: Path) -> None:
    if RENAMED.search(block.text) and not KEYS_ARE_RENAMED:
        pytest.skip("the recipe uses keys that this version does not have yet")
    content = yaml.safe_load(block.text)
    if block.page.name == "extend.md":
        return  # its components exist only where its package is installed: see the test that runs the page
    if "arms" in content:  # a study
        path = tmp_path / "study.yaml"
        path.write_text(block.text, "utf-8")
        study = find_study(path)
        assert study is not None
        for arm in study.arms:
            load(study.address(arm))
        return
    if "extends" in content:
        path = tmp_path / "recipe.yaml"
        path.write_text(block.text, "utf-8")
        recipe = load(path)
    else:
        recipe = parse(content)
    check_objective(recipe.train.objective, recipe.train)


def install(block: Block, folder: Path) -> None:
    """Make the entry points of a page's ``pyproject.toml`` visible to Python, as an installation does."""
    project = tomllib.loads(block.text)["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}", ""]
    (metadata / "METADATA").write_text("\n".join(lines), "utf-8")
    groups = project["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups)
    (metadata / "entry_points.txt").write_text(text, "utf-8")


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_examples_of_a_page_run(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "docs/check.md":
        request.getfixturevalue("sandbox")  # skips where there is none
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "GRADATIM_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHON": sys.executable,
    }
    functions = 'gradatim() { "$PYTHON" -m gradatim "$@"; }\npython() { "$PYTHON" "$@"; }\n'
    run = 0
    for block in blocks(ROOT / name):
        if block.file is not None:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
            if path.name == "pyproject.toml":
                install(block, tmp_path)
        elif block.language in ("sh", "python"):
            script = functions + block.text if block.language == "sh" else block.text
            command = (
                ["bash", "-euc", script] if block.language == "sh" else [sys.executable, "-W", "error", "-c", script]
            )
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            run += 1
    assert run


def test_every_page_with_commands_to_run_is_run() -> None:
    runnable = {name if isinstance(name, str) else str(name.values[0]) for name in RUNNABLE}
    with_code = {
        str(page.relative_to(ROOT))
        for page in PAGES
        if page.name not in WRITTEN
        and page.parent.name != "benchmarks"
        and any(block.language in ("sh", "python") for block in blocks(page))
    }
    assert with_code - runnable == set()


@every_page
def test_the_prose_is_free_of_personified_code(page: Path) -> None:
    if page.name in (*WRITTEN, "log.md") or page.parent.name == "benchmarks":
        return  # written from the code, and the journal
    text = re.sub(r"`[^`]*`", "", prose(page))
    assert PERSONIFIED.findall(text) == []


def test_the_readme_is_short_and_the_index_has_every_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 110
    index = (ROOT / "docs/README.md").read_text("utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index]
    assert missing == ["README.md"]


def test_the_glossary_has_each_term_once_in_alphabetical_order() -> None:
    terms = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs/glossary.md").read_text("utf-8"), flags=re.M)[1:]
    assert terms == sorted(set(terms), key=str.lower)


def test_the_layout_has_a_line_for_every_package_in_the_order_of_imports() -> None:
    from test_imports import LAYERS

    texts = [block.text for block in blocks(ROOT / "docs/design.md") if block.text.startswith("gradatim/")]
    packages = re.findall(r"^  ([a-z_]+)/ +\S", texts[0], flags=re.M)
    assert [name for name in packages if name != "recipes"] == [
        name for name in dict.fromkeys(layer.split(".")[0] for layer in LAYERS) if (PACKAGE / name).is_dir()
    ]


def test_every_benchmark_is_described() -> None:
    text = (ROOT / "benchmarks/README.md").read_text("utf-8")
    assert [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"`{path.name}`" not in text] == []


def test_the_results_of_the_demonstration_have_their_markers() -> None:
    text = (ROOT / "docs/reproduce.md").read_text("utf-8")
    assert re.findall(r"<!-- results:(\w+) -->", text) == ["start", "end"]
