"""Hardware capabilities of this machine, and the settings that make computation deterministic."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

__all__ = [
    "attention",
    "compute_type",
    "cpp_compiler",
    "device",
    "environment",
    "keep_memory",
    "native_bf16",
    "quiet",
    "reproducible",
    "use_threads",
]


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


def use_threads(count: int) -> None:
    """Compute with ``count`` threads; 0 is torch's default. The count changes the last bits of sums."""
    default = _default_threads()
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
