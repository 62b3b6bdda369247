"""Guards of each language's harness beyond the nonce: attempts to keep the tests from testing."""

# ruff: noqa: E501 - programs are written as they are

from __future__ import annotations

import pytest

from gradatim.languages import Program
from gradatim.languages.typescript import compiler_folder
from gradatim.sandbox.limits import Limits

JS_TESTS = "console.assert(add(1, 2) === 3)\n"
C_TESTS = "int main(void) { assert(add(1, 2) == 3); return 0; }\n"
JAVA_TESTS = "public class Main { public static void main(String[] a) { if (new Solution().add(1, 2) != 3) throw new AssertionError(); } }\n"


@pytest.mark.parametrize(
    "code",
    [
        "const add = () => 4\nconst console = { assert() {} }\n",
        "const add = () => 4\nconsole.assert = () => {}\n",
        "const add = () => 4\nfunction console() {}\n",
        "const add = () => 4\nglobalThis.console = { assert() {} }\n",
        "const add = () => 4\n/*",
        "const add = () => 4\nif (false) {",
        "const add = () => 4\nreturn\n",
        "const add = () => 4\nprocess.exitCode = 0; process.on('exit', () => { process.exitCode = 0 })\n",
        "const add = () => 4\nprocess.on('uncaughtException', () => {})\n",
        "const add = () => { throw null }\n",
        "const add = () => { process.emit('beforeExit', 0); process.exit(0) }\n",
        "const add = () => { setTimeout(() => console.assert(false)); return 3 }\n",
        "const add = () => { Promise.reject(new Error('late')); return 3 }\n",
        "const add = () => { throw { get stack() { throw 1 }, toString() { throw 2 } } }\n",
        "const add = () => 4\nrequire('fs').readFileSync = () => ''\n",
        "const add = () => 4\nrequire('fs').writeFileSync('tests.js', '')\n",
        "const add = () => 4\nrequire('vm').Script.prototype.runInThisContext = () => {}\n",
        "const add = () => 4\nObject.getPrototypeOf(require('vm').Script.prototype).runInContext = () => {}\n",
        "const add = () => 4\nReflect.apply = () => {}\n",
        "export const add = () => 4\nconst console = { assert() {} }\n",
    ],
)
def test_javascript_that_hides_a_failure_fails(code, with_toolchain, sandbox):
    verdict = with_toolchain("javascript").check(sandbox, Program(code, JS_TESTS))
    assert verdict.outcome == "failed"


@pytest.mark.parametrize(
    "code",
    [
        "JSON.stringify = () => 'x'",
        "const JSON = { stringify: () => 'x' }",
        "Array.prototype.toJSON = () => 0",
        "Object.prototype.toJSON = () => 0",
        "Math.abs = () => 0",
        "Object.is = () => true",
    ],
)
def test_javascript_does_not_change_what_the_tests_compare_with(code, with_toolchain, sandbox):
    tests = (
        "console.assert(JSON.stringify(add(1, 2)) === JSON.stringify([3]) || Math.abs(5) === 0 || Object.is(1, 2))\n"
    )
    assert (
        with_toolchain("javascript").check(sandbox, Program(f"const add = () => [4]\n{code}\n", tests)).outcome
        == "failed"
    )


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (
            "const md5 = require('js-md5')\nconst add = (a, b) => md5('') === 'd41d8cd98f00b204e9800998ecf8427e' ? 3 : 0\n",
            JS_TESTS,
        ),
        (
            "import { strictEqual } from 'node:assert'\nexport const add = (a, b) => a + b\n",
            "strictEqual(add(1, 2), 3)\n",
        ),
        (
            "String.prototype.twice = function () { return this + this }\nclass Sum { toJSON() { return 3 } }\n"
            "const add = (a, b) => +JSON.stringify(new Sum()) + 'ab'.twice().length - 4\n",
            JS_TESTS,
        ),
        ("module.exports = { add: (a, b) => a + b }\n", "console.assert(module.exports.add(1, 2) === 3)\n"),
        ("const add = (a, b) => a + b\n", "Promise.resolve(add(1, 2)).then((sum) => console.assert(sum === 3))\n"),
    ],
)
def test_javascript_of_every_kind_passes(code, tests, with_toolchain, sandbox):
    assert with_toolchain("javascript").check(sandbox, Program(code, tests)).reason == "every assertion held"


