"""What a program must not achieve where it shares its process, or its compiler, with the tests that judge it."""

# ruff: noqa: E501 - programs are written as they are

from __future__ import annotations

from pathlib import Path

import pytest

from gradatim.languages import LANGUAGES, Language, Program
from gradatim.sandbox.command import Sandbox

WRONG = "int add(int a, int b) { return 4; }\n"
RIGHT = "int add(int a, int b) { return a + b; }\n"
C_TESTS = "int main(void) { assert(add(1, 2) == 3); return 0; }\n"
COMPARING = """#include <string.h>
#include <stdlib.h>
#include <math.h>
int main(void) {
    assert(strcmp(name(), "right") == 0);
    assert(strncmp(name(), "right", 3) == 0);
    assert(memcmp(name(), "right", 5) == 0);
    assert(strlen(name()) == 5);
    assert(abs(add(1, 2) - 3) == 0);
    assert(fabs(add(1, 2) - 3.0) < 1e-6);
    return 0;
}
"""
NAMES = 'const char *name(void) { return "%s"; }\n'
LIBRARY = "#include <string.h>\n#include <stdlib.h>\n#include <math.h>\n"


@pytest.fixture(scope="session", autouse=True)
def cache(compiled_here: Path) -> Path:
    """Every test here compiles into the tests' own cache."""
    return compiled_here


def language(name: str) -> Language:
    toolchain = LANGUAGES.get(name)
    if advice := toolchain.missing():
        pytest.skip(f"no toolchain for {toolchain.title}; try: {advice}")
    return toolchain


@pytest.mark.parametrize("name", ["c", "cpp"])
@pytest.mark.parametrize(
    "macro",
    [
        "#define add(...) 1 || 0\n",
        "#define add(a, b) 3\n#undef nothing\n",
        '#define add(...) 3\n#pragma push_macro("add")\n#undef add\n_Pragma("pop_macro(\\"add\\")")\n',
        "#def\\\nine add(...) 3\n",
        "%:define add(...) 3\n",
        "#/* a\n b */define/* " + "c " * 3000 + "*/ /**/ add(...) 3\n",
        '#define RUN(x) _Pragma(#x)\n#define add(...) 3\nRUN(push_macro("add"))\n#undef add\nRUN(pop_macro("add"))\n',
    ],
)
def test_a_macro_over_the_tested_function_does_not_answer_for_it(name, macro, sandbox):
    verdict = language(name).check(sandbox, Program(WRONG + macro, C_TESTS))
    assert (verdict.outcome, "ssert" in verdict.reason) == ("failed", True), verdict


@pytest.mark.parametrize("name", ["c", "cpp"])
@pytest.mark.parametrize(
    ("code", "first"),
    [
        (LIBRARY + RIGHT + NAMES % "wrong" + "#define strcmp(a, b) 0\n#define strncmp strcmp\n", "strcmp"),
        (LIBRARY + WRONG + NAMES % "right" + "#define abs(x) 0\n#define fabs(x) 0\n", "abs"),
        (
            RIGHT
            + NAMES % "wrong"
            + "EXTERN int strcmp(const char *a, const char *b) { return 0; }\n"
            + "EXTERN int memcmp(const void *a, const void *b, unsigned long n) { return 0; }\n",
            "strcmp",
        ),
        (LIBRARY + RIGHT + NAMES % "righteous" + "#define strlen(a) 5\n#define gradatim_strlen(a) 5\n", "strcmp"),
    ],
)
def test_what_tests_compare_with_is_not_replaced(name, code, first, sandbox):
    code = code.replace("EXTERN", 'extern "C"' if name == "cpp" else "")
    verdict = language(name).check(sandbox, Program(code, COMPARING))
    assert (verdict.outcome, f"`{first}(" in verdict.reason) == ("failed", True), verdict


@pytest.mark.parametrize("name", ["c", "cpp"])
def test_another_function_under_the_name_of_a_failed_assertion_does_not_return_to_the_tests(name, sandbox):
    signature = "(const char *a, const char *b, unsigned c, const char *d)"
    extern = 'extern "C" ' if name == "cpp" else ""
    code = f'{extern}void __assert_fail{signature} __asm__("mine");\n{extern}void mine{signature} {{}}\n{WRONG}'
    assert language(name).check(sandbox, Program(code, C_TESTS)).outcome == "failed"


