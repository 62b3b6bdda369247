"""Node, which runs the scripts of the page in tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: apt-get install nodejs")


def evaluate(expression: str, value: Any, *scripts: str) -> Any:
    """The value of the JavaScript ``expression``, in which ``input`` is ``value``, after loading ``scripts``."""
    assert NODE is not None
    folder = files("gradatim.show") / "assets"
    source = "\n".join((folder / name).read_text("utf-8") for name in scripts)
    program = (
        f"{source}\nconst input = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        f"(async () => process.stdout.write(JSON.stringify(await ({expression}))))();\n"
    )
    done = subprocess.run(
        [NODE, "-e", program], input=json.dumps(value), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
