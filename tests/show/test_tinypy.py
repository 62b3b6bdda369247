"""The page's interpreter prints what CPython prints, and finds level and difficulty as the library does."""

from __future__ import annotations

import io
import random
from contextlib import redirect_stdout

import pytest
from scripts import evaluate, needs_node

from gradatim.difficulty import DIFFICULTIES
from gradatim.errors import DataError
from gradatim.programs import LEVELS, commented, generate, run_program, values_of

pytestmark = needs_node


def outputs(programs: list[str]) -> list[dict[str, object]]:
    return list(evaluate("input.map((text) => tinypy.run(text))", programs, "tinypy.js"))


ERRORS = ("ZeroDivisionError", "OverflowError")


def of_cpython(program: str) -> str:
    """The output of a program, or the name of the exception that it raises."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(compile(program, "program", "exec"), {})
    except ArithmeticError as error:
        return type(error).__name__
    return printed.getvalue()


def test_five_thousand_generated_programs_of_all_levels_print_what_cpython_prints():
    table = generate(5000, levels=[*LEVELS], seed=5).table
    prompts = table["prompt"].to_pylist()
    expected = [of_cpython(prompt) for prompt in prompts]
    assert [item["output"] for item in outputs(prompts)] == expected
    assert [commented(text) for text in expected] == table["answer"].to_pylist()


def expression(stream: random.Random, depth: int) -> str:
    """A random expression over numbers of every kind; it may raise."""
    if depth == 0 or stream.random() < 0.2:
        return stream.choice(
            [str(stream.randint(0, 9)), str(stream.randint(0, 10**20)), str(2**53 + stream.randint(-3, 3)),
             repr(stream.uniform(-1, 1) * 10.0 ** stream.randint(-320, 300)).replace("-", ""), "0.0", "1e16", "0.1",
             "a", "b", "c", "True", "False", f"{stream.randint(0, 99)}.5", "0x1F", "1_000", "1e308"]
        )  # fmt: skip
    left, right = expression(stream, depth - 1), expression(stream, depth - 1)
    form = stream.random()
    if form < 0.7:
        return f"({left} {stream.choice(['+', '-', '*', '/', '//', '%'])} {right})"
    if form < 0.8:
        return f"(-{left})"
    if form < 0.9:
        return f"({left} {stream.choice(['<', '<=', '>', '>=', '==', '!='])} {right})"
    return f"({left} {stream.choice(['and', 'or'])} not {right})"


def arithmetic(seed: int) -> str:
    stream = random.Random(seed)
    names = f"a = {stream.randint(-9, 9)}\nb = {stream.uniform(-9, 9)!r}\nc = {stream.randint(-(10**30), 10**30)}\n"
    return f"{names}print({expression(stream, 3)}, {expression(stream, 2)})\n"


def test_a_thousand_programs_of_odd_numbers_print_what_cpython_prints():
    """Floats, big integers, ``//`` and ``%`` of negative numbers, -0.0, truth values, and the errors they raise."""
    programs = [arithmetic(seed) for seed in range(1500)]
    printed = outputs(programs)
    right = 0
    for program, item in zip(programs, printed, strict=True):
        expected = of_cpython(program)
        if expected in ERRORS:
            assert expected in str(item.get("error")), program
            continue
        assert item.get("output") == expected, program
        right += 1
    assert right >= 1000


SHAPES = [
    "print(-0.0, 0.0 * -1, -7 // 2, -7 % 3, 7 % -3, -7.5 // 2, 5 % -2.5, -5.0 % 2.5, 1 // -0.3)\n",
    "print(5e-324 / 2, 2 ** 1 if 0 else 3)\n",
    "print(1e16, 123456789012345678.0, 1e-5, 0.0001, 1e400, -1e400, 1e22)\n",
    "print((10 * 10 * 10) / 3, 9007199254740993 / 1, 5 // 2.0)\n",
    "a = 1; b = 2\nif a < b < 3: print(a); print(b)\n",
    "for i in range(3):\n\tif i == 1:\n\t\tpass\n\telif i:\n\t\tprint(i)\n\telse:\n\t\tprint(-i)\nelse:\n\tprint(9)\n",
    "a = 3\nwhile a > 0 :\n    a = a - 1\n    print(a,\n      a * 2)\nelse :\n    print(True)\n# output\n# 3\n",
    "for i in range(5, 0, -2) : print(i, i / 2)\nprint()\nprint(i)\n",
    "a = (1 +\n 2)  # a comment\n\n\t\nprint(a)",
    "a = 1\n  \n\\\nb = 2\nprint(a or b, a and b, not a, not 0.0)\r\nprint(3)\r\n",
    "",
    "x = 00\nprint(+True, -True, True + True, 1 == 1.0, 2 > True)",
]


