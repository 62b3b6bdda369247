"""Recipes: loaded by path or name, all faults in one error."""

import re
from pathlib import Path

import pytest
import yaml

from gradatim.api import study_plan
from gradatim.errors import RecipeError
from gradatim.experiment.assemble import check, corpus_maker, source
from gradatim.experiment.plan import plan_cycles, plan_run
from gradatim.experiment.recipe import Recipe, _key_paths, changed_keys, dump, load, parse
from gradatim.experiment.recipe_files import files_of, find, names, shipped_studies, title
from gradatim.experiment.run import run
from gradatim.faults import SYNONYMS
from gradatim.options import parse_yaml


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


def test_every_recipe_is_what_it_was_before_families_became_study_files() -> None:
    before = parse_yaml((Path(__file__).parent / "data" / "recipes-before.yaml").read_text("utf-8"))
    assert len(before) == 88
    changed = [name for name, content in before.items() if load(name) != parse(content)]
    assert changed == []
    assert set(before) <= set(names())


def test_an_arm_is_found_by_the_path_of_its_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("recipes/adaptive/mastery.yaml") == load("adaptive/mastery") == load("adaptive.yaml:mastery")


def test_extends_goes_to_any_depth(tmp_path: Path) -> None:
    (tmp_path / "r0.yaml").write_text("extends: adaptive/mastery\nseed: 5\n")
    for depth in range(1, 30):
        (tmp_path / f"r{depth}.yaml").write_text(f"extends: r{depth - 1}\nthreads: {depth}\n")
    recipe = load(tmp_path / "r29.yaml")
    assert (recipe.seed, recipe.threads, recipe.schedule.name) == (5, 29, "mastery")
    assert len(files_of(tmp_path / "r29.yaml")) == 31


@pytest.mark.parametrize(
    "files",
    [
        {"a": "extends: b", "b": "extends: a"},
        {"a": "extends: b", "b": "extends: c", "c": "extends: b"},
        {"a": "extends: s.yaml:x", "s": "base: a\narms: {x: {}}"},
        {"a": "extends: s.yaml:x", "s": "base: s.yaml:x\narms: {x: {}}"},
    ],
)
def test_a_circle_of_recipes_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text + "\n")
    with pytest.raises(RecipeError, match="in a circle"):
        load(tmp_path / "a.yaml")


STUDY = """\
title: Two
base: {extends: smoke/baseline, seed: 4}
baseline: plain
seeds: 2
arms:
  plain: {}
  hybrid: {title: Hybrid, schedule: {name: hybrid}}
"""


def test_an_arm_of_an_own_study_file_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY)
    (tmp_path / "child.yaml").write_text("extends: mine.yaml:hybrid\nseed: 9\n")
    hybrid = load(f"{tmp_path}/mine.yaml:hybrid", ["schedule.replay=0.25"])
    assert (hybrid.seed, hybrid.title, hybrid.schedule.options) == (4, "Hybrid", {"replay": 0.25})
    assert hybrid.student.preset == "tiny"
    assert load(f"{tmp_path}/mine.yaml:plain").title == "plain"
    assert load(tmp_path / "child.yaml") == load(f"{tmp_path}/mine.yaml:hybrid", ["seed=9"])


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("base: {extends: smoke/baseline, seed: 4}\n", "", "base: missing"),
        ("{extends: smoke/baseline, seed: 4}", "smoke/basline", "smoke/baseline"),
        ("{extends: smoke/baseline, seed: 4}", "[1]", "base: a recipe by name"),
        ("baseline: plain", "baseline: plan", "did you mean 'plain'"),
        ("  plain: {}", "  plain: {}\n  plain: {seed: 3}", "stands twice"),
        ("plain: {}", "plain: {trian: {size: 3}}", "did you mean 'train'"),
        ("plain: {}", "plain: 3", "arms.plain: a mapping"),
        ("plain: {}", "../plain: {}", "an arm is named by"),
        ("plain: {}", "data: {}", "not 'data'"),
        ("plain: {}", "plain: {extends: smoke/hybrid}", "arms.plain.extends"),
        ("seeds: 2", "seeds: 0", "seeds: the number"),
        ("seeds: 2", "budget: {tokens: 3}", "under base"),
        (STUDY[STUDY.index("arms:") :], "arms: {}\n", "arms: at least one"),
    ],
)
def test_a_fault_of_a_study_file_is_one_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in STUDY
    (tmp_path / "mine.yaml").write_text(STUDY.replace(old, new))
    with pytest.raises(RecipeError, match=re.escape(fault)) as caught:
        study_plan(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_study_file_gives_arms_baseline_seeds_title_and_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY)
    plan, folder = study_plan(tmp_path / "mine.yaml")
    assert (list(plan.arms), plan.baseline, plan.seeds, plan.title) == (["plain", "hybrid"], "plain", (4, 5), "Two")
    assert folder == Path("runs/mine")
    assert study_plan(tmp_path / "mine.yaml", seeds=1)[0].seeds == (4,)
    assert list(study_plan(tmp_path / "mine.yaml", arms=["hybrid"])[0].arms) == ["hybrid"]
    with pytest.raises(RecipeError, match="did you mean 'hybrid'"):
        study_plan(tmp_path / "mine.yaml", arms=["hybird"])


