"""The page of ``gradatim show`` for a run of a policy: utility by environment and stage, the map of an episode."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from small_policies import TARGET, policy_recipe

from gradatim import reporting
from gradatim.experiment.run import run
from gradatim.reporting.summary import percent
from gradatim.show.content import read
from gradatim.show.environments import environment_rows
from gradatim.show.page import render, write_page

pytest.importorskip("stable_baselines3", reason="the extra mobile is not installed")
STAGES = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages that is evaluated in all test environments after each."""
    folder = tmp_path_factory.mktemp("policy-page")
    changes = ["schedule={name: sequential, shares: [1, 3]}", "evaluate.suites=[{suite: episodes}]"]
    run(policy_recipe(folder, changes), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(finished, tmp_path_factory.mktemp("page") / "page.html").read_text()


def test_each_cell_of_the_page_is_the_utility_of_the_evaluation(finished: Path, page: str) -> None:
    (view,) = read([finished]).runs
    assert len(view.environments) == 8
    for index in range(STAGES):
        verdicts = reporting.read_verdicts(finished, "episodes", stage=index).to_pylist()
        utilities = {verdict["row"] + 1: verdict["passed"] for verdict in verdicts}
        cells = {row.number: row.cells[index] for row in view.environments}
        assert {number: cell.utility for number, cell in cells.items() if cell} == utilities
    table = re.search(r'<table class="environments">.*?</table>', page, flags=re.DOTALL)
    assert table is not None
    shown = re.findall(r'<span class="change \w+">([\d.]+\xa0%)', table[0])
    assert shown == [percent(cell.utility) for row in view.environments for cell in row.cells if cell]


def test_the_counts_of_the_stages_are_those_of_the_cells(finished: Path) -> None:
    (view,) = read([finished]).runs
    for index, step in enumerate(view.steps):
        changes = [cell.change for row in view.environments if (cell := row.cells[index])]
        assert step is not None
        assert changes.count("learnt") == step.learnt
        assert changes.count("kept") == step.kept
        assert changes.count("forgotten") == step.forgotten
        assert changes.count("unlearnt") == step.unlearnt


def test_learnt_kept_and_forgotten_follow_the_pass_of_the_episode(finished: Path) -> None:
    table = reporting.read_verdicts(finished, "episodes")
    first = table.slice(0, 1)

    def outcome(word: str) -> object:
        return first.set_column(first.column_names.index("outcome"), "outcome", [[word]])

    stages = [outcome("failed"), outcome("passed"), None, outcome("passed"), outcome("failed"), outcome("passed")]
    (row,) = environment_rows(stages)
    assert [cell and cell.change for cell in row.cells] == ["unlearnt", "learnt", None, "kept", "forgotten", "learnt"]


def test_the_page_has_the_map_of_an_episode_and_no_map_of_programs(page: str) -> None:
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert text.count('class="station"') in (1, 2)
    assert TARGET in text
    assert "agent steps" in text
    assert "tokens" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).partition('id="map"')[0]
    for section in ("map", "playground"):
        assert re.search(rf'<section id="{section}" [^>]*hidden>', text)
    assert 'href="#playground"' not in text


def test_a_stage_without_verdicts_is_named_and_the_rest_is_shown(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    next(folder.glob("cycle-00/stage-00-*/evaluation-*.parquet")).unlink()
    content = read([folder])
    assert any("no verdict per environment for 1 of 2 stages" in note for note in content.notes)
    assert all(row.cells[0] is None and row.cells[1] for row in content.runs[0].environments)
    assert "not played" in render(content)
