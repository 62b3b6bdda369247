"""Every output in the table is what CPython prints.

The generator computes outputs while it writes; here real CPython processes execute the same texts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradatim.programs import LEVELS, commented, generate, run_program

EXECUTE = """
import contextlib, io, json, sys
outputs = []
for text in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text, {})
    outputs.append(printed.getvalue())
json.dump(outputs, sys.stdout)
"""


def cpython(texts: list[str]) -> list[str]:
    """What a fresh CPython prints for each text, two processes at a time."""

    def execute(part: list[str]) -> list[str]:
        command = [sys.executable, "-I", "-c", EXECUTE]
        done = subprocess.run(command, input=json.dumps(part), capture_output=True, text=True, check=True, timeout=300)
        outputs: list[str] = json.loads(done.stdout)
        return outputs

    half = (len(texts) + 1) // 2
    with ThreadPoolExecutor(2) as pool:
        return [output for part in pool.map(execute, [texts[:half], texts[half:]]) for output in part]


@pytest.mark.parametrize(
    ("count", "digits"),
    [
        (7_000, 9),
        (3_500, 255),
        pytest.param(70_000, 9, marks=pytest.mark.slow),
        pytest.param(35_000, 255, marks=pytest.mark.slow),
    ],
)
def test_outputs_are_what_cpython_prints(count: int, digits: int) -> None:
    table = generate(count, digits=digits, seed=11).table
    assert set(table["level"].to_pylist()) == {level for level in LEVELS if not level.startswith("0.")}
    prompts, answers = table["prompt"].to_pylist(), table["answer"].to_pylist()
    printed = cpython(prompts)
    assert len(printed) == count
    wrong = [p for p, a, out in zip(prompts, answers, printed, strict=True) if a != commented(out)]
    assert wrong == []


def test_the_interpreter_agrees_with_the_generator() -> None:
    for row in generate(7_000, seed=12).table.to_pylist():
        assert commented(run_program(row["prompt"])) == row["answer"], row["prompt"]


def test_the_comparison_would_notice_a_wrong_output() -> None:
    assert cpython(["print(1 / 3)\n", "print(2)\n"]) == ["0.3333333333333333\n", "2\n"]
