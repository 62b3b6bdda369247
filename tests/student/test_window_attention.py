"""Attention within a window: outputs and gradients are those of masked scores, and nothing of it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gradatim.model.architecture import create, sliding_window_of
from gradatim.model.settings import TrainSettings
from gradatim.model.window_attention import LARGEST, WINDOWED, is_windowed, select_attention, window_attention
from gradatim.training.batches import Batch
from gradatim.training.losses import make_outputs, tensors

LENGTH = 40
SEGMENTS = np.array([[0] * 1 + [1] * 2 + [2] * 17 + [3] * 20, [0] * 33 + [1] * 7])


def model_of(preset: str = "modern") -> Any:
    return create(preset, vocabulary=50, context=256, special={"pad_token_id": 0, "eos_token_id": 1}, seed=1)


def batch() -> Batch:
    tokens = np.random.default_rng(2).integers(2, 50, (2, LENGTH))
    return Batch(tokens, tokens, np.ones_like(tokens, dtype=bool), SEGMENTS)


def without_context(implementation: str, length: int) -> torch.Tensor:
    model = model_of()
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(2, 2 + length)[None] % 50).logits
    return logits


def outputs_and_gradients(implementation: str | None, length: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model = model_of()
    if implementation is None:
        select_attention(model, length)
    else:
        model.set_attn_implementation(implementation)
    forward = make_outputs(model, TrainSettings(max_length=length, precision="fp32"))
    inputs, _, _, positions, mask = tensors(batch())
    logits = forward(inputs, positions, mask).logits
    logits.square().mean().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("length", "implementation"), [(LENGTH, "eager"), (256, "sdpa")])
def test_outputs_and_gradients_are_those_of_masked_scores(length: int, implementation: str) -> None:
    logits, gradients = outputs_and_gradients(None, length)
    expected, expected_gradients = outputs_and_gradients(implementation, length)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(expected_gradients) > 20
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("length", [LENGTH, 200])
def test_a_model_without_a_given_mask_has_the_same_outputs(length: int) -> None:
    torch.testing.assert_close(without_context(WINDOWED, length), without_context("eager", length))


def test_grouped_heads_and_dropout() -> None:
    torch.manual_seed(3)
    query, (key, value) = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 4, 9, 8)
    visible = torch.ones(2, 9, 3, dtype=torch.bool)
    visible[:, 0, 1:] = visible[:, 1, 2] = False
    kept = window_attention(query, key, value, visible, 0.5, 0.0)
    columns = torch.arange(9)
    mask = (columns[:, None] - columns >= 0) & (columns[:, None] - columns < 3)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.5)
    torch.testing.assert_close(kept, expected)
    assert window_attention(query, key, value, visible, 0.5, 1.0).abs().sum() == 0
    fewer = [states[:, ::2] for states in (key, value)]
    repeated = [states.repeat_interleave(2, dim=1) for states in fewer]
    two, _ = ALL_ATTENTION_FUNCTIONS[WINDOWED](torch.nn.Module(), query, *fewer, visible, scaling=0.5)
    torch.testing.assert_close(two, window_attention(query, *repeated, visible, 0.5, 0.0).transpose(1, 2))


def test_it_is_for_models_with_small_windows_and_is_in_no_saved_model(tmp_path: Path) -> None:
    chosen = {}
    for preset in ("modern", "modern-small", "llama", "gpt2-tied"):
        model = model_of(preset)
        select_attention(model, 64)
        chosen[preset] = is_windowed(model)
        assert chosen[preset] == (0 < sliding_window_of(model) <= LARGEST)
        model.save_pretrained(tmp_path / preset)
        assert WINDOWED not in (tmp_path / preset / "config.json").read_text()
    assert chosen == {"modern": True, "modern-small": True, "llama": False, "gpt2-tied": False}
    large = model_of()
    large.config.sliding_window = LARGEST + 1
    select_attention(large, 64)
    assert not is_windowed(large)
