"""The log: its page is the script's output, its figures are complete, and wrong figures are refused in one line."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
GIVEN = {
    "--area": "speed",
    "--metric": "steps per second",
    "--value": "12.5",
    "--command": "benchmarks/train.py",
    "--commit": "0123abc",
    "--machine": "1 core",
}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_log", DOCS / "write_log.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_log"] = module
    spec.loader.exec_module(module)
    return module


log = load_script()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with a copy of the script and of the data file, outside any repository."""
    for name in ("write_log.py", "figures.jsonl"):
        shutil.copy(DOCS / name, tmp_path / name)
    return tmp_path


def run_script(docs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "write_log.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def add(docs: Path, changes: dict[str, str | None]) -> subprocess.CompletedProcess[str]:
    """Run ``add`` with the options of ``GIVEN``, changed; None leaves an option out."""
    options = {name: value for name, value in {**GIVEN, **changes}.items() if value is not None}
    return run_script(docs, "add", *(word for option in options.items() for word in option))


def test_the_page_is_the_output_of_the_script(docs: Path) -> None:
    assert run_script(docs).returncode == 0
    assert (docs / "log.md").read_text("utf-8") == (DOCS / "log.md").read_text("utf-8"), "run: python docs/write_log.py"


def test_every_figure_has_its_fields_and_supersedes_earlier_ones() -> None:
    figures = log.read_figures(DOCS / "figures.jsonl")
    earlier: set[int] = set()
    for figure in figures:
        fields = dataclasses.asdict(figure)
        supersedes = fields.pop("supersedes")
        assert all(str(value).strip() for value in fields.values())
        datetime.date.fromisoformat(figure.date)
        assert set(supersedes) <= earlier
        earlier.add(figure.id)
    assert {figure.area for figure in figures} == set(log.AREAS)


def test_every_figure_stands_once_on_the_page() -> None:
    figures = log.read_figures(DOCS / "figures.jsonl")
    current, earlier = (DOCS / "log.md").read_text("utf-8").split("## Earlier figures")
    superseded = {number for figure in figures for number in figure.supersedes}
    for figure in figures:
        start = f"\n| {figure.id} | {figure.area} |"
        assert (current.count(start), earlier.count(start)) == ((0, 1) if figure.id in superseded else (1, 0))


def test_a_new_figure_moves_the_superseded_one_to_the_earlier_figures(docs: Path) -> None:
    before = log.read_figures(docs / "figures.jsonl")
    superseded = {number for figure in before for number in figure.supersedes}
    old = next(figure for figure in before if figure.id not in superseded and figure.area == "sandbox")
    done = add(docs, {"--area": None, "--metric": "a | b", "--interval": "3 rounds", "--supersedes": str(old.id)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    *others, new = log.read_figures(docs / "figures.jsonl")
    assert others == before
    assert (new.id, new.area, new.supersedes) == (before[-1].id + 1, "sandbox", (old.id,))
    assert abs((datetime.date.today() - datetime.date.fromisoformat(new.date)).days) <= 1
    current, earlier = (docs / "log.md").read_text("utf-8").split("## Earlier figures")
    assert f"\n| {new.id} | sandbox | a \\| b | 12.5 | 3 rounds | benchmarks/train.py | 1 core |" in current
    assert f"\n| {old.id} | sandbox |" not in current
    assert f"\n| {old.id} | sandbox |" in earlier


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--value": None}, "--value"),
        ({"--value": "fast"}, "value: 'fast' has no digit"),
        ({"--metric": " "}, "metric: ' ' is not one line"),
        ({"--command": "a\nb"}, "command: 'a\\nb' is not one line"),
        ({"--area": "sped"}, "area: 'sped' is none of accuracy, speed"),
        ({"--area": None}, "area: not given"),
        ({"--commit": "main"}, "commit: 'main' is not"),
        ({"--commit": None}, "give --commit"),
        ({"--supersedes": "99999"}, "no figure has the id 99999"),
        ({"--supersedes": "first"}, "invalid int value: 'first'"),
        ({"--supersedes": "1"}, "supersedes 1 already"),
        ({"--speed": "1"}, "--speed"),
    ],
)
def test_a_wrong_figure_is_refused_in_one_line(docs: Path, changes: dict[str, str | None], message: str) -> None:
    before = (docs / "figures.jsonl").read_text("utf-8")
    done = add(docs, changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert (docs / "figures.jsonl").read_text("utf-8") == before


@pytest.mark.parametrize("line", ["[]", "{", '{"id": 1}', "7"])
def test_a_broken_line_of_the_data_file_is_named(docs: Path, line: str) -> None:
    (docs / "figures.jsonl").write_text(line + "\n", "utf-8")
    done = run_script(docs)
    assert done.returncode == 2
    assert "figures.jsonl, line 1: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_machine_has_its_cores_processor_and_matrix_formats() -> None:
    core = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu {}\n\n"
    assert log.machine_name(2 * core.format("avx512f avx512_bf16")) == "2 cores, AMD EPYC, AVX-512 bf16"
    assert log.machine_name(core.format("avx512f amx_bf16")) == "1 core, AMD EPYC, AVX-512, AMX bf16"
    assert log.machine_name(core.format("avx2")) == "1 core, AMD EPYC, no AVX-512"
    with pytest.raises(log.FigureError, match="give --machine"):
        log.machine_name("processor\t: 0\n")