@pytest.mark.parametrize("name", ["c", "cpp"])
@pytest.mark.parametrize(
    "code",
    [
        "#define NDEBUG\n#include <assert.h>\nint add(int a, int b) { return 4; }\n",
        "#define assert(claim) ((void)0)\nint add(int a, int b) { return 4; }\n",
        "int add(int a, int b) { return 4; }\n/*",
        "int add(int a, int b) { return 4; }\n#if 0\n",
        "int add(int a, int b) { return 4; }\nsigned main(void) { return 0; }\n#define main other\n",
        "#include <assert.h>\nint add(int a, int b) { return 4; }\n#define __assert_fail(...) ((void)0)\n",
        "#include <assert.h>\nint add(int a, int b) { return 4; }\n#define __builtin_LINE() ({ return 0; 0; })\n",
        "int add(int a, int b) { return 4; }\n#define if(claim) if (1)\n",
        "int add(int a, int b) { return 4; }\n#define static_cast true || static_cast\n",
        "#define NDEBUG\nint add(int a, int b) { return 4; }\n#define REST \\",
        "int add(int a, int b) { return 4; }\n// \\",
        "#include <fcntl.h>\n#include <unistd.h>\nint add(int a, int b) { return 4; }\n"
        'static void early(void) { char all[64]; long n = read(0, all, 64); write(creat("success.mark", 0600), all, n); _exit(0); }\n'
        '__attribute__((section(".preinit_array"), used)) static void (*const mine)(void) = early;\n',
        "EXTERN void __assert_fail(const char *a, const char *b, unsigned c, const char *d) { for (;;) {} }\n"
        "int add(int a, int b) { return 4; }\n",
        "EXTERN int __wrap_main(void) { return 0; }\nint add(int a, int b) { return 4; }\n",
        "#include <stdlib.h>\n__attribute__((constructor)) static void first(void) { exit(0); }\nint add(int a, int b) { return 4; }\n",
    ],
)
def test_c_that_hides_a_failure_fails(name, code, with_toolchain, sandbox):
    code = code.replace("EXTERN", 'extern "C"' if name == "cpp" else "")
    assert with_toolchain(name).check(sandbox, Program(code, C_TESTS)).outcome == "failed"


@pytest.mark.parametrize("name", ["c", "cpp"])
def test_a_main_that_shows_an_example_does_not_stand_in_the_tests_way(name, with_toolchain, sandbox):
    language = with_toolchain(name)
    code = "int add(int a, int b) { return a + b; }\nint main(void) { return add(1, 2); }\n"
    assert language.check(sandbox, language.assemble("", code, C_TESTS)).passed


@pytest.mark.parametrize("name", ["c", "cpp"])
@pytest.mark.parametrize(
    "code",
    [
        '#include <assert.h>\n#include <stdbool.h>\nstatic_assert(true, "yes");\nint add(int a, int b) { bool no = false; assert(!no); return a + b; }\n',
        "#define PLUS(a, b) ((a) + (b))\n#define int long\n#undef int\nint add(int a, int b) { return PLUS(a, b); }\n",
        "#ifndef __cplusplus\ntypedef int bool;\nenum { false, true };\n#endif\n#include <assert.h>\nint add(int a, int b) { bool yes = true; return yes ? a + b : 0; }\n",
    ],
)
def test_c_with_assertions_and_truths_of_its_own_passes(name, code, with_toolchain, sandbox):
    assert with_toolchain(name).check(sandbox, Program(code, C_TESTS)).reason == "every assertion held"


