"""Is Muon over batches of matrices torch's Muon?"""

from __future__ import annotations

import copy

import pytest
import torch

from gradatim.training.optimizers import Muon, orthogonalize

SHAPES = [(12, 12), (12, 40), (40, 12), (12, 12), (40, 12), (7, 12)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}


def matrices(seed: int) -> list[torch.nn.Parameter]:
    drawn = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for shape in SHAPES]


def learn(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        drawn = torch.Generator().manual_seed(100 + step)
        for each in weights:
            each.grad = torch.randn(each.shape, generator=drawn)
        optimizer.step()


def test_it_steps_as_torch_does() -> None:
    ours, theirs = matrices(1), matrices(1)
    learn(Muon(ours, **SETTINGS), ours, range(5))
    learn(torch.optim.Muon(theirs, **SETTINGS), theirs, range(5))
    for start, one, other in zip(matrices(1), ours, theirs, strict=True):
        moved = (other - start).norm()
        assert moved > 0.05
        assert (one - other).norm() < 0.02 * moved  # bf16 has three digits


def test_it_goes_on_from_torchs_state() -> None:
    ours, theirs = matrices(2), matrices(2)
    before = torch.optim.Muon(theirs, **SETTINGS)
    learn(before, theirs, range(3))
    after = Muon(ours, **SETTINGS)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for one, other in zip(ours, theirs, strict=True):
        one.data.copy_(other)
    learn(after, ours, range(3, 5))
    learn(before, theirs, range(3, 5))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=0.004)


def test_the_same_steps_give_the_same_bits() -> None:
    one, other = matrices(3), matrices(3)
    for weights in (one, other):
        learn(Muon(weights, **SETTINGS), weights, range(3))
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_matrix_without_gradient_stays() -> None:
    weights = matrices(4)
    learn(optimizer := Muon(weights, **SETTINGS), weights, range(1))
    before = weights[1].detach().clone()
    weights[0].grad = torch.ones_like(weights[0])
    weights[1].grad = None
    optimizer.step()
    assert torch.equal(weights[1], before)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shape", [(20, 20), (20, 60), (60, 20)])
def test_singular_values_come_near_one(shape: tuple[int, int], native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradatim.model.hardware.native_bf16", lambda: native)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    settings = {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "eps": 1e-7}
    (found,) = orthogonalize([matrix], settings)
    assert found.shape == matrix.shape
    assert found.dtype == (torch.bfloat16 if native else torch.float32)
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.3
    assert values.max() < 1.5
