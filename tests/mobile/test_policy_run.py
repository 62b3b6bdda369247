"""Runs and studies of policies: the same loop, schedules, designs and reports as for language models."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_policies import DESIGN, RECIPE, TARGET, designed, policy_recipe

import gradatim
from gradatim import mobile, reporting
from gradatim.errors import RecipeError, Stopped, UserError
from gradatim.evaluation import summary
from gradatim.experiment.plan import plan_run
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.experiment.study import plan_study, study
from gradatim.reporting.text_tables import metric_table
from gradatim.reporting.verdicts import read_verdicts

pytest.importorskip("stable_baselines3", reason="the extra mobile is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run by hand: standing users, then the target."""
    folder = tmp_path_factory.mktemp("policy-run")
    results = run(policy_recipe(folder, ["schedule={name: sequential, shares: [1, 3]}"]), folder / "run")
    return folder / "run", results


def test_a_curriculum_of_environments_keeps_its_budget_and_is_evaluated(finished):
    folder, results = finished
    assert [(result.spec.name, result.fitted.tokens, result.fitted.steps) for result in results] == [
        ("still", 160, 1),
        ("target", 480, 3),
    ]
    evaluation = results[-1].evaluations[0]
    whole, ends = evaluation.counts["all"]["all"], evaluation.counts["outcome"]
    assert (evaluation.suite, evaluation.protocol, whole.total) == ("episodes", "seen", 4)
    assert 0 <= whole.passed <= whole.total
    for group in evaluation.counts.values():
        assert sum(part.passed for part in group.values()) == pytest.approx(whole.passed)
        assert sum(part.total for part in group.values()) == whole.total
    assert set(evaluation.counts["level"]) == {TARGET}
    assert set(evaluation.scores) == {"connected users", "utility of the nearest station"}
    verdicts = read_verdicts(folder, "episodes")
    played = [
        value for value, total in zip(*(verdicts[n].to_pylist() for n in ("passed", "total")), strict=True) if total
    ]
    assert sum(played) == pytest.approx(whole.passed)
    told = summary(evaluation)
    assert told["counts"]["passed"] == ends["passed"].total
    assert told["scores"]["mean score"]["value"] == pytest.approx(whole.passed / 4)


def test_a_run_stopped_in_every_stage_ends_with_the_same_bytes(finished, tmp_path):
    folder, results = finished
    recipe = policy_recipe(tmp_path, ["schedule={name: sequential, shares: [1, 3]}"])

    def stop(event):
        if event.kind == "advance" and event.unit == "steps":
            raise Stopped("stopped")

    for _ in range(4):
        with pytest.raises(Stopped):
            run(recipe, tmp_path / "run", events=stop)
    assert "640 of 640 (100%) agent steps" in gradatim.report(tmp_path / "run").runs[0].progress
    again = run(recipe, tmp_path / "run")
    assert [result.fitted.weights for result in again] == [result.fitted.weights for result in results]
    assert [result.evaluations[0].counts for result in again] == [result.evaluations[0].counts for result in results]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_the_model_folder_has_no_pickle_and_is_evaluated_again_with_the_same_result(finished):
    folder, results = finished
    model = folder / "cycle-00" / "stage-01-target" / "model"
    assert sorted(path.name for path in model.iterdir()) == ["policy.json", "policy.safetensors"]
    corpus = json.loads((folder / "cycle-00" / "table.json").read_text())["corpus"]
    again = gradatim.evaluate(folder, folder / "data" / corpus / "test.parquet", "episodes", levels=[TARGET])
    assert again.counts["all"] == results[-1].evaluations[0].counts["all"]
    unseen = gradatim.evaluate(folder, folder / "data" / corpus / "test.parquet", "episodes", layouts="unseen")
    assert (unseen.protocol, unseen.counts["all"]["all"].total) == ("unseen", 8)


