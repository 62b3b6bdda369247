"""A run of several cycles: each comes from what the student got wrong, and nothing is done or paid for twice."""

import hashlib
import json
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from forked_commands import ForkedCommand
from serving import Handler, completion, serving

from gradatim.corpus import Corpus
from gradatim.errors import RecipeError, RunFolderError
from gradatim.experiment.assemble import assemble, corpus_maker
from gradatim.experiment.assemble.teaching import teacher
from gradatim.experiment.recipe import Recipe, changed_keys, load
from gradatim.experiment.run import run
from gradatim.programs import canonical, commented, generate, run_program
from gradatim.stage import Event, Feedback
from gradatim.table import write_table
from gradatim.teacher.llm_teacher import CHECK

SMALL = [
    "data.count=160",
    "data.new=40",
    "data.split.test=20",
    "data.split.validation=20",
    "feedback.questions=30",
    "budget.tokens=9000",
    "train.checkpoint_seconds=0.1",
    "train.batch_size=4",
    "train.logging_steps=2",
]


def recipe(*changes: str) -> Recipe:
    return load("smoke/distill-tinypy", [*SMALL, *changes])


def start(folder: Path, *changes: str) -> ForkedCommand:
    sets = [part for change in [*SMALL, *changes] for part in ("--set", change)]
    return ForkedCommand(["run", "smoke/distill-tinypy", "--out", str(folder), *sets])


