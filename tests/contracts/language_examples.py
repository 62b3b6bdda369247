"""Small programs in every language, for the battery over all of them: the same few deeds, seven times."""

# ruff: noqa: E501 - programs are written as they are

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Examples:
    """``right`` defines ``add``; ``tests`` hold for it and ``wrong_tests`` do not. Each other field is code that defines
    ``add`` as well and does one thing more. ``broken`` does not parse; ``ill`` parses and does not compile, where a
    language can tell. ``whole`` is a program of its own, with ``whole_wrong`` its unhappy twin."""

    right: str
    tests: str
    wrong_tests: str
    crash: str
    leaves: str
    endless: str
    forges: str
    broken: str
    ill: str
    whole: str
    whole_wrong: str


C_MAIN = "int main(void) { assert(add(1, 2) == 3); assert(add(2, 2) == %d); return 0; }\n"
C = Examples(
    right="#include <stdio.h>\nint add(int a, int b) { return a + b; }\n",
    tests=C_MAIN % 4,
    wrong_tests=C_MAIN % 5,
    crash="#include <stdlib.h>\nint add(int a, int b) { volatile int *p = 0; return *p; }\n",
    leaves="#include <stdlib.h>\nint add(int a, int b) { if (a == 2) exit(0); return a + b; }\n",
    endless="int add(int a, int b) { volatile int i = 1; while (i) {} return a + b; }\n",
    forges='#include <stdio.h>\n#include <stdlib.h>\nint add(int a, int b) { FILE *f = fopen("success.mark", "w");'
    ' fputs("passed", f); fclose(f); puts("passed"); exit(0); }\n',
    broken="int add(int a, int b) { return a + ; }\n",
    ill="int add(int a, int b) { return a + c; }\n",
    whole='#include <assert.h>\n#include <stdio.h>\nint main(void) { assert(1 + 1 == 2); puts("done"); return 0; }\n',
    whole_wrong="#include <assert.h>\nint main(void) { assert(1 + 1 == 3); return 0; }\n",
)

CPP_MAIN = "int main() { assert(add(1, 2) == 3); assert(add(2, 2) == %d); }\n"
CPP = Examples(
    right="#include <vector>\nusing namespace std;\nint add(int a, int b) { vector<int> both{a, b}; return both[0] + both[1]; }\n",
    tests=CPP_MAIN % 4,
    wrong_tests=CPP_MAIN % 5,
    crash='#include <stdexcept>\nint add(int a, int b) { throw std::runtime_error("no"); }\n',
    leaves=C.leaves,
    endless=C.endless,
    forges=C.forges,
    broken="int add(int a, int b) { return a + ; }\n",
    ill="int add(int a, int b) { return std::nothing(a, b); }\n",
    whole='#include <cassert>\n#include <iostream>\nint main() { assert(1 + 1 == 2); std::cout << "done\\n"; }\n',
    whole_wrong="#include <cassert>\nint main() { assert(1 + 1 == 3); }\n",
)

GO_TESTS = """package main

import (
    "testing"
    "github.com/stretchr/testify/assert"
)

func TestAdd(t *testing.T) {
    assert := assert.New(t)
    assert.Equal(3, Add(1, 2))
    assert.Equal(%d, Add(2, 2))
}
"""
GO = Examples(
    right="func Add(a int, b int) int { return a + b }\n",
    tests=GO_TESTS % 4,
    wrong_tests=GO_TESTS % 5,
    crash="func Add(a int, b int) int { var p *int; return *p }\n",
    leaves='import "os"\n\nfunc Add(a int, b int) int { if a == 2 { os.Exit(0) }; return a + b }\n',
    endless="func Add(a int, b int) int { for { a++ }; return a }\n",
    forges='import (\n    "fmt"\n    "os"\n)\n\nfunc Add(a int, b int) int {\n    os.WriteFile("success.mark", []byte("passed"), 0600)\n'
    '    fmt.Println("passed")\n    os.Exit(0)\n    return 0\n}\n',
    broken="func Add(a int, b int) int { return a + }\n",
    ill="func Add(a int, b int) int { return a + c }\n",
    whole='package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("done") }\n',
    whole_wrong='package main\n\nfunc main() { panic("wrong") }\n',
)

