"""Two runs, made once for the tests of the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gradatim import api

SMALL = (
    *("data.count=300", "data.split.test=40", "data.split.validation=20", "budget.tokens=6000"),
    *("student.context_length=128", "train.max_length=128", "train.evaluations_per_stage=0"),
)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of three stages; tests do not change it."""
    folder = tmp_path_factory.mktemp("show") / "hybrid"
    api.run("smoke/hybrid", folder, changes=SMALL)
    return folder


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of another curriculum and seed; tests do not change it."""
    folder = tmp_path_factory.mktemp("show") / "baseline"
    api.run("smoke/baseline", folder, changes=(*SMALL, "seed=2"))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of ``finished`` for a test that changes it."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
