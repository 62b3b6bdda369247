"""Extraction of code from replies: fences as CommonMark defines them, and the variants that models write."""

from __future__ import annotations

import pytest

from gradatim.languages import LANGUAGES

PYTHON, CPP = LANGUAGES.get("python"), LANGUAGES.get("cpp")
ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    "reply",
    [
        f"~~~python\n{ADD}~~~\n",
        f"````py\n{ADD}````\n",
        f'```{{.python title="add.py"}}\n{ADD}```\n',
        f"```python:add.py\n{ADD}```\n",
        f"``` Python \n{ADD}```   \n",
        f"```\n{ADD}```\n",
        f"```python\n{ADD}```\n".replace("\n", "\r\n"),
        "1. First:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    ],
)
def test_a_fence_in_any_dress_is_found(reply):
    found = PYTHON.extract(reply)
    assert (found.code, found.state) == (ADD, "fenced")


def test_a_shorter_fence_inside_a_longer_one_is_text():
    inner = '"""\n```python\n1\n```\n"""\n'
    assert PYTHON.extract(f"````python\n{inner}````\n").code == inner


def test_a_named_block_is_taken_before_unnamed_ones():
    found = PYTHON.extract(
        f"```\nsome output, longer than the code, which nobody asked for\n```\n```python\n{ADD}```\n"
    )
    assert (found.code, found.blocks) == (ADD, 1)


def test_the_longest_block_is_taken_without_an_entry_point():
    assert PYTHON.extract(f"```python\nadd(1, 2)\n```\n```python\n{ADD}```\n```python\nadd(3, 4)\n```").code == ADD


def test_a_whole_block_counts_although_a_later_one_is_cut_off():
    found = PYTHON.extract(f"```python\n{ADD}```\nFor example\n```python\nadd(1,", "add")
    assert (found.code, found.state, found.blocks) == (ADD, "fenced", 2)


def test_a_block_that_is_cut_off_is_incomplete_when_it_alone_defines_the_entry_point():
    found = PYTHON.extract(f"```python\nimport math\n```\n```python\n{ADD}", "add")
    assert (found.state, found.code.strip()) == ("incomplete", ADD.strip())


def test_code_with_a_syntax_error_is_still_found_without_fences():
    found = PYTHON.extract("Here:\n\ndef add(a, b:\n    return a\n")
    assert (found.code, found.state) == ("def add(a, b:\n    return a\n", "bare")


def test_an_empty_block_is_code_that_is_empty():
    assert PYTHON.extract("```python\n```").code == ""


def test_long_prose_is_read_in_little_time():
    reply = "def is a word that starts this line\n\n" + "and so on, and so on.\n\n" * 20_000
    assert PYTHON.extract(reply).state in ("bare", "none")


@pytest.mark.parametrize(
    ("name", "code", "defined"),
    [
        ("cpp", "vector<int> f(vector<pair<int, int>> a, int b){\n return {}; }\nint g() {\n if (x) {} }", ("f", "g")),
        ("c", "static const char *name(void)\n{\n  return 0;\n}\nint twice(int x);\n", ("name",)),
        (
            "java",
            "class A {\n public static <T> List<T> f(List<T> a) {\n  for (;;) {}\n }\n int g() { return 1; } }",
            ("f", "g"),
        ),
        ("go", "func (t *T) Do() {}\nfunc Add(a int) int {\n return a }", ("Do", "Add")),
        (
            "javascript",
            "const f = (a) => {\n}\nfunction g(x) {}\nexport async function h() {}\nlet n = 3\n",
            ("f", "g", "h"),
        ),
        ("typescript", "function f<T>(a: T): T { return a }\nconst g = (a: number): number => a\n", ("f", "g")),
        ("python", "def f(): pass\nclass A:\n    def g(self): pass\nasync def h(): pass\n", ("f", "A", "h")),
    ],
)
def test_what_a_program_defines_is_told(name, code, defined):
    assert LANGUAGES.get(name).defined(code) == defined


def test_python_2_does_not_parse():
    fault = PYTHON.parses("x = 1\nprint 'hello'\n")
    assert fault is not None
    assert fault.line == 2
