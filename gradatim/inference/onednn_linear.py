"""Linear layers with prepacked oneDNN weights, for fp32 inference on CPUs with AVX-512.

torch computes fp32 products on a CPU with MKL, which uses only AVX2 on AVX-512 processors of other vendors. oneDNN, a
part of torch, uses AVX-512 and weights that are packed once for many products: for the shapes of a small model it is
more than twice as fast on such a processor. Within ``onednn_products`` all plain linear layers of a model
(``torch.nn.Linear`` and the ``Conv1D`` of transformers) use it.

The precision stays fp32. The order of a sum may differ, which changes the last bits, as another batch size does.
For inference only: packed weights do not follow an optimizer, and no gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

__all__ = ["evaluation_mode", "onednn_products"]


Product = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def onednn_products(model: Any) -> Iterator[None]:
    """Use oneDNN for the linear layers of ``model`` within the context, on processors where it is faster.

    The weights must not change within the context.
    """
    packed = [module for module in model.modules() if _is_plain(module)] if _can_pack() else []
    for module in packed:
        module.forward = _packed_forward(module)
    try:
        yield
    finally:
        for module in packed:
            del module.forward


def _can_pack() -> bool:
    """Whether oneDNN is faster on this processor, and this torch has the two operators, which are not public."""
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return bool(avx512 and onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight"))


def _is_plain(module: Any) -> bool:
    """Whether ``module`` is an fp32 linear layer on the CPU with its original ``forward``."""
    if type(module) not in (torch.nn.Linear, Conv1D) or "forward" in vars(module):
        return False
    return bool(module.weight.dtype == torch.float32 and module.weight.device.type == "cpu")


def _packed_forward(module: Any) -> Product:
    weight = module.weight.detach()
    # Conv1D keeps (in, out) where Linear keeps (out, in).
    weight = weight.t().contiguous() if isinstance(module, Conv1D) else weight.contiguous()
    weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    bias = None if module.bias is None else module.bias.detach()

    def product(inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return result

    return product


_ROWS = 2048
"""Number of rows that the packed layout is optimised for: about that of a batch of programs. Not a limit."""


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients, with ``onednn_products``; the model's mode is restored on exit."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), onednn_products(model):
            yield
    finally:
        model.train(training)