def kill_when(process: ForkedCommand, ready: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail("ended before the moment to kill it: " + process.communicate()[1][-1500:])
        time.sleep(0.005)
    process.kill()
    process.wait()


def finish(process: ForkedCommand) -> None:
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors[-2000:]


def fingerprint(folder: Path) -> dict[str, str]:
    """Weights, samples and metrics: what must not hang on how often a run was started."""
    patterns = (
        "cycle-*/stage-*/model/model.safetensors",
        "cycle-*/corpus/*.parquet",
        "cycle-*/*.parquet",
        "metrics.jsonl",
    )
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cycles") / "run"
    run(recipe(), folder)
    return folder


def test_a_run_goes_through_its_cycles_within_one_budget(whole: Path) -> None:
    stages = run(recipe(), whole)
    assert [stage.cycle for stage in stages] == [0, 1, 2]
    assert sum(stage.spec.tokens for stage in stages) == 9000
    assert json.loads((whole / "finished.json").read_text()) == {"cycles": 3, "stages": 3}
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    learnt = [row["run_tokens"] for row in rows if "loss" in row]
    assert learnt == sorted(learnt)
    assert {row["cycle"] for row in rows} == {0, 1, 2}


def test_every_cycle_is_tested_on_the_same_programs(whole: Path) -> None:
    first = next(whole.glob("data/*/test.parquet")).parent
    for part in ("test", "validation"):
        held = pq.read_table(first / f"{part}.parquet")
        for cycle in (1, 2):
            assert pq.read_table(whole / f"cycle-0{cycle}/corpus/{part}.parquet").equals(held)


def test_new_questions_have_parents_are_new_and_are_right(whole: Path) -> None:
    first = next(whole.glob("data/*/test.parquet")).parent
    known = {
        canonical(text) for part in ("train", "validation", "test") for text in _prompts(first / f"{part}.parquet")
    }
    learnt = set(pq.read_table(first / "train.parquet")["id"].to_pylist())
    for cycle in (1, 2):
        asked = set(pq.read_table(whole / f"cycle-0{cycle - 1}/feedback.parquet")["id"].to_pylist())
        rows = pq.read_table(whole / f"cycle-0{cycle}/corpus/train.parquet").to_pylist()
        new = [row for row in rows if row["id"] not in learnt]
        assert len(new) == 40
        assert {row["parent"] for row in new} <= asked
        learnt |= {row["id"] for row in new}
        for row in new:
            assert canonical(row["prompt"]) not in known
            known.add(canonical(row["prompt"]))
            assert row["answer"] == commented(run_program(row["prompt"]))
            assert row["category"] in ("easy", "hard")
        assert len(rows) == 120 + 40 * cycle  # what was learnt before stays


def test_faulty_answers_stand_beside_right_ones_and_are_wrong(whole: Path) -> None:
    rows = pq.read_table(whole / "cycle-02/corpus/train.parquet").to_pylist()
    faulty = [row for row in rows if row["rejected"] is not None]
    assert len(faulty) > 0.9 * len(rows)
    assert all(row["rejected"] != row["answer"] for row in faulty)


@pytest.mark.slow
def test_a_run_killed_in_every_phase_of_a_cycle_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    moments = [
        "cycle-00/stage-00-all/checkpoint/state.json",
        "cycle-00/feedback.parquet",
        "cycle-00/feedback.json",
        "cycle-01/attempts.json",
        "cycle-01/corpus/train.parquet",
        "cycle-01/stage-00-all/checkpoint/state.json",
        "cycle-01/stage-00-all/result.json",
    ]
    for moment in moments:
        kill_when(start(folder), lambda moment=moment: (folder / moment).exists())
    for delay in random.Random(5).sample(range(40), 2):
        process = start(folder)
        time.sleep(delay / 20)
        process.kill()
        process.wait()
    finish(start(folder))
    assert fingerprint(folder) == fingerprint(whole)


def test_no_later_cycle_learns_what_the_first_holds_out(tmp_path: Path) -> None:
    again = load("smoke/baseline", ["cycles=2", "data.levels=['1.1']", "data.count=1500"])
    maker = corpus_maker(again)
    first = maker.make(tmp_path / "data")
    held = {canonical(prompt) for part in ("validation", "test") for prompt in first.table(part)["prompt"].to_pylist()}
    drawn = maker.source.draw(1, Feedback(0)).table["prompt"].to_pylist()
    met = sum(canonical(prompt) in held for prompt in drawn)
    assert met  # the grammar writes some of them again
    later = maker.make_next(tmp_path / "next", first, lambda: maker.new_samples(first, Feedback(0)))
    learnt = later.table("train")["prompt"].to_pylist()
    assert held.isdisjoint(canonical(prompt) for prompt in learnt)
    assert later.facts["split"]["held_out"] == met == len(drawn) - len(learnt)


def test_a_later_cycle_drops_duplicates_where_the_split_drops_them(tmp_path: Path) -> None:
    again = load("smoke/baseline", ["cycles=2", "data.levels=['1.1']", "data.count=1500", "data.split.duplicates=drop"])
    maker = corpus_maker(again)
    first = maker.make(tmp_path / "data")
    later = maker.make_next(tmp_path / "next", first, lambda: maker.new_samples(first, Feedback(0)))
    drawn = maker.source.draw(1, Feedback(0)).table.num_rows
    facts = later.facts["split"]
    assert facts["held_out"] > 0
    assert facts["dropped"] > 0
    assert facts["rows"]["train"]["all"] == drawn - facts["held_out"] - facts["dropped"]
    for corpus in (first, later):
        prompts = corpus.table("train")["prompt"].to_pylist()
        assert len({canonical(prompt) for prompt in prompts}) == len(prompts)
    kept = corpus_maker(load("smoke/baseline", ["data.levels=['1.1']", "data.count=1500"]))
    assert kept.key != maker.key
    assert kept.make(tmp_path / "data").table("train").num_rows > first.table("train").num_rows


def test_a_later_cycle_has_the_first_ones_tokens_even_where_these_were_lost(tmp_path: Path) -> None:
    def corpus(name: str, levels: list[str], first: Path | None = None) -> Corpus:
        for part in ("train", "validation", "test"):
            write_table(generate(30, levels=levels, seed=5).table, tmp_path / name / f"{part}.parquet")
        return Corpus(tmp_path / name, {}, first)

    model = recipe("student.tokenizer=word_level").student
    first = corpus("first", ["2.2"])
    kept = first.tokens(model)[0].get_vocab()
    shutil.rmtree(next(first.folder.glob("tokens-*")))
    assert corpus("alone", ["1.1"]).tokens(model)[0].get_vocab() != kept
    assert corpus("later", ["1.1"], first.folder).tokens(model)[0].get_vocab() == kept


def test_damaged_feedback_is_told_in_one_line(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "cycle-00/feedback.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(RunFolderError, match=r"feedback\.json to generate the completions again"):
        run(recipe(), folder)


API = "teacher={name: api, base_url: 'http://127.0.0.1:1/v1', model: m, key: null, budget_tokens: 9}"


def test_a_budget_is_the_runs_however_it_is_resumed() -> None:
    def account(*changes: str) -> str:
        return teacher(recipe(API, *changes)).chat.account  # type: ignore[union-attr]

    same = [
        "title=other",
        "workers=2",
        "threads=2",
        "train.logging_steps=7",
        "train.evaluations_per_stage=1",
        "teacher.budget_tokens=99",
    ]
    assert {account(change) for change in same} == {account()}
    assert len({account(), account("seed=2"), account("teacher.model=n"), account("train.batch_size=8")}) == 4


def test_one_teacher_serves_all_of_a_run_so_that_its_budget_is_one() -> None:
    parts = assemble(recipe(API, "rejected_answers={sources: {teacher: 1}}", "feedback.judges=[{judge: rubric}]"))
    source: Any = parts.corpus.source
    rejected_answers: Any = parts.corpus.rejected_answers
    assert source.teacher is rejected_answers.shared is parts.teacher
    assert parts.teacher is not None


def test_what_a_teacher_may_spend_names_no_other_corpus() -> None:
    assert corpus_maker(recipe(API)).key == corpus_maker(recipe(API, "teacher.budget_tokens=99")).key
    assert corpus_maker(recipe(API)).key != corpus_maker(recipe(API, "teacher.model=n")).key


def test_a_moving_mixture_goes_with_faulty_answers(tmp_path: Path) -> None:
    stages = run(recipe("cycles=1", "schedule={name: fade}", "budget.tokens=4000"), tmp_path / "run")
    assert all(stage.spec.mixture is not None for stage in stages)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(row["contrast_loss"] > 0 for row in rows if "contrast_loss" in row)
    assert any("contrast_loss" in row for row in rows)


def test_a_run_may_go_on_with_a_larger_budget_for_its_teacher() -> None:
    before, after = (
        recipe(f"teacher={{name: api, base_url: 'http://h/v1', model: m, budget_tokens: {tokens}}}")
        for tokens in (1, 2)
    )
    assert changed_keys(before, after) == []
    assert changed_keys(before, recipe("teacher={name: api, base_url: 'http://h/v1', model: n, budget_tokens: 1}"))


def test_a_source_that_runs_dry_ends_the_run_well(tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    samples = generate(60, levels=["1.1"], seed=3).table
    rows = zip(samples["prompt"].to_pylist(), samples["answer"].to_pylist(), strict=True)
    one.write_text("".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in rows))
    dry = recipe(
        f"data.seeds={one}", "difficulty.bands={quantiles: [0.3, 0.6]}", "difficulty.metric=size",
        "data.count=60", "data.split.test=10", "data.split.validation=10",
        'teacher={name: scripted, replies: {"": null}}',
    )  # fmt: skip
    stages = run(dry, tmp_path / "b")
    assert len(stages) == 1
    assert "dry" in json.loads((tmp_path / "b" / "finished.json").read_text())
    told: list[Event] = []
    assert len(run(dry, tmp_path / "b", events=told.append)) == 1
    assert not [event for event in told if event.task.startswith("new ")]  # nobody is asked again


@pytest.mark.parametrize("moments", [(11,), pytest.param((3, 11, 30), marks=pytest.mark.slow)])
def test_a_teacher_over_http_is_paid_once_however_often_the_run_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, ...]
) -> None:
    """Kill the run after these numbers of answers."""
    pytest.importorskip("openai", reason="endpoints are asked with the extra 'api'")
    pytest.importorskip("tree_sitter", reason="programs are parsed with the extra 'languages'")
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-this-test")
    programs = generate(2000, levels=["1.1", "2.1"], seed=99).table["prompt"].to_pylist()
    lock, answered = threading.Lock(), []

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        number = int(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(), 16)
        program = programs[number % len(programs)].removesuffix("# output\n")
        said = body["messages"][-1]["content"]
        if said == CHECK:
            text = "OK"
        elif "Write another program" in said:
            text = f"```python\n{program}```"
        else:
            shown = said.split("```")[1].removeprefix("python\n").strip("\n") + "\n"
            text = "```\n" + run_program(shown).rstrip("\n") + "\n```"
        with lock:
            answered.append(json.dumps(body, sort_keys=True))
        time.sleep(0.01)
        handler.send(200, completion(text))

    seeds = tmp_path / "seeds.jsonl"
    table = generate(150, levels=["1.1", "2.1"], seed=4).table
    rows = zip(table["prompt"].to_pylist(), table["answer"].to_pylist(), strict=True)
    seeds.write_text("".join(json.dumps({"prompt": prompt, "answer": right}) + "\n" for prompt, right in rows))
    folder = tmp_path / "run"
    with serving() as server:
        server.otherwise = answer
        taught = [
            f"data.seeds={seeds}", "data.count=150", "data.new=24", "cycles=2", "budget.tokens=3000",
            f"teacher={{name: api, base_url: '{server.url}', model: m, concurrency: 2}}",
        ]  # fmt: skip
        for moment in moments:
            kill_when(start(folder, *taught), lambda moment=moment: len(answered) >= moment)
        finish(start(folder, *taught))
    in_flight = 2 * len(moments)
    assert len(answered) >= 24
    assert len(answered) - len(set(answered)) <= in_flight
    facts = json.loads((folder / "cycle-01/corpus/facts.json").read_text())
    assert facts["source"]["new"] == 24
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret-of-this-test" not in everything


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data={source: file, path: x.jsonl}"], "same samples in every cycle"),
        (["feedback.judges=[{judge: outptu}]"], "output"),
        (["feedback.judges=[{judge: output}, {judge: output}]"], "twice"),
        (["feedback={hard: 0.9, easy: 0.2}"], "hard must not lie above easy"),
        (["rejected_answers={sources: {teachr: 1}}"], "teachr|student"),
        (["rejected_answers={sources: {student: 0, mutation: 0}}"], "weight above 0"),
        (["teacher.name=orakel"], "oracle"),
        (["data.ratio={hrad: 1}"], "hard"),
        (["feedback.judges=[{judge: rubric}]"], "oracle"),
        (["feedback.judges=[{judge: tests, workers: 0}]"], "workers"),
        (["feedback.num_samples=3"], "temperature"),
    ],
)
def test_what_a_recipe_of_cycles_says_wrong_is_told_before_anything_runs(
    changes: list[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told):
        run(recipe(*changes), tmp_path / "run")
    assert not (tmp_path / "run" / "cycle-00").exists()


def _prompts(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()
    return found
