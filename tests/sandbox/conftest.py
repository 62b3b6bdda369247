"""Fixtures: compiled attacks, and a comparison of the host's state before and after each of them.

The attacks in ``attacks/`` are this project's own programs, so they are compiled outside the sandbox; they run inside.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from attacking import ATTACKS, Build, Host, look

from gradatim.sandbox.command import Sandbox

PATIENCE = 5.0
"""Seconds in which descriptors that a thread of an earlier test has open are closed again; a leak is not."""


@pytest.hookimpl(tryfirst=True)  # before the workers read the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign all attacks to one worker, because each examines the host that the others use."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("sandbox"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Check the grouping: attacks in parallel workers would observe each other."""
    ours = [item for item in session.items if Path(__file__).parent in item.path.parents]
    if session.config.getoption("loadgroup", False) and not all(item.nodeid.endswith("@sandbox") for item in ours):
        raise pytest.UsageError("pytest-xdist has not grouped the tests of the sandbox: does it fit this pytest?")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """File of the host that no attack may read or change, although its mode permits everyone."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    path = folder / "canary"
    path.write_text("the host's secret", "utf-8")
    path.chmod(0o666)
    return path


@pytest.fixture
def attack_host(sandbox: Sandbox, canary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Context of an attack: a secret in the environment before, an unchanged host and a working sandbox after."""
    monkeypatch.setenv("GRADATIM_SECRET", "do-not-tell")
    before = look(canary)
    yield before
    after, deadline = look(canary), time.monotonic() + PATIENCE
    while after.descriptors > before.descriptors and time.monotonic() < deadline:
        time.sleep(0.05)
        after = look(canary)
    assert after.processes <= before.processes
    assert after.descriptors <= before.descriptors  # those of an earlier test may have been closed meanwhile
    assert (after.temporary, after.canary) == (before.temporary, before.canary)
    assert sandbox.run(["/bin/echo", "next"]).stdout == b"next\n"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile an attack in a new folder and return the created files. Skips if the compiler is not installed."""

    def build(compiler: str, source: str, words: list[str]) -> Mapping[str, bytes]:
        if shutil.which(compiler) is None:
            pytest.skip(f"no {compiler} on this machine")
        folder = tmp_path_factory.mktemp(compiler)
        shutil.copy(ATTACKS / source, folder)
        done = subprocess.run([compiler, *words], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != source}

    return build
