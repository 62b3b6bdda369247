"""Executors that the tests share: two processes of this machine, and a Ray of two CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gradatim.executors import Executor, open_executor
from gradatim.executors.local import LocalExecutor


@pytest.fixture(scope="session")
def two_processes() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def ray_of_two(temporary_folder_of_worker: Path) -> Iterator[Executor]:
    """Ray on this machine; ``--on ray`` uses it while it runs. Starting it takes seconds."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(temporary_folder_of_worker))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import the functions of the tests
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        executor = open_executor("ray")
        yield executor
        executor.shutdown()
        assert ray.is_initialized()  # opened by another caller, so not closed
        ray.shutdown()
