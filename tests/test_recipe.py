"""Recipes: loaded by path or name, all faults in one error."""

from pathlib import Path

import pytest
import yaml

from gradatim.errors import RecipeError
from gradatim.experiment.assemble import check
from gradatim.experiment.recipe import changed_keys, dump, find, load, names, parse, title


def test_dump_and_parse_are_inverse() -> None:
    recipe = load("smoke/baseline", ["schedule.name=hybrid", "schedule.replay=0.25"])
    assert parse(yaml.safe_load(dump(recipe))) == recipe


def test_every_shipped_recipe_is_valid() -> None:
    assert "smoke/baseline" in names()
    for name in names():
        check(load(name), name)


def test_the_title_read_alone_is_the_title_of_the_recipe() -> None:
    assert {name: title(name) for name in names()} == {name: load(name).title for name in names()}


def test_a_recipe_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("smoke/baseline") == find("recipes/smoke/baseline.yaml")


def test_all_faults_are_told_at_once_with_the_nearest_key() -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"sede": 1, "train": {"siz": 3, "optimizer": {"name": "sgd"}}, "budget": {"tokens": "many"}})
    told = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "did you mean 'seed'" in told
    assert "did you mean 'batch_size'" in told
    assert "'adamw' or 'muon'" in told
    assert "budget.tokens" in told


def test_faults_of_several_parts_are_told_at_once() -> None:
    recipe = load("smoke/baseline", ["schedule.name=hybird", "student.preset=larg", "train.max_length=500"])
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert len(caught.value.faults) == 3
    assert "hybrid" in caught.value.faults[0]


def test_an_option_of_another_part_is_a_fault() -> None:
    with pytest.raises(RecipeError, match="replay"):
        check(load("smoke/baseline", ["schedule.replay=0.5"]))


def test_naming_another_part_drops_the_options_of_the_old_one() -> None:
    recipe = load("smoke/baseline", ["schedule.name=hybrid", "schedule.replay=0.5", "schedule.name=sequential"])
    assert recipe.schedule.options == {}


def test_levels_may_be_written_as_numbers() -> None:
    for levels in ("1.1", "[1.1, '2.1']", "all"):
        check(load("smoke/baseline", [f"data.levels={levels}"]))


def test_a_budget_is_tokens_or_steps() -> None:
    steps = parse({"budget": {"steps": 10}, "train": {"batch_size": 4, "max_length": 100}})
    assert steps.tokens == 4000
    with pytest.raises(RecipeError, match="exactly one"):
        parse({"budget": {"steps": 10, "tokens": 10}})


def test_extends_goes_one_level(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: smoke/baseline\nseed: 5\n")
    (tmp_path / "b.yaml").write_text("extends: a\nseed: 6\n")
    assert load(tmp_path / "a.yaml").seed == 5
    assert load(tmp_path / "a.yaml").student.preset == "tiny"
    with pytest.raises(RecipeError, match="one level"):
        load(tmp_path / "b.yaml")


@pytest.mark.parametrize("text", ["a: [1,", "- a list", "\x00"])
def test_what_is_no_recipe_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load(tmp_path / "bad.yaml")


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="smoke/baseline"):
        load("smoke/basline")


def test_a_change_without_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        load("smoke/baseline", ["schedule.name"])


def test_what_may_change_on_resume_is_not_a_difference() -> None:
    old = load("smoke/baseline")
    assert changed_keys(old, load("smoke/baseline", ["title=x", "train.checkpoint_seconds=1"])) == []
    assert changed_keys(old, load("smoke/baseline", ["seed=9"])) == ["seed: 1 -> 9"]


def test_quantiles_replace_the_thresholds_of_the_parent_and_steps_its_tokens() -> None:
    recipe = load("smoke/baseline", ["difficulty.bands.quantiles=[0.3, 0.6]", "budget.steps=7"])
    assert recipe.difficulty.bands.thresholds is None
    assert recipe.tokens == 7 * recipe.train.batch_size * recipe.train.max_length
