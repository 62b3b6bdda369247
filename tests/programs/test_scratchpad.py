"""Scratchpads: true steps in the order of execution, and the printed lines between them."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import pytest

from gradatim.errors import DataError
from gradatim.programs import LEVELS, generate, has_scratchpad, printed_lines, scratchpad_of
from gradatim.table.splits import SplitBy, split


def lines_of(program: str, form: Literal[True, "arithmetic"] = True) -> list[str]:
    return [line.removeprefix("# ") for line in scratchpad_of(program, form).splitlines()]


def steps_of(answer: str) -> list[list[str]]:
    """The parts of each step: an operation or a variable, and its values."""
    return [line.removeprefix("# ").split(" = ") for line in answer.splitlines() if " = " in line]


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (
            "s = 5\ny = (4 * s) * s\nprint(y)\n",
            "s = 5; 4 * s=5 = 20; 20 * s=5 = 100; y = 100; y = 100; 100",
        ),
        ("a = 7\nb = a\nprint(b)\n", "a = 7; a = 7; b = 7; b = 7; 7"),
        ("a = 2\nprint((a - 5) / (a + a))\n", "a = 2; a=2 - 5 = -3; a=2 + a=2 = 4; -3 / 4 = -0.75; -0.75"),
        ("a = 7\nprint(-a + +2)\n", "a = 7; - a=7 = -7; + 2 = 2; -7 + 2 = -5; -5"),
        ("a = 7\nprint(a // 2 % 2, a)\n", "a = 7; a=7 // 2 = 3; 3 % 2 = 1; a = 7; 1 7"),
        ("a = 3\nif not a > 5 :\n\tprint(0)\n", "a = 3; a=3 > 5 = False; not False = True; 0"),
        (
            "a = 3\nif a > 5 :\n\tprint(1)\nelif a == 3 and a < 9 :\n\ta = a + 1\nelse :\n\tprint(2)\nprint(0)\n",
            "a = 3; a=3 > 5 = False; a=3 == 3 = True; a=3 < 9 = True; True and True = True; a=3 + 1 = 4; a = 4; 0",
        ),
        # and stops at the first false operand: its second comparison is not evaluated and has no line.
        ("a = 3\nif a > 5 and a < 9 :\n\tprint(a)\nprint(0)\n", "a = 3; a=3 > 5 = False; 0"),
        ("a = 3\nprint(1 < a < 2 < 9)\n", "a = 3; 1 < a=3 < 2 = False; False"),
        (
            "a = 1\nfor i in range(2, 7, 3) :\n\ta = a * i\nprint(0)\n",
            "a = 1; i = 2; a=1 * i=2 = 2; a = 2; i = 5; a=2 * i=5 = 10; a = 10; 0",
        ),
        # The second turn has the values of the second turn, also where the first one evaluated more.
        (
            "a = 4\nwhile a > 3 and a != 2 :\n\ta = a - 2\nprint(0)\n",
            "a = 4; a=4 > 3 = True; a=4 != 2 = True; True and True = True; a=4 - 2 = 2; a = 2; a=2 > 3 = False; 0",
        ),
        ("print()\n", ""),
    ],
)
def test_the_lines_are_the_steps_in_order(program: str, lines: str) -> None:
    assert "; ".join(lines_of(program)) == lines


@pytest.mark.parametrize(
    ("operation", "lines"),
    [
        ("a - 9", "a=3 - 9 = -6"),  # two digits of one place: one step
        ("a * 7", "a=3 * 7 = 21"),
        ("a + 8 / 2", "8 / 2 = 4.0; a=3 + 4.0 = 7.0"),
        ("b + 9", "b=21 + 9 = 03 = 30"),
        ("a - b", "a=3 - b=21 = -81 = -18"),
        ("b - 20", "b=21 - 20 = 22 10 = 1 = 1"),
        ("20 - b", "20 - b=21 = 22 01 = -1 = -1"),
        ("-b - 20", "- b=21 = -21; -21 - 20 = -14 = -41"),  # the sign is that of both
        ("-20 + b", "- 20 = -20; -20 + b=21 = 22 01 = 1 = 1"),
        ("b * 40", "b=21 * 40 = 048 = 840"),  # one digit besides zeros
        ("b * 0", "b=21 * 0 = 0 = 0"),
        (
            "13 * b",
            "13 * b=21 = 13 * (1 + 20); 13 * 1 = 31 = 13; 13 * 20 = 062 = 260; 13 + 260 = 372 = 273; 13 * b=21 = 273",
        ),
        # The shorter factor is taken apart; the other one has the sign of the product.
        (
            "-12 * 345",
            "- 12 = -12; -12 * 345 = -345 * (2 + 10); -345 * 2 = -096 = -690; -345 * 10 = -0543 = -3450; "
            "-690 + -3450 = -0414 = -4140; -12 * 345 = -4140",
        ),
        (
            "(b - 33) * (a - 28)",
            "b=21 - 33 = 23 = -21 = -12; a=3 - 28 = -52 = -25; -12 * -25 = 12 * (5 + 20); 12 * 5 = 06 = 60; "
            "12 * 20 = 042 = 240; 60 + 240 = 003 = 300; -12 * -25 = 300",
        ),
        # A digit 0 is written with its place and has no product.
        (
            "b * 102",
            "b=21 * 102 = 102 * (1 + 20); 102 * 1 = 201 = 102; 102 * 20 = 0402 = 2040; "
            "102 + 2040 = 2412 = 2142; b=21 * 102 = 2142",
        ),
        (
            "102 * 102",
            "102 * 102 = 102 * (2 + 00 + 100); 102 * 2 = 402 = 204; 102 * 100 = 00201 = 10200; "
            "204 + 10200 = 40401 = 10404; 102 * 102 = 10404",
        ),
        ("b < 29", "b=21 < 29 = 22 19 = True"),
        ("21 == b", "21 == b=21 = 22 11 = True"),
        ("a < 9", "a=3 < 9 = True"),  # one digit each
        ("b < 100", "b=21 < 100 = True"),  # the numbers of digits decide
        ("-b > -22", "- b=21 = -21; - 22 = -22; -21 > -22 = 22 12 = True"),
        ("-b > 22", "- b=21 = -21; -21 > 22 = False"),
        ("1 < b < 29", "1 < b=21 < 29 = True"),
        ("b / 2 > 10", "b=21 / 2 = 10.5; 10.5 > 10 = 11 00 50 = True"),
        ("b / 8 != 2.625", "b=21 / 8 = 2.625; 2.625 != 2.625 = 22 66 22 55 = False"),
        ("b / 1e9 < 1e-9", "b=21 / 1000000000.0 = 2.1e-08; 2.1e-08 < 1e-09 = False"),
        ("1e999 == 1e999", "inf == inf = True"),
        ("(b > 9) == (b > 8)", "b=21 > 9 = True; b=21 > 8 = True; True == True = True"),
        ("(b > 9) < 1.5", "b=21 > 9 = True; True < 1.5 = True"),  # not the digits of a truth value
        ("(b > 20) + 12", "b=21 > 20 = 22 10 = True; True + 12 = 13"),
        ("(b > 20) * 12", "b=21 > 20 = 22 10 = True; True * 12 = 12"),
        ("b // 10", "b=21 // 10 = 2"),
    ],
)
def test_arithmetic_is_written_from_the_last_digit_on(operation: str, lines: str) -> None:
    written = lines_of(f"a = 3\nb = 21\nprint({operation})\n", "arithmetic")
    assert "; ".join(written[2:-1]) == lines


@pytest.mark.parametrize(
    ("loop", "lines"),
    [
        (
            "range(9, 11)",
            "9 < 11 = True; i = 9; 9 + 1 = 10; 10 < 11 = 11 01 = True; i = 10; 10 + 1 = 11 = 11; "
            "11 < 11 = 11 11 = False",
        ),
        ("range(8, b, 9)", "8 < 12 = True; i = 8; 8 + 9 = 17; 17 < 12 = 11 72 = False"),
        ("range(2)", "0 < 2 = True; i = 0; 0 + 1 = 1; 1 < 2 = True; i = 1; 1 + 1 = 2; 2 < 2 = False"),
        (
            "range(12, 8, -3)",
            "- 3 = -3; 12 > 8 = True; i = 12; 12 - 3 = 9 = 9; 9 > 8 = True; i = 9; 9 - 3 = 6; 6 > 8 = False",
        ),
        ("range(5, 3)", "5 < 3 = False"),
        ("range(b - 10, 3)", "b=12 - 10 = 11 20 = 2 = 2; 2 < 3 = True; i = 2; 2 + 1 = 3; 3 < 3 = False"),
    ],
)
def test_each_turn_of_a_loop_and_its_end_have_a_comparison(loop: str, lines: str) -> None:
    program = f"b = 12\nfor i in {loop} :\n\tpass\n"
    assert "; ".join(lines_of(program, "arithmetic")[1:]) == lines
    operations = [line for line in lines.split("; ") if line.startswith(("i", "- 3"))]
    operations += ["b=12 - 10 = 2"] * ("b -" in loop)
    assert sorted(lines_of(program)[1:]) == sorted(operations)  # the other form has the turns alone


def test_the_bound_of_a_loop_is_that_of_its_beginning() -> None:
    program = "b = 2\nfor j in range(2) :\n\tfor i in range(b) :\n\t\tb = 9\n\telse :\n\t\tprint(i)\n"
    inner = "0 < 2 = True; i = 0; b = 9; 0 + 1 = 1; 1 < 2 = True; i = 1; b = 9; 1 + 1 = 2; 2 < 2 = False; i = 1; 1"
    written = "; ".join(lines_of(program, "arithmetic"))
    assert written.startswith(f"b = 2; 0 < 2 = True; j = 0; {inner}; 0 + 1 = 1; 1 < 2 = True; j = 1; 0 < 9 = True; ")
    assert written.endswith("9 < 9 = False; i = 8; 8; 1 + 1 = 2; 2 < 2 = False")


def test_the_steps_of_arithmetic_are_true_and_do_not_change_the_output() -> None:
    levels = ["1.2", "2.2", "3.2", "4.1"]
    samples = generate(800, levels=levels, digits=255, seed=3, scratchpad="arithmetic").table
    reversals = sums = comparisons = 0
    for prompt, answer in zip(samples["prompt"].to_pylist(), samples["answer"].to_pylist(), strict=True):
        assert printed_lines(answer) == printed_lines(scratchpad_of(prompt))
        results = set()
        for operation, *parts, value in steps_of(answer):
            results.add((operation, value))
            if not operation.isidentifier():
                assert eval(re.sub("[a-z]=", "", operation)) == eval(value)
                sums += "+" in value
            pairs, digits = (parts, []) if value in ("True", "False") else (parts[:-1], parts[-1:])
            for text in digits:
                reversals += 1
                assert int("-" * text.startswith("-") + text.lstrip("-")[::-1]) == int(value)
            for text in pairs:
                comparisons += 1
                *equal, last = text.split(" ")
                left, right = re.fullmatch(r"(?:[a-z]=)?-?(\S+) \S+ (?:[a-z]=)?-?(\S+)", operation).groups()
                assert all(first == second for first, second in equal)
                for number, place in ((left, 0), (right, 1)):
                    read = "".join(pair[place] for pair in [*equal, last])
                    assert number.replace(".", "").ljust(len(read), "0").startswith(read)
                ends = [number.replace(".", "").rstrip("0") for number in (left, right)]
                assert last[0] != last[1] or ends[0] == ends[1]
        assert results >= {(operation, value) for operation, value in steps_of(scratchpad_of(prompt))}
    assert reversals > 500
    assert sums > 50
    assert comparisons > 500


def test_steps_are_true_and_the_other_lines_are_the_output() -> None:
    samples = generate(700, levels=[level.name for level in LEVELS.values()], seed=3).table
    steps = 0
    for prompt, answer in zip(samples["prompt"].to_pylist(), samples["answer"].to_pylist(), strict=True):
        text = scratchpad_of(prompt)
        assert printed_lines(text) == answer
        values: dict[str, str] = {}
        for line in text.splitlines():
            operation, mark, value = line.removeprefix("# ").rpartition(" = ")
            if mark:
                steps += 1
                if operation.isidentifier():
                    values[operation] = value
                else:
                    assert all(values[name] == read for name, read in re.findall(r"([a-z])=(\S+)", operation))
                    assert str(eval(re.sub("[a-z]=", "", operation))) == value
    assert steps > 2000


def test_a_program_that_cannot_be_run_is_refused_as_by_the_interpreter() -> None:
    with pytest.raises(DataError, match="ZeroDivisionError"):
        scratchpad_of("a = 0\nprint(1 / a)\n")
    with pytest.raises(DataError, match="not TinyPy"):
        scratchpad_of("import os\n")


def test_programs_and_ids_are_those_without_a_scratchpad_for_any_number_of_workers() -> None:
    plain, steps = (generate(300, levels=["1.2", "3.2"], seed=4, scratchpad=value).table for value in (False, True))
    assert steps.drop(["answer"]).equals(plain.drop(["answer"]))
    assert [printed_lines(answer) for answer in steps["answer"].to_pylist()] == plain["answer"].to_pylist()
    assert generate(300, levels=["1.2", "3.2"], seed=4, scratchpad=True, workers=2).table.equals(steps)
    arithmetic = generate(300, levels=["1.2", "3.2"], seed=4, scratchpad="arithmetic").table
    assert arithmetic.drop(["answer"]).equals(plain.drop(["answer"]))
    assert not arithmetic.equals(steps)
    assert generate(300, levels=["1.2", "3.2"], seed=4, scratchpad="arithmetic", workers=2).table.equals(arithmetic)


def test_a_long_number_has_one_line_and_a_wrong_form_is_an_error() -> None:
    squares = "".join(["a = 99\n", *["a = a * a\n"] * 9, "print(0)\n"])
    assert len(scratchpad_of(squares, "arithmetic")) < 4 * len(scratchpad_of(squares))
    with pytest.raises(DataError, match=r"given: 'steps'; allowed: False, True or 'arithmetic'"):
        generate(10, scratchpad=cast("Any", "steps"))


@pytest.mark.parametrize("by", ["slice", "canonical", "text"])
def test_the_split_is_that_of_the_programs_without_a_scratchpad(by: SplitBy) -> None:
    tables = [generate(400, levels=["1.1", "3.2"], seed=4, scratchpad=value).table for value in (False, True)]
    plain, steps = (split(table, seed=1, by=by, validation=20, test=40) for table in tables)
    for part in ("train", "validation", "test"):
        assert getattr(steps, part)["id"].equals(getattr(plain, part)["id"])


def test_comments_with_an_equals_sign_are_steps_of_an_output_only() -> None:
    assert printed_lines("x = 5\n# y = 6\n# 6\n") == "x = 5\n# 6\n"
    assert has_scratchpad("print(6)\n# output\n", "# y = 6\n# 6\n")
    assert not has_scratchpad("print(6)\n# output\n", "# 6\n")
    assert not has_scratchpad("Write a function.\n", "# y = 6\nx = 6\n")
