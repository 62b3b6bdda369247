"""Facts about how a student's matrices are multiplied while it is only read from."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from gradatim.model.hardware import onednn_products

HERE = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
needs_avx512 = pytest.mark.skipif(not HERE, reason="only processors with AVX-512 gain by it")


def layers() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [torch.nn.Linear(20, 33), torch.nn.Linear(20, 33, bias=False), Conv1D(33, 20)]


def swapped(model: torch.nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


@torch.no_grad()
def test_every_kind_of_layer_gives_the_same_numbers_up_to_rounding():
    inputs = torch.randn(7, 5, 40)
    for layer in layers():
        for given in (inputs[..., :20], inputs[..., ::2], inputs[0, :, :20], inputs[0, 0, :20], inputs[:0, :, :20]):
            expected = layer(given)
            with onednn_products(layer):
                torch.testing.assert_close(layer(given), expected, rtol=1e-5, atol=1e-5)


@needs_avx512
def test_the_quick_way_is_taken_inside_and_left_at_the_end_also_after_an_error():
    model = torch.nn.Sequential(*layers())
    with onednn_products(model):
        assert swapped(model) == 3
    assert swapped(model) == 0
    with pytest.raises(ZeroDivisionError), onednn_products(model):
        raise ZeroDivisionError
    assert swapped(model) == 0


@needs_avx512
def test_weights_that_changed_meanwhile_are_the_ones_used():
    layer = torch.nn.Linear(4, 4)
    with torch.no_grad():
        for factor in (1, 2):
            layer.weight.fill_(factor)
            layer.bias.zero_()
            with onednn_products(layer):
                assert layer(torch.ones(4)).tolist() == [4.0 * factor] * 4


def test_other_precisions_and_replaced_forwards_are_left_alone():
    half = torch.nn.Linear(4, 4).to(torch.bfloat16)
    replaced = torch.nn.Linear(4, 4)
    replaced.forward = mine = lambda inputs: inputs
    special = type("Special", (torch.nn.Linear,), {})(4, 4)
    for layer in (half, special):
        with onednn_products(layer):
            assert swapped(layer) == 0
    with onednn_products(replaced):
        assert replaced.forward is mine
    assert replaced.forward is mine


@torch.no_grad()
def test_a_whole_model_says_the_same_and_can_still_be_copied_and_trained():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=30, n_positions=40, n_embd=24, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 30, (3, 40))
    expected = model(ids).logits
    with onednn_products(model):
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(copy.deepcopy(model)(ids).logits, expected)
    with torch.enable_grad():
        model(ids, labels=ids).loss.backward()
    assert model.transformer.h[0].mlp.c_fc.weight.grad.abs().sum() > 0
