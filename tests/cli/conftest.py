"""A finished run of the smallest student, made once by the command line itself, and a quick way to call it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gradatim.cli.main import main

SMALL = [
    *("--set", "data.count=300", "--set", "data.split.test=20", "--set", "data.split.validation=20"),
    *("--set", "budget.tokens=6000"),
]


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def gradatim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call ``gradatim`` in an empty folder, through the same function as the installed command."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, in a folder of its own."""
    home, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    os.chdir(home)
    try:
        assert main(["run", "smoke/baseline", *SMALL]) == 0
    finally:
        os.chdir(before)
    return home / "runs" / "smoke-baseline"
