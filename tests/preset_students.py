"""Students of every preset with random weights in which attention, windows and positions matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from gradatim import programs
from gradatim.model import architecture
from gradatim.model.architecture import PublishedGPT
from gradatim.model.hardware import quiet
from gradatim.model.settings import PRESETS
from gradatim.model.tokenizer import character_tokenizer, separate_texts, word_level_tokenizer

CONTEXT = 256


def samples(count: int = 16) -> pa.Table:
    """TinyPy programs with their output."""
    return programs.generate(count, seed=3).table


def tokenizer_for(preset: str, table: pa.Table) -> Any:
    """Characters for the GPT-2 presets, whose vocabulary must be small, and phrases for the others."""
    texts = list(separate_texts(table))
    if PRESETS.get(preset).family in ("gpt", "gpt2"):
        return character_tokenizer(texts)
    return word_level_tokenizer(texts, 256)


def student(folder: Path, preset: str, table: pa.Table) -> Path:
    """A model folder. A new model predicts the same whatever it attends to, so its weights are perturbed.

    Biases that the preset ``paper`` does not have stay zero: its folder has the bias of the head in place of that of
    the last norm, which is zero when the folder is opened again.
    """
    tokenizer = tokenizer_for(preset, table)
    special = {"pad_token_id": 0, "eos_token_id": 1}
    model: Any = architecture.create(preset, vocabulary=len(tokenizer), context=CONTEXT, special=special, seed=0)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if isinstance(model, PublishedGPT) and not PublishedGPT.is_trained(name):
                continue
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.08)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