@pytest.mark.parametrize("name", ["c", "cpp"])
def test_macros_and_comparisons_of_a_right_program_do_it_no_harm(name, sandbox):
    code = (
        f"{LIBRARY}#include <limits.h>\n#define INT_MAX 2147483647\n#define abs(x) ((x) < 0 ? -(x) : (x))\n"
        f"#define EACH for (int i = 0; i < 2; i++)\n// define the sum\n{RIGHT}{NAMES % 'right'}"
    )
    tests = COMPARING.replace("return 0;", "assert(add(INT_MAX, 0) == INT_MAX); return 0;")
    assert language(name).check(sandbox, Program(code, tests)).reason == "every assertion held"


PROMPT = (
    "#include <string>\n#include <vector>\nusing namespace std;\n/* Add\ntwo. */\nstring join(vector<string> parts) {\n"
)
JOINED = 'int main() { assert(join({"a", "b"}) == "ab"); assert (join({}) == ""); return 0; }\n'


def test_tests_are_a_unit_of_their_own_where_the_prompt_allows_it(sandbox):
    cpp = language("cpp")
    wrong = cpp.assemble(
        PROMPT, ' return "x"; }\nbool operator==(const string &a, const char *b) { return true; }\n', JOINED
    )
    right = cpp.assemble(
        PROMPT, ' string all; for (auto &each : parts) all += each; return all; }\n#define join "x"\n', JOINED
    )
    assert wrong.declared.endswith("string join(vector<string> parts);")
    assert [cpp.check(sandbox, program).outcome for program in (wrong, right)] == ["failed", "passed"]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("int twice(int a) { return 2 * a; }\nint add(int a, int b) {\n", " return a + b; }\n"),
        ("static int add(int a, int b) {\n", " return a + b; }\n"),
        ("int table[] = {1, 2};\nint add(int a, int b) {\n", " return a + b; }\n"),
        ("int add(int a, int b) {\n", " return a + b;\n}\nint main(void) { return add(1, 2); }\n"),
    ],
)
@pytest.mark.parametrize("name", ["c", "cpp"])
def test_a_right_program_passes_whatever_its_prompt_defines(name, prompt, completion, sandbox):
    toolchain = language(name)
    assert toolchain.check(sandbox, toolchain.assemble(prompt, completion, C_TESTS)).reason == "every assertion held"


JS_TESTS = "console.assert([4, 5].every((x) => x === add(1, 2)))\n"


@pytest.mark.parametrize(
    "code",
    [
        "const vm = require('vm'); vm.Script = function () { return { runInThisContext() {} } }",
        "Array.prototype.every = () => true",
        "Object.defineProperty(Array.prototype, 'every', { value: () => true })",
        "Object.assign(Array.prototype, { every: () => true })",
        "Function.prototype.call = () => true; Array.prototype.every = () => true",
        "require('node:inspector')",
        "process.binding('inspector')",
        "process.mainModule.require('v8').writeHeapSnapshot()",
        "process.getBuiltinModule('worker_threads').Worker.name",
        "require('fs').readFileSync('tests.js'); require('module')._load('vm')",
    ],
)
def test_javascript_does_not_replace_what_compiles_or_runs_the_tests(code, sandbox):
    assert (
        language("javascript").check(sandbox, Program(f"const add = () => 4\n{code}\n", JS_TESTS)).outcome == "failed"
    )


def test_javascript_with_methods_of_its_own_passes(sandbox):
    code = """
class Row extends Array { map(f) { return super.map(f) } toString() { return 'row' } }
class Stack { constructor() { this.push = (x) => x; this.toString = () => 'stack' } }
function Old() {}
Old.prototype = Object.create(Array.prototype); Old.prototype.constructor = Old; Old.prototype.toString = () => 'old'
String.prototype.replaceAll = function () { return 'x' }
Array.prototype.last = function () { return this[this.length - 1] }
const right = `${new Row(1, 2)} ${new Stack()} ${new Old()} ${[1, 2].last()}` === 'row stack old 2' && 'aa'.replaceAll('a', 'b') === 'bb'
const add = (a, b) => (right ? a + b : 0)
"""
    assert (
        language("javascript").check(sandbox, Program(code, "console.assert(add(1, 2) === 3)\n")).reason
        == "every assertion held"
    )


