"""What every test needs: one thread a process, so that tests beside each other do not spin on the same cores; and what
several folders share: walls, and a cache of compiled programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.preflight import sandbox_support

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests; they are skipped where no walls can be had."""
    walls = sandbox_support()
    if not walls.available:
        pytest.skip(f"no walls: {walls.reason}; {walls.advice}")
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def compiled_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that a program compiled by a former version is not taken for one of this."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "cache-of-languages"
        patch.setenv("GRADATIM_CACHE", str(folder))
        yield folder
