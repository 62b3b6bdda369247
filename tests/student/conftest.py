"""A process that has imported transformers and nothing of this package, to open models as another program does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = """
import json, os, sys, traceback
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

for line in sys.stdin:
    code, folder = json.loads(line)
    child = os.fork()
    if not child:
        try:
            os.chdir(folder)
            exec(code, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
PLAIN = "\nimport sys\nassert not any(name.startswith('gradatim') for name in sys.modules)\n"
HASH_SEED = "7"


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Run code with a working directory in a process with another hash seed, forked from one that has transformers.

    With ``plain`` the code must import nothing of this package.
    """
    errors = tmp_path_factory.mktemp("elsewhere") / "stderr"
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        errors.open("w") as stderr,
        subprocess.Popen([sys.executable, "-c", SERVER], **pipes, stderr=stderr, text=True, env=environment) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None

        def execute(code: str, folder: Path, *, plain: bool = True) -> None:
            server.stdin.write(json.dumps([code + PLAIN if plain else code, str(folder)]) + "\n")
            server.stdin.flush()
            assert server.stdout.readline() == "0\n", errors.read_text()

        yield execute
        server.stdin.close()
