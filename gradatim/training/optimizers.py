"""How does Muon step over many small matrices without waiting for each?

torch's Muon goes from matrix to matrix. A student of a million numbers has dozens of the same shape, too small to keep
a processor busy one by one, so here those of one shape go through the Newton–Schulz steps together, tall ones lying on
their side. State, settings and arithmetic are torch's (Jordan 2024; the rate's scale is that of arXiv 2502.16982) but
for two things: products are summed in another order, and where the processor only emulates bf16 they are taken in
fp32, which takes a twenty-fifth of the time there (docs/log.md). So figures agree to bf16's precision.

How do gradients change the weights, and how fast?

Optimizers (AdamW; Muon on matrices with AdamW on the rest) and learning-rate shapes, which are functions of
progress in [0, 1]: progress through the stage when the optimizer restarts at each stage, through the run's whole
budget when it continues. Nothing here computes a loss.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..model.hardware import compute_type
from ..model.settings import OptimizerSettings, ShapeSettings

__all__ = ["Muon", "Optimizers", "make_optimizers", "make_shape", "orthogonal"]


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


def make_shape(settings: ShapeSettings) -> Callable[[float], float]:
    """The factor on the learning rate at a progress in [0, 1].

    ``constant``; ``paper_steps``, ×0.1 at 70, 80 and 90 % (arXiv 2407.10194); ``warmup_decay``, linear warm-up,
    constant, linear decay to ``floor``; ``cosine``, linear warm-up, then a half cosine to ``floor``.
    """
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda progress: 1.0,
        "paper_steps": lambda progress: float(0.1 ** sum(progress >= at for at in (0.7, 0.8, 0.9))),
        "warmup_decay": partial(_warmup_decay, settings),
        "cosine": partial(_cosine, settings),
    }
    return shapes[settings.name]


def _warmup(settings: ShapeSettings, progress: float) -> float:
    return min(1.0, progress / settings.warmup) if settings.warmup else 1.0


def _warmup_decay(settings: ShapeSettings, progress: float) -> float:
    left = min(1.0, (1.0 - progress) / settings.decay) if settings.decay else 1.0
    return _warmup(settings, progress) * (settings.floor + (1 - settings.floor) * max(left, 0.0))


def _cosine(settings: ShapeSettings, progress: float) -> float:
    along = min(1.0, max(0.0, (progress - settings.warmup) / (1 - settings.warmup)))
    return _warmup(settings, progress) * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * along)))


@dataclass(frozen=True)
class Optimizers:
    """Torch optimizers that step together; each parameter group keeps its own base rate."""

    parts: tuple[torch.optim.Optimizer, ...]

    def step(self, factor: float) -> None:
        """Step every part at its base rate times ``factor``, then clear the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["base_rate"] * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The whole state by name, ``part.parameter.entry``; plain tensors, ready for safetensors."""
        return {
            f"{at}.{parameter}.{entry}": torch.as_tensor(value).detach().cpu().contiguous()
            for at, part in enumerate(self.parts)
            for parameter, state in part.state_dict()["state"].items()
            for entry, value in state.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what ``tensors`` gave."""
        for at, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                which, parameter, entry = name.split(".", 2)
                if int(which) == at:
                    state.setdefault(int(parameter), {})[entry] = tensor
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def make_optimizers(model: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """AdamW on everything, or Muon on the hidden matrices and AdamW on embeddings, norms and the head.

    Weight decay falls on matrices only, unless ``weight_decay_on`` says ``all``. What is learnt beside the student
    (``auxiliary``) has an AdamW of its own, the last part, so that a stage with it and one without take over each
    other's state.
    """
    every = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    beside = [parameter for name, parameter in every if name.startswith("auxiliary.")]
    named = [(name, parameter) for name, parameter in every if not name.startswith("auxiliary.")]
    own = _own(named, settings)
    return Optimizers((*own, _adamw(beside, settings)) if beside else own)


def _own(named: list[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers of the student itself."""
    hidden = {name for name, parameter in named if parameter.ndim == 2 and not any(k in name for k in _EMBEDDINGS)}
    if settings.name == "adamw":
        return (_adamw([parameter for _, parameter in named], settings),)
    muon = Muon(
        [
            {
                "params": [parameter for name, parameter in named if name in hidden],
                "base_rate": settings.matrix_rate,
            }
        ],
        lr=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        momentum=0.95,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    return muon, _adamw([parameter for name, parameter in named if name not in hidden], settings)


_EMBEDDINGS = ("embed", "wte", "wpe", "lm_head")


def _adamw(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    parameters = list(parameters)
    rate = settings.learning_rate
    beside = settings.weight_decay if settings.weight_decay_on == "all" else 0.0
    return torch.optim.AdamW(
        [
            {
                "params": [parameter for parameter in parameters if parameter.ndim >= 2],
                "weight_decay": settings.weight_decay,
                "base_rate": rate,
            },
            {
                "params": [parameter for parameter in parameters if parameter.ndim < 2],
                "weight_decay": beside,
                "base_rate": rate,
            },
        ],
        lr=rate,
        betas=settings.betas,
        fused=True,
    )
