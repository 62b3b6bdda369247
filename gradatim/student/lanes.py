"""How do several processor cores share a step of a small student?

A model of a million parameters gives each operation so little to do that parting the operations among cores loses most
of what it wins: on two cores a second thread inside the operations brought a third, and next to other work less than
nothing, since every operation waits for the slowest thread. So a batch is parted by lines instead: each *lane* takes
some lines through the model and back on a thread of its own that computes alone, and the gradients are added in the
order of the lanes. For a number of lanes the sums, and with them the weights, are the same bits on every run.

Lanes are for a CPU. One lane is used where several cannot be the same: with dropout, whose draws would depend on which
lane comes first, and in compiled steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .batches import Batch
from .hardware import device
from .settings import TrainSettings

__all__ = ["Lanes", "parted"]

_DROPPED = (
    "activation_dropout",
    "attention_dropout",
    "attn_pdrop",
    "dropout",
    "embd_pdrop",
    "hidden_dropout",
    "resid_pdrop",
)
"""What configurations call the shares that are dropped by functions instead of layers."""

Sums = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]
"""A batch's sums, and the loss that is differentiated."""


@dataclass
class Lanes:
    """Threads that each take a part of a batch. ``count`` 1 is the plain way: no thread, no parting."""

    parameters: Sequence[torch.nn.Parameter]
    count: int = 1
    pool: ThreadPoolExecutor | None = None

    @classmethod
    def of(cls, model: Any, train: TrainSettings) -> Lanes:
        """As many lanes as torch has threads, where lanes can be."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        count = torch.get_num_threads()
        if count < 2 or device().type != "cpu" or train.compile or _drops(model) or train.size < 2 * count:
            return cls(parameters)
        return cls(parameters, count, ThreadPoolExecutor(count, "lane", torch.set_num_threads, (1,)))

    def gradient(self, batches: Sequence[Batch], sums: Sums) -> torch.Tensor:
        """Leave the gradient of the summed losses of ``batches`` in the parameters; their sums, added up."""
        if self.pool is None:
            told = []
            for batch in batches:
                own, loss = sums(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                told.append(own.detach())
            return torch.stack(told).sum(dim=0)

        def one(part: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            own, loss = sums(part)
            return own.detach(), torch.autograd.grad(loss, self.parameters, allow_unused=True)

        told = []
        for batch in batches:  # one after the other: no more gradients are held than there are lanes
            for own, gradients in list(self.pool.map(one, parted(batch, self.count))):
                told.append(own)
                for parameter, gradient in zip(self.parameters, gradients, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return torch.stack(told).sum(dim=0)

    def close(self) -> None:
        """Let the threads end."""
        if self.pool is not None:
            self.pool.shutdown()


def _drops(model: Any) -> bool:
    """Whether the model drops anything while it learns, by a layer or by a number in its configuration."""
    layers = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return layers or any(getattr(getattr(model, "config", None), name, 0) for name in _DROPPED)


def parted(batch: Batch, count: int) -> list[Batch]:
    """The batch's lines in ``count`` parts of about one size, none empty; together the batch."""
    lines = len(batch.inputs)
    edges = [round(lines * at / count) for at in range(count + 1)]
    spans = [slice(start, stop) for start, stop in itertools.pairwise(edges) if stop > start]
    return [_part(batch, span) for span in spans]


def _part(batch: Batch, span: slice) -> Batch:
    """Some lines; the pairs among them are numbered anew."""
    lined = ("inputs", "labels", "answer", "segments", "second", "pairs")
    cut = {name: value[span] for name in lined if (value := getattr(batch, name)) is not None}
    if batch.pairs is not None and batch.rows is not None:
        here = np.unique(cut["pairs"][cut["pairs"] >= 0])
        number = np.full(len(batch.rows) + 1, -1, dtype=np.int64)
        number[here] = np.arange(len(here))
        cut |= {"pairs": number[cut["pairs"]], "rows": batch.rows[here]}  # -1 finds the last place, which stays -1
    return replace(batch, **cut)
