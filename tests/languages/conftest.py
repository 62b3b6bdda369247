"""A sandbox for the tests of languages, and a cache of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gradatim.languages import LANGUAGES, Language


@pytest.fixture(scope="session", autouse=True)
def cache(compiled_here: Path) -> Path:
    """Every test here compiles into the tests' own cache."""
    return compiled_here


@pytest.fixture(scope="session")
def with_toolchain() -> Callable[[str], Language]:
    """The language of a name; the test is skipped where its toolchain is not there."""

    def get(name: str) -> Language:
        language = LANGUAGES.get(name)
        if advice := language.missing():
            pytest.skip(f"no toolchain for {language.title}; try: {advice}")
        return language

    return get
