"""A pretrained student before training: the loss of its answers, and its attempts at the first cycle's samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_models import base

from gradatim.errors import RecipeError
from gradatim.experiment.assemble import check, corpus_maker
from gradatim.experiment.recipe import parse
from gradatim.experiment.run import run
from gradatim.reporting.collect import read_run
from gradatim.results import decode_answer_losses


def recipe(folder: Path | None, **changes: Any) -> Any:
    content: dict[str, Any] = {
        "threads": 1,
        "data": {
            "source": "tinypy",
            "count": 24,
            "levels": ["1.1"],
            "split": {"by": "canonical", "validation": 4, "test": 4},
        },
        "difficulty": {"metric": "size", "bands": {"names": ["short", "long"]}},
        "budget": {"tokens": 60},
        "rejected_answers": {"sources": {"student": 1}},
        "feedback": {"max_new_tokens": 4, "before_training": True},
        "student": {"base": str(folder), "context_length": 96} if folder else {"context_length": 96},
        "train": {
            "batching": "packed",
            "batch_size": 2,
            "max_length": 96,
            "block_diagonal_attention": True,
            "objective": "sft_dpo",
            "evaluations_per_stage": 1,
        },
        "evaluate": {"suites": [{"suite": "output", "protocol": "greedy", "limit": 2}]},
    }
    return parse({**content, **changes})


def test_a_run_measures_its_answers_once_and_the_report_tells_them(tmp_path):
    events = []
    made = recipe(base(tmp_path / "base"), rejected_answers={"sources": {"mutation": 1}}, feedback=None)
    run(made, tmp_path / "run", events=events.append)
    losses = decode_answer_losses(json.loads((tmp_path / "run/cycle-00/answer-loss.json").read_text()))
    assert set(losses) == {"answer", "rejected"}
    assert losses["answer"].samples == 16
    (line, warning) = [event.text for event in events if event.task == "answers"]
    assert line.startswith("nats per token before training: answer first tokens ")
    assert warning.startswith("warning: the first tokens of the answers: 5.")  # random weights, 300 tokens
    notes: list[str] = []
    read_run(tmp_path / "run", "run", 1, notes)
    assert any(line in note for note in notes)
    again: list[Any] = []
    run(made, tmp_path / "run", events=again.append)
    assert not [event for event in again if event.task == "answers"]


@pytest.mark.parametrize("end", ["cut off", "whole"])
def test_attempts_before_training_are_rejected_answers_of_the_first_cycle_unless_they_are_cut_off(tmp_path, end):
    feedback = {"max_new_tokens": 1 if end == "cut off" else 90, "temperature": 1.0, "before_training": True}
    made = recipe(base(tmp_path / "base"), feedback=feedback)
    dataset = corpus_maker(made).make(tmp_path / "data")
    facts = dataset.facts["delivery"]
    texts = pq.read_table(dataset.folder / "train.parquet")["rejected"].to_pylist()
    finish = facts["attempts"]["finish"]
    assert facts["student"] == sum(text is not None for text in texts)
    assert facts["student"] + facts["none"] == 16
    if end == "cut off":
        assert 0 < facts["truncated"] <= finish["limit"]  # a blank text is no attempt
        assert facts["student"] == 0
    else:
        assert facts["student"] == sum(finish.values()) - facts["truncated"] > 0


def test_the_texts_of_distillation_come_from_the_base_in_the_first_cycle(tmp_path):
    folder = base(tmp_path / "base")
    made = recipe(
        folder,
        rejected_answers=None,
        feedback={"max_new_tokens": 60, "temperature": 1.0, "before_training": True},
        train={
            "batching": "packed",
            "max_length": 96,
            "block_diagonal_attention": True,
            "objective": "distillation",
            "distillation": {"teacher_model": str(folder), "answers": "student"},
        },
    )
    dataset = corpus_maker(made).make(tmp_path / "data")
    attempts = pq.read_table(dataset.folder / "train.parquet")["attempt"]
    facts = dataset.facts["delivery"]["attempts"]
    assert 0 < len(attempts) - attempts.null_count <= facts["finish"]["eos"]


def test_attempts_before_training_are_planned_and_part_of_the_dataset(tmp_path):
    made = recipe(base(tmp_path / "base"))
    feedback = made.feedback.model_copy(update={"before_training": False})
    without = made.model_copy(update={"feedback": feedback})
    assert corpus_maker(made).key != corpus_maker(without).key
    assert corpus_maker(without).key == corpus_maker(without.model_copy(update={"feedback": None})).key


def test_random_weights_have_no_attempts_before_training():
    with pytest.raises(RecipeError, match=r"feedback\.before_training"):
        check(recipe(None))
