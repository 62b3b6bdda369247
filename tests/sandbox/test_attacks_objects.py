# ruff: noqa: E501 - small programs stay on one line
"""What an object of the program's own class must not achieve: to pass by saying yes to the value that the tests expect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import Limits, Verdict

YES = ["contains", "lt", "le", "gt", "ge", "eq", "ne", "instancecheck", "subclasscheck"]
ZERO = [
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "mod",
    "rmod",
    "and",
    "rand",
    "or",
    "ror",
    "xor",
    "rxor",
    "abs",
    "float",
    "int",
    "index",
    "round",
    "divmod",
]
AGREEABLE = "\n".join(
    [
        "class A:",
        "    def __getattr__(self, name): return lambda *a, **k: True",
        *(f"    def __{name}__(self, *a): return True" for name in YES),
        *(f"    def __{name}__(self, *a): return 0" for name in ZERO),
        "    def __iter__(self): return iter(())",
        "    def __enter__(self): return self",
        "    def __exit__(self, *a): return True",
        "    __hash__ = lambda self: 0",
        "def f(*a): return A()",
    ]
)
"""An answer that agrees with everything."""


@pytest.fixture(scope="module")
def checker() -> Iterator[PythonChecker]:
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=Limits(cpu_seconds=1.5)) as checker:
        yield checker


def verdict(checker: PythonChecker, program: str, test: str, prompt: str = "", name: str | None = "f") -> Verdict:
    if name is not None:
        test = "def check(candidate):\n" + "\n".join("    " + line for line in test.split("\n"))
    [result] = checker.check([PythonJob(prompt, program, test, name)])
    return result


@pytest.mark.parametrize(
    "call",
    [
        *("startswith('x')", "endswith('q')", "find('x') + 1", "count(3)", "index(3) == 0", "removeprefix('abc')"),
        *("replace('a', '')", "split('x')", "issubset({1})", "issuperset({1})", "isdisjoint({1})", "union({1})"),
        *("difference({1}) is True", "symmetric_difference({1})", "fromkeys(other=5)", "index(value=5) == 0"),
    ],
)
def test_a_method_that_is_handed_the_expected_value_does_not_pass(checker: PythonChecker, call: str) -> None:
    result = verdict(checker, AGREEABLE, f"assert candidate().{call}")
    assert (result.outcome, "is not trusted" in result.reason) == ("failed", True), result


def test_a_method_that_is_kept_for_later_or_handed_to_a_builtin_does_not_pass(checker: PythonChecker) -> None:
    for test in (
        "method = candidate().startswith\nassert method('x')",
        "assert all(map(candidate().count, [1, 2]))",
        "assert getattr(candidate(), 'issubset')({1})",
        "assert [candidate()][0].endswith('x')",
        "try:\n    assert candidate().startswith('x')\nexcept BaseException: pass",
    ):
        assert verdict(checker, AGREEABLE, test).outcome == "failed", test


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "abs(candidate() - 5) < 1e-6",
            "abs(5 - candidate()) < 1e-6",
            "not candidate() ^ {1}",
            "candidate() % 5 == 0",
        ),
        *("round(candidate(), 2) == 0", "5 in candidate()", "candidate() < 5 < candidate()", "float(candidate()) == 0"),
        *("divmod(candidate(), 5) == 0", "'x' + candidate() == 0", "candidate() == 5", "5 != candidate()"),
        *("isinstance(5, candidate())", "[3] == [candidate()]", "{3: candidate()} == {3: 4}"),
    ],
)
def test_an_operator_that_is_handed_the_expected_value_does_not_pass(checker: PythonChecker, expression: str) -> None:
    assert verdict(checker, AGREEABLE, f"assert {expression}").outcome == "failed"


@pytest.mark.parametrize(
    "body", ["assert 1 == 2", "x = [][3]", "candidate().nothing + 'x'", "assert candidate(3) == 4", "int('a')"]
)
def test_a_context_manager_of_the_programs_does_not_swallow_a_failure(checker: PythonChecker, body: str) -> None:
    assert verdict(checker, AGREEABLE, f"with candidate() as answer:\n    {body}").outcome == "failed"


def test_a_name_with_a_capital_letter_makes_no_class_of_a_function(checker: PythonChecker) -> None:
    program = AGREEABLE.replace("def f", "def Sum_Of")
    assert verdict(checker, program, "assert abs(Sum_Of(1) - 5) < 1e-6", name=None).outcome == "failed"
    program = AGREEABLE.replace("def f", "def Sum")
    assert (
        verdict(checker, program, "assert abs(Sum(1) - 5) < 1e-6 and Sum(2).count(2)", name="Sum").outcome == "failed"
    )


def test_the_methods_of_a_class_that_the_tests_name_are_asked(checker: PythonChecker) -> None:
    """The trusted forms that the design lists: what such a class answers is what is tested."""
    trie = "class Trie:\n    def __init__(self): self.words = []\n    def add(self, word): self.words.append(word)\n    def startswith(self, p): return any(w.startswith(p) for w in self.words)"
    test = "t = Trie()\nt.add('abc')\nassert t.startswith('ab') and not t.startswith('b')"
    assert verdict(checker, trie, test, name=None).passed
    box = "def make():\n    class Box:\n        def put(self, x): self.x = x\n        def get(self, k): return self.x\n        def same_as(self, x): return x == self.x\n    return Box()"
    test = "b = candidate()\nb.put(5)\nassert b.get(0) == 5 and b.x == 5 and b.same_as(5)"
    assert verdict(checker, box, test, name="make").passed


POINT = "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return self.x == other.x\n    def same(self, other): return self.x == other.x\n"
TAKEN_OVER = {
    "a method in the instance": ("def f():\n    p = P(5)\n    p.same = lambda other: True\n    return p", "assert candidate().same(P(6))"),
    "a data descriptor in the instance": ("def f():\n    p = P(5)\n    vars(p)['__class__'] = int\n    return p", "assert candidate() == P(6)"),
    "a class of the same name": ("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return True\n    same = __eq__\ndef f(): return P(5)", "assert candidate() == P(6) or candidate().same(P(6))"),
    "a class that extends it": ("class Q(P):\n    def __eq__(self, other): return True\ndef f(): return Q(5)", "assert candidate() == P(6)"),
    "a value that agrees": ("class X:\n    def __eq__(self, other): return True\ndef f(): return P(X())", "assert candidate() == P(6)"),
}  # fmt: skip


@pytest.mark.parametrize(("program", "test"), TAKEN_OVER.values(), ids=TAKEN_OVER)
def test_a_class_of_the_prompt_is_not_taken_over(checker: PythonChecker, program: str, test: str) -> None:
    assert verdict(checker, program, test, prompt=POINT).outcome == "failed"


LIARS = {
    "without a state": "class P:\n    def __init__(self, *a): pass\n    def __eq__(self, other): return True\ndef f(): return P()",
    "of another state": "class P:\n    def __init__(self, *a): self.a = a\n    def __eq__(self, other): return True\ndef f(): return P(3)",
    "of another class": "class P:\n    def __init__(self, *a): self.a = a\n    def __eq__(self, other): return True\nclass Q(P): pass\ndef f(): return Q(1, 2)",
    "of another name": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\n@dataclass\nclass Q:\n    x: int\n    y: int\ndef f(): return Q(1, 2)",
}


@pytest.mark.parametrize("program", LIARS.values(), ids=LIARS)
def test_two_objects_are_not_equal_because_their_class_says_so(checker: PythonChecker, program: str) -> None:
    assert verdict(checker, program, "assert f() == P(1, 2)", name=None).outcome == "failed"


@pytest.mark.parametrize(
    "raised", ["unittest.SkipTest('x')", "Skip('x')", "GeneratorExit", "End('x')", "asyncio.CancelledError"]
)
def test_an_exception_does_not_steer_what_runs_the_tests(checker: PythonChecker, raised: str) -> None:
    program = f"import asyncio, unittest\nclass Skip(unittest.SkipTest): pass\nclass End(BaseException): verdict, reason = b'p', ''\nEnd.__module__ = 'inside.program'\ndef f(): raise {raised}"
    test = "import asyncio, unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(candidate(), 5)\nresult = unittest.TestResult()\nT('test').run(result)\nassert result.wasSuccessful()"
    assert verdict(checker, program, test).outcome == "failed"


DEEP = {
    **{
        name: f"x = {name}" for name in ("[x]", "(x,)", "{1: x}", "frozenset([x])", "deque([x])", "P(x)", "slice(x, 1)")
    },
    **{
        name: f"x = {name}"
        for name in ("OrderedDict(a=x)", "defaultdict(int, a=x)", "{1: x}.values()", "UserList([x])")
    },
}


@pytest.mark.parametrize("step", DEEP.values(), ids=DEEP)
def test_a_deep_answer_does_not_break_the_tests(checker: PythonChecker, step: str) -> None:
    program = f"from collections import *\nP = namedtuple('P', 'a')\ndef f():\n    x = 1\n    for _ in range(9_900): {step}\n    return x"
    assert verdict(checker, program, "x = candidate()\nassert {x: 1} == x == str(x), x").outcome in (
        "failed",
        "timeout",
    )
    assert verdict(
        checker, program + "\ng = f\ndef f(): return {str(g())[:1]: g()}", "assert candidate() == 1"
    ).outcome in ("failed", "timeout")


def test_of_the_tests_objects_only_public_attributes_are_seen(checker: PythonChecker) -> None:
    program = "def f(t, g):\n    seen = []\n    for owner in (t, t.method, g):\n        for name in ('_hidden', '__globals__', '__dict__', 'gi_frame', '__self__', '__code__', 'f_back'):\n            try: value = getattr(owner, name)\n            except (AttributeError, TypeError): continue\n            seen.append((name, 'check' in str(value) or 'secret' in str(value)))\n    return [name for name, found in seen if found]"
    test = "class T:\n    _hidden = 'secret'\n    def method(self): return 'secret'\ndef g(): yield 'secret'\nassert candidate(T(), g()) == []"
    assert verdict(checker, program, test).passed, verdict(checker, program, test)
