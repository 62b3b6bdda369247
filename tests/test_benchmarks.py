"""The watch over speed tells of what became slow, lets noise pass, and fails only when a check itself breaks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
QUICK = "canonical_beside_tokenize"


@pytest.fixture(scope="module")
def regression() -> ModuleType:
    found = importlib.util.spec_from_file_location("regression", BENCHMARKS / "regression.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def watched(ratios: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "regression.py"), "--only", QUICK, "--rounds", "1", *words]
    return subprocess.run([*command, "--ratios", str(ratios)], capture_output=True, text=True, timeout=120)


def test_every_check_has_a_stored_ratio_with_a_tolerance(regression: ModuleType) -> None:
    stored = json.loads((BENCHMARKS / "ratios.json").read_text())
    assert set(stored) == set(regression.CHECKS)
    assert all(each["ratio"] > 0 and 0 < each["tolerance"] < 1 for each in stored.values())


@pytest.mark.parametrize(("found", "warned"), [(20.0, False), (10.0, False), (7.1, False), (6.9, True), (0.1, True)])
def test_a_warning_comes_below_the_tolerance_and_not_above(regression: ModuleType, found: float, warned: bool) -> None:
    said = regression.lines("om", found, {"ratio": 10.0, "tolerance": 0.3})
    assert len(said) == 1 + warned
    assert said[-1].startswith("warning:") == warned


def test_the_ratio_is_the_references_time_over_ours(regression: ModuleType) -> None:
    now = 0.0

    def takes(seconds: float) -> Any:
        def work() -> None:
            nonlocal now
            now += seconds

        return work

    assert regression.ratio_of((takes(6.0), takes(2.0), lambda: now), rounds=3) == 3.0


def test_a_ratio_that_fell_is_told_and_does_not_fail(tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps({QUICK: {"ratio": 1e6, "tolerance": 0.3}}))
    done = watched(ratios)
    assert done.returncode == 0, done.stderr
    first, warning = done.stdout.splitlines()
    assert first.startswith(f"{QUICK}: ")
    assert warning.startswith(f"warning: {QUICK} fell to 0%")


def test_a_stored_ratio_is_what_was_found_and_keeps_its_tolerance(tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps({QUICK: {"ratio": 1e6, "tolerance": 0.4}, "other": {"ratio": 2, "tolerance": 0.1}}))
    assert watched(ratios, "--store").returncode == 0
    stored = json.loads(ratios.read_text())
    assert 0 < stored[QUICK]["ratio"] < 1e3
    assert stored[QUICK]["tolerance"] == 0.4
    assert stored["other"] == {"ratio": 2, "tolerance": 0.1}


def test_a_check_that_breaks_fails(regression: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise LookupError("the library changed")

    monkeypatch.setitem(regression.CHECKS, QUICK, broken)
    monkeypatch.setattr(sys, "argv", ["regression.py", "--only", QUICK])
    with pytest.raises(LookupError):
        regression.main()


@pytest.mark.slow
def test_the_pipeline_is_measured_from_nothing_to_a_plan() -> None:
    command = [sys.executable, str(BENCHMARKS / "pipeline.py"), "--count", "5000", "--compare", "2000", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["steps"]) == ["generate", "score", "plan", "all"]
    assert all(step["seconds"] > 0 and step["peak_mb"] > 50 for step in found["steps"].values())
    assert found["second_worker"]["score"]["ratio"] > 0
