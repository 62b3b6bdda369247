"""The interpreter prints what CPython prints, and refuses programs that it must not run."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import DataError
from gradatim.programs import commented, run_program

names = st.sampled_from("abc")
terms = st.one_of(names, st.integers(0, 300).map(str))
values = st.recursive(
    terms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda p: f"({' '.join(p)})"),
        st.tuples(inner, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), inner).map(lambda p: f"({' '.join(p)})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({' '.join(p)})"),
        inner.map(lambda p: f"(not {p})"),
        inner.map(lambda p: f"(-{p})"),
        st.tuples(terms, terms, terms).map(lambda p: f"({p[0]} < {p[1]} <= {p[2]})"),
    ),
    max_leaves=8,
)


def cpython(text: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text, {})
    return printed.getvalue()


@given(values, values, values)
def test_any_tinypy_value_is_what_cpython_prints(test: str, first: str, second: str) -> None:
    text = (
        f"a = 3\nb = 0\nc = 7\nif {test} :\n\ta = {first}\nelif b :\n\tprint(b)\nelse :\n\tb = {second}\n"
        "for i in range(1, 6, 2) :\n\tprint(a, i)\nwhile c > 4 :\n\tprint(b)\n\tc = c - 2\nprint(c)\n# output\n"
    )
    try:
        expected = cpython(text)
    except ZeroDivisionError:
        with pytest.raises(DataError, match="ZeroDivisionError"):
            run_program(text)
    else:
        assert run_program(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("import os\n", "not TinyPy"),
        ("a = 1\nopen('x')\n", "line 2"),
        ("print('x')\n", "not TinyPy"),
        ("print(2 ** 9)\n", "not TinyPy"),
        ("print(1, end='')\n", "not TinyPy"),
        ("a = [1]\n", "not TinyPy"),
        ("a.b = 1\n", "not TinyPy"),
        ("for i in (1, 2) :\n\tprint(i)\n", "not TinyPy"),
        ("while 1 :\n\tbreak\n", "not TinyPy"),
        ("def f() :\n\tpass\n", "not TinyPy"),
        ("if :\n", "not a Python program"),
        ("a = \0", "not a Python program"),
        ("(" * 500 + ")" * 500, "not a Python program"),
        ("print(a)\n", "NameError"),
        ("print(1 / 0)\n", "ZeroDivisionError"),
        ("for i in range(1, 2, 0) :\n\tprint(i)\n", "ValueError"),
        ("for i in range(1.5) :\n\tprint(i)\n", "TypeError"),
        ("a = 9\nfor i in range(99) :\n\ta = a * a\n", "4096 bits"),
        ("print(" + " + ".join(["1"] * 5000) + ")", "recursion depth"),
    ],
)
def test_what_is_not_tinypy_or_fails_is_told_with_its_cause(text: str, part: str) -> None:
    with pytest.raises(DataError, match=part):
        run_program(text)


def test_an_endless_program_is_stopped() -> None:
    with pytest.raises(DataError, match="does not end within 50 steps"):
        run_program("a = 1\nwhile a > 0 :\n\ta = a + 1\n", max_steps=50)
    with pytest.raises(DataError, match="steps"):
        run_program("for i in range(0, 99999999999) :\n\tpass\n")


def test_printed_lines_become_comments() -> None:
    assert commented(run_program("print(1)\nprint(-2.5)\n")) == "# 1\n# -2.5\n"
    assert commented("") == ""
