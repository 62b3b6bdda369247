"""Seeded random input: `plan --set` with odd values, run folders with damaged files. One line each, no traceback."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.experiment.recipe import _flat, load
from gradatim.record import read_json
from gradatim.reporting import collect, terminal_table
from gradatim.reporting.html import render
from gradatim.results import decode_fitted, decode_stage, decode_suite
from gradatim.schedule import SCHEDULES

SECONDS = 4.0
"""The most that one of these tests takes, however slow the machine: it then tries fewer cases."""

VALUES = (
    *("[]", "{}", "null", "-1", "0", "1", "x", "''", "true", ".nan", ".inf", "-.inf", "1e308", "0.5", "-0.0"),
    *("99999999999999999999999", "9" * 5000, "9223372036854775807", "9223372036854775808", "10000", "1000000000"),
    *("[[]]", "[1, 2, 3]", "{a: 1}", "{1: 2}", "{null: x}", "[a, a]", "[0, 0]", "[.nan]", "[.inf, 1]", "[1.0, 0.5]"),
    *('"\\0"', '"\\ud800"', '"a\\nb"', "2024-01-01", "2024-13-45", "!!binary aGk=", "!!set {a}", "!!timestamp x"),
    *("[" * 50 + "]" * 50, "[" * 5000, "&a [*a]", "{" * 70, "!!python/name:os.system", "../../etc/shadow", "/dev/zero"),
    *("http://x\r\ny", "file", "taught", "api", "om", "size", "paper", "bpe", "tinypy", "[easy, easy, easy]"),
    *(entry.name for entry in SCHEDULES),
)
MORE_KEYS = (
    *(
        "difficulty",
        "schedule",
        "data",
        "extends",
        "budget.steps",
        "delivery",
        "rejected_answers.sources",
        "feedback.judges",
    ),
    *("data.path", "data.columns", "data.format", "data.levels", "data.count", "data.digits", "evaluate.suites"),
    *("teacher", "teacher.name", "teacher.base_url", "student.base", "student.lora", "student.lora.rank"),
    *("schedule.replay", "schedule.order", "schedule.parts", "schedule.warmup_stage", "schedule.category"),
    *(
        "difficulty.bands.names",
        "difficulty.bands.thresholds",
        "difficulty.bands.quantiles",
        "train.distillation.teacher_model",
    ),
    *("a" * 3000, "x.y.z", ".", "a..b", " ", "train." * 100),
)
NAMED = {
    "no band": "difficulty.bands.names=[]",
    "cycles without end": "cycles=99999999999999999999999",
    "many cycles": "cycles=1000000000",
    "a number of 5,000 digits": "seed=" + "9" * 5000,
    "brackets": "seed=" + "[" * 200_000,
    "a key of many parts": "a." * 5000 + "b=1",
    "a date that is none": "title=2024-13-45",
    "an alias in itself": "data=&a {x: *a}",
}


def bounded(count: int) -> Iterator[int]:
    """Numbers below ``count``, fewer where the time is up."""
    end = time.monotonic() + SECONDS
    for number in range(count):
        if time.monotonic() > end and number > 5:
            return
        yield number


def assert_one_line(said: Any, given: Any) -> None:
    assert said.status in (0, 2), (given, said.err[-2000:])
    assert "Traceback" not in said.err, given
    if said.status:
        assert said.err.count("\n") == 1, given
        assert len(said.err) < 3000, given


@pytest.mark.parametrize("change", NAMED.values(), ids=NAMED)
def test_a_change_that_cannot_be_is_refused(gradatim, change):
    said = gradatim("plan", "smoke/baseline", "--set", change)
    assert_one_line(said, change[:60])
    assert said.status == 2


@pytest.mark.parametrize("seed", range(2))
def test_plan_answers_every_change_with_a_plan_or_one_line(gradatim, seed):
    chance = random.Random(seed)
    keys = [key for key, _ in _flat(load("smoke/baseline").model_dump(mode="json"))]
    keys += MORE_KEYS
    for _ in bounded(150):
        changes = [f"{chance.choice(keys)}={chance.choice(VALUES)}" for _ in range(chance.choice((1, 1, 2, 3)))]
        recipe = chance.choice(("smoke/baseline", "curriculum/hybrid"))
        said = gradatim("plan", recipe, "--no-data", *(part for change in changes for part in ("--set", change)))
        assert_one_line(said, [recipe, *(change[:100] for change in changes)])


ODD: tuple[Any, ...] = (None, -1, 0, 10**18, 2**70, 1e308, "x", "-1", True, [], {}, [1], [[1]], {"a": 1})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside ``value``."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def changed(content: bytes, chance: random.Random) -> bytes:
    """A JSON text with one value replaced or removed."""
    value = json.loads(content)
    path = chance.choice(list(places(value)))
    odd = chance.choice(ODD)
    if not path:
        return json.dumps(odd).encode()
    at = value
    for key in path[:-1]:
        at = at[key]
    if chance.random() < 0.2:
        del at[path[-1]]
    else:
        at[path[-1]] = odd
    return json.dumps(value).encode()


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "no UTF-8": lambda content, chance: b"\xff\xfe" + content,
    "cut": lambda content, chance: content[: chance.randrange(max(len(content), 1))],
    "empty": lambda content, chance: b"",
    "nested": lambda content, chance: b"[" * 1200 + b"]" * 1200,
    "nested without an end": lambda content, chance: b'{"a":' * 100_000,
    "digits": lambda content, chance: b'{"cycle": ' + b"9" * 5000 + b"}\n",
    "not a number": lambda content, chance: content.replace(b"0", b"NaN", 1),
    "a byte": lambda content, chance: content.replace(content[9:10], b"\0", 1),
}


def kept_files(run: Path) -> list[Path]:
    files = [path for path in run.rglob("*.json") if not {"model", "optimizer", "tokenizer"} & set(path.parts)]
    return [*sorted(files), run / "metrics.jsonl", run / "recipe.yaml"]


@pytest.mark.parametrize("seed", range(2))
def test_a_report_of_a_damaged_run_leaves_out_and_names_what_is_damaged(tmp_path, finished, seed):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    chance = random.Random(seed)
    files = kept_files(run)
    said: list[str] = []
    for number in bounded(120):
        file = chance.choice(files)
        before = file.read_bytes()
        if file.suffix == ".json" and chance.random() < 0.6:
            damaged = changed(before, chance)
        else:
            damaged = DAMAGE[chance.choice(list(DAMAGE))](before, chance)
        file.write_bytes(damaged)
        try:
            study = collect(run)
            terminal_table(study)
            if not number % 30:  # the page takes long to draw
                render(study)
        except GradatimError as error:
            said.append(str(error))
        except Exception as error:
            pytest.fail(f"{file.relative_to(run)} as {damaged[:200]!r}: {error!r}")
        file.write_bytes(before)
    assert all(len(line) < 2000 for line in said)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["study.json", "arm/seed-1/finished.json"])
def test_a_report_of_a_damaged_study_is_a_page_or_one_line(gradatim, tmp_path, finished, damage, name):
    study = tmp_path / "study"
    shutil.copytree(finished, study / "arm" / "seed-1")
    facts = {"title": "s", "arms": [{"name": "arm", "title": "arm"}], "seeds": [1], "baseline": "arm", "controls": []}
    (study / "study.json").write_text(json.dumps(facts))
    path = study / name
    path.write_bytes(damage(path.read_bytes(), random.Random(0)))
    assert_one_line(gradatim("report", "study", "--markdown"), name)


@pytest.mark.parametrize(
    "facts",
    [
        {"arms": [{"name": "../../elsewhere"}], "seeds": [1]},
        {"arms": [{"name": ".."}], "seeds": [1]},
        {"arms": "many", "seeds": [1]},
        {"arms": [{"title": "no name"}], "seeds": [1]},
        {"arms": [], "seeds": {"a": 1}},
        {"arms": [], "seeds": [], "restarts": {"a": "x"}},
        {"arms": [], "seeds": [], "differences": [1]},
    ],
    ids=range(7),
)
def test_a_study_of_another_shape_is_one_line(gradatim, tmp_path, facts):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(json.dumps(facts))
    said = gradatim("report", "study")
    assert_one_line(said, facts)
    assert said.status == 2


SMALL = [
    *("--set", "data.count=300", "--set", "data.split.test=20", "--set", "data.split.validation=20"),
    *("--set", "budget.tokens=6000"),
]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("finished.json", "nested"),
        ("finished.json", "digits"),
        ("environment.json", "no UTF-8"),
        ("recipe.yaml", "nested"),
        ("cycle-00/stage-00-all/result.json", "no UTF-8"),
        ("cycle-00/stage-00-all/result.json", "nested"),
    ],
)
def test_a_damaged_run_is_not_gone_on_with_and_the_file_is_named(gradatim, tmp_path, finished, name, damage):
    shutil.copytree(finished, tmp_path / "here")
    path = tmp_path / "here" / name
    path.write_bytes(DAMAGE[damage](path.read_bytes(), random.Random(0)))
    said = gradatim("run", "smoke/baseline", *SMALL, "--out", "here")
    assert said.status == 2
    line = next(line for line in said.err.splitlines() if line.startswith("gradatim: "))
    assert path.name in line
    assert "Traceback" not in said.err


def test_every_result_of_another_shape_is_refused_when_it_is_read(finished, tmp_path):
    decoders = {
        "fitted.json": decode_fitted,
        "result.json": decode_stage,
        "evaluation-output-greedy.json": decode_suite,
    }
    stage = next(finished.glob("cycle-00/stage-*"))
    chance = random.Random(5)
    said: list[tuple[str, str]] = []
    for number in bounded(400):
        name = list(decoders)[number % len(decoders)]
        (tmp_path / name).write_bytes(changed((stage / name).read_bytes(), chance))
        try:
            read_json(tmp_path / name, decoders[name])
        except GradatimError as error:
            said.append((name, str(error)))
    assert all(name in line and len(line) < 600 for name, line in said)
    assert said
