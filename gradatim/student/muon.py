"""How does Muon step over many small matrices without waiting for each?

torch's Muon goes from matrix to matrix. A student of a million numbers has dozens of the same shape, too small to keep
a processor busy one by one, so here those of one shape go through the Newton–Schulz steps together, tall ones lying on
their side. State, settings and arithmetic are torch's (Jordan 2024; the rate's scale is that of arXiv 2502.16982) but
for two things: products are summed in another order, and where the processor only emulates bf16 they are taken in
fp32, which takes a twenty-fifth of the time there (docs/log.md). So figures agree to bf16's precision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from .hardware import compute_type

__all__ = ["Muon", "orthogonal"]


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with ``match_rms_adamw``, a batch of matrices at a time."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step. A ``closure`` is not called: the trainer has its gradients already."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    alike[min(rows, columns), max(rows, columns)].append(parameter)
            for (_, longest), matrices in alike.items():
                updates = orthogonal([self._nesterov(each, group) for each in matrices], group)
                rate = 0.2 * math.sqrt(longest) * group["lr"]
                for parameter, update in zip(matrices, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-rate)

    def _nesterov(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """The gradient led on by its average."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"])


def orthogonal(matrices: list[torch.Tensor], settings: dict[str, Any]) -> list[torch.Tensor]:
    """Each of the matrices, which have one shape or its transpose, with singular values near 1.

    bf16 where that is native, else fp32. ``settings``: ``ns_coefficients``, ``ns_steps`` and ``eps``, as in torch.
    """
    a, b, c = settings["ns_coefficients"]
    tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
    x = torch.stack([matrix.mT if turn else matrix for matrix, turn in zip(matrices, tall, strict=True)])
    x = x.to(compute_type("auto"))
    x /= torch.linalg.matrix_norm(x, keepdim=True).clamp(min=settings["eps"])
    for _ in range(settings["ns_steps"]):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return [matrix.mT if turn else matrix for matrix, turn in zip(x, tall, strict=True)]
