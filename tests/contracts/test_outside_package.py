"""Components that another package registers by entry points run like built-in ones, and a misfit is one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from outside_package import FAMILIES, gradatim, install

from gradatim.difficulty import DIFFICULTIES
from gradatim.difficulty.score import as_difficulty
from gradatim.distillation import JUDGES
from gradatim.errors import RecipeError
from gradatim.evaluation import SUITES
from gradatim.experiment.assemble.components import SERVICES
from gradatim.registry import Registry
from gradatim.sandbox.command import sandbox_support
from gradatim.schedule import ORDERS, SCHEDULES
from gradatim.source import SOURCES
from gradatim.teacher import TEACHERS

RECIPE = """\
extends: smoke/baseline
data: {source: outside, count: 90, split: {by: text, validation: 10, test: 10}}
difficulty: {metric: outside, bands: {thresholds: null, quantiles: [0.5], names: [short, long]}}
schedule: {name: outside}
budget: {tokens: 2000}
student: {preset: outside}
evaluate: {suites: [{suite: outside, limit: 2}]}
"""

DISTILLATION = """\
extends: smoke/baseline
cycles: 2
data: {source: taught, count: 90, new: 20, split: {by: text, validation: 10, test: 10}}
difficulty: {metric: size, bands: {thresholds: null, quantiles: [0.5], names: [short, long]}}
teacher: {name: outside}
feedback: {questions: 8, judges: [{judge: outside}]}
schedule: {name: baseline}
budget: {tokens: 4000}
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the outside package is installed."""
    return install(tmp_path_factory.mktemp("outside"))


def failed(environment: dict[str, str], *words: str, cwd: Path) -> str:
    """The one line of a command that ends with exit status 2."""
    done = gradatim(environment, *words, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert sum(line.startswith("gradatim: ") for line in lines) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_lists_the_component_of_another_package(
    family: str, outside: dict[str, str], tmp_path: Path
) -> None:
    listed = gradatim(outside, "list", family, cwd=tmp_path).stdout
    assert "outside" in listed
    assert "from the package outside_parts" in listed


def test_source_difficulty_schedule_order_preset_and_suite_of_another_package_run(
    outside: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "outside.yaml").write_text(RECIPE)
    done = gradatim(outside, "run", "outside.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "run").rglob("result.json"))]
    assert [(each["spec"]["name"], each["spec"]["order"]) for each in results] == [
        ("half-0", "outside"),
        ("half-1", "outside"),
    ]
    assert results[-1]["evaluations"][0]["counts"]["all"]["all"]["total"] == 10
    facts = json.loads(next((tmp_path / "run" / "data").rglob("facts.json")).read_text())
    assert facts["source"] == {"kept": 90}
    assert facts["unscored"] == {"outside": 0}


def test_teacher_and_judge_of_another_package_take_part_in_the_cycles(outside: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "distillation.yaml").write_text(DISTILLATION)
    done = gradatim(outside, "run", "distillation.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    feedback = json.loads((tmp_path / "run" / "cycle-00" / "feedback.json").read_text())
    assert feedback["judges"]["outside"]["judged"] == 8
    assert (tmp_path / "run" / "cycle-01").is_dir()


LANGUAGE = """\
from gradatim.distillation import JUDGES
from gradatim.languages import named
from gradatim.table import make_table