def test_the_report_has_utility_agent_steps_and_a_map(finished, tmp_path):
    folder, _ = finished
    page = tmp_path / "report.html"
    collected = gradatim.report(folder, page=page)
    text = page.read_text()
    assert "utility on episodes (seen)" in reporting.headline(reporting.summarise(collected)).sentence
    assert "agent steps per run" in text
    assert text.count('class="map"') == 1
    assert text.count('class="station"') == 2
    assert "training tokens" not in text
    assert "Mean reward per step of each run over agent steps" in text


def test_a_design_chooses_environments_and_rewards_and_is_revised(tmp_path):
    results = run(policy_recipe(tmp_path, designed()), tmp_path / "run")
    assert [(result.cycle, result.spec.name, result.spec.objective) for result in results] == [
        (0, "start", "connected"),
        (0, "goal", None),
        (1, "end", "worst_user"),
    ]
    assert sum(result.fitted.tokens for result in results) == 640
    assert set(results[0].progress) == {"still", "target"}
    assert all(0 <= band.loss <= 1 for band in results[0].progress.values())
    facts = json.loads((tmp_path / "run" / "cycle-00" / "feedback.json").read_text())
    assert (facts["questions"], set(facts["judges"])) == (6, {"utility"})
    collected = gradatim.report(tmp_path / "run", page=tmp_path / "report.html")
    assert [len(design.stages) for design in collected.runs[0].designs] == [3, 1]


@pytest.mark.parametrize(
    "schedule",
    ["mastery, parts: 3, replay: 0.3", "bandit, parts: 3", "self_paced, parts: 2", "frontier, parts: 2", "fade"],
)
def test_every_adaptive_schedule_trains_a_policy(schedule, tmp_path):
    results = run(policy_recipe(tmp_path, [f"schedule={{name: {schedule}}}", "evaluate.suites=[]"]), tmp_path / "run")
    assert sum(result.fitted.tokens for result in results) >= 640


def test_a_plan_names_the_unit_and_the_size_of_the_policy(tmp_path, finished):
    _, results = finished
    planned = plan_run(policy_recipe(tmp_path, ["schedule={name: sequential}"]))
    assert (planned.unit, planned.tokens, planned.steps, planned.preset) == ("agent step", 640, 4, "policy")
    assert planned.parameters == results[0].fitted.parameters


def test_the_shipped_arms_have_equal_steps_and_a_control_with_the_restarts():
    names = ("one-shot", "one-shot-restarts", "by-hand", "adaptive", "designed")
    arms = {name: load(f"mobile/{name}") for name in names}
    assert {recipe.tokens for recipe in arms.values()} == {arms["one-shot"].tokens}
    plan = plan_study(arms, 5, baseline="one-shot")
    assert plan.controls == ("one-shot-restarts",)
    stages = {name: plan_run(arms[name]).stages for name in ("one-shot-restarts", "by-hand")}
    assert [stage.tokens for stage in stages["by-hand"]] == [stage.tokens for stage in stages["one-shot-restarts"]]


