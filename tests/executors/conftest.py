"""Executors that the tests share: two processes of this machine, and a Ray cluster of two CPUs with a token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_tasks import TOKEN

from gradatim.executors import Executor, open_executor
from gradatim.executors.local import LocalExecutor

ATTEMPTS = 4
"""Ray gives up its own start after 30 seconds, which a busy machine exceeds."""


@pytest.fixture(scope="session")
def two_processes() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def ray_address(temporary_folder_of_worker: Path) -> Iterator[str]:
    """The address of a cluster that accepts ``TOKEN`` only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {"HOME": str(temporary_folder_of_worker), "RAY_TMPDIR": str(temporary_folder_of_worker)}
    # Workers import the functions of the tests.
    options = {"PYTHONPATH": str(Path(__file__).parent), "RAY_worker_niceness": "0"}
    environment = os.environ | TOKEN | folders | options
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    for _ in range(ATTEMPTS):
        head = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert head.stdout is not None
        if any("Ray runtime started" in line for line in head.stdout):
            break
        head.communicate()
    else:
        pytest.fail("Ray did not start")
    yield f"127.0.0.1:{port}"
    head.terminate()
    head.communicate()


@pytest.fixture(scope="session")
def ray_of_two(ray_address: str) -> Iterator[Executor]:
    """The connected cluster; ``--on ray`` uses it too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        executor = open_executor(ray_address)  # Ray reads the token's variables when it is imported
        import ray

        yield executor
        open_executor("ray").shutdown()
        assert ray.is_initialized()  # opened by another caller, so not closed
        executor.shutdown()
        assert not ray.is_initialized()