def test_every_shape_of_a_program_prints_what_the_interpreter_prints():
    for program, item in zip(SHAPES, outputs(SHAPES), strict=True):
        try:
            expected = run_program(program)
        except DataError:
            assert "this is not" in str(item["error"]), program
        else:
            assert item == {"output": expected}, program


REFUSED = {
    "x += 1": 1,
    "a = 1\na[0] = 2": 2,
    "print('</script>')": 1,
    "import os": 1,
    "a = 1\nprint(a, sep=3)": 2,
    "def f():\n\tpass": 1,
    "a = b = 1": 1,
    "a + 1": 1,
    "print(2 ** 3)": 1,
    "if 1:\nprint(1)": 2,
    "  a = 1": 1,
    "a = 1\n\tb = 2": 2,
    "if 1:\n\ta = 1\n  b = 2": 3,
    "print((1)": 1,
    "a = 1)": 1,
    "a = None": 1,
    "a = 1 / 0": 1,
    "a = 1\nprint(z)": 2,
    "a = 2\nwhile 1:\n\ta = a * a": 3,
    "while 1:\n\tpass": 2,
    "for i in range(0.5):\n\tprint(i)": 1,
    "for i in range(1, 2, 0):\n\tprint(i)": 1,
    "print(1if 2else 3)": 1,
    "a = 08": 1,
    "a = 3x": 1,
    "(" * 5000: 1,
    "é = 'ü'": 1,
}


def test_a_text_outside_tinypy_and_a_failing_program_give_the_line_and_no_output():
    for program, item in zip(REFUSED, outputs([*REFUSED]), strict=True):
        assert "output" not in item, program
        assert item["line"] == REFUSED[program], program
        with pytest.raises(DataError):
            run_program(program)


def test_the_level_is_the_simplest_one_with_all_constructs_of_the_program():
    names = [name for name in LEVELS if name >= "1"]
    table = generate(1600, levels=names, seed=3).table
    levels = table["level"].to_pylist()
    found = evaluate("input.map(tinypy.level)", table["prompt"].to_pylist(), "tinypy.js")
    assert all(simplest <= level for simplest, level in zip(found, levels, strict=True))
    same = sum(simplest == level for simplest, level in zip(found, levels, strict=True))
    assert same > 0.85 * len(levels)  # a program of 2.2 may use no more than 2.1 has


@pytest.mark.parametrize("metric", ["om", "cyclomatic", "halstead"])
def test_a_difficulty_is_the_one_of_the_library(metric):
    table = generate(300, levels=["all"], seed=4).table
    found = evaluate(f"input.map(tinypy.metrics.{metric})", table["prompt"].to_pylist(), "tinypy.js")
    assert found == pytest.approx(list(DIFFICULTIES.get(metric)()(table)))


def test_the_values_of_a_program_lie_where_the_library_puts_them():
    prompts = generate(500, levels=[*LEVELS], seed=8).table["prompt"].to_pylist()
    for prompt, found in zip(prompts, evaluate("input.map(tinypy.values)", prompts, "tinypy.js"), strict=True):
        values = values_of(prompt)
        for kind, expected in (("operands", values.operands), ("results", values.results)):
            first = {position: str(turns[0]) for position, turns in expected.items()}
            assert {item["position"]: item["value"] for item in found if item["kind"] == kind} == first, prompt


def test_the_layout_of_a_program_is_that_of_generated_ones():
    prompts = generate(1000, levels=[*LEVELS], seed=6).table["prompt"].to_pylist()
    programs = [prompt.removesuffix("# output\n") for prompt in prompts]
    assert evaluate("input.map(tinypy.format)", programs, "tinypy.js") == programs
    typed = "a=1 # one\nif a<2 and not(a==3):\n  print( a )\nelif a :\n  b = -a\nelse: pass\n"
    written = "a = 1\nif a < 2 and not (a == 3) :\n\tprint(a)\nelif a :\n\tb = -a\nelse :\n\tpass\n"
    assert evaluate("tinypy.format(input)", typed, "tinypy.js") == written
