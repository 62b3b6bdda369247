"""The sliced form keeps the output, ignores assignments without effect, and otherwise is the canonical form."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.programs import LEVELS, canonical, generate, sliced


def output(program: str) -> str:
    """Output of ``program`` in Python, as comments."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    return "".join(f"# {line}\n" for line in printed.getvalue().splitlines())


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_a_slice_prints_what_the_program_prints_and_its_slice_is_itself(level):
    for sample in generate(300, levels=[level], seed=11).table.to_pylist():
        form = sliced(sample["prompt"])
        printed = sliced(sample["prompt"] + sample["answer"]).removeprefix(form)
        assert printed == sample["answer"]
        assert output(form) == sample["answer"]
        assert sliced(form) == form


@pytest.mark.parametrize(
    ("program", "form"),
    [
        ("k = 4\nu = 9\nx = k + 3\nprint(x)\n", "a = 4\nb = a + 3\nprint(b)\n"),
        ("u = 9\nv = u + 1\nprint(3 * 2)\n", "print(3 * 2)\n"),
        ("x = 1\nx = 2\nprint(x)\n", "a = 2\nprint(a)\n"),
        ("x = 1\nprint(x)\nx = 2\n", "a = 1\nprint(a)\n"),
        (
            "x = 1\ny = 2\nif x < 2 :\n\ty = 3\nelse :\n\tx = 5\nprint(x)\n",
            "a = 1\nif a < 2 :\n\tpass\nelse :\n\ta = 5\nprint(a)\n",
        ),
        ("x = 1\ny = 2\nif x < 2 :\n\ty = 3\nprint(x)\n", "a = 1\nprint(a)\n"),
        ("x = 1\nif x < 2 :\n\tprint(x)\nelse :\n\tx = 3\n", "a = 1\nif a < 2 :\n\tprint(a)\n"),
        (
            "x = 0\nw = 1\nfor i in range(3) :\n\tw = w + i\n\tx = x + 1\nprint(x)\n",
            "a = 0\nfor b in range(3) :\n\ta = a + 1\nprint(a)\n",
        ),
        (
            "x = 0\ny = 0\nfor i in range(3) :\n\ty = x\n\tx = x + 1\nprint(y)\n",
            "a = 0\nb = 0\nfor c in range(3) :\n\tb = a\n\ta = a + 1\nprint(b)\n",
        ),
        ("b = 0\nwhile b != 6 :\n\tb = b + 3\nprint(4)\n", "print(4)\n"),
        (
            "b = 0\nc = 1\nwhile b != 6 :\n\tb = b + 3\n\tc = c + c\nprint(b)\n",
            "a = 0\nwhile a != 6 :\n\ta = a + 3\nprint(a)\n",
        ),
        ("for i in range(3) :\n\tx = i\nprint(i)\n", "for a in range(3) :\n\tpass\nprint(a)\n"),
    ],
)
def test_assignments_that_no_output_depends_on_are_dropped(program, form):
    assert sliced(program) == form


@pytest.mark.parametrize(
    "text",
    [
        "x = input()\ny = 3\nprint(x)\n",
        "def f(x):\n    return x\nprint(f(3))\n",
        "x = [3]\ny = x\nprint(x)\n",
    ],
)
def test_other_programs_are_only_renamed(text):
    assert sliced(text) == canonical(text) != text


@pytest.mark.parametrize(
    "text",
    [
        "x = 3\n\t\tprint(x)\n",
        "else :\n\tprint(3)\n",
        "Write a function. x = 3",
        "What is the capital of France?",
        "why",
    ],
)
def test_text_that_is_no_program_is_unchanged(text):
    assert sliced(text) == text


@pytest.mark.parametrize(
    "program",
    ["sum = 0\nfor i in range(5) :\n\tsum = sum + i\nprint(sum)\n", "x = y = 3\nprint(y)\n", "max = 3\nprint(max)\n"],
)
def test_no_assignment_that_the_output_depends_on_is_dropped(program):
    assert output(sliced(program)) == output(program)


def test_fragments_that_print_nothing_differ_by_their_text():
    assert sliced("x = 1\n") != sliced("x = 2\n")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab=1+ \n\t:printforwhle()#ou<in"), max_size=80) | st.text(max_size=40))
def test_any_text_has_a_form_that_slicing_does_not_change(text):
    form = sliced(text)
    assert sliced(form) == form