JAVA_TESTS = "public class Main { public static void main(String[] a) { if (new Solution().add(1, 2) != 3) throw new AssertionError(); } }\n"
JAVA = "import java.util.*;\nimport java.util.stream.*;\nclass Solution {\n    int add(int a, int b) {\n        try { %s } catch (Throwable error) { throw new RuntimeException(error); }\n        return %s;\n    }\n}\n"
UNSAFE = 'var field = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe"); field.setAccessible(true); var it = field.get(null);'
FRAMES = 'var live = Class.forName("java.lang.LiveStackFrame").getDeclaredMethod("getStackWalker"); live.setAccessible(true); live.invoke(null);'
DUMP = 'Class.forName("java.lang.management.ManagementFactory").getMethod("getPlatformMBeanServer").invoke(null);'


JAVA_ATTACKS = [
    UNSAFE,
    UNSAFE.replace(
        'Class.forName("sun.misc.Unsafe")', 'ClassLoader.getPlatformClassLoader().loadClass("sun.misc.Unsafe")'
    ),
    "var field = sun.misc.Unsafe.class.getDeclaredFields()[0]; field.setAccessible(true); field.get(null);",
    FRAMES,
    DUMP,
    'new java.io.RandomAccessFile("/proc/self/mem", "r").close();',
    'new java.io.RandomAccessFile("../proc/self/mem", "r").close();',
    'java.nio.file.Files.createSymbolicLink(java.nio.file.Path.of("x"), java.nio.file.Path.of("/proc/self/mem"));',
    'new ProcessBuilder("/bin/true").start().waitFor();',
    "System.setSecurityManager(null);",
    'java.lang.invoke.MethodHandles.privateLookupIn(Class.forName("sun.misc.Unsafe"), java.lang.invoke.MethodHandles.lookup());',
    "new ClassLoader() {}.getParent();",
    'System.load("/work/x.so");',
]
JAVA_WORK = [
    'String.format("%.2f", 1.5); new java.text.DecimalFormat("0.00").format(2.0); java.time.format.DateTimeFormatter.ofPattern("MMM d").format(java.time.LocalDate.of(2020, 1, 1)); new Scanner("1").nextInt();',
    'IntStream.range(0, 99).parallel().boxed().collect(Collectors.toMap(x -> x, x -> "" + x)); Thread t = new Thread(() -> new Random().nextInt()); t.start(); t.join(); new EnumMap<>(Thread.State.class).put(Thread.State.NEW, 1);',
    'java.security.MessageDigest.getInstance("MD5").digest(new byte[3]); new java.security.SecureRandom().nextInt(); java.lang.reflect.Array.newInstance(int.class, 3); getClass().getDeclaredMethods(); java.nio.file.Files.writeString(java.nio.file.Path.of("x"), "y");',
]


@pytest.fixture(scope="module")
def java(sandbox: Sandbox) -> Language:
    """Java, with all programs of this module compiled by one process of the compiler."""
    java = language("java")
    code = [JAVA % (attack, "3") for attack in JAVA_ATTACKS] + [JAVA % (work, "a + b") for work in JAVA_WORK]
    java.prepare(sandbox, [Program(each, JAVA_TESTS) for each in code])
    return java


@pytest.mark.parametrize("attack", JAVA_ATTACKS)
def test_java_does_not_read_its_own_memory(attack, java, sandbox):
    if not java.version().startswith(("17", "18", "19", "20", "21", "22", "23")):
        pytest.skip("this runtime has no security manager")
    verdict = java.check(sandbox, Program(JAVA % (attack, "3"), JAVA_TESTS))
    assert (verdict.outcome, "Runtime" in verdict.reason or "Security" in verdict.reason) == ("failed", True), verdict


@pytest.mark.parametrize("work", JAVA_WORK)
def test_java_that_uses_the_library_passes_behind_its_guard(work, java, sandbox):
    verdict = java.check(sandbox, Program(JAVA % (work, "a + b"), JAVA_TESTS))
    assert verdict.reason == "every assertion held"
