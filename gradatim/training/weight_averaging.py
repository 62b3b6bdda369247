"""Stochastic weight averaging: the mean of the weights after each optimizer step (arXiv 1803.05407).

A learning rate that decays to zero makes the last steps the smallest ones, so that the last samples of a curriculum
change the model least; with a constant rate the mean of the last weights takes the place of the decay (arXiv
2511.18903). The mean is kept in fp32 beside the weights that are trained, four bytes a trainable parameter, and is part
of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_swa_multi_avg_fn

from .sharding import divided, gathered, reshard

COUNT = "count"
"""The entry of the number of averaged steps among the tensors of a checkpoint; no parameter has this name."""


class WeightAverage:
    """The mean of the trainable parameters of a model over the steps after the progress ``start`` (0 to 1), in fp32.

    Auxiliary modules that the model gets later are not averaged. Of a sharded model each process averages its part.
    """

    def __init__(self, model: nn.Module, start: float) -> None:
        self.model, self.start = model, start
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.means: dict[str, torch.Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def update(self, progress: float) -> None:
        """Add the weights after a step that ends at ``progress`` to the mean, if that is after the start."""
        if progress <= self.start:
            return
        average = get_swa_multi_avg_fn()
        for name, value in self.parameters.items():
            present = value.detach().float()
            if self.count:
                average([self.means[name]], [present], self.count)
            else:
                self.means[name] = present.clone()
        self.count += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters their means within the block; without an update they stay as they are."""
        trained = {name: self.parameters[name].detach().clone() for name in self.means}
        self._assign(self.means)
        try:
            yield
        finally:
            self._assign(trained)

    @torch.no_grad()
    def _assign(self, values: Mapping[str, torch.Tensor]) -> None:
        reshard(self.model)
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The means and their count for safetensors; nothing before the first update. Sharded: a collective."""
        if not self.count:
            return {}
        whole = {name: gathered(mean).cpu().contiguous() for name, mean in self.means.items()}
        return {**whole, COUNT: torch.tensor(self.count)}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of ``tensors``. Raises ``KeyError`` when a parameter has no mean of its shape."""
        self.count = int(tensors[COUNT])
        for name, value in self.parameters.items():
            if tensors[name].shape != value.shape:
                raise KeyError(name)
            self.means[name] = divided(tensors[name].to(value.device), value)
