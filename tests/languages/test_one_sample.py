"""A fault of one sample is one sample's verdict: no name in a program ends a check, and earlier verdicts are stored."""

# ruff: noqa: E501 - programs are written as they are

from __future__ import annotations

from contextlib import closing

import pytest

from gradatim.evaluation.problems import Problem, Sample
from gradatim.evaluation.verdicts import judge
from gradatim.languages import Program

LONG = "A" * 260
JAVA_TESTS = (
    "public class Main { public static void main(String[] a) "
    "{ if (new Solution().add(1, 2) != 3) throw new AssertionError(); } }\n"
)
SUM = "int add(int a, int b) { return a + b; }"
JAVA = {
    "a name of 260 letters": f"class {LONG} {{}}\nclass Solution {{ {SUM} }}\n",
    "a public name of 260 letters": f"public class {LONG} {{}}\nclass Solution {{ {SUM} }}\n",
    "nested names of 320 bytes": f"class Solution {{ {SUM} class {'B' * 100} {{ class {'C' * 100} {{ class {'D' * 100} {{}} }} }} }}\n",
    "names beyond ASCII": f"class {'é' * 200} {{}}\nclass Solution {{ {SUM} class {'ü' * 120} {{}} }}\n",
    "a comment within the head": f"public /* of all */ final // one\n class Solution {{ {SUM} }}\n",
    "an indented public class": f"  @Deprecated public class Solution {{ {SUM} }}\n",
    "two public classes": f"public class Solution {{ {SUM} }}\npublic interface Other {{}}\n",
    "words of a head in a string": f'class Solution {{ String s = "public class X"; char c = \'"\'; {SUM} }}\n',
}


@pytest.fixture(scope="module")
def judged(sandbox, with_toolchain):
    """The verdicts of all programs, compiled by one process as a check does it, and one that cannot be right."""
    java = with_toolchain("java")
    programs = {name: java.assemble("import java.util.*;\n", code, JAVA_TESTS) for name, code in JAVA.items()}
    programs["too long for a class file"] = java.assemble(
        "", f"class {'E' * 70_000} {{}}\nclass Solution {{ {SUM} }}\n", JAVA_TESTS
    )
    java.prepare(sandbox, list(programs.values()))
    return {name: java.check(sandbox, program) for name, program in programs.items()}


@pytest.mark.parametrize("name", JAVA)
def test_no_name_in_a_java_program_is_a_files_name(name, judged):
    assert judged[name].reason == "every assertion held"


def test_a_name_that_no_class_can_have_fails_alone(judged):
    assert judged["too long for a class file"].outcome == "failed"


@pytest.mark.parametrize(
    ("name", "code", "tests"),
    [
        ("c", "int {0}(int a) {{ return a; }}\n", "int main(void) {{ assert({0}(3) == 3); return 0; }}\n"),
        ("cpp", "struct {0} {{ struct {0}B {{ int f() {{ return 3; }} }}; }};\n", "int main() {{ assert({0}::{0}B().f() == 3); }}\n"),
        ("go", "type {0} int\nfunc ({0}) F() int {{ return 3 }}\n", "func TestF(t *testing.T) {{ if {0}(1).F() != 3 {{ t.Fail() }} }}\n"),
        ("javascript", "class {0} {{ static f() {{ return 3 }} }}\n", "console.assert({0}.f() === 3)\n"),
        ("typescript", "namespace {0} {{ export const f = 3 }}\n", "console.assert({0}.f === 3)\n"),
        ("python", "class {0}: f = 3\n", "assert {0}.f == 3\n"),
    ],
)  # fmt: skip
def test_a_long_name_passes_in_every_language(name, code, tests, with_toolchain, sandbox):
    language = with_toolchain(name)
    setup = 'package main\n\nimport "testing"\n' if name == "go" else ""
    program = language.assemble("", code.format(LONG), tests.format(LONG), setup=setup)
    assert language.check(sandbox, program).reason == "every assertion held"


def test_a_diagnostic_with_a_number_of_5000_digits_is_one_verdict(with_toolchain, sandbox):
    told = f"\\na.c:{'9' * 5000}:{'9' * 5000}: error: no"
    code = f'static_assert(false, "{told}");\nint main() {{ return 0; }}\n'
    assert with_toolchain("cpp").check(sandbox, Program(code)).outcome == "failed"


def test_a_check_goes_on_after_samples_with_names_that_no_file_can_have(with_toolchain):
    with_toolchain("java")
    problem = Problem("Java/0", "java", "class Solution {\n    int add(int a, int b) {\n", JAVA_TESTS)
    codes = [
        f"        return a + b; }} }}\nclass {LONG} {{}}\n",
        "        return a - b; } }\n",
        "        return a + b; } }\n",
    ]
    samples = [Sample("Java/0", code, "completion", draw) for draw, code in enumerate(codes)]
    with closing(judge({"Java/0": problem}, samples)) as results:
        outcomes = [each.verdict.outcome for each in results]
    assert outcomes == ["passed", "failed", "passed"]