JAVA_MAIN = """public class Main {
    public static void main(String[] args) {
        Solution s = new Solution();
        if (s.add(1, 2) != 3) throw new AssertionError();
        assert s.add(2, 2) == %d;
    }
}
"""
JAVA_CLASS = "import java.util.*;\n\nclass Solution {\n    public int add(int a, int b) { %s }\n}\n"
JAVA = Examples(
    right=JAVA_CLASS % "return a + b;",
    tests=JAVA_MAIN % 4,
    wrong_tests=JAVA_MAIN % 5,
    crash=JAVA_CLASS % "int[] none = null; return none[0];",
    leaves=JAVA_CLASS % "if (a == 2) System.exit(0); return a + b;",
    endless=JAVA_CLASS % "while (a + b > a + b - 1) { b = b ^ 1; } return a;",
    forges=JAVA_CLASS
    % (
        'try { java.nio.file.Files.writeString(java.nio.file.Path.of("success.mark"), "passed"); }'
        ' catch (java.io.IOException error) { } System.out.println("passed"); System.exit(0); return 0;'
    ),
    broken=JAVA_CLASS % "return a + ;",
    ill=JAVA_CLASS % "return a + c;",
    whole='public class Hello {\n    public static void main(String[] args) { System.out.println("done"); }\n}\n',
    whole_wrong="public class Hello {\n    public static void main(String[] args) { throw new IllegalStateException(); }\n}\n",
)

JS_TESTS = (
    "const testAdd = () => {\n  console.assert(add(1, 2) === 3)\n  console.assert(add(2, 2) === %d)\n}\n\ntestAdd()\n"
)
JAVASCRIPT = Examples(
    right="const add = (a, b) => {\n  return a + b\n}\n",
    tests=JS_TESTS % 4,
    wrong_tests=JS_TESTS % 5,
    crash="const add = (a, b) => {\n  return undefined.nothing\n}\n",
    leaves="const add = (a, b) => {\n  if (a === 2) process.exit(0)\n  return a + b\n}\n",
    endless="const add = (a, b) => {\n  for (;;) {}\n}\n",
    forges="const add = (a, b) => {\n  require('fs').writeFileSync('success.mark', 'passed')\n  console.log('passed')\n"
    "  process.exit(0)\n}\n",
    broken="const add = (a, b) => {\n  return a + ;\n}\n",
    ill="const add = (a, b) => {\n  return a + b\n}\nconst add = 1\n",
    whole="const assert = require('node:assert')\nassert.strictEqual(1 + 1, 2)\nconsole.log('done')\n",
    whole_wrong="const assert = require('node:assert')\nassert.strictEqual(1 + 1, 3)\n",
)

PYTHON = Examples(
    right="def add(a, b):\n    return a + b\n",
    tests="def check(add):\n    assert add(1, 2) == 3\n    assert add(2, 2) == 4\n\ncheck(add)\n",
    wrong_tests="def check(add):\n    assert add(1, 2) == 3\n    assert add(2, 2) == 5\n\ncheck(add)\n",
    crash="def add(a, b):\n    return None.nothing\n",
    leaves="import os\n\ndef add(a, b):\n    if a == 2:\n        os._exit(0)\n    return a + b\n",
    endless="def add(a, b):\n    while True:\n        pass\n",
    forges="import sys\n\ndef add(a, b):\n    open('success.mark', 'w').write('passed')\n    print('passed')\n    sys.exit(0)\n",
    broken="def add(a, b):\n    return a +\n",
    ill="def add(a, b):\n    return a + b\n    nonlocal a\n",
    whole="assert 1 + 1 == 2\nprint('done')\n",
    whole_wrong="assert 1 + 1 == 3\n",
)

TS_TESTS = """declare var require: any;
const assert = require('node:assert');

function test() {
  let candidate = add;
  assert.deepEqual(candidate(1, 2), 3);
  assert.deepEqual(candidate(2, 2), %d);
}

test();
"""
TYPESCRIPT = Examples(
    right="function add(a: number, b: number): number {\n  return a + b;\n}\n",
    tests=TS_TESTS % 4,
    wrong_tests=TS_TESTS % 5,
    crash="function add(a: number, b: number): number {\n  const none: any = undefined;\n  return none.nothing;\n}\n",
    leaves="function add(a: number, b: number): number {\n  if (a === 2) (process as any).exit(0);\n  return a + b;\n}\n",
    endless="function add(a: number, b: number): number {\n  for (;;) {}\n}\n",
    forges="function add(a: number, b: number): number {\n  require('fs').writeFileSync('success.mark', 'passed');\n"
    "  console.log('passed');\n  process.exit(0);\n}\n",
    broken="function add(a: number, b: number): number {\n  return a + ;\n}\n",
    ill='function add(a: number, b: number): number {\n  return a + b;\n}\nconst x = "\\u{110000}";\n',
    whole="const left: number = 1;\nif (left + 1 !== 2) throw new Error('wrong');\nconsole.log('done');\n",
    whole_wrong="const left: number = 1;\nif (left + 1 !== 3) throw new Error('wrong');\n",
)

EXAMPLES = {
    "c": C,
    "cpp": CPP,
    "go": GO,
    "java": JAVA,
    "javascript": JAVASCRIPT,
    "python": PYTHON,
    "typescript": TYPESCRIPT,
}