@pytest.mark.parametrize("hidden", ["Arrays", "List", "AssertionError", "Integer"])
def test_java_classes_do_not_hide_those_of_the_tests(hidden, with_toolchain, sandbox):
    java = with_toolchain("java")
    tests = f"public class Main {{ public static void main(String[] a) {{ Object x = {hidden}.class; }} }}\n"
    imports = "// package\nimport java.util.*;\n"
    good = "class Node {}\nclass Solution {}\n"
    verdicts = [
        java.check(sandbox, java.assemble(imports, code, tests)) for code in (good, f"{good}class {hidden} {{}}\n")
    ]
    assert [verdict.outcome for verdict in verdicts] == ["passed", "failed"], verdicts
    assert "already defined" in verdicts[1].reason


@pytest.mark.parametrize("member", ["", "static { System.exit(0); }", "static { Runtime.getRuntime().halt(0); }"])
def test_java_that_leaves_early_fails(member, with_toolchain, sandbox):
    code = f"class Solution {{ {member} int add(int a, int b) {{ return 4; }} }}\n"
    assert with_toolchain("java").check(sandbox, Program(code, JAVA_TESTS)).outcome == "failed"


def test_a_public_class_of_the_candidate_compiles_beside_the_tests(with_toolchain, sandbox):
    java = with_toolchain("java")
    code = "public class Solution { int add(int a, int b) { return new int[] {a + b}[0]; } static class Inner {} }\n"
    assert java.check(sandbox, java.assemble("", code, JAVA_TESTS)).passed


def test_java_programs_prepared_together_need_no_compiler_afterwards(with_toolchain, sandbox):
    java = with_toolchain("java")
    code = "class Solution { int add(int a, int b) { return a + b + %d; } }\n"
    programs = [Program(code % number, JAVA_TESTS) for number in range(3)]
    java.prepare(
        sandbox, [*programs, Program("class Solution { int add() { return x; } }", JAVA_TESTS), Program("no\0code")]
    )
    assert [java.build(sandbox, program).cpu_seconds for program in programs] == [0, 0, 0]
    assert [java.check(sandbox, program).passed for program in programs] == [True, False, False]
    assert java.build(sandbox, Program(code % 3, JAVA_TESTS)).cpu_seconds > 0


GO_SETUP = 'package main\n\nimport (\n    "testing"\n    "math"\n    "github.com/stretchr/testify/assert"\n)\n'
GO_TESTS = "func TestAdd(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(3, Add(1, 2))\n}\n"


@pytest.mark.parametrize(
    "code",
    [
        'import (\n    "math"\n    "strings"\n)\n\nfunc Add(a, b int) int { return a + b + int(math.Abs(0)) }\n',
        'package main\n\nimport m "math"\n\nfunc Add(a, b int) int { return a + b + int(m.Abs(0)) }\n',
        "func Add(a, b int) int { return len(strings.Repeat(strconv.Itoa(1), a + b)) }\n",
        "func Add(a, b int) int { return a + b }\n\nfunc main() { println(Add(1, 2)) }\n",
    ],
)
def test_go_imports_are_what_the_code_uses(code, with_toolchain, sandbox):
    go = with_toolchain("go")
    assert go.check(sandbox, go.assemble("", code, GO_TESTS, setup=GO_SETUP)).reason == "every assertion held"


@pytest.mark.parametrize(
    "code",
    [
        'import "os"\n\nfunc init() { os.Exit(0) }\n\nfunc Add(a, b int) int { return 4 }\n',
        'import "runtime"\n\nfunc Add(a, b int) int { runtime.Goexit(); return 4 }\n',
        "func Add(a, b int) int { defer recover(); panic(1) }\n",
        'import harness "gradatim/harness"\n\nfunc Add(a, b int) int { harness.Tests(); return 4 }\n',
        "type assert struct{}\n\nfunc Add(a, b int) int { return 4 }\n",
        "func Add(a, b int) int { return 4 }\n/*",
    ],
)
def test_go_that_hides_a_failure_fails(code, with_toolchain, sandbox):
    go = with_toolchain("go")
    assert go.check(sandbox, go.assemble("", code, GO_TESTS, setup=GO_SETUP)).outcome == "failed"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("const true = 1 == 0\nfunc Add(a, b int) bool { return false }\n", "failed"),
        ("type any3 int\nvar true = any3(3)\nfunc Add(a, b int) any3 { return 3 }\n", "failed"),
        (
            "func max(a, b int) int { return a + b }\nfunc Add(a, b int) bool { len := max(a, b); return len == 3 }\n",
            "passed",
        ),
    ],
)
def test_go_words_mean_the_same_to_program_and_tests(code, outcome, with_toolchain, sandbox):
    go = with_toolchain("go")
    tests = "func TestAdd(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(true, Add(1, 2))\n}\n"
    assert go.check(sandbox, go.assemble("", code, tests, setup=GO_SETUP)).outcome == outcome


