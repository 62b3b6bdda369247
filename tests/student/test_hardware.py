"""Facts about what a process asks of its machine."""

import ctypes
import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from gradatim.model.hardware import keep_memory

DEFAULTS = {-1: 128 << 10, -3: 128 << 10}
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>, with which glibc starts."""


def page_faults() -> int:
    """Faults of fifty steps that take and give back eight blocks of 1.2 MB, 300 pages each; after as many before."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            blocks = [torch.ones(300_000) for _ in range(8)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_without_and_with() -> tuple[int, bool, int]:
    """Faults with the thresholds that glibc starts with, the result of ``keep_memory``, and faults after it."""
    torch.set_num_threads(1)
    for option, value in DEFAULTS.items():
        ctypes.CDLL(None).mallopt(option, value)
    return page_faults(), keep_memory(), page_faults()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_that_was_given_back_is_not_taken_anew():
    # A new process: one forked from a process that has opened a model has kept its memory already.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        anew, kept, faults = pool.submit(faults_without_and_with).result()
    assert kept
    assert faults < 300
    assert anew > 50 * 300


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_what_the_user_chose_for_memory_stands(name, monkeypatch):
    monkeypatch.setenv(name, "4")
    assert not keep_memory.__wrapped__()  # another test may have asked already
