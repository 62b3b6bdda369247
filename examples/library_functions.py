"""The functions of Python's own library as samples for completion: the first half is the prompt, the rest the answer.

python examples/library_functions.py functions.jsonl; then, for instance,
gradatim study pretrained/baseline pretrained/hybrid --seeds 5 --set data.path=functions.jsonl --set student.base=FOLDER
"""

import ast
import json
import random
import sys
import sysconfig
import textwrap
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}

samples = {}
for file in sorted(LIBRARY.rglob("*.py")):
    place = file.relative_to(LIBRARY).with_suffix("")
    if LEFT_OUT & set(place.parts):
        continue
    source = file.read_text("utf-8", errors="replace")
    written = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        lines = textwrap.dedent("".join(written[node.lineno - 1 : node.end_lineno])).splitlines(keepends=True)
        if len(lines) < 6 or not 200 <= len("".join(lines)) <= 500 or not lines[0].startswith("def "):
            continue  # text within it can keep a function from being moved to the margin
        first, rest = "".join(lines[: len(lines) // 2]), "".join(lines[len(lines) // 2 :])
        samples[first] = {"prompt": first, "answer": rest, "language": "python", "category": place.parts[0]}

drawn = random.Random(0).sample(list(samples.values()), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
Path(sys.argv[1]).write_text("".join(json.dumps(sample) + "\n" for sample in drawn))
