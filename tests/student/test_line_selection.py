"""Online batch selection: the lines that are trained on, the budget, resumption, and recipes that exclude it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradatim.errors import RecipeError, Stopped
from gradatim.experiment.recipe import load
from gradatim.experiment.study import plan_study
from gradatim.model.settings import LRSchedulerSettings, ModelSettings, OptimizerSettings, TrainSettings
from gradatim.model.tokenizer import encode_table, separate_texts, word_level_tokenizer
from gradatim.programs import generate
from gradatim.record import Metrics
from gradatim.stage import Event, Events, Fitted, Stage, StageSpec, ignore_events
from gradatim.table import make_table
from gradatim.training.batches import Batch, Packed
from gradatim.training.line_selection import LineSelection
from gradatim.training.objective import check_objective
from gradatim.training.trainer import StageTrainer

TRAIN = TrainSettings(
    batching="packed",
    block_diagonal_attention=True,
    batch_size=8,
    max_length=64,
    candidates=3,
    optimizer=OptimizerSettings(name="adamw", learning_rate=3e-3),
    lr_scheduler=LRSchedulerSettings(name="warmup_decay"),
    evaluations_per_stage=1,
)


@pytest.fixture(scope="module")
def programs() -> pa.Table:
    return generate(600, levels=["1.1", "2.1"], seed=4).table


def trainer(table: pa.Table, folder: Path, train: TrainSettings = TRAIN) -> StageTrainer:
    tokenizer = word_level_tokenizer(separate_texts(table), 512)
    encoded = encode_table(tokenizer, table)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl")
    return StageTrainer(tokenizer, encoded, encoded, metrics, 5, ModelSettings(preset="tiny", context_length=64), train)


def stage(tokens: int) -> Stage:
    return Stage(StageSpec("all", (1.0,), tokens), 0, np.arange(600), 11, 0, tokens)


def fit(
    table: pa.Table, folder: Path, train: TrainSettings = TRAIN, events: Events = ignore_events, tokens: int = 6000
) -> Fitted:
    return trainer(table, folder, train).fit(stage(tokens), folder / "stage", None, events)


def test_the_lines_with_the_highest_loss_of_their_answers_are_kept(programs: pa.Table, tmp_path: Path) -> None:
    made = trainer(programs, tmp_path)
    batcher = Packed(made.samples, stage(1), 8, 64, int(made.tokenizer.pad_token_id), isolate=True)
    candidates = list(batcher.one_pass())[:2]
    select = LineSelection(made.initial(None), replace(TRAIN, candidates=2))
    scores = np.concatenate([select.scores(batch) for batch in candidates])
    (kept,) = select(candidates)
    lines = np.concatenate([batch.inputs for batch in candidates])
    best = np.argsort(-scores, kind="stable")[:8]
    assert np.array_equal(kept.inputs, lines[best])
    assert scores[best].min() >= np.delete(scores, best).max()


def test_scores_are_sums_over_answer_tokens_alone(programs: pa.Table, tmp_path: Path) -> None:
    made = trainer(programs, tmp_path)
    model = made.initial(None)
    batch = next(Packed(made.samples, stage(1), 8, 64, int(made.tokenizer.pad_token_id), isolate=True).one_pass())
    select = LineSelection(model, TRAIN)
    without = replace(batch, answer=np.zeros_like(batch.answer))
    assert (select.scores(batch) > 0).all()
    assert (select.scores(without) == 0).all()
    assert model.training


def test_the_budget_counts_the_tokens_that_are_trained_on(programs: pa.Table, tmp_path: Path) -> None:
    selected = fit(programs, tmp_path / "selected")
    plain = fit(programs, tmp_path / "plain", replace(TRAIN, candidates=1))
    assert abs(selected.steps - plain.steps) <= 2
    assert 6000 <= selected.tokens < 6000 + 8 * 64
    assert selected.weights != plain.weights


def test_easy_samples_are_trained_on_less_often_once_they_are_learned(programs: pa.Table, tmp_path: Path) -> None:
    """Half of the rows have an answer that a few steps teach; the share of their lines falls below a half."""
    easy = [f"a = {number % 10}\nprint(a - a)\n# output\n" for number in range(300)]
    mixed = pa.concat_tables(
        [
            generate(300, levels=["1.2"], seed=1).table.select(["prompt", "answer"]),
            pa.table({"prompt": easy, "answer": ["# 0\n"] * 300}).cast(
                generate(1, levels=["1.2"], seed=1).table.select(["prompt", "answer"]).schema
            ),
        ]
    )
    table = make_table(mixed.to_pydict())
    made = trainer(table, tmp_path)
    made.fit(stage(40_000), tmp_path / "stage", None)
    batcher = Packed(made.samples, stage(1), 8, 64, int(made.tokenizer.pad_token_id), isolate=True)
    candidates = list(batcher.one_pass())[:6]
    model = made.initial(tmp_path / "stage")
    kept = LineSelection(model, replace(TRAIN, candidates=6))(candidates)
    easy_prompt = {tuple(made.samples.sample(300)[3:8].tolist())}  # the tokens of "print(a - a)" and its end

    def share(batches: list[Batch]) -> float:
        """Share of the lines with an easy sample."""
        lines = [line for batch in batches for line in batch.inputs.tolist()]
        return float(np.mean([any(tuple(line[i : i + 5]) in easy_prompt for i in range(60)) for line in lines]))

    assert share(candidates) > 0
    assert share(kept) < 0.8 * share(candidates)


def test_a_stage_stopped_and_resumed_gives_the_same_weights(programs: pa.Table, tmp_path: Path) -> None:
    whole = fit(programs, tmp_path / "whole")
    steps = 0

    def stop_at_fifth(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "advance"
        if steps == 5:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        fit(programs, tmp_path / "cut", events=stop_at_fifth)
    again = fit(programs, tmp_path / "cut")
    assert again.resumed_at == 5
    assert again.weights == whole.weights
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("objective", "batching"), [("next_token", "random_crops"), ("preference", "packed"), ("sft_dpo", "packed")]
)
def test_batches_without_a_single_answer_exclude_selection(objective: str, batching: str) -> None:
    settings = replace(TRAIN, batching=batching, objective=objective)
    with pytest.raises(RecipeError, match=r"train\.candidates: 1"):
        check_objective(objective, settings)
    check_objective("next_token", TRAIN)


def test_selection_leaves_the_random_state_alone(programs: pa.Table, tmp_path: Path) -> None:
    made = trainer(programs, tmp_path)
    batch = next(Packed(made.samples, stage(1), 8, 64, int(made.tokenizer.pad_token_id), isolate=True).one_pass())
    select = LineSelection(made.initial(None), TRAIN)
    before = torch.get_rng_state()
    select([batch] * 3)
    assert torch.equal(before, torch.get_rng_state())


def test_an_arm_with_selection_is_compared_and_no_control() -> None:
    arms = {name: load(f"strong/{name}", []) for name in ("random", "selection", "random-longer")}
    assert plan_study(arms, 5).controls == ("random-longer",)
