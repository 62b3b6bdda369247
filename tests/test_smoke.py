"""Every recipe under ``smoke/`` runs to its end from the command line, and the wheel carries all recipes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gradatim.experiment.recipe_files import RECIPES, names

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_all_smoke_recipes_run_by_their_paths(tmp_path: Path) -> None:
    smoke = sorted(name for name in names() if name.startswith("smoke/"))
    assert len(smoke) >= 8
    command = [sys.executable, "-m", "gradatim", "run", *(f"recipes/{name}.yaml" for name in smoke), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    for name in smoke:
        folder = tmp_path / "runs" / name.replace("/", "-")
        assert (folder / "finished.json").exists(), name
        assert "<html" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_wheel_carries_recipes_and_the_page_template(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"gradatim/recipes/{path.relative_to(RECIPES)}" for path in RECIPES.rglob("*.yaml")}
    assert expected <= inside
    assert {"gradatim/reporting/report.html.j2", "gradatim/reporting/report.css", "gradatim/py.typed"} <= inside
