"""A sandbox for the tests of languages, and a cache of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradatim.languages import LANGUAGES, Language
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.walls import find_walls


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests; they are skipped where no walls can be had."""
    walls = find_walls()
    if not walls.stand:
        pytest.skip(f"no walls: {walls.reason}; {walls.advice}")
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that a program compiled by a former version is not taken for one of this."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "cache-of-languages"
        patch.setenv("GRADATIM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def with_toolchain() -> Callable[[str], Language]:
    """The language of a name; the test is skipped where its toolchain is not there."""

    def get(name: str) -> Language:
        language = LANGUAGES.get(name)
        if advice := language.missing():
            pytest.skip(f"no toolchain for {language.title}; try: {advice}")
        return language

    return get
