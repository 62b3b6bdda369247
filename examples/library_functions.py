r"""Functions of Python's own library as samples for completion: the first half is the prompt, the rest the answer.

    python examples/library_functions.py functions.jsonl 540
    gradatim study pretrained/baseline pretrained/hybrid --seeds 5 --out runs/library \
      --set data.path=functions.jsonl --set student.base=FOLDER
"""

import ast
import json
import random
import sys
import sysconfig
import textwrap
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
EXCLUDED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}

samples = {}
for file in sorted(LIBRARY.rglob("*.py")):
    module = file.relative_to(LIBRARY).with_suffix("")
    if EXCLUDED & set(module.parts):
        continue
    source = file.read_text("utf-8", errors="replace")
    source_lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        lines = textwrap.dedent("".join(source_lines[node.lineno - 1 : node.end_lineno])).splitlines(keepends=True)
        if len(lines) < 6 or not 200 <= len("".join(lines)) <= 500 or not lines[0].startswith("def "):
            continue  # dedent fails where a multi-line string begins at the margin
        first, rest = "".join(lines[: len(lines) // 2]), "".join(lines[len(lines) // 2 :])
        samples[first] = {"prompt": first, "answer": rest, "language": "python", "category": module.parts[0]}

chosen = random.Random(0).sample(list(samples.values()), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
Path(sys.argv[1]).write_text("".join(json.dumps(sample) + "\n" for sample in chosen))