BAD = {
    "a reward that is not known": (["student.reward=utilty"], "there is no reward called 'utilty'"),
    "a reward of a design that is not known": (
        [*designed()[:2], "schedule={name: designed, objectives: [answer_only]}", designed()[3]],
        "the objectives of a policy are rewards",
    ),
    "a language objective": (["train.objective=sft_dpo"], "train.objective"),
    "rejected answers": (["rejected_answers={sources: {mutation: 1}}"], "rejected_answers"),
    "more users than the policy observes": (["student.users=2"], "more users than the policy observes"),
    "more stations than the policy observes": (["student.stations=1"], "more stations than the policy observes"),
    "a budget in tokens": (["budget={tokens: 500}"], "counted in agent steps"),
    "a budget in epochs": (["budget={epochs: 2}"], "counted in agent steps"),
    "an unknown option": (["student.userss=4"], "did you mean 'users'"),
    "an option out of range": (["student.num_envs=0"], "student.num_envs"),
    "a suite of language models": (["evaluate.suites=[{suite: output}]"], "does not evaluate this kind"),
    "an unknown kind": (["student.kind=polciy"], "did you mean 'policy'"),
    "a teacher that designs nothing": (["schedule={name: designed}", "teacher={name: oracle}"], "designs no curricula"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_before_anything_is_trained(fault, tmp_path):
    changes, said = BAD[fault]
    with pytest.raises(UserError) as caught:
        run(policy_recipe(tmp_path, changes), tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_language_recipe_with_the_suite_of_policies_is_refused():
    with pytest.raises(RecipeError, match="does not evaluate this kind"):
        plan_run(load("smoke/baseline", ["evaluate.suites=[{suite: episodes}]"]), data=False)


def test_samples_that_are_no_environments_are_one_line(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' * 40)
    changes = [f"data={{source: file, path: {tmp_path / 'own.jsonl'}, split: {{by: random, validation: 4, test: 4}}}}"]
    with pytest.raises(UserError, match=r"difficulty|environment") as caught:
        run(policy_recipe(tmp_path, changes), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_without_the_extra_a_recipe_of_a_policy_names_it(tmp_path, monkeypatch):
    found = mobile.importlib.util.find_spec
    monkeypatch.setattr(mobile.importlib.util, "find_spec", lambda name: None if name == "mobile_env" else found(name))
    with pytest.raises(UserError, match=r"pip install 'gradatim\[mobile\]'"):
        plan_run(policy_recipe(tmp_path))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "policy.yaml").write_text(RECIPE)
    changes = ["schedule={name: sequential, shares: [1, 3]}", "student.checkpoint_seconds=0"]
    command = [sys.executable, "-m", "gradatim", "run", str(tmp_path / "policy.yaml"), "--out", str(tmp_path / "run")]
    command += [part for change in changes for part in ("--set", change)]
    metrics, killed = tmp_path / "run" / "metrics.jsonl", 0
    for rows in (1, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= rows):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert metrics.read_bytes() == (folder / "metrics.jsonl").read_bytes()
    for stage in ("stage-00-still", "stage-01-target"):
        first, second = (
            run / "cycle-00" / stage / "model" / "policy.safetensors" for run in (folder, tmp_path / "run")
        )
        assert first.read_bytes() == second.read_bytes()


def test_a_study_of_three_arms_with_two_seeds_shares_its_test_set_and_compares_utilities(tmp_path):
    seen, unseen = f'{{suite: episodes, levels: ["{TARGET}"]}}', "{suite: episodes, layouts: unseen, stages: last}"
    suites = f"evaluate.suites=[{seen}, {unseen}]"
    arms = {
        "one-shot": policy_recipe(tmp_path, ["title=One-shot", suites]),
        "by-hand": policy_recipe(tmp_path, ["title=By hand", "schedule={name: sequential}", suites]),
        "designed": policy_recipe(tmp_path, ["title=Designed", *designed(DESIGN), suites]),
    }
    study(plan_study(arms, 2, baseline="one-shot"), tmp_path / "study", workers=2)
    collected = gradatim.report(tmp_path / "study", page=tmp_path / "report.html")
    result = reporting.summarise(collected)
    assert {row.arm: len(row.scores) for row in result.rows} == dict.fromkeys(arms, 2)
    assert all(0 <= score.share <= 1 for row in result.rows for score in row.scores)
    assert result.covers_items
    unseen = reporting.summarise(collected, ("episodes", "unseen"))
    assert {row.arm: row.mean for row in unseen.rows} == {
        row.arm: pytest.approx(next(m for m in result.measures if m.name == "episodes, unseen").means[row.arm])
        for row in result.rows
    }
    assert "Utility: episodes (unseen)" in metric_table(collected, "episodes", "unseen")
    assert not any("equivalents" in measure.name for measure in result.measures)
    assert len({run.test_set for run in collected.runs}) == 1
    assert {run.tokens for run in collected.runs} == {640}
    assert (tmp_path / "report.html").read_text().count('class="map"') == 3
    assert not collected.missing
    shutil.rmtree(Path(tmp_path / "study"))
