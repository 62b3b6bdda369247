"""transformers' Trainer along a curriculum: one run in its order, and after a break exactly the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")

import trained_rows
from trained_rows import ROWS, STEP, curriculum, dataset, train, trainer

from gradatim.errors import DataError, RecipeError

WAYS = [
    pytest.param({"per_device_train_batch_size": 8}, id="plain"),
    pytest.param({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, id="accumulated"),
]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


CURRICULA = [
    pytest.param({"options": {"order": "shuffled"}}, id="shuffled"),
    pytest.param({"options": {"order": "sorted"}}, id="sorted"),
    pytest.param({"schedule": "fade"}, id="fade"),
]


@pytest.mark.parametrize(
    ("given", "way"),
    [
        pytest.param(*given.values, *way.values, id=f"{given.id}-{way.id}", marks=() if quick else pytest.mark.slow)
        for given, quick_way in zip(CURRICULA, ("plain", "accumulated", "accumulated"), strict=True)
        for way in WAYS
        for quick in [way.id == quick_way]
    ],
)
def test_the_trainer_learns_the_rows_in_the_order_of_the_sampler(given, way, tmp_path):
    sampler = curriculum(**given)
    rows, _ = train(tmp_path, sampler, **way)
    assert flat(rows) == list(sampler)
    assert len(rows) == 18 * way.get("gradient_accumulation_steps", 1)


BROKEN = [
    pytest.param("hybrid", WAYS[0].values[0], id="hybrid-plain", marks=pytest.mark.slow),
    pytest.param("hybrid", WAYS[1].values[0], id="hybrid-accumulated"),
    pytest.param("fade", WAYS[1].values[0], id="fade-accumulated"),
]


@pytest.mark.parametrize(("schedule", "way"), BROKEN)
def test_a_run_that_was_broken_off_learns_exactly_the_rest_and_ends_with_the_same_weights(schedule, way, tmp_path):
    whole, weights = train(tmp_path / "whole", curriculum(schedule=schedule), **way)
    begun, others = train(tmp_path / "broken", curriculum(schedule=schedule), until=10, **way)
    rest, resumed = train(tmp_path / "broken", curriculum(schedule=schedule), resume=True, **way)
    at_checkpoint = 8 * len(whole) // 18
    assert flat(begun) == flat(whole)[: 10 * STEP]
    assert rest == whole[at_checkpoint:]
    assert resumed == weights != others


def test_a_checkpoint_holds_the_state_from_which_a_loop_of_ones_own_goes_on(tmp_path):
    rows, _ = train(tmp_path, curriculum())
    saved = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    sampler = curriculum()
    sampler.load_state_dict(saved["stateful_callbacks"]["CurriculumSampler"])
    assert list(sampler) == flat(rows)[8 * STEP :]


def test_a_checkpoint_of_another_curriculum_or_another_step_is_refused(tmp_path):
    train(tmp_path, curriculum(), until=5)
    with pytest.raises(RecipeError, match=r"another curriculum; given: seed 0 \(here 1\), order"):
        train(tmp_path, curriculum(seed=1), resume=True)
    with pytest.raises(RecipeError, match="another number of samples per step; given: 32 samples in 4 steps, now 16"):
        train(tmp_path, curriculum(), resume=True, per_device_train_batch_size=4)
    state = tmp_path / "checkpoint-4" / "trainer_state.json"
    saved = json.loads(state.read_text())
    del saved["stateful_callbacks"]["CurriculumSampler"]
    state.write_text(json.dumps(saved))
    with pytest.raises(RecipeError, match="made without a curriculum"):
        train(tmp_path, curriculum(), resume=True)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            {"num_train_epochs": 3},
            RecipeError,
            r"given: num_train_epochs=3; allowed: num_train_epochs=1, or max_steps=18",
        ),
        ({"max_steps": 17}, RecipeError, "given: max_steps=17"),
        (
            {"ignore_data_skip": True},
            RecipeError,
            "order of the curriculum would be lost; given: ignore_data_skip=True",
        ),
        ({"train_sampling_strategy": "group_by_length"}, RecipeError, "given: train_sampling_strategy=group_by_length"),
        ({"data": dataset(ROWS - 1)}, DataError, "given: 89 rows, the curriculum has 90"),
    ],
)
def test_what_would_lose_the_order_is_refused_before_anything_is_learnt(
    arguments: dict[str, Any], error, says, tmp_path
):
    made = trainer(tmp_path, curriculum(), **arguments)
    with pytest.raises(error, match=says):
        made.train()
    assert made.seen == []


def test_a_stream_is_refused(tmp_path):
    import datasets

    made = trainer(tmp_path, curriculum(), datasets.Dataset.from_list(dataset()).to_iterable_dataset(), max_steps=18)
    with pytest.raises(DataError, match="a dataset with rows, not a stream"):
        made.train()


def test_max_steps_may_say_what_the_curriculum_makes_anyway(tmp_path):
    sampler = curriculum()
    assert flat(train(tmp_path, sampler, max_steps=18)[0]) == list(sampler)


def two_processes(folder: Path, *options: str, code: int = 0) -> list[dict[str, Any]]:
    """What each of two processes learnt, trained over gloo."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launch, trained_rows.__file__, str(folder), *options], capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]
    name = "resumed" if "--resume" in options else "whole"
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)] if not code else []


