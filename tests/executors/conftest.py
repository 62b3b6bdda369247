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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def ray_address(ray_cluster: tuple[int, int]) -> str:
    """The address of a cluster that accepts ``TOKEN`` only."""
    return f"127.0.0.1:{ray_cluster[0]}"


@pytest.fixture(scope="session")
def ray_client_address(ray_cluster: tuple[int, int]) -> str:
    """The address of the cluster's client server."""
    return f"ray://127.0.0.1:{ray_cluster[1]}"


@pytest.fixture(scope="session")
def ray_cluster(temporary_folder_of_worker: Path) -> Iterator[tuple[int, int]]:
    """The ports of a cluster and of its client server."""
    port, client_port = free_port(), free_port()
    folders = {"HOME": str(temporary_folder_of_worker), "RAY_TMPDIR": str(temporary_folder_of_worker)}
    # Workers import the functions of the tests.
    options = {"PYTHONPATH": str(Path(__file__).parent), "RAY_worker_niceness": "0"}
    environment = os.environ | TOKEN | folders | options
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={client_port}"]
    for _ in range(ATTEMPTS):
        head = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert head.stdout is not None
        if any("Ray runtime started" in line for line in head.stdout):
            break
        head.communicate()
    else:
        pytest.fail("Ray did not start")
    yield port, client_port
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
