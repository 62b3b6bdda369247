"""The documents tell what the code does now: written pages are up to date, links and names exist, examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gradatim
from gradatim.cli.main import COMMANDS, load_command
from gradatim.experiment.recipe import RECIPES, names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(gradatim.__file__).parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
WRITTEN = ("recipes.md", "cli.md")
FOLDERS = ("gradatim", "tests", "benchmarks", "docs", "recipes")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)


@cache
def anchors(page: Path) -> set[str]:
    """What can follow # in a link to the page: its headings in small letters, with hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def facts_tested() -> set[str]:
    texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^ *def (test_\w+)", text, flags=re.M)}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each `gradatim …` that a block or a span of code shows, as (page, words)."""
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        spans = re.findall(r"`(gradatim [a-z][^`]*)`", prose(page))
        for line in [*lines, *spans]:
            found = re.search(r"\bgradatim ([a-z].*)", line.split("#")[0])
            if found:
                yield page.name, found[1].split()


def test_pages_written_from_the_code_are_up_to_date(tmp_path: Path) -> None:
    # In a process of its own: other tests add parts to the registries.
    subprocess.run([sys.executable, str(ROOT / "docs/write_reference.py"), str(tmp_path)], check=True, timeout=60)
    old = [
        name for name in WRITTEN if (tmp_path / name).read_text("utf-8") != (ROOT / "docs" / name).read_text("utf-8")
    ]
    assert old == [], "run: python docs/write_reference.py"


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []


@every_page
def test_every_recipe_named_is_there(page: Path) -> None:
    kinds = {path.name for path in RECIPES.iterdir() if path.is_dir()} | {"demo"}
    said = re.findall(rf"(?<![\w/-])({'|'.join(sorted(kinds))})/([a-z][a-z0-9-]*)(?![\w/])", page.read_text("utf-8"))
    assert {f"{kind}/{name}" for kind, name in said} - set(names()) == set()


@every_page
def test_every_file_and_test_named_is_there(page: Path) -> None:
    text = prose(page)
    files = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert set(re.findall(r"`(test_\w+)`", text)) - facts_tested() == set()


def test_every_command_shown_has_a_verb_and_its_options() -> None:
    verbs = {verb: load_command(verb) for verb in COMMANDS}
    shown = list(commands())
    wrong = []
    for page, (verb, *words) in shown:
        options = {name for each in verbs[verb].params for name in each.opts} if verb in verbs else set()
        given = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        if verb not in verbs or given - options:
            wrong.append((page, verb, sorted(given - options)))
    assert wrong == []
    assert {verb for _, (verb, *_) in shown} == set(verbs)


def test_the_layout_has_a_line_for_every_module_in_the_order_of_imports() -> None:
    from test_imports import LAYERS

    layout = next(block for block in blocks(ROOT / "README.md", "text") if block.startswith("gradatim/"))
    lines, folder = [], ""
    for indent, name, kind in re.findall(r"^(  |    )([a-z_]+)(\.py|/) +\S", layout, flags=re.M):
        folder = name if indent == "  " else folder
        lines.append((name if indent == "  " else f"{folder}.{name}", kind))
    folders = {name.split(".")[0] for name, _ in lines if "." in name}
    assert [name for name, _ in lines if name not in {"recipes", *folders}] == list(LAYERS)
    paths = [name.replace(".", "/") + kind for name, kind in lines]
    assert [path for path in paths if not (PACKAGE / path).exists()] == []


def test_every_benchmark_is_described() -> None:
    text = (ROOT / "benchmarks/README.md").read_text("utf-8")
    assert [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"`{path.name}`" not in text] == []


def test_the_results_of_the_readme_stand_between_their_marks() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"<!-- results:(\w+) -->", text) == ["start", "end"]


def test_the_examples_of_the_readme_run_and_print_what_they_say(tmp_path: Path) -> None:
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[0.5, 1.5]"
    assert lines[-1] == "[('before', 3000), ('hard', 24000), ('after', 3000)]"
    assert (tmp_path / "runs" / "first" / "finished.json").exists()
