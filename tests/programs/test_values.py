"""Intermediate values of a TinyPy program and their positions."""

import pytest

from gradatim.errors import DataError
from gradatim.programs import generate, values_of

PROGRAM = """a = 3
b = a * (a - 5)
if a > 3 and b == 2 :
\tprint(a)
elif not a == b :
\ta = 2 + b
else :
\tprint(b)
print(a)
# output
"""


def shown(found: dict[int, list[object]]) -> list[tuple[str, object]]:
    """The text's last five characters up to each place, and the only value there."""
    return [(PROGRAM[place - 4 : place + 1], value) for place, (value,) in sorted(found.items())]


def test_a_name_that_is_read_has_its_value_at_that_time() -> None:
    assert shown(values_of(PROGRAM).operands) == [
        ("b = a", 3),
        (" * (a", 3),
        ("\nif a", 3),
        ("not a", 3),
        (" == b", -6),
        ("2 + b", -6),
        ("int(a", -4),
    ]


def test_results_stand_where_what_they_are_of_ends() -> None:
    assert shown(values_of(PROGRAM).results) == [
        ("a - 5", -2),
        (" - 5)", -6),
        ("a > 3", False),
        (" == 2", False),
        ("= 2 :", False),
        (" == b", False),
        ("= b :", True),
        ("2 + b", -4),
        ("+ b\ne", False),
    ]


def test_a_position_in_a_loop_has_a_value_for_each_turn() -> None:
    values = values_of("for i in range(2, 5) :\n\tprint(i * i)\n# output\n")
    assert (values.operands, values.results) == ({30: [2, 3, 4], 34: [2, 3, 4]}, {34: [4, 9, 16]})


def test_a_branch_in_a_loop_has_a_value_for_each_turn_that_reaches_it() -> None:
    text = "a = 1\nfor i in range(0, 3) :\n\tif a > 2 :\n\t\tprint(i)\n\telse :\n\t\ta = a + i\nprint(a)\n# output\n"
    values = values_of(text)
    assert values.results[text.index("a > 2") + 4] == [False, False, False]
    assert values.results[text.index("a + i") + 4] == [1, 2, 4]
    assert values.operands[text.index("print(a)") + 6] == [4]


@pytest.mark.parametrize("level", ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2", "4.1"])
def test_what_a_last_line_prints_is_known_at_its_end(level: str) -> None:
    checked = 0
    for row in generate(500, levels=[level], seed=2).table.to_pylist():
        program = row["prompt"].removesuffix("# output\n")
        last = program.splitlines()[-1]
        if last.startswith("print("):
            found = values_of(row["prompt"])
            place = len(program) - 3  # before the bracket and the line's end
            printed = row["answer"].splitlines()[-1].removeprefix("# ")
            values = found.results[place] if place in found.results else found.operands[place]
            assert str(values[-1]) == printed, row["prompt"]
            checked += 1
    assert checked > 20


def test_what_is_no_program_has_no_values() -> None:
    with pytest.raises(DataError, match="this is not TinyPy"):
        values_of("import os\n")
