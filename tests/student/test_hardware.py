"""Facts about what a process asks of its machine."""

import platform
import subprocess
import sys

import pytest

FRESH = """
import resource, torch
from gradatim.model.hardware import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        blocks = [torch.ones(300_000) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
if {asked}:
    print(keep_memory())
faults()
print(faults())
"""
"""Eight blocks of 1.2 MB are taken and given back fifty times; 300 pages each."""


def fresh(asked: bool, **environment: str) -> list[str]:
    code = FRESH.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_that_was_given_back_is_not_taken_anew():
    kept, faults = fresh(asked=True)
    assert kept == "True"
    assert int(faults) < 300
    (anew,) = fresh(asked=False, MALLOC_TRIM_THRESHOLD_="131072")
    assert int(anew) > 50 * 300


def test_what_the_user_chose_for_memory_stands():
    assert fresh(asked=True, GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] == "False"