def dealt(told: list[dict[str, Any]]) -> list[int]:
    """The rows of both processes, dealt out batch by batch."""
    return [row for pair in zip(told[0]["rows"], told[1]["rows"], strict=True) for batch in pair for row in batch]


@pytest.mark.slow
def test_two_processes_share_the_one_order_and_go_on_from_a_checkpoint_with_exactly_the_rest(tmp_path):
    order = list(curriculum())
    whole = two_processes(tmp_path / "whole")
    assert dealt(whole) == order
    two_processes(tmp_path / "killed", "--until", "10", code=1)
    resumed = two_processes(tmp_path / "killed", "--resume")
    assert dealt(resumed) == order[8 * STEP :]
    assert {told["weights"] for told in whole + resumed} == {whole[0]["weights"]}


@pytest.mark.slow
def test_two_processes_may_also_split_each_batch(tmp_path):
    assert dealt(two_processes(tmp_path, "--split")) == list(curriculum())


@pytest.mark.slow
def test_two_processes_fill_up_only_a_last_batch_that_is_not_whole(tmp_path):
    learnt = dealt(two_processes(tmp_path, "--samples", "139", "--step", "1"))
    order = list(curriculum(steps=None, samples=139, batch=1))
    assert learnt == [*order, order[0]]


def changed(rows: list[dict[str, list[int]]], row: int) -> list[dict[str, list[int]]]:
    other = [dict(each) for each in rows]
    other[row]["labels"] = [0, *other[row]["labels"][1:]]
    return other


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(dataset(), ROWS - 1), "different values in 'labels' in the same number of rows"),
        (dataset()[::-1], "different values in 'input_ids', 'labels'"),
        ([{"text": str(row)} for row in range(ROWS)], "different values in 'input_ids', 'labels'"),
    ],
)
def test_another_dataset_of_the_same_length_is_refused_in_one_line(data, says, tmp_path):
    with pytest.raises(DataError, match=f"not the one that the curriculum was made for; given: {says}") as caught:
        trainer(tmp_path, curriculum(), data)
    assert "\n" not in str(caught.value)


def test_rows_that_were_tokenized_beforehand_and_a_curriculum_over_numbers_alone_are_taken(tmp_path):
    trainer(tmp_path, curriculum(data=[{"answer": f"x = {row}"} for row in range(ROWS)]))
    trainer(tmp_path, curriculum(data=range(ROWS)))


def test_a_checkpoint_is_not_gone_on_with_on_other_data(tmp_path):
    train(tmp_path, curriculum(), until=5)
    other = changed(dataset(), 40)
    with pytest.raises(RecipeError, match="another curriculum; given: the data's column 'labels'"):
        train(tmp_path, curriculum(data=other), resume=True, data=other)
