# ruff: noqa: E501 - small programs stay on one line
"""A failing program must not be able to leave the score: ``unjudged`` is decided by the tests and the machine alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.inside.serializer import MAX_DEPTH
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import MIB, Limits, Verdict

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=6, memory_bytes=256 * MIB, open_files=32)
RIGHT = "def f(x): return x"


@pytest.fixture(scope="module")
def checker() -> Iterator[PythonChecker]:
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=LIMITS) as checker:
        yield checker


def verdict(checker: PythonChecker, program: str, test: str, prompt: str = "") -> Verdict:
    """In program and test DEEPEST stands for the depth that can cross."""
    program, test = (text.replace("DEEPEST", str(MAX_DEPTH)) for text in (program, test))
    lines = "\n".join("    " + line for line in test.split("\n"))
    [result] = checker.check([PythonJob(prompt, program, f"def check(candidate):\n{lines}", "f")])
    return result


SAYINGS = {
    "an exception about an argument": "def f(x): raise TypeError('an argument cannot be handed to the program: A is not plain data')",
    "an exception that says the other side is gone": "def f(x): raise ValueError('the other side has closed the connection')",
    "an exception with the prompt's words": "def f(x): raise RuntimeError('the prompt cannot be run: ModuleNotFoundError')",
    "an exception whose class has our name": "class Unsendable(Exception): pass\ndef f(x): raise Unsendable('an argument')",
    "our own exception": "from inside.serializer import Unsendable\ndef f(x): raise Unsendable('an argument')",
    "an exception that cannot be written": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E",
    "an exception while it is loaded": "raise ValueError('an argument cannot be handed to the program')",
    "a class named after an argument": "class argument: pass\nargument.__name__ = 'argument'\ndef f(x): return argument()",
    "a refusal of its own": "from inside import rpc\ndef f(x): raise rpc.AnswerRefused('an argument')",
}


@pytest.mark.parametrize("program", SAYINGS.values(), ids=SAYINGS)
def test_the_text_of_an_exception_does_not_make_a_program_unjudged(checker: PythonChecker, program: str) -> None:
    assert verdict(checker, program, "assert candidate(1) == 2").outcome == "failed"


FORGED = {
    "refused": "rpc.message(b'U', writer.encode('an argument cannot be handed to the program')[0])",
    "refused without a text": "rpc.message(b'U', writer.encode(None)[0])",
    "refused with a handle": "rpc.message(b'U', b'p\\0\\0\\0\\0' + b'\\0' * 8)",
    "raised": "rpc.message(b'E', writer.encode(('Unsent', (), 'an argument'))[0])",
    "raised with too little": "rpc.message(b'E', writer.encode('argument')[0])",
    "a request": "rpc.message(b'Q', writer.encode(('argument', 1))[0])",
    "a call of what was not lent": "rpc.message(b'Q', writer.encode(('call', 7, (), ()))[0])",
    "a call with an argument too deep": "rpc.message(b'Q', b't\\1\\0\\0\\0' * 9 * DEEPEST)",
    "an unknown kind": "rpc.message(b'Z', b'N')",
}


@pytest.mark.parametrize("frame", FORGED.values(), ids=FORGED)
def test_a_forged_frame_does_not_make_a_program_unjudged(checker: PythonChecker, frame: str) -> None:
    program = (
        "import os\nfrom inside import rpc, writer\ndef f(x):\n    for descriptor in range(3, 64):\n"
        f"        try: os.write(descriptor, {frame})\n        except OSError: pass\n    return 0"
    )
    assert verdict(checker, program, "assert candidate(1) == 2").outcome == "failed"


NESTED = "def f(x):\n    for _ in range({0}): x = [x]\n    return x"
UNRETURNABLE = {
    "too deep to come": (NESTED.format("5 * DEEPEST"), "assert candidate(1) == 2"),
    "as deep as can come": (NESTED.format("DEEPEST - 1"), "assert candidate(candidate(candidate(1))) == 1"),
    "almost as deep as can come": (NESTED.format("DEEPEST - 3"), "assert candidate([[candidate(1)]]) == 1"),
    "too deep as a dict": (NESTED.format("5 * DEEPEST").replace("[x]", "{'x': x}"), "assert candidate(1) == 2"),
    "too long to come": ("def f(x): return 'x' * (33 << 20)", "assert candidate(1) == 2"),
    "as long as can come": (
        "def f(x): return b'x' * ((32 << 20) - 5) if x == 1 else 0",
        "assert candidate(candidate(1)) == 1",
    ),
    "twice half of what can come": (
        "def f(x): return b'x' * (17 << 20) if x == 1 else 0",
        "assert candidate([candidate(1), candidate(1)]) == 1",
    ),
    "an iterator that is no iterator": (
        "def f(x): return [x]",
        "assert candidate(object.__reduce_ex__(candidate(1), 2)[0]) == 1",
    ),
    "an iterator over its answer": (
        "def f(x): return memoryview(b'a').cast('B', (1, 1)) if x else 0",
        "assert candidate(candidate(1)) == 1",
    ),
    "a deep answer in pieces": (
        NESTED.format("DEEPEST - 9"),
        "assert candidate([candidate(1), [candidate(2)] * 3]) == 1",
    ),
}


@pytest.mark.parametrize(("program", "test"), UNRETURNABLE.values(), ids=UNRETURNABLE)
def test_an_answer_that_cannot_be_sent_back_does_not_make_a_program_unjudged(
    checker: PythonChecker, program: str, test: str
) -> None:
    assert verdict(checker, program, test).outcome in ("failed", "timeout")


CHANGED = {
    "too deep": "def f(x):\n    y = x\n    for _ in range(DEEPEST + 50):\n        y.append([]); y = y[0]\n    return 0",
    "as deep as can come": "def f(x):\n    y = x\n    for _ in range(DEEPEST - 5):\n        y.append([]); y = y[0]\n    return 0",
    "too long": "def f(x): x.append('x' * (33 << 20)); return 0",
    "with what cannot be sent": "import sys\ndef f(x): x.append(sys); return 0",
    "with itself": "def f(x): x.append(x); return 0",
    "with an object of its own": "class A:\n    def __eq__(self, other): return True\ndef f(x): x.append(A()); return 0",
    "with a thousand objects": "def f(x): x.extend(object() for _ in range(1000)); return 0",
}


@pytest.mark.parametrize("program", CHANGED.values(), ids=CHANGED)
def test_an_argument_changed_in_place_does_not_make_a_program_unjudged(checker: PythonChecker, program: str) -> None:
    result = verdict(
        checker, program, "x = []\nfirst = candidate(x)\nsecond = candidate([x])\nassert first == second == 1"
    )
    assert result.outcome == "failed", result
    assert verdict(checker, program, "x = []\nassert (candidate(x), candidate(x)) == (1, 1)").outcome == "failed"


def test_data_that_a_program_defines_beside_its_function_does_not_make_it_unjudged(checker: PythonChecker) -> None:
    program = f"LIMIT = []\nfor _ in range({MAX_DEPTH} - 2): LIMIT = [LIMIT]\ndef f(x): return 0"
    [result] = checker.check([PythonJob("", program, "assert f([[LIMIT]]) == 1", None)])
    assert result.outcome == "failed", result


def test_an_argument_that_a_program_calls_back_with_does_not_make_it_unjudged(checker: PythonChecker) -> None:
    deep = "def f(g):\n    x = 1\n    for _ in range(DEEPEST - 8): x = [x]\n    return g(x)"
    assert verdict(checker, deep, "assert candidate(lambda x: [[[[x]]]] * 2) == 1").outcome == "failed"
    assert verdict(checker, deep, "assert candidate(lambda x: candidate([[[[x]]]])) == 1").outcome == "failed"


def test_what_the_tests_alone_get_wrong_stays_unjudged(checker: PythonChecker) -> None:
    lock = "import _thread\nassert candidate(_thread.allocate_lock()) == 1"
    assert verdict(checker, RIGHT, lock).outcome == "unjudged"
    deep = "x = []\nfor _ in range(2 * DEEPEST): x = [x]\ncandidate(x)"
    assert verdict(checker, RIGHT, deep).outcome == "unjudged"
    assert verdict(checker, RIGHT, "pass", prompt="raise SystemExit\n").outcome == "unjudged"
    # Once the program has answered, the same argument could be of its making: no program gains by it.
    assert verdict(checker, RIGHT, f"assert candidate(0) == 0\n{lock}").outcome == "failed"