def test_arms_named_one_by_one_are_the_study_of_their_file() -> None:
    plan, folder = study_plan(["adaptive/baseline", "adaptive/mastery"])
    assert (list(plan.arms), folder) == (["baseline", "mastery"], Path("runs/adaptive"))
    assert study_plan("adaptive", arms=["baseline", "mastery"])[0].arms == plan.arms
    assert study_plan(["demo/baseline", "order/sorted"])[1] == Path("runs/study-baseline-sorted")


def test_every_listed_study_can_be_compared() -> None:
    listed = {name: study for name, study in shipped_studies().items() if not study.hidden}
    assert len(listed) >= 8
    assert {name: study_plan(name)[0].baseline for name in listed} == {n: s.baseline for n, s in listed.items()}


def test_a_study_is_not_run_as_a_recipe() -> None:
    with pytest.raises(RecipeError, match="gradatim study adaptive"):
        load("adaptive")


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


def test_a_file_in_the_current_folder_changes_no_shipped_recipe(tmp_path, monkeypatch):
    before = load("order/sorted")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "baseline.yaml").write_text("title: Another\nseed: 77\n")
    monkeypatch.chdir(tmp_path)
    assert load("order/sorted") == before


KEYS_OF_OTHER_TOOLS = {
    "batch_size: 8": "train.batch_size",
    "lr: 0.1": "train.optimizer.learning_rate",
    "learning_rate: 0.1": "train.optimizer.learning_rate",
    "train: {learning_rate: 0.1}": "train.optimizer.learning_rate",
    "epochs: 3": "budget.epochs",
    "train: {num_train_epochs: 3}": "budget.epochs",
    "max_length: 128": "train.max_length",
    "student: {max_length: 128}": "train.max_length",
    "train: {warmup_steps: 100}": "train.lr_scheduler.warmup_ratio",
    "student: {lora: {r: 8}}": "student.lora.rank",
    "thresholds: [1]": "difficulty.bands.thresholds",
    "seeds: [1, 2, 3]": "gradatim study RECIPE --seeds",
    "seed: [1, 2, 3]": "gradatim study RECIPE --seeds 3",
    "schedule: hybrid": "schedule: {name: hybrid}",
}


@pytest.mark.parametrize("text", KEYS_OF_OTHER_TOOLS)
def test_a_key_of_another_tool_leads_to_the_key_of_a_recipe(text: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(KEYS_OF_OTHER_TOOLS[text])) as caught:
        parse(yaml.safe_load(text))
    assert "\n" not in str(caught.value)


def test_every_synonym_names_a_key_that_recipes_have() -> None:
    assert set(SYNONYMS.values()) - set(_key_paths()) == {"data.path"}  # an option of the source `file`


@pytest.mark.parametrize(
    ("text", "value"), [("1e6", 10**6), ("1M", 10**6), ("1.5M", 1_500_000), ("10_000", 10_000), ("200k", 200_000)]
)
def test_numbers_are_read_in_the_usual_notations(text: str, value: int) -> None:
    recipe = load("smoke/baseline", [f"budget.tokens={text}", f"data.count={text}", f"train.checkpoint_seconds={text}"])
    assert (recipe.tokens, recipe.train.checkpoint_seconds) == (value, value)
    assert source(recipe, None).count == value  # an option of a component
    with pytest.raises(RecipeError, match="must be a whole number"):
        load("smoke/baseline", ["budget.tokens=1.5"])


WRONG_VALUES = (
    "schedule: 3",
    "difficulty: {bands: {names: easy}}",
    "difficulty: {bands: {thresholds: 3}}",
    "evaluate: {suites: {suite: output}}",
    "evaluate: {suites: [3]}",
    "train: 3",
    "train: {optimizer: {betas: [1, 2, 3]}}",
    "train: {optimizer: {betas: x}}",
    "train: {compile: perhaps}",
    "train: {batching: lines}",
    "student: {lora: 3}",
    "student: {context_length: -1}",
    "teacher: oracle",
    "cycles: two",
    "budget: {tokens: 3, steps: 4}",
    "title: 3",
    "data: {split: {test: many}}",
    "data: {split: {validation: 0}}",
    "data: {split: {test: true}}",
    "rejected_answers: {sources: {student: -1}}",
)


