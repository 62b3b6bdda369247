"""What ``doctor`` tells of the walls and the languages' toolchains."""

from __future__ import annotations

import json

import pytest

from gradatim.languages import LANGUAGES
from gradatim.sandbox import command as walls


@pytest.fixture
def told(gradatim):
    """Call ``doctor``, which looks anew; (exit code, findings by name)."""

    def told():
        walls.sandbox_support.cache_clear()
        said = gradatim("doctor", "--json")
        return said.status, {each["name"]: each for each in json.loads(said.out)}

    yield told
    walls.sandbox_support.cache_clear()


def test_walls_and_every_language_are_among_the_findings(told):
    status, found = told()
    assert status == 0
    assert found["sandbox"]["state"] == ("good" if walls.sandbox_support().available else "absent")
    for entry in LANGUAGES:
        language, finding = LANGUAGES.get(entry.name), found[f"language {entry.name}"]
        assert finding["state"] == ("good" if language.missing() is None else "absent")
        assert finding["advice"] == (language.missing() or "")


def test_what_is_not_there_is_told_with_the_command_that_installs_it_and_training_does_not_need_it(
    told, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, found = told()
    assert status == 0
    assert found["sandbox"]["state"] == "absent"
    assert found["sandbox"]["advice"] == "apt install bubblewrap"
    for name, package in (
        ("c", "gcc"),
        ("java", "default-jdk-headless"),
        ("go", "golang-go"),
        ("javascript", "nodejs"),
    ):
        assert found[f"language {name}"]["state"] == "absent"
        assert package in found[f"language {name}"]["advice"]
    assert found["language python"]["state"] == "good"
