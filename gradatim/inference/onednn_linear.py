"""Which routine multiplies a student's matrices while it is only read from?

torch hands single-precision products on a CPU to MKL, which on processors of other makers keeps to AVX2 even where
they have AVX-512. oneDNN, which torch carries as well, does not, and takes weights that are packed once for many
products: for the shapes of a small student it is more than twice as fast on such a processor. For as long as
``quick_products`` lasts, every plain linear layer of a model (``torch.nn.Linear`` and the ``Conv1D`` of
transformers) multiplies that way; afterwards the model is as it was.

The numbers stay 32 bits wide. A sum may be taken in another order, which moves last bits, as another batch size does.
Nothing here is for training: packed weights do not follow an optimizer, and no gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

__all__ = ["at_rest", "quick_products"]


Product = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def quick_products(model: Any) -> Iterator[None]:
    """Inside, ``model`` multiplies by oneDNN where that is known to be quicker; elsewhere nothing changes.

    The weights must not be changed inside.
    """
    swapped = [module for module in model.modules() if _is_plain(module)] if _can_pack() else []
    for module in swapped:
        module.forward = _packed(module)
    try:
        yield
    finally:
        for module in swapped:
            del module.forward


def _can_pack() -> bool:
    """Whether this processor gains by it, and this torch has the two operators, which are not of its public face."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    has = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return bool(wide and has and hasattr(torch.ops.mkldnn, "_reorder_linear_weight"))


def _is_plain(module: Any) -> bool:
    """A linear layer in single precision on the CPU whose ``forward`` nobody else has replaced."""
    if type(module) not in (torch.nn.Linear, Conv1D) or "forward" in vars(module):
        return False
    return bool(module.weight.dtype == torch.float32 and module.weight.device.type == "cpu")


def _packed(module: Any) -> Product:
    weight = module.weight.detach()
    # Conv1D keeps (in, out) where Linear keeps (out, in).
    weight = weight.t().contiguous() if isinstance(module, Conv1D) else weight.contiguous()
    weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    bias = None if module.bias is None else module.bias.detach()

    def product(inputs: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return made

    return product


_ROWS = 2048
"""For how many rows the weights are laid out: about what a batch of programs has. Any other number works too."""


@contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """No gradients and no dropout inside, products as above; the model's mode is restored on the way out."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), quick_products(model):
            yield
    finally:
        model.train(training)
