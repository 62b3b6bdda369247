"""The loss tokens of a row, a batch and a gradient are the same number, so that a mixture ends with the budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradatim.model.settings import DistillationSettings, ModelSettings, PreferenceSettings, Requirements, TrainSettings
from gradatim.model.tokenizer import character_tokenizer, encode_table
from gradatim.record import Metrics
from gradatim.stage import Mixture, Stage, StageSpec, ignore_events
from gradatim.table import make_table
from gradatim.training import trainer as learner
from gradatim.training.batches import Batch, Packed, make_second_answers, paired_rows, row_tokens
from gradatim.training.objective import OBJECTIVES, Loss, LossContext, make_loss
from gradatim.training.trainer import StageTrainer

ROWS = 24
LENGTH = 63
PLAIN = PreferenceSettings(reference_free=True)


def table() -> pa.Table:
    """Short and long ones, in turns: the long have long faulty answers and attempts, every fourth has none; the first
    has no prompt."""
    prompts = ["", *(f"p({row})\n" for row in range(1, ROWS))]
    others = [None if row % 4 == 3 else "# 1234567890\n" if row % 2 else "# 1\n" for row in range(ROWS)]
    samples = make_table({"prompt": prompts, "answer": [f"# {row}\n" for row in range(ROWS)], "rejected": others})
    return samples.append_column("attempt", pa.array(others, pa.large_string()))


def made(folder: Path, objective: str, **options: Any) -> StageTrainer:
    tokenizer = character_tokenizer(["".join(map(chr, range(32, 127))) + "\n"])
    encoded = encode_table(tokenizer, table())
    train = TrainSettings(
        batching="packed", batch_size=2, max_length=LENGTH, objective=objective, preference=PLAIN,
        evaluations_per_stage=0, **{"block_diagonal_attention": True, **options},
    )  # fmt: skip
    metrics = Metrics(folder / "metrics.jsonl")
    return StageTrainer(tokenizer, encoded, encoded, metrics, 5, ModelSettings(preset="tiny", context_length=64), train)


def stage(tokens: int = 64, mixture: Mixture | None = None) -> Stage:
    return Stage(StageSpec("all", (1.0,), tokens), 0, np.arange(ROWS), 11, 0, tokens, mixture=mixture)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder with the tokenizer of all of them."""
    folder = tmp_path_factory.mktemp("teacher")
    own = made(folder, "next_token")
    own.initial(None).save_pretrained(folder)
    own.tokenizer.save_pretrained(folder)
    return str(folder)


def loss_of(own: StageTrainer, batcher: Packed) -> tuple[Loss, Any]:
    """The loss of ``own`` on a new model, and that model."""
    model = own.initial(None)
    context = LossContext(model, own.tokenizer, own.train, batcher, len(own.samples), Path("nowhere"), ignore_events)
    loss = make_loss(own.train.objective, context)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the teacher, which has the same initial weights
        for weights in model.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=generator)
    return loss, model


def requirements_of(own: StageTrainer) -> Requirements:
    return OBJECTIVES.get(own.train.objective).requirements(own.train)


def tokens_with_gradient(loss: Loss, model: Any, batch: Batch) -> int:
    """The predictions of the batch whose logits receive a gradient."""
    kept = []
    hook = model.register_forward_hook(lambda module, given, output: kept.append(output.logits))
    terms = loss.sums(batch) / loss.counts(batch).clamp(min=1)
    total = sum(term.weight * value for term, value in zip(loss.terms, terms, strict=True) if term.weight)
    hook.remove()
    (gradient,) = torch.autograd.grad(total, kept[-1])
    return int((gradient.abs().sum(dim=-1) > 0).sum())


def kl(teacher: str, **options: Any) -> dict[str, Any]:
    return {"distillation": DistillationSettings(teacher_model=teacher, **options)}


ASKED = [
    pytest.param("next_token", {}, id="next token"),
    pytest.param("next_token", {"prompt_loss_weight": 0.0}, id="next token of answers"),
    pytest.param("answer_only", {}, id="answer only"),
    pytest.param("preference", {}, id="preference"),
    pytest.param("sft_dpo", {}, id="correct and fault"),
    pytest.param("sft_dpo", {"prompt_loss_weight": 0.0}, id="correct and fault of answers"),
    *(
        pytest.param("distillation", {"on": on, "weight": weight, "other": other}, id=f"KL on {on}, {weight}, {other}")
        for on in ("teacher", "student", "both")
        for weight, other in ((1.0, 1.0), (0.5, 1.0), (0.5, 0.0))
    ),
]