judge = JUDGES.make("tests", None, options={})
prompt, tests = "def add(a, b):\\n", "assert add(1, 2) == 3\\n"
table = make_table({"prompt": [prompt] * 2, "answer": [""] * 2, "tests": [tests] * 2, "language": ["outside"] * 2})
print(*(view.verdict for view in judge(table, ["    return a + b\\n", "    return a - b\\n"])))
try:
    named("broken")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_language_of_another_package_runs_programs_with_their_tests(outside: dict[str, str], tmp_path: Path) -> None:
    support = sandbox_support()
    if not support.available:
        pytest.skip(f"no sandbox: {support.reason}; {support.advice}")
    done = subprocess.run(
        [sys.executable, "-c", LANGUAGE], env=outside, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    verdicts, misfit = done.stdout.splitlines()
    assert verdicts == "passed failed"
    assert misfit.startswith("RecipeError the language 'broken' (from the package outside_parts) does not fit")
    assert "it must be a gradatim.languages.language.Language, not object" in misfit


MISFITS = {
    "sources": ("data.source=broken", "it lacks changes, rereads"),
    "difficulties": (
        "difficulty.metric=broken",
        "it lacks __call__, scored_by, causes, usage, identity, reads_programs",
    ),
    "schedules": ("schedule.name=broken", "2 positional parameters, not (bands)"),
    "suites": ("evaluate.suites=[{suite: broken, limit: 2}]", "has no option 'limit'"),
    "judges": ("feedback.judges=[{judge: broken}]", "it lacks proves"),
    "teachers": ("teacher.name=broken", "it lacks facts, faults, questions, seeds"),
    "presets": ("student.preset=broken", "it must be a gradatim.model.settings.Preset, not tuple"),
}


@pytest.mark.parametrize("family", MISFITS)
def test_a_component_that_does_not_fit_is_one_line_before_any_work(
    family: str, outside: dict[str, str], tmp_path: Path
) -> None:
    change, fault = MISFITS[family]
    told = failed(outside, "plan", "smoke/baseline", f"--set={change}", cwd=tmp_path)
    assert fault in told
    if "option" not in fault:
        assert "'broken' (from the package outside_parts) does not fit the contract of its family" in told


@pytest.mark.parametrize("family", MISFITS)
def test_an_entry_point_that_cannot_be_imported_is_one_line(
    family: str, outside: dict[str, str], tmp_path: Path
) -> None:
    change = MISFITS[family][0].replace("broken", "absent")
    told = failed(outside, "plan", "smoke/baseline", f"--set={change}", cwd=tmp_path)
    assert "'absent' (from the package outside_parts) does not fit" in told
    assert "it cannot be imported" in told


RESULTS = {
    "difficulty": ("difficulty.metric=wrong", "the difficulty 'wrong' returned no score for each sample"),
    "schedule": ("schedule.name=wrong", "the schedule returned no stage"),
    "order": ("schedule.order=broken", "the order 'broken' returned no permutation of the rows"),
    "suite": ("evaluate.suites=[{suite: broken}]", "the suite 'broken' returned no result"),
}


@pytest.mark.parametrize("part", RESULTS)
def test_a_result_of_another_form_is_one_line_at_first_use(part: str, outside: dict[str, str], tmp_path: Path) -> None:
    change, fault = RESULTS[part]
    words = [f"--set={each}" for each in (change, "data.count=300", "budget.tokens=1000")]
    told = failed(outside, "run", "smoke/baseline", *words, "--out", "run", cwd=tmp_path)
    assert fault in told


def scores_directly(samples, *, workers=1):
    return [0.0] * samples.num_rows


def two_tables(*, column="answer"):
    def score(samples, others):
        return samples

    return score


def test_a_difficulty_that_does_not_fit_is_one_line_when_it_is_registered() -> None:
    with pytest.raises(RecipeError, match="keyword-only options") as refused:
        DIFFICULTIES.register("direct")(scores_directly)
    assert "the difficulty 'direct' does not fit the contract of its family" in str(refused.value)
    assert "not (samples, *, workers=…)" in str(refused.value)
    assert "direct" not in DIFFICULTIES
    with pytest.raises(RecipeError, match="it must be a function of options, not int"):
        DIFFICULTIES.register("number")(3)  # type: ignore[type-var]
    with pytest.raises(RecipeError, match="2 positional parameters, not \\(bands\\)"):
        SCHEDULES.register("one")(lambda bands: None)


def test_a_score_function_with_other_parameters_is_one_line_before_any_work() -> None:
    with pytest.raises(RecipeError, match=r"allowed: \(samples, \*, workers=1, events=…\)") as refused:
        as_difficulty(two_tables())
    assert "two_tables" in str(refused.value)
    assert set(DIFFICULTIES.arguments) == set(SERVICES)


@pytest.mark.parametrize("registry", [SOURCES, DIFFICULTIES, SCHEDULES, ORDERS, SUITES, TEACHERS, JUDGES])
def test_every_built_in_component_has_the_arguments_of_its_family(registry: Registry[Any]) -> None:
    for entry in registry:
        registry.get(entry.name)
    assert registry.arguments is not None
