"""Real process groups (gloo): the same run as by one process, the same bits again, after any rank dies or stops."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ranks import SMALL, KillAt, StopAt, compare_shared_inference, start, start_apart

from gradatim.errors import WorkFailed
from gradatim.experiment.recipe import load
from gradatim.experiment.run import run
from gradatim.stage import Event


def weights(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("cycle-*/stage-*/model/model.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("cycle-*/stage-*/result.json"))]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    run(load("smoke/baseline", SMALL), folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    assert start(folder) == 0
    return folder


def test_two_processes_take_the_steps_and_tokens_of_one_and_the_same_loss(one: Path, two: Path) -> None:
    pairs = list(zip(metrics(one), metrics(two), strict=True))
    exact = ("cycle", "stage", "name", "step", "tokens", "run_tokens", "learning_rate")
    for single, shared in pairs:
        assert {key: single.get(key) for key in exact} == {key: shared.get(key) for key in exact}
        for key in ("loss", "validation_loss", "validation_answer_loss"):
            assert shared.get(key) == pytest.approx(single.get(key), rel=1e-5)
    assert weights(one) != weights(two)  # the sums are added in another order


def test_two_processes_evaluate_the_test_set_once(one: Path, two: Path) -> None:
    for single, shared in zip(results(one), results(two), strict=True):
        totals = [
            [suite["counts"]["all"]["all"]["total"] for suite in each["evaluations"]] for each in (single, shared)
        ]
        assert totals == [[20], [20]]


def test_rank_0_alone_writes(two: Path) -> None:
    opened = [json.loads(two.with_name(f"opened-{rank}.json").read_text()) for rank in (0, 1)]
    assert [path for path in opened[0] if path.endswith("metrics.jsonl")]
    assert opened[1] == []


def test_the_number_of_processes_is_recorded(one: Path, two: Path) -> None:
    assert [json.loads((folder / "environment.json").read_text())["processes"] for folder in (one, two)] == [1, 2]


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_rank_is_named_and_the_same_command_ends_with_the_same_bits(
    two: Path, tmp_path: Path, rank: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(
        WorkFailed, match=rf"process {rank} of 2 was ended by signal 9 \(SIGKILL\).*step \d+ of .*stage-"
    ):
        start(folder, listener=KillAt(rank, step=4))
    assert start(folder) == 0
    assert max(result["fitted"]["resumed_at"] for result in results(folder)) > 0
    assert weights(folder) == weights(two)
    assert (folder / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_a_rank_stopped_ends_with_the_same_bits(two: Path, tmp_path: Path, rank: int) -> None:
    folder = tmp_path / "run"
    assert start(folder, listener=StopAt(rank, step=3)) == 130
    assert start(folder) == 0
    assert weights(folder) == weights(two)
    assert (folder / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()


def test_a_stop_of_one_rank_stops_all_after_the_same_step_and_another_number_of_processes_goes_on(
    two: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert start(folder, listener=StopAt(1, step=3)) == 130
    finished = [result["fitted"]["steps"] for result in results(folder)]
    state = json.loads(next(folder.glob("cycle-00/*/checkpoint/state.json")).read_text())
    assert sum(finished) + state["step"] == 4  # the vote travels with the next step
    notes: list[Event] = []
    stages = run(load("smoke/baseline", SMALL), folder, events=notes.append)
    assert [event.text for event in notes if "processes: 2 -> 1" in event.text]
    assert [stage.fitted.tokens for stage in stages] == [result["fitted"]["tokens"] for result in results(two)]


def test_shared_rows_give_the_results_of_one_process(two: Path) -> None:
    differing = compare_shared_inference(two)
    assert differing == {name: [] for name in ("greedy", "sampled", "predicted", "likelihoods", "answers", "suites")}


def test_a_folder_that_a_process_does_not_see_is_one_clear_line(tmp_path: Path) -> None:
    assert start_apart(tmp_path) == 2
    assert [path.name for path in sorted(tmp_path.glob("*/error-*.txt"))] == ["error-0.txt", "error-1.txt"]
    text = (tmp_path / "0" / "error-0.txt").read_text()
    assert "the processes of a run share its folder, and some do not see the files of process 0" in text
    assert "given: process 1 of 2; try: --out on a file system that all machines share" in text
    assert (tmp_path / "1" / "error-1.txt").read_text() == "process 0 ended the run"
