"""A task for the workers of the Ray cluster of the tests, and the cluster's token as the variables of a process."""

import os
import time
from pathlib import Path

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3}


def end_process(folder: str) -> int:
    """End this worker, and count the attempts."""
    Path(folder, str(time.monotonic_ns())).touch()
    os._exit(9)