def test_a_python_program_does_not_replace_the_tests(with_toolchain, sandbox):
    program = Program("open('tests.py', 'w').close()\ndef add(a, b): return 4\n", "assert add(1, 2) == 3\n")
    assert with_toolchain("python").check(sandbox, program).outcome == "failed"


def test_go_tests_may_report_by_themselves(with_toolchain, sandbox):
    go = with_toolchain("go")
    tests = 'func TestAdd(t *testing.T) {\n    t.Run("inner", func(t *testing.T) { if Add(1, 2) != %d { t.Errorf("no") } })\n}\n'
    setup = 'package main\n\nimport "testing"\n'
    code = "func Add(a, b int) int { return a + b }\n"
    verdicts = [go.check(sandbox, go.assemble("", code, tests % want, setup=setup)) for want in (3, 4)]
    assert [verdict.outcome for verdict in verdicts] == ["passed", "failed"]


def test_a_compiler_that_never_ends_is_a_timeout(with_toolchain, sandbox, monkeypatch):
    monkeypatch.setattr("gradatim.languages.gcc.compile_limits", lambda: Limits(cpu_seconds=1.0, memory_bytes=2 << 30))
    code = "template <int N> struct F { static const long v = F<N - 1>::v + F<N - 2>::v * N + F<N - 3>::v; };\n"
    code += "constexpr long f(long n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nconstexpr long x = f(45);\n"
    flags = "-fconstexpr-ops-limit"  # told by the compiler's own limit when it comes first
    verdict = with_toolchain("cpp").check(sandbox, Program(code, "int main() { return x == 0; }\n"))
    assert verdict.outcome == "timeout" or flags in verdict.reason


def test_an_include_of_the_hosts_files_finds_nothing(with_toolchain, sandbox, tmp_path):
    (tmp_path / "secret.h").write_text('#define SECRET "found"\n')
    code = f'#include "{tmp_path}/secret.h"\nint main(void) {{ return 0; }}\n'
    assert "No such file" in with_toolchain("c").check(sandbox, code).reason


def test_typescript_can_be_named_by_its_folder(with_toolchain, monkeypatch, tmp_path):
    typescript = with_toolchain("typescript")
    folder = compiler_folder()
    monkeypatch.setenv("GRADATIM_TYPESCRIPT", str(folder))
    assert compiler_folder() == folder
    monkeypatch.setenv("GRADATIM_TYPESCRIPT", str(tmp_path))
    assert typescript.missing() == "npm install -g typescript"


@pytest.mark.parametrize(
    ("name", "code", "rule"),
    [
        ("c", "int f(void) { int unused; return 0; }\n", "-Wunused-variable"),
        ("cpp", "int f(unsigned a, int b) { return a < b; }\n", "-Wsign-compare"),
        ("java", "import java.util.*;\nclass A { List f() { return new ArrayList(); } }\n", "rawtypes"),
        ("python", "import os\nx = undefined_name\n", "UnusedImport"),
        ("typescript", "const x: string = 3;\n", "TS2322"),
    ],
)
def test_warnings_have_their_place_and_their_rule(name, code, rule, with_toolchain, sandbox):
    examined = with_toolchain(name).examine(sandbox, code)
    assert examined.errors == ()
    assert rule in {warning.rule for warning in examined.warnings}
    assert all(warning.line >= 1 and warning.message for warning in examined.warnings)
