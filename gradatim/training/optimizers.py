"""Optimizers (AdamW; Muon for hidden matrices with AdamW for the remaining parameters) and learning-rate schedules.

A learning-rate schedule is a function of progress in [0, 1]: progress through the stage when the optimizer restarts at
each stage, through the budget of the whole run when it continues. The decay takes the progress at the beginning of a
step, the warm-up that at its end, so that the first step of n warm-up steps has 1/n of the rate and not 0.

torch's Muon updates one matrix after the other. A model of a million parameters has dozens of the same shape, too small
to use a processor well, so here all matrices of one shape go through the Newton–Schulz iteration as a batch, tall ones
transposed. State, settings and arithmetic are torch's (Jordan 2024; learning-rate scale of arXiv 2502.16982) with two
exceptions: products are summed in another order, and on processors that emulate bf16 they are computed in fp32, which
takes a twenty-fifth of the time there (docs/log.md). Results agree to the precision of bf16.
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
from ..model.settings import LRSchedulerSettings, OptimizerSettings
from .sharding import divided, gathered


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with ``match_rms_adamw`` that updates all matrices of one shape as a batch."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One optimizer step. A ``closure`` is not called: the trainer has computed the gradients."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    by_shape[min(rows, columns), max(rows, columns)].append(parameter)
            for (_, longest), matrices in by_shape.items():
                updates = orthogonalize([self._nesterov(matrix, group) for matrix in matrices], group)
                rate = 0.2 * math.sqrt(longest) * group["lr"]
                for parameter, update in zip(matrices, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-rate)

    def _nesterov(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """The gradient with Nesterov momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"])


def orthogonalize(matrices: list[torch.Tensor], settings: dict[str, Any]) -> list[torch.Tensor]:
    """Newton–Schulz orthogonalisation of matrices of one shape or its transpose: singular values near 1.

    Computed in bf16 where that is native, else in fp32. ``settings``: ``ns_coefficients``, ``ns_steps`` and ``eps``, as
    in torch.
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


def make_lr_schedule(settings: LRSchedulerSettings) -> Callable[[float, float], float]:
    """The factor on the learning rate of a step as a function of the progress before and after it, in [0, 1].

    ``constant``; ``paper_steps``, ×0.1 at 70, 80 and 90 % (arXiv 2407.10194); ``warmup_decay``, linear warm-up,
    constant, linear decay to ``floor``; ``cosine``, linear warm-up, then half a cosine to ``floor``.
    """
    schedules: dict[str, Callable[[float, float], float]] = {
        "constant": lambda progress, after: 1.0,
        "paper_steps": lambda progress, after: float(0.1 ** sum(progress >= step for step in (0.7, 0.8, 0.9))),
        "warmup_decay": partial(_warmup_decay, settings),
        "cosine": partial(_cosine, settings),
    }
    return schedules[settings.name]


def _warmup(settings: LRSchedulerSettings, after: float) -> float:
    return min(1.0, after / settings.warmup_ratio) if settings.warmup_ratio else 1.0


def _warmup_decay(settings: LRSchedulerSettings, progress: float, after: float) -> float:
    remaining = min(1.0, (1.0 - progress) / settings.decay_ratio) if settings.decay_ratio else 1.0
    return _warmup(settings, after) * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * max(remaining, 0.0))


def _cosine(settings: LRSchedulerSettings, progress: float, after: float) -> float:
    decayed = min(1.0, max(0.0, (progress - settings.warmup_ratio) / (1 - settings.warmup_ratio)))
    return _warmup(settings, after) * (
        settings.min_lr_ratio + (1 - settings.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * decayed))
    )


@dataclass(frozen=True)
class Optimizers:
    """Torch optimizers that step together; each parameter group has a base learning rate."""

    optimizers: tuple[torch.optim.Optimizer, ...]

    def step(self, factor: float) -> None:
        """Step every optimizer at its base rate times ``factor``, then clear the gradients."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_rate"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state of all optimizers by name, ``optimizer.parameter.entry``, as plain tensors for safetensors.

        Of sharded parameters the whole state: a collective.
        """
        return {
            f"{index}.{parameter}.{entry}": gathered(torch.as_tensor(value).detach()).cpu().contiguous()
            for index, optimizer in enumerate(self.optimizers)
            for parameter, state in optimizer.state_dict()["state"].items()
            for entry, value in state.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load a state that ``tensors`` returned."""
        for index, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                number, parameter, entry = name.split(".", 2)
                if int(number) == index:
                    state.setdefault(int(parameter), {})[entry] = divided(tensor, parameters[int(parameter)])
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def make_optimizers(model: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """AdamW on all parameters, or Muon on the hidden matrices and AdamW on embeddings, norms and the head.

    Weight decay applies to matrices only, unless ``weight_decay_on`` is ``all``. Auxiliary modules have an AdamW of
    their own, the last of the optimizers, so that stages with and without them can load each other's state.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    auxiliary = [parameter for name, parameter in trainable if name.startswith("auxiliary.")]
    named = [(name, parameter) for name, parameter in trainable if not name.startswith("auxiliary.")]
    optimizers = _model_optimizers(named, settings)
    return Optimizers((*optimizers, _adamw(auxiliary, settings)) if auxiliary else optimizers)


def _model_optimizers(
    named: list[tuple[str, nn.Parameter]], settings: OptimizerSettings
) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers of the model without auxiliary modules."""
    hidden = {
        name for name, parameter in named if parameter.ndim == 2 and not any(part in name for part in _EMBEDDINGS)
    }
    if settings.name == "adamw":
        return (_adamw([parameter for _, parameter in named], settings),)
    muon = Muon(
        [
            {
                "params": [parameter for name, parameter in named if name in hidden],
                "base_rate": settings.muon_learning_rate,
            }
        ],
        lr=settings.muon_learning_rate,
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
    vector_decay = settings.weight_decay if settings.weight_decay_on == "all" else 0.0
    return torch.optim.AdamW(
        [
            {
                "params": [parameter for parameter in parameters if parameter.ndim >= 2],
                "weight_decay": settings.weight_decay,
                "base_rate": rate,
            },
            {
                "params": [parameter for parameter in parameters if parameter.ndim < 2],
                "weight_decay": vector_decay,
                "base_rate": rate,
            },
        ],
        lr=rate,
        betas=settings.betas,
        fused=True,
    )
