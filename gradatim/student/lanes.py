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
        drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
        if count < 2 or device().type != "cpu" or train.compile or drops or train.size < 2 * count:
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

        parts = [part for batch in batches for part in parted(batch, self.count)]
        found = list(self.pool.map(one, parts))
        for parameter, *gradients in zip(self.parameters, *(each for _, each in found), strict=True):
            there = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.stack(there).sum(dim=0) if there else None
        return torch.stack([own for own, _ in found]).sum(dim=0)

    def close(self) -> None:
        """Let the threads end."""
        if self.pool is not None:
            self.pool.shutdown()


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
