"""What does this machine offer a student, and what makes its arithmetic repeatable?"""

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
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


@cache
def native_bf16() -> bool:
    """Whether bf16 products are computed natively: elsewhere bf16 is several times slower than fp32."""
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
    """The type in which products are computed under ``auto``, ``fp32`` or ``bf16``."""
    if precision == "bf16" or (precision == "auto" and native_bf16()):
        return torch.bfloat16
    return torch.float32


def cpp_compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` needs on a CPU; None where there is none."""
    return next((path for name in ("g++", "c++", "clang++") if (path := shutil.which(name))), None)


def attention(length: int) -> str:
    """The attention of transformers that trains fastest on lines of ``length`` tokens.

    On a CPU the backward pass of torch's fused attention is made for long lines: at 256 lines of 32 tokens it took
    half of a whole step, ten times as long as plain products and a softmax; at 256 tokens it wins (docs/log.md).
    """
    return "eager" if device().type == "cpu" and length <= 128 else "sdpa"


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic algorithms inside, the caller's choice outside; a compiled step needs it to repeat its bits."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device().type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers draws progress bars of its own when it loads and saves; not inside this context."""
    before = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            transformers.utils.logging.enable_progress_bar()


def use_threads(count: int) -> None:
    """Compute with ``count`` threads; 0 is torch's own choice. The count changes the last bits of sums."""
    own = _own_threads()
    torch.set_num_threads(count or own)


@cache
def _own_threads() -> int:
    """What torch chose for this process before anybody asked for something else."""
    return torch.get_num_threads()


@cache
def keep_memory() -> bool:
    """Keep the memory that tensors on a CPU have given back for the next ones; whether that could be asked for.

    Otherwise glibc returns large blocks to the system, and every step takes the same memory anew, page by page: a tenth
    of a small student's step and more (docs/log.md). The process stays as large as it has ever been. Elsewhere than on
    glibc, or where the user has chosen (``MALLOC_…``, ``GLIBC_TUNABLES``), nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    return all([mallopt(option, value) == 1 for option, value in _KEPT.items()])


_KEPT = {-3: 1 << 25, -1: (1 << 31) - 1, -2: 1 << 26}
"""M_MMAP_THRESHOLD, the most that glibc takes; M_TRIM_THRESHOLD, so that nothing is given back; M_TOP_PAD: the memory
grows by 64 MiB at a time. Numbers of <malloc.h>."""


def environment() -> dict[str, Any]:
    """What the bits of a run depend on besides its recipe: kept as ``environment.json``."""
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
    """The commit of the checkout this code runs from, with ``-dirty`` when it was changed; None elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an installed package inside somebody's own repository
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
