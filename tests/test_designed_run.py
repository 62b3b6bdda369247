"""A run whose stages a teacher writes: asked before the first stage, once for each decision, and never twice."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked_commands import ForkedCommand
from serving import Handler, Serving, completion, serving

from gradatim.errors import RecipeError, RunFolderError, Stopped
from gradatim.experiment.assemble import check, corpus_maker
from gradatim.experiment.recipe import Recipe, load
from gradatim.experiment.run import run
from gradatim.experiment.study import _differences, _restarts, plan_study
from gradatim.stage import Event, StageResult
from gradatim.teacher.llm_teacher import CHECK

SMALL = [
    *("data.count=260", "data.split.test=20", "data.split.validation=30", "feedback.questions=10"),
    *("budget.tokens=3000", "train.batch_size=2", "evaluate.suites=[{suite: output, limit: 5, stages: last}]"),
]


def stage(name: str, share: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "share": share, "bands": {"easy": 1, "medium": 1, "hard": 1}, **more}


def design(reason: str, *cycles: list[dict[str, Any]]) -> str:
    return json.dumps({"reason": reason, "cycles": [{"stages": stages} for stages in cycles]})


FIRST = design(
    "Short answers first.",
    [stage("start", 0.25, objective="answer_only", order="sorted"), stage("all", 0.25)],
    [stage("rest", 0.5)],
)
WASTEFUL = FIRST.replace("0.5", "0.9")
REVISED = design("It forgets.", [stage("again", 0.3, order="sorted"), stage("last", 0.7)])
KEPT = json.dumps({"reason": "It goes well.", "keep": True})
OPTIONS = "orders: [shuffled, sorted], objectives: [answer_only]"


def recipe(*changes: str) -> Recipe:
    return load("smoke/designed", [*SMALL, *changes])


def over_http(server: Serving, *changes: str) -> Recipe:
    teacher = f"teacher={{name: api, base_url: '{server.url}', model: m, key: null, retries: 0}}"
    return recipe(f"schedule={{name: designed, {OPTIONS}}}", teacher, *changes)


def answers(first: str = WASTEFUL, revision: str = REVISED) -> Callable[[Handler, dict[str, Any]], None]:
    """A teacher that overspends at first, mends that, and has its own mind before the second cycle."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        said = body["messages"][-1]["content"]
        mends, revises = "It cannot be used" in said, '"task": "revise' in said
        handler.send(200, completion(revision if revises else FIRST if mends else first))

    return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    with pytest.MonkeyPatch.context() as patch, serving() as made:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        # Every client reads all certificates, which takes longer than a test; here nothing is encrypted.
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        patch.setenv("GRADATIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield made


@pytest.fixture(autouse=True)
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test answers from the replies of another."""
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))


@dataclass(frozen=True)
class Whole:
    """A run that was never stopped: its folder, its stages, and what its teacher was asked."""

    folder: Path
    stages: list[StageResult]
    asked: list[str]


def requests_since(server: Serving, heard: int) -> list[dict[str, Any]]:
    """The requests after the first ``heard``, without the one that tries the endpoint before training."""
    return [body for body in server.heard[heard:] if body["messages"][-1]["content"] != CHECK]


@pytest.fixture(scope="module")
def whole(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole") / "run"
    heard, server.otherwise = len(server.heard), answers()
    return Whole(folder, run(over_http(server), folder), [text for text in server.asked()[heard:] if text != CHECK])


def fingerprint(folder: Path) -> dict[str, str]:
    files = [*folder.glob("cycle-*/design.json"), *folder.glob("cycle-*/stage-*/model/*.safetensors")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*files, folder / "metrics.jsonl"])
    }


def read(folder: Path, cycle: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"cycle-{cycle:02d}" / "design.json").read_text())
    return found


def test_over_http_it_mends_its_faults_once_revises_the_second_cycle_and_keeps_the_budget(whole: Whole) -> None:
    names = [(done.cycle, done.spec.name, done.spec.order, done.spec.objective) for done in whole.stages]
    assert names == [
        (0, "start", "sorted", "answer_only"),
        (0, "all", "shuffled", None),
        (1, "again", "sorted", None),
        (1, "last", "shuffled", None),
    ]
    assert sum(done.spec.tokens for done in whole.stages) == 3000
    measured = [set(done.progress) for done in whole.stages]
    assert measured == [{"easy", "medium", "hard"}] * 2 + [set()] * 2, "nobody revises after the last cycle"
    assert len(whole.asked) == 3  # a design, the same mended, a revision
    first, second = read(whole.folder, 0), read(whole.folder, 1)
    assert first["replies"] == [WASTEFUL, FIRST]
    assert "the budget is not kept" in first["faults"][0][0]
    assert (first["teacher"]["requests"], second["teacher"]["requests"]) == (2, 1)
    assert (first["reason"], second["reason"]) == ("Short answers first.", "It forgets.")
    shown = json.JSONDecoder().raw_decode(whole.asked[2][whole.asked[2].index("{") :])[0]
    assert [done["name"] for done in shown["stages_so_far"]] == ["start", "all"]
    assert shown["budget_left"]["tokens"] == 1500
    assert sum(shown["questions_after_the_last_cycle"]["grades"].values()) == 10
    assert shown["plan_for_the_rest"][0]["stages"][0]["name"] == "rest"


def test_a_run_stopped_after_each_design_goes_on_with_it_and_asks_nobody_again(
    whole: Whole, server: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, server.otherwise = len(server.heard), answers()
    for cycle in (0, 1):

        def stop(event: Event, cycle: int = cycle) -> None:
            if (tmp_path / "run" / f"cycle-0{cycle}" / "design.json").exists():
                raise Stopped("now")

        with pytest.raises(Stopped):
            run(over_http(server), tmp_path / "run", events=stop)
        monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / f"empty-{cycle}"))
    assert len(requests_since(server, heard)) == 3
    run(over_http(server), tmp_path / "run")
    assert len(requests_since(server, heard)) == 3
    assert fingerprint(tmp_path / "run") == fingerprint(whole.folder)


@pytest.mark.slow
def test_a_run_killed_after_the_design_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(recipe(), whole)
    sets = [part for change in SMALL for part in ("--set", change)]
    process = ForkedCommand(["run", "smoke/designed", "--out", str(killed), *sets])
    end = time.monotonic() + 60
    while not (killed / "cycle-00" / "design.json").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (killed / "finished.json").exists()
    run(recipe(), killed)
    assert fingerprint(killed) == fingerprint(whole)


def test_what_cannot_be_used_twice_stops_the_run_is_kept_and_is_asked_anew_by_the_same_command(
    server: Serving, tmp_path: Path
) -> None:
    heard, server.otherwise = len(server.heard), lambda handler, body: handler.send(200, completion("nonsense"))
    with pytest.raises(RecipeError, match="after two requests: this is not JSON"):
        run(over_http(server), tmp_path / "run")
    assert len(requests_since(server, heard)) == 2
    (kept,) = json.loads((tmp_path / "run" / "cycle-00" / "design-unusable.json").read_text())
    assert kept["replies"] == ["nonsense", "nonsense"]
    server.otherwise = answers(FIRST, KEPT)
    stages = run(over_http(server), tmp_path / "run")
    assert [done.spec.name for done in stages] == ["start", "all", "rest"]
    assert len(requests_since(server, heard)) == 4
    assert [body["temperature"] for body in requests_since(server, heard)] == [0, 0, 0.7, 0]
    first, second = read(tmp_path / "run", 0), read(tmp_path / "run", 1)
    assert (second["kept"], second["cycles"]) == (True, first["cycles"][1:])


def test_without_revision_it_is_asked_once(server: Serving, tmp_path: Path) -> None:
    heard, server.otherwise = len(server.heard), answers(FIRST)
    asked = over_http(server, f"schedule={{name: designed, {OPTIONS}, revise: false}}", "budget.tokens=1000")
    assert [done.spec.name for done in run(asked, tmp_path / "run")] == ["start", "all", "rest"]
    assert len(requests_since(server, heard)) == 1
    assert not (tmp_path / "run" / "cycle-01" / "design.json").exists()


def test_a_damaged_design_is_told_in_one_line(whole: Whole, server: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    for content in ("{}", '{"cycles": [], "reason": "", "kept": false}', '{"cycles": 3}', "{"):
        (folder / "cycle-01" / "design.json").write_text(content)
        with pytest.raises(RunFolderError, match="remove it"):
            run(over_http(server), folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["teacher=null"], "needs a teacher"),
        (["teacher={name: oracle}"], "designs no curricula"),
        (["schedule.objectives=[nonsense]"], "nonsense"),
        (["schedule.objectives=[contrast]"], "packed and train.block_diagonal_attention"),
        (["schedule.objectives=[contrast]", "train.block_diagonal_attention=true"], "has no source of them"),
        (["schedule.objectives=[answer_only, answer_only]"], "twice"),
        (["schedule.orders=[sortd]"], "did you mean 'sorted'"),
        (["schedule.orders=[]"], "at least one possible order"),
        (["schedule.orders=[{name: sorted, first: middle}]"], "first"),
        (["train.batching=random_crops"], "the order 'sorted' is one of samples"),
        (["schedule.stages=0"], "schedule.stages"),
        (["schedule.share=1"], "has no option 'share'"),
    ],
)  # fmt: skip
def test_what_nobody_could_design_is_told_before_anything_runs(changes: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check(recipe(*changes))


def test_crops_of_the_text_do_where_only_shuffled_stages_may_be_designed() -> None:
    check(recipe("train.batching=random_crops", "schedule.orders=[shuffled]"))


def test_who_only_designs_changes_no_sample_and_makes_no_unfair_arm() -> None:
    plain = recipe("teacher=null", "schedule={name: baseline}")
    assert corpus_maker(recipe()).key == corpus_maker(plain).key
    assert (
        corpus_maker(recipe("rejected_answers={sources: {teacher: 1}}")).key
        != corpus_maker(
            recipe("teacher=null", "schedule={name: baseline}", "rejected_answers={sources: {mutation: 1}}")
        ).key
    )
    plan = plan_study({"baseline": plain, "designed": recipe(), "also": recipe("train.batch_size=4")}, 1)
    assert _differences(plan, "designed") == []
    assert _differences(plan, "also") == ["train.batch_size: 2 -> 4"]
    assert _restarts(recipe()) == 0
    assert _restarts(recipe("train.reset_optimizer=true")) is None
