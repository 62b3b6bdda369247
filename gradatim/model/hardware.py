"""Hardware capabilities of this machine, and the settings that make computation deterministic.

Linear layers with prepacked oneDNN weights, for fp32 inference on CPUs with AVX-512.

torch computes fp32 products on a CPU with MKL, which uses only AVX2 on AVX-512 processors of other vendors. oneDNN, a
part of torch, uses AVX-512 and weights that are packed once for many products: for the shapes of a small model it is
more than twice as fast on such a processor. Within ``onednn_products`` all plain linear layers of a model
(``torch.nn.Linear`` and the ``Conv1D`` of transformers) use it.

The precision stays fp32. The order of a sum may differ, which changes the last bits, as another batch size does.
For inference only: packed weights do not follow an optimizer, and no gradient passes through them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@cache
def device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


@cache
def native_bf16() -> bool:
    """Whether bf16 products are native; without that, bf16 is several times slower than fp32."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16"} & _flags())


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def compute_type(precision: str) -> torch.dtype:
    """The dtype of matrix products for the precision ``auto``, ``fp32`` or ``bf16``."""
    if precision == "bf16" or (precision == "auto" and native_bf16()):
        return torch.bfloat16
    return torch.float32


def cpp_compiler() -> str | None:
    """The path of the C++ compiler that ``torch.compile`` needs on a CPU, or None."""
    return next((path for name in ("g++", "c++", "clang++") if (path := shutil.which(name))), None)


def attention(length: int) -> str:
    """The attention implementation of transformers that trains fastest on sequences of ``length`` tokens.

    On a CPU the backward pass of torch's fused attention is slow for short sequences: for 256 sequences of 32 tokens it
    took half of a training step, ten times as long as eager attention; at 256 tokens it is faster (docs/log.md).
    """
    return "eager" if device().type == "cpu" and length <= 128 else "sdpa"


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic algorithms within the context; a compiled step is bit-reproducible only with them."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device().type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def random_state() -> dict[str, torch.Tensor]:
    """The states of torch's random generators by device type: the CPU's and that of the current accelerator."""
    states = {"cpu": torch.get_rng_state()}
    if device().type != "cpu":
        states[device().type] = torch.get_device_module(device()).get_rng_state()
    return states


def set_random_state(states: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``random_state`` returned; a device without a stored state keeps its own."""
    torch.set_rng_state(states["cpu"])
    if device().type in states and device().type != "cpu":
        torch.get_device_module(device()).set_rng_state(states[device().type])


@contextlib.contextmanager
def forked_random_state() -> Iterator[None]:
    """Torch's random states are restored on exit."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers (for loading and saving) within the context."""
    before = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            transformers.utils.logging.enable_progress_bar()


def use_threads(count: int, processes: int = 1) -> None:
    """Compute with ``count`` threads; 0 is torch's default, divided among the ``processes`` of this machine unless
    OMP_NUM_THREADS is set for each of them. The count changes the last bits of sums.
    """
    default = _default_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        default = max(1, default // processes)
    torch.set_num_threads(count or default)


@cache
def _default_threads() -> int:
    """The thread count of torch at the first call, which precedes every change."""
    return torch.get_num_threads()


@cache
def keep_memory() -> bool:
    """Have glibc retain freed CPU memory for later tensors; return whether the allocator accepted the options.

    By default glibc returns large blocks to the system, and each step faults the same pages in again: a tenth of the
    step time of a small model, or more (docs/log.md). The process keeps its peak size. Nothing changes without
    glibc, or when the environment configures the allocator (``MALLOC_…``, ``GLIBC_TUNABLES``).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    return all([mallopt(option, value) == 1 for option, value in _MALLOC_OPTIONS.items()])


_MALLOC_OPTIONS = {-3: 1 << 25, -1: (1 << 31) - 1, -2: 1 << 26}
"""Option numbers of <malloc.h>: M_MMAP_THRESHOLD at the maximum of glibc; M_TRIM_THRESHOLD so high that no memory is
returned; M_TOP_PAD: the heap grows by 64 MiB at a time."""


def environment() -> dict[str, Any]:
    """The software and hardware that a run's exact results depend on; stored as ``environment.json``."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "gradatim": version("gradatim"),
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": str(device()),
        "threads": torch.get_num_threads(),
        "native_bf16": native_bf16(),
    }


def _commit() -> str | None:
    """The commit of this source checkout, with ``-dirty`` if it is modified; None without a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed package, perhaps inside the repository of a user
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


Product = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def onednn_products(model: PreTrainedModel) -> Iterator[None]:
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
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients, with ``onednn_products``; the model's mode is restored on exit."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), onednn_products(model):
            yield
    finally:
        model.train(training)
