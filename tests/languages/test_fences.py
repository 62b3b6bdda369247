"""A block of code ends where CommonMark ends it, and nowhere inside a program's text."""

from __future__ import annotations

import pytest

from gradatim.languages import LANGUAGES

PYTHON = LANGUAGES.get("python")
ADD = "def add(a, b):\n    return a + b\n"


def function(docstring: str, indent: str = "    ") -> str:
    lines = "".join(f"{indent}{line}\n" for line in docstring.split("\n"))
    return f'def add(a, b):\n{indent}"""Add.\n{lines}{indent}"""\n{indent}return a + b\n'


@pytest.mark.parametrize(
    "code",
    [
        function("```\n>>> add(1, 2)\n3\n```"),
        function("```python\nadd(1, 2)\n```"),
        function("~~~~\nadd(1, 2)\n~~~~"),
        function("```", "\t"),
        function("Without an end:\n```"),
        f'class A:\n    def f(self):\n        """\n        ```\n        """\n\n{ADD}',
        f'TEXT = """\n```python\n1\n``` and so on\n~~~\n``\n"""\n{ADD}',
    ],
)
@pytest.mark.parametrize("form", ["```python\n{}```\n", "Sure:\n\n  ```py\n{}  ```\nIt adds.\n", "```\n{}```"])
def test_a_fence_inside_a_docstring_does_not_end_the_block(code, form):
    found = PYTHON.extract(form.format(code), "add")
    assert (found.code, found.state, found.blocks) == (code, "fenced", 1)


@pytest.mark.parametrize(
    ("opening", "inside"),
    [("````", "```"), ("`````python", "````"), ("~~~~", "~~~"), ("```python", "~~~"), ("~~~python", "```")],
)
def test_only_as_many_marks_of_the_same_kind_end_a_block(opening, inside):
    code = f'TEXT = """\n{inside}\n"""\n{ADD}'
    for more in ("", "~" if "~" in opening else "`"):
        closing = opening.removesuffix("python") + more
        found = PYTHON.extract(f"{opening}\n{code}{closing}  \nDone.\n")
        assert (found.code, found.state) == (code, "fenced")


@pytest.mark.parametrize("indent", ["", " ", "  ", "   "])
def test_a_fence_indented_by_up_to_three_columns_ends_a_block(indent):
    found = PYTHON.extract(f"```python\n{ADD}{indent}```\nprint(1)\n")
    assert (found.code, found.state) == (ADD, "fenced")


@pytest.mark.parametrize("tail", ["    ```\n", "\t```\n", "``` python\n", "```x\n", "``\n", "~~~\n"])
def test_a_line_that_ends_no_block_leaves_it_open(tail):
    assert PYTHON.extract(f"```python\n{ADD}{tail}").state == "incomplete"


@pytest.mark.parametrize(
    ("head", "indent"),
    [
        ("1. First:\n\n", "   "),
        ("10. First:\n\n", "    "),
        ("- First:\n", "  "),
        ("- a\n  - b\n\n", "    "),
        ("1. a\n   * b:\n", "     "),
        ("-   wide\n\n", "    "),
        ("No list, only far in:\n\n", "     "),
    ],
)
def test_a_fence_in_a_list_item_is_measured_from_the_items_content(head, indent):
    code = function("```\nadd(1, 2)\n```")
    block = "".join(f"{indent}{line}\n" if line else "\n" for line in f"```python\n{code}```".split("\n"))
    found = PYTHON.extract(f"{head}{block}And so on.\n")
    assert (found.code, found.state, found.blocks) == (code, "fenced", 1)


@pytest.mark.parametrize("marker", ["- ", "* ", "+ ", "1. ", "2) ", "- 1. "])
def test_a_fence_on_the_line_of_a_list_marker_opens_a_block(marker):
    indent = " " * len(marker)
    code = "".join(f"{indent}{line}\n" for line in f"{ADD}```".split("\n"))
    assert PYTHON.extract(f"{marker}```python\n{code}").code == ADD


def test_code_that_is_not_indented_as_its_list_item_is_found():
    code = function("```\nadd(1, 2)\n```")
    found = PYTHON.extract(f"1. First:\n   ```python\n{code}   ```\nDone.\n")
    assert (found.code, found.state) == (code, "fenced")


@pytest.mark.parametrize("label", ["markdown", "md", "Markdown"])
@pytest.mark.parametrize(("outer", "inner"), [("````", "```"), ("```", "```"), ("~~~", "```"), ("```", "~~~")])
def test_a_markdown_wrapper_shows_the_block_inside(label, outer, inner):
    reply = f"{outer}{label}\n# Solution\n\n{inner}python\n{ADD}{inner}\n\nIt adds.\n{outer}\n"
    found = PYTHON.extract(reply)
    assert (found.code, found.state, found.blocks) == (ADD, "fenced", 1)


def test_a_wrapper_that_is_closed_holds_nothing_of_what_follows():
    found = PYTHON.extract(f"```markdown\nSome words.\n```\n```\n{ADD}```\n")
    assert (found.code, found.state, found.blocks) == (ADD, "fenced", 1)


@pytest.mark.parametrize(
    "fence",
    [
        '```python title="add.py"',
        "```python {.numberLines}",
        "```{python}",
        "```{.python .numberLines startFrom=10}",
        "```python:add.py",
        "```py, runnable",
        "~~~ python `x`",
        "```Python3 # the answer",
        "Solution: ```python",
        "Here it is ```py  ",
    ],
)
def test_text_on_the_line_of_a_fence_does_not_hide_its_language(fence):
    found = PYTHON.extract(f"{fence}\n{ADD}{'~~~' if '~' in fence else '```'}\n")
    assert (found.code, found.state) == (ADD, "fenced")


@pytest.mark.parametrize("line", ["Use ```add(1, 2)``` for it.", "```add``` adds", "It takes ``` as a mark"])
def test_marks_within_a_line_open_no_block(line):
    assert PYTHON.extract(f"{line}\n\n```python\n{ADD}```\n").blocks == 1


def test_a_draft_in_the_thinking_is_not_the_answer():
    draft = "```python\ndef add(a, b):\n    return a - b\n```\n"
    for reply in (
        f"<think>\n{draft}</think>\n```python\n{ADD}```\n",
        f"{draft}</think>\n{ADD}",
        f"<think>\n{draft}</think>\nThe answer:\n\n{ADD}\nIt adds.\n",
    ):
        assert PYTHON.extract(reply, "add").code.strip() == ADD.strip()
    assert PYTHON.extract(f"<think>\n{draft}", "add").state == "none"
