"""Mutants are faults: other than the answer, other than each other, one small mistake away."""

from __future__ import annotations

import ast
import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.distillation import KINDS, mutants
from gradatim.distillation.mutations import same_text
from gradatim.distillation.python_mutations import python_edits
from gradatim.languages import named
from gradatim.programs import commented, generate, run_program

PROGRAMS = generate(140, seed=11).table.to_pylist()

PYTHON = '''\
def chosen(xs, k):
    """The last one above k."""
    best = 0
    for i in range(len(xs)):  # a < b, and 1 + 1
        if xs[i] > k and not best == 7:
            best = xs[i]
        elif xs[0] == k:
            best += 2
        else:
            best = k
    if best < 0:
        return "none"
    return f"{best + 1}" if best else "é"
'''

C = """\
int chosen(int n, int *xs) {
  int best = 0;
  int count = 3;
  char *name = "a < b";
  for (int i = 0; i < n; i++) {
    if (xs[i] > best && count) { best = xs[i]; } else if (xs[0] == count) { best += 2; } else { best = 1; }
    if (best == 7) return 3;
  }
  return best > 0 ? best : -1;
}
"""
OTHERS = {
    "c": C,
    "cpp": C.replace("int *xs", "std::vector<int> xs").replace("char *name", "std::string name"),
    "java": """\
class Main {
  static int chosen(int n, int[] xs) {
    int best = 0;
    int count = 3;
    for (int i = 0; i < n; i++) {
      if (xs[i] > best && count > 1) { best = xs[i]; } else { best += 2; }
      if (best == 7) return 3;
    }
    return best > 0 ? best : -1;
  }
}
""",
    "javascript": """\
function chosen(xs, k) {
  let best = 0;
  for (let i = 0; i < xs.length; i++) {
    if (xs[i] > k && best !== 7) { best = xs[i]; } else { best += 2; }
  }
  return best === 0 ? k : best;
}
""",
    "typescript": """\
function chosen(xs: number[], k: number): number {
  let best: number = 0;
  let count: number = 3;
  for (let i = 0; i < xs.length; i++) {
    if (xs[i] > k && best !== 7) { best = xs[i]; } else { best += count; }
  }
  return best === 0 ? k : best;
}
""",
    "go": """\
package main

func chosen(xs []int, k int) int {
\tbest := 0
\tcount := 3
\tfor i := 0; i < len(xs); i++ {
\t\tif xs[i] > k && best != 7 {
\t\t\tbest = xs[i]
\t\t} else {
\t\t\tbest += count
\t\t}
\t}
\treturn best
}
""",
}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PROGRAMS), st.integers(0, 9))
def test_an_output_mutant_is_never_the_right_output_nor_one_before_it(sample, seed):
    right = commented(run_program(sample["prompt"]))
    found = [mutant.text for mutant in mutants(sample["prompt"], sample["answer"], "python", seed=seed)]
    assert right not in found
    assert len(set(found)) == len(found)
    assert all(line.startswith("# ") for text in found for line in text.splitlines())


def test_nearly_every_program_has_a_mutant_and_all_kinds_occur():
    found = [list(mutants(each["prompt"], each["answer"], "python", seed=1)) for each in PROGRAMS]
    assert sum(not some for some in found) <= 3
    assert {mutant.kind for some in found for mutant in some} == set(KINDS)


def test_the_same_seed_gives_the_same_mutants_and_another_another_order():
    sample = PROGRAMS[3]
    ask = [[m.text for m in mutants(sample["prompt"], sample["answer"], "python", seed=seed)] for seed in (5, 5, 6)]
    assert ask[0] == ask[1] != ask[2]
    assert sorted(ask[0]) == sorted(ask[2])


def test_kinds_take_turns():
    first = [mutant.kind for _, mutant in zip(range(5), mutants("", PYTHON, "python", seed=0), strict=False)]
    assert sorted(first) == sorted(KINDS)


