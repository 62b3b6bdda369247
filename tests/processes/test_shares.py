"""The shares of a step: sums over them are the sums of the step, for every objective, without any process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradatim.errors import RecipeError
from gradatim.model.settings import DistillationSettings, ModelSettings, TrainSettings
from gradatim.model.tokenizer import encode_table, separate_texts, word_level_tokenizer
from gradatim.programs import generate
from gradatim.record import Metrics
from gradatim.stage import Stage, StageSpec, ignore_events
from gradatim.training.batches import check_processes, share
from gradatim.training.objective import OBJECTIVES
from gradatim.training.trainer import StageTrainer, _TrainingLoop

TRAIN = TrainSettings(
    batching="packed",
    block_diagonal_attention=True,
    batch_size=4,
    max_length=64,
    gradient_accumulation_steps=3,
    prompt_loss_weight=0.3,
    precision="fp32",
    evaluations_per_stage=0,
)
ROWS = 120


@pytest.fixture(scope="module")
def samples() -> pa.Table:
    """TinyPy programs, two of three with a rejected answer and a completion."""
    table = generate(ROWS, levels=["1.1", "2.1"], seed=4).table
    second = [None if row % 3 == 2 else f"# {row % 10}\n" for row in range(table.num_rows)]
    column = pa.array(second, pa.large_string())
    names = [name for name in table.column_names if name != "rejected"]
    return table.select(names).append_column("rejected", column).append_column("attempt", column)


def make_trainer(folder: Path, samples: pa.Table, train: TrainSettings) -> StageTrainer:
    tokenizer = word_level_tokenizer(separate_texts(samples), 512)
    encoded = encode_table(tokenizer, samples)
    folder.mkdir(parents=True, exist_ok=True)
    model = ModelSettings(preset="tiny", context_length=64)
    return StageTrainer(tokenizer, encoded, encoded, Metrics(folder / "metrics.jsonl"), 5, model, train)


def make_stage(samples: pa.Table, objective: str) -> Stage:
    spec = StageSpec("all", (1.0,), 400, objective=objective)
    return Stage(spec, 0, np.arange(samples.num_rows), 11, 0, 400)


@pytest.fixture(scope="module")
def teacher(samples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    make_trainer(folder, samples, TRAIN).fit(make_stage(samples, "next_token"), folder / "stage", None)
    return folder / "stage" / "model"


def settings(objective: str, teacher: Path) -> TrainSettings:
    distillation = DistillationSettings(teacher_model=str(teacher), answers="both", weight=0.5)
    return replace(TRAIN, objective=objective, distillation=distillation)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_sums_and_gradients_of_the_shares_are_those_of_the_step(
    objective: str, size: int, samples: pa.Table, teacher: Path, tmp_path: Path
) -> None:
    """Two processes divide the lines of each batch, three take a whole batch each."""
    trainer = make_trainer(tmp_path, samples, settings(objective, teacher))
    loop = _TrainingLoop(trainer, make_stage(samples, objective), tmp_path / "stage", None, ignore_events)
    batches, _ = next(loop._batches())

    sums, counts = loop._gradient(batches)
    gradients = {name: p.grad.clone() for name, p in loop.model.named_parameters() if p.grad is not None}
    loop.model.zero_grad()

    added = torch.zeros_like(sums)
    added_counts = torch.zeros_like(counts)
    for rank in range(size):
        for batch in share(batches, rank, size):
            batch_sums = loop.loss.sums(batch)
            (batch_sums / counts * loop.weights).sum().backward()
            added += batch_sums.detach()
            added_counts += loop.loss.counts(batch)
    assert torch.allclose(added_counts, counts, rtol=1e-6)
    assert counts.min() > 0
    assert torch.allclose(added, sums, rtol=1e-5, atol=1e-5)
    for name, parameter in loop.model.named_parameters():
        if name in gradients:
            assert torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_logits_of_the_learnt_positions_alone_give_the_sums_and_gradients_of_all_logits(
    objective: str, samples: pa.Table, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, widths = [], []
    for name, large in (("all", 2**31), ("selected", 1)):
        monkeypatch.setattr("gradatim.model.architecture.LARGE_VOCABULARY", large)
        monkeypatch.setattr("gradatim.training.losses.PART", 2**24 if name == "all" else 1)
        trainer = make_trainer(tmp_path / name, samples, replace(settings(objective, teacher), prompt_loss_weight=0))
        loop = _TrainingLoop(trainer, make_stage(samples, objective), tmp_path / name / "stage", None, ignore_events)
        batches, _ = next(loop._batches())
        head = loop.model.get_output_embeddings()
        head.register_forward_hook(lambda _, inputs, output: widths.append(output[..., 0].numel()))
        sums, counts = loop._gradient(batches)
        results.append((sums / counts, [p.grad for p in loop.model.parameters() if p.grad is not None]))
    (first, first_gradients), (second, second_gradients) = results
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)
    for one, other in zip(first_gradients, second_gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    if objective in ("answer_only", "distillation", "next_token"):  # no logits of prompts and padding
        assert sum(widths[len(widths) // 2 :]) < 0.7 * sum(widths[: len(widths) // 2])


def test_every_line_and_every_pair_is_in_one_share(samples: pa.Table, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, samples, replace(TRAIN, objective="preference"))
    loop = _TrainingLoop(trainer, make_stage(samples, "preference"), tmp_path / "stage", None, ignore_events)
    (whole, *_), _ = next(loop._batches())
    shares = [share([whole], rank, 4)[0] for rank in range(4)]
    assert np.array_equal(np.concatenate([part.inputs for part in shares]), whole.inputs)
    assert np.concatenate([part.rows for part in shares]).tolist() == whole.rows.tolist()
    for part in shares:
        assert set(part.pairs[part.pairs >= 0].tolist()) == set(range(len(part.rows)))


@pytest.mark.parametrize(
    ("lines", "steps", "size", "allowed", "hint"),
    [
        (32, 1, 3, "1, 2, 4, 8, 16, 32 processes", "train.batch_size=33"),
        (4, 1, 8, "1, 2, 4 processes", "train.batch_size=8"),
        (4, 3, 6, "1, 2, 3, 4 processes", "train.batch_size=6"),
    ],
)
def test_lines_that_cannot_be_divided_evenly_are_refused_with_the_allowed_numbers(
    lines: int, steps: int, size: int, allowed: str, hint: str
) -> None:
    train = replace(TRAIN, batch_size=lines, gradient_accumulation_steps=steps)
    with pytest.raises(RecipeError, match=rf"among {size} processes.*allowed: {allowed};.*{hint}"):
        check_processes(train, size)
    check_processes(replace(train, batch_size=int(hint.partition("=")[2])), size)