@pytest.mark.parametrize(("objective", "options"), ASKED)
def test_the_loss_tokens_of_a_row_are_those_of_its_batch_and_those_with_a_gradient(
    objective, options, teacher, tmp_path
):
    if objective == "distillation":
        on, weight, other = options.values()
        options = {"prompt_loss_weight": other, **kl(teacher, answers=on, weight=weight)}
    own = made(tmp_path, objective, **options)
    needs = requirements_of(own)
    beside = make_second_answers(objective, needs, own.samples)
    rows = np.arange(ROWS) if not needs.pairs_only or beside is None else paired_rows(beside, np.arange(ROWS))
    whole = Packed(own.samples, stage(), 1, LENGTH, 0, isolate=True, second_answers=beside)
    loss, model = loss_of(own, whole)
    batches = [list(replace(whole, stage=replace(stage(), rows=np.array([row]))).one_pass()) for row in rows]
    tokens = [sum(batch.loss_tokens(needs.prompt_loss) for batch in some) for some in batches]
    assert row_tokens(needs, own.train, own.samples, rows, beside).tolist() == tokens
    assert [sum(tokens_with_gradient(loss, model, batch) for batch in some) for some in batches[:8]] == tokens[:8]
    assert len(set(tokens)) > 1


@pytest.mark.parametrize("objective", ["next_token", "answer_only"])
def test_samples_that_see_each_other_count_whole_but_for_the_first_of_a_line(objective, tmp_path):
    own = made(tmp_path, objective, block_diagonal_attention=False)
    packed = Packed(own.samples, stage(), 1, LENGTH, 0)
    needs = requirements_of(own)
    batches = list(packed.one_pass())
    counted = row_tokens(needs, own.train, own.samples, np.arange(ROWS)).sum()
    lost = len(batches) if objective == "next_token" else 1  # one line begins with an answer, that without a prompt
    assert 0 <= counted - sum(batch.loss_tokens(needs.prompt_loss) for batch in batches) <= lost


def spent(own: StageTrainer, mixture: Mixture, tokens: int) -> Iterator[tuple[Batch, int, Packed]]:
    """The batches of a stage until its budget is spent, each with the slice of the mixture it comes from."""
    batcher, _ = learner._batcher(own, stage(tokens, mixture), own.train.objective, ignore_events)
    assert isinstance(batcher, Packed)
    prompt_loss = requirements_of(own).prompt_loss
    for batch, position in batcher.stream(batcher.start):
        yield batch, position["epoch"], batcher
        tokens -= batch.loss_tokens(prompt_loss)
        if tokens <= 0:
            return


@pytest.mark.parametrize("objective", ["next_token", "answer_only", "preference", "sft_dpo"])
def test_a_mixture_ends_when_the_budget_does(objective, tmp_path):
    groups = np.arange(ROWS) % 2
    mixture = Mixture(groups, np.ones(ROWS), (1.0, 0.0), (0.0, 1.0))
    *_, (_, last, batcher) = spent(made(tmp_path, objective), mixture, 40_000)
    assert batcher.sampler is not None
    assert batcher.sampler.slices > 30
    assert abs(last - (batcher.sampler.slices - 1)) <= 1


def test_shares_of_a_mixture_of_pairs_are_of_all_that_is_learnt(tmp_path):
    groups = np.arange(ROWS) % 2
    mixture = Mixture(groups, np.ones(ROWS), (0.5, 0.5), (0.5, 0.5))
    own = made(tmp_path, "preference")
    tokens = np.zeros(2)
    for batch, *_ in spent(own, mixture, 20_000):
        assert batch.rows is not None
        assert batch.pairs is not None
        learnt = (batch.pairs >= 0) & (batch.labels != -100)
        tokens += np.bincount(groups[batch.rows[batch.pairs[learnt]]], minlength=2)
    assert tokens / tokens.sum() == pytest.approx([0.5, 0.5], abs=0.01)