@pytest.mark.parametrize("seed", range(3))
def test_a_python_mutant_parses_differs_in_meaning_and_keeps_its_layout(seed):
    found = list(mutants("", PYTHON, "python", seed=seed))
    assert {mutant.kind for mutant in found} == set(KINDS)
    for mutant in found:
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(ast.parse(PYTHON))
        new = [line for line in difflib.ndiff(PYTHON.splitlines(), mutant.text.splitlines()) if line[0] == "+"]
        assert len(new) <= 1
        assert "# a < b, and 1 + 1" in mutant.text
        assert '"""The last one above k."""' in mutant.text


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        ("x = a + b\n", "x = a - b\n", "operator"),
        ("x = a not in b\n", "x = a in b\n", "operator"),
        ("x = not (a)\n", "x = (a)\n", "operator"),
        ("if a < 2:\n    b = 1\n", "if a <= 2:\n    b = 1\n", "boundary"),
        ("for i in range(n):\n    f(i)\n", "for i in range(n + 1):\n    f(i)\n", "boundary"),
        ("for i in range(n - 1):\n    f(i)\n", "for i in range(n):\n    f(i)\n", "boundary"),
        ("y = x[1:]\n", "y = x[2:]\n", "boundary"),
        ("y = x[-1]\n", "y = x[-2]\n", "boundary"),
        ("y = 4\n", "y = 5\n", "constant"),
        ("y = True\n", "y = False\n", "constant"),
        ("a = 1\nb = 2\nprint(a)\n", "a = 1\nb = 2\nprint(b)\n", "variable"),
        ("if a:\n\tb = 1\nelse :\n\tb = 2\n", "if a:\n\tb = 1\n", "branch"),
        ("if a:\n\tb = 1\nelif c:\n\tb = 2\nelse:\n\tb = 3\n", "if a:\n\tb = 1\nelse:\n\tb = 3\n", "branch"),
        ("if a:\n\tb = 1\nelif c:\n\tb = 2\n", "if c:\n\tb = 2\n", "branch"),
        ("if a:\n\tb = 1\nelif c:\n\tb = 2\n", "if a:\n\tb = 1\n", "branch"),
        ("if a:\n\tb = 1\n", "pass\n", "branch"),
        ("é = 'ü'; x = é if a else c\n", "é = 'ü'; x = (c)\n", "branch"),
    ],
)
def test_each_rule_makes_its_mistake(right, wrong, kind):
    assert (wrong, kind) in {(each.text, each.kind) for each in mutants("", right, "python", seed=0)}


def test_a_name_is_only_replaced_by_one_that_is_bound_before_it():
    code = "def f(a, b):\n    c = a\n    d = 1\n    return c + d\n\ndef g(z):\n    return z\n"
    swapped = [edit for edit in python_edits(code) if edit.kind == "variable"]
    places = {code.encode()[edit.start : edit.end] + b">" + edit.text for edit in swapped}
    assert b"a>b" in places
    assert not places & {b"a>c", b"a>d", b"z>a", b"a>z", b"c>z"}


def test_strings_annotations_and_formatted_strings_are_left_alone():
    code = 'def f(a: "1 + 1" = None) -> list[1 + 1]:\n    return f"{1 + 2} < 3" + "4 < 5"\n'
    assert {edit.text for edit in python_edits(code)} == {b"-", b"*"}


@pytest.mark.parametrize("language", OTHERS)
def test_a_mutant_in_another_language_parses_and_every_kind_occurs(language):
    code = OTHERS[language]
    found = list(mutants("", code, language, seed=1))
    assert {mutant.kind for mutant in found} == set(KINDS)
    for mutant in found:
        assert named(language).parses(mutant.text) is None
        assert mutant.text != code
        assert '"a < b"' in mutant.text or language not in ("c", "cpp")


def test_names_in_typed_languages_are_only_swapped_for_names_of_the_same_type():
    code = "int f(int n, char *s) {\n  int a = 1;\n  double b = 2.0;\n  return a;\n}\n"
    swapped = {mutant.text for mutant in mutants("", code, "c", seed=0) if mutant.kind == "variable"}
    assert swapped == {code.replace("return a", "return n")}


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_only_the_answer_is_changed_when_it_follows_its_prompt(language):
    prompts = {"python": "def f(a):\n    b = 2\n", "javascript": "function f(a) {\n  let b = 2;\n"}
    answers = {"python": "    return a + 3\n", "javascript": "  return a + 3;\n}\n"}
    found = [mutant.text for mutant in mutants(prompts[language], answers[language], language, seed=0)]
    assert answers[language].replace("+", "-") in found
    assert answers[language].replace("a", "b") in found
    assert all(text.lstrip().startswith("return") for text in found)


def test_in_a_reply_only_the_fenced_code_is_changed():
    reply = "Take 1 + 1:\n\n```python\ndef f(a):\n    return a + 3\n```\n\nThat is 2 < 3.\n"
    found = [mutant.text for mutant in mutants("Write f.", reply, "python", seed=0)]
    assert reply.replace("a + 3", "a - 3") in found
    assert all(text.startswith("Take 1 + 1:") and text.endswith("That is 2 < 3.\n") for text in found)


@pytest.mark.parametrize(
    ("prompt", "answer", "language"),
    [
        ("", "only words, no code at all", "python"),
        ("", "def f(:\n", "python"),
        ("", "fn main() { 1 + 1 }", "rust"),
        ("", "x = 1 + 1", None),
        ("import os\nprint(os.getcwd())\n# output\n", "# /\n", "python"),
        ("print(1 / 0)\n# output\n", "# 0\n", "python"),
        ("", "", "python"),
    ],
)
def test_what_has_no_right_code_has_no_mutants(prompt, answer, language):
    assert list(mutants(prompt, answer, language, seed=0)) == []


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_mutants_or_none_and_no_error(text):
    for language in ("python", "c"):
        assert all(not same_text(mutant.text, text) for mutant in mutants("", text, language, seed=0))