@pytest.mark.parametrize("text", WRONG_VALUES)
def test_faults_are_told_without_the_words_of_a_library(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(yaml.safe_load(text))
    assert not re.search(r"Section|Settings|valid (tuple|integer|dict|list|string)|Input|pydantic", str(caught.value))


def test_the_faults_of_options_are_told_without_the_words_of_a_library() -> None:
    with pytest.raises(RecipeError, match=r"count must be a whole number \(given 'many'\)"):
        check(load("smoke/baseline", ["data.count=many"]))


def test_dropped_duplicates_need_a_criterion() -> None:
    with pytest.raises(RecipeError, match=r"data\.split: .*by random no samples are equal"):
        load("smoke/baseline", ["data.split={by: random, duplicates: drop}"])


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("rejected_answers", "{sources: {mutation: 1}, verify: output}"),
        ("feedback", "{questions: 9, judges: [{judge: output}]}"),
    ],
)
def test_a_scratchpad_is_refused_where_its_answers_would_meet_others(section: str, value: str) -> None:
    changes = ["data.scratchpad=true", f"{section}={value}"]
    with pytest.raises(RecipeError, match=rf"{section}: answers with a scratchpad are not compared with other answers"):
        check(load("smoke/baseline", changes))
    assert "scratchpad are not" not in fault_of(load("smoke/baseline", changes[1:]))
    assert fault_of(load("smoke/baseline", changes[:1])) == ""


def fault_of(recipe: Recipe) -> str:
    """The message of the check of ``recipe``; empty when it has no fault."""
    try:
        check(recipe)
    except RecipeError as error:
        return str(error)
    return ""


def test_a_share_of_the_samples_can_be_held_out(tmp_path: Path) -> None:
    recipe = load("smoke/baseline", ["data.count=200", "data.split.test=0.1", "data.split.validation=0.05"])
    corpus = corpus_maker(recipe).make(tmp_path)
    assert (corpus.table("test").num_rows, corpus.table("validation").num_rows) == (20, 10)
    assert plan_cycles(load("smoke/baseline", ["data.count=200", "data.split.test=0.1", "teacher={name: oracle}"]))
    assert parse({"data": {"split": {"test": "1k"}}}).data.split.test == 1000


def test_a_budget_in_epochs_is_that_many_passes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "{n} and {n}\\n", "answer": "{n * n}\\n"}}\n' for n in range(40)))
    content = {
        "threads": 1,
        "data": {"source": "file", "path": str(path), "split": {"by": "text", "validation": 4, "test": 0.1}},
        "difficulty": {"metric": "size", "bands": {"names": ["short", "long"]}},
        "schedule": {"name": "sequential"},
        "student": {"preset": "tiny", "context_length": 32},
        "train": {
            "batching": "packed",
            "batch_size": 1,
            "max_length": 32,
            "objective": "answer_only",
            "evaluations_per_stage": 0,
        },
        "evaluate": {"suites": []},
    }
    recipe = parse({**content, "budget": {"epochs": 2}})
    plan = plan_run(recipe)
    answers = [len(f"{n * n}\n") + 1 for n in range(40)]  # the characters and the end token
    train = corpus_maker(recipe).make(tmp_path / "data").table("train")["answer"].to_pylist()
    assert len(train) == 32
    assert plan.tokens == 2 * sum(len(answer) + 1 for answer in train) < 2 * sum(answers)
    stages = run(recipe, tmp_path / "run")
    assert sum(stage.spec.tokens for stage in stages) == plan.tokens
    assert load(tmp_path / "run" / "recipe.yaml").budget.epochs == 2
    assert [stage.fitted.weights for stage in run(recipe, tmp_path / "run")] == [s.fitted.weights for s in stages]
    with pytest.raises(RecipeError, match=r"budget\.epochs"):
        plan_run(recipe, data=False)
    assert load("smoke/baseline", ["budget.epochs=1"]).budget.tokens is None


def test_a_long_key_is_shortened_in_every_fault():
    key = "a" * 3000
    for value in (1, 10**30):
        with pytest.raises(RecipeError, match=r"a{60}") as fault:
            parse({"title": "t", key: value})
        assert len(str(fault.value)) < 1000
