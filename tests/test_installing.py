"""Installation: the wheel and the source distribution, systems without Linux's own functions, the container file."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gradatim.processes import available_cores

ROOT = Path(__file__).resolve().parents[1]
PLAN_ELSEWHERE = """
import os, sys
del os.sched_getaffinity
from gradatim.cli.main import main
sys.exit(main(["plan", "smoke/baseline", "--no-data"]))
"""


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == os.cpu_count()


def test_only_one_function_asks_for_the_affinity() -> None:
    users = [path for path in (ROOT / "gradatim").rglob("*.py") if "sched_getaffinity" in path.read_text("utf-8")]
    assert users == [ROOT / "gradatim" / "processes.py"]


def test_a_plan_needs_no_affinity(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PLAN_ELSEWHERE], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_file_follows_the_rules_of_its_linter() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_wheel_and_source_distribution_have_all_files_and_install_into_an_empty_environment(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignore, symlinks=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(source)], check=True)
    (wheel,), (archive,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "gradatim").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as files:
        assert package - set(files.namelist()) == set()
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
        assert package - names == set()
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, wheel], check=True)
    for words in (["--help"], ["--version"], ["run", "smoke/baseline", "--out", str(tmp_path / "run")]):
        subprocess.run([environment / "bin" / "gradatim", *words], cwd=tmp_path, check=True)
    assert (tmp_path / "run" / "report.html").exists()


def test_the_site_of_the_documentation_has_every_page_and_no_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    written = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("*.html")}
    assert {page if page != Path("README.html") else Path("index.html") for page in pages} - written == set()
