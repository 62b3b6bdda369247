"""A sandbox for the tests, attacks compiled once, and a look at the host after each of them.

The attacks in ``attacks/`` are this project's own programs, so they are compiled outside; they run inside only.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from attacking import ATTACKS, Build, Host, look

from gradatim.sandbox.command import Sandbox


@pytest.hookimpl(tryfirst=True)  # before the workers read the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Attacks are made by one worker, one after another: each looks at the host that the others use."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("sandbox"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """A worker that has not taken the marks would run attacks beside others' attacks, and both would see it."""
    ours = [item for item in session.items if Path(__file__).parent in item.path.parents]
    if session.config.getoption("loadgroup", False) and not all(item.nodeid.endswith("@sandbox") for item in ours):
        raise pytest.UsageError("pytest-xdist has not grouped the tests of the sandbox: does it fit this pytest?")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of the host that no attack may read or change. Anybody may, as far as its mode goes."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    path = folder / "canary"
    path.write_text("the host's secret", "utf-8")
    path.chmod(0o666)
    return path


@pytest.fixture
def attack_host(sandbox: Sandbox, canary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Around an attack: a secret in the environment, and afterwards an intact host and a sandbox that works."""
    monkeypatch.setenv("GRADATIM_SECRET", "do-not-tell")
    before = look(canary)
    yield before
    after = look(canary)
    assert after.processes <= before.processes
    assert (after.temporary, after.descriptors, after.canary) == (before.temporary, before.descriptors, before.canary)
    assert sandbox.run(["/bin/echo", "next"]).stdout == b"next\n"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile an attack in a folder of its own; the files that this made. Skips when the compiler is not there."""

    def build(compiler: str, source: str, words: list[str]) -> Mapping[str, bytes]:
        if shutil.which(compiler) is None:
            pytest.skip(f"no {compiler} on this machine")
        folder = tmp_path_factory.mktemp(compiler)
        shutil.copy(ATTACKS / source, folder)
        done = subprocess.run([compiler, *words], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != source}

    return build
