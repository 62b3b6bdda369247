"""A smallest training by transformers' Trainer along a curriculum: which rows did it learn, and what came of it?

Tests call ``train``; under torchrun this file is the program of each process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from gradatim import CurriculumMixin, CurriculumSampler

ROWS = 90
STEP = 8
"""Samples of an optimizer step, over all processes and accumulated batches."""


def dataset(rows: int = ROWS) -> list[dict[str, list[int]]]:
    """Row i begins with the digits of i, so that a batch shows its rows."""
    return [{"input_ids": (ids := [row // 30, row % 30, *([row % 7] * 6)]), "labels": ids} for row in range(rows)]


def curriculum(**changes: Any) -> CurriculumSampler:
    difficulty = [row * 7 % ROWS for row in range(ROWS)]
    return CurriculumSampler(**{"data": dataset(), "difficulty": difficulty, "steps": 18, "batch": STEP, **changes})


class Recording(CurriculumMixin, Trainer):
    """Notes the rows of every batch that it learns."""

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        places = inputs["input_ids"]
        self.seen.append((places[:, 0] * 30 + places[:, 1]).tolist())
        return super().training_step(model, inputs, *rest)


class Broken(Exception):
    """The training was broken off."""


def stop() -> None:
    raise Broken


class BreakOff(TrainerCallback):
    """Ends everything after a step, with nothing saved but the last checkpoint."""

    def __init__(self, step: int, end: Callable[[], None]) -> None:
        self.step, self.end = step, end

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.end()


def trainer(folder: Path, sampler: CurriculumSampler, data: Any = None, **arguments: Any) -> Recording:
    """Checkpoints every 4 steps; 8 samples a step unless told."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    settings = {
        "per_device_train_batch_size": STEP,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "save_steps": 4,
        "logging_steps": 6,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        **arguments,
    }
    made = Recording(
        model,
        args=TrainingArguments(str(folder), **settings),
        train_dataset=dataset() if data is None else data,
        curriculum=sampler,
    )
    made.seen = []
    return made


def train(
    folder: Path,
    sampler: CurriculumSampler,
    until: int | None = None,
    end: Callable[[], None] = stop,
    resume: bool = False,
    **arguments: Any,
) -> tuple[list[list[int]], str]:
    """The rows of every batch of this process, in order, and the digest of the weights."""
    made = trainer(folder, sampler, **arguments)
    if until:
        made.add_callback(BreakOff(until, end))
    with contextlib.suppress(Broken):
        made.train(resume_from_checkpoint=resume)
    return made.seen, digest(made.model)


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of all weights."""
    weights = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        weights.update(name.encode() + value.numpy().tobytes())
    return weights.hexdigest()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--until", type=int)
    options.add_argument("--resume", action="store_true")
    options.add_argument("--samples", type=int, default=18 * STEP)
    options.add_argument("--step", type=int, default=STEP)
    options.add_argument("--split", action="store_true")
    given = options.parse_args()
    sampler = curriculum(steps=None, samples=given.samples, batch=given.step)
    rows, weights = train(
        given.folder,
        sampler,
        given.until,
        lambda: os._exit(9),
        given.resume,
        per_device_train_batch_size=4 if given.split else 2,
        gradient_accumulation_steps=2,
        ddp_backend="gloo",
        accelerator_config={"split_batches": given.split},
    )
    told = given.folder / f"{'resumed' if given.resume else 'whole'}-{os.environ.get('RANK', 0)}.json"
    told.write_text(json.dumps({"rows": rows, "weights": weights}))


if __name__ == "__main__":
    sys.exit(main())
