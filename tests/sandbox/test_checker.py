# ruff: noqa: E501 - small programs stay on one line
"""Verdicts on Python candidates: correct ones pass, wrong ones fail, with a reason."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradatim.errors import UserError
from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import MIB, Limits, Verdict
from gradatim.stage import Event

LIMITS = Limits(cpu_seconds=0.4, wall_seconds=3, memory_bytes=256 * MIB, file_bytes=MIB, folder_bytes=2 * MIB)


@pytest.fixture(scope="module")
def checker() -> Iterator[PythonChecker]:
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=LIMITS) as checker:
        yield checker


def verdict(checker: PythonChecker, program: str, *tests: str, prompt: str = "", name: str | None = "f") -> Verdict:
    """HumanEval's shape, the lines of ``tests`` being the body of ``check``; with ``name`` None, plain asserts."""
    text = "\n".join(tests)
    if name is not None:
        text = "def check(candidate):\n" + "\n".join("    " + line for line in text.split("\n"))
    [result] = checker.check([PythonJob(prompt, program, text, name)])
    return result


def passes(checker: PythonChecker, program: str, *tests: str, prompt: str = "", name: str | None = "f") -> None:
    result = verdict(checker, program, *tests, prompt=prompt, name=name)
    assert result.outcome == "passed", result


def reason(
    outcome: str, checker: PythonChecker, program: str, *tests: str, prompt: str = "", name: str | None = "f"
) -> str:
    result = verdict(checker, program, *tests, prompt=prompt, name=name)
    assert result.outcome == outcome, result
    return result.reason


def test_a_right_program_passes_and_a_wrong_one_fails_with_the_line(checker: PythonChecker) -> None:
    passes(checker, "def f(x): return x + 1", "assert candidate(1) == 2")
    message = reason("failed", checker, "def f(x): return x + 2", "assert candidate(1) == 2")
    assert message == "AssertionError · tests, line 2: assert candidate(1) == 2 · the last call returned 3"


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("def f(x): return [x, 'a', {2: (3,)}, None]", "[1, 'a', {2: (3,)}, None]"),
        ("def f(x): pass", "None"),
        ("def f(x): return set()", "set()"),
        ("def f(x): return list(range(100_000))", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"),
        ("def f(x): return [[[[x]]]]", "[[[a value of the type list]]]"),
        ("def f(x): return 10 ** 5000", "an integer of 16610 bits"),
        ("def f(x): return '\\n' * 500_000", repr("\n" * 49)[:99] + "…"),
        ("class Odd:\n    def __repr__(self): raise SystemExit\ndef f(x): return Odd()", "a value of the type Odd"),
        ("def f(x):\n    yield 1", "a value of the type generator"),
    ],
)
def test_a_failed_assertion_shows_the_start_of_what_was_returned(checker, program: str, shown: str) -> None:
    message = reason("failed", checker, program, "found = candidate(1)", "assert found is candidate")
    assert message.endswith(f"assert found is candidate · the last call returned {shown}")


def test_a_failure_after_an_exception_of_the_program_or_without_a_call_shows_no_value(checker: PythonChecker) -> None:
    program = "def f(x): return 1 if x else {}[0]"
    tests = ("candidate(1)", "try:\n    candidate(0)\nexcept KeyError:\n    assert 0")
    assert reason("failed", checker, program, *tests).endswith("assert 0")
    assert reason("failed", checker, program, "assert 0").endswith("assert 0")
    assert "returned" not in reason("failed", checker, program, "candidate(1)", "candidate(0)")


def test_a_long_line_of_the_tests_leaves_room_for_what_was_returned(checker: PythonChecker) -> None:
    line = "assert candidate(1) == 2" + " + 0" * 500
    assert reason("failed", checker, "def f(x): return 3", line).endswith("… · the last call returned 3")


def test_verdicts_come_in_the_order_of_the_jobs() -> None:
    jobs = [PythonJob("", f"def f(): return {n}", f"assert f() == {n - n % 2}", "f") for n in range(12)]
    events: list[Event] = []
    with PythonChecker(workers=2, limits=LIMITS) as checker:
        outcomes = [result.passed for result in checker.check(jobs, events.append)]
    assert outcomes == [True, False] * 6
    progress = [event.done for event in events if event.kind == "advance"]  # and at intervals while a program runs
    assert progress == sorted(progress)
    assert set(progress) - {0} == set(range(1, 13))


def test_plain_asserts_find_the_functions_they_call(checker: PythonChecker) -> None:
    program = "def double(x): return 2 * x\nclass Pair:\n    def __init__(s, a, b): s.a, s.b = a, b\ndef total(p): return p.a + p.b"
    passes(
        checker, program, "import math\nassert double(2) == 4\nassert total(Pair(1, 2)) == 3 and math.pi > 3", name=None
    )
    passes(checker, "def sum(a, b): return a + b", "assert sum(1, 2) == 3", name=None)


def test_a_builtin_of_the_programs_does_not_come_between_tests_and_answer(checker: PythonChecker) -> None:
    program = "def all(x): return True\ndef abs(x): return 0\ndef f(): return [1]"
    assert "assert all" in reason("failed", checker, program, "assert all(x == 2 for x in f())", name=None)
    assert "AssertionError" in reason("failed", checker, program, "assert abs(f()[0] - 3) < 1", name=None)


def test_helpers_of_the_prompt_run_with_the_tests(checker: PythonChecker) -> None:
    prompt = 'def poly(x):\n    """Square."""\n    return x * x\n\ndef root(y):\n    """The root."""\n'
    passes(checker, "    return y ** 0.5", "assert abs(poly(candidate(9)) - 9) < 1e-6", prompt=prompt, name="root")
    wrong = "    return 7\ndef poly(x): return 9"
    assert "poly" in reason("failed", checker, wrong, "assert poly(candidate(9)) == 9", prompt=prompt, name="root")


def test_a_prompt_may_end_in_the_middle_of_a_function(checker: PythonChecker) -> None:
    prompt = "def one(): return 1\n\ndef f(x):\n    if x:\n        return "
    passes(checker, "one()", "assert candidate(1) == one()", prompt=prompt)
    passes(checker, "    return x", "assert candidate(1) == 1", prompt="def f(x):\n")


def test_the_entry_point_can_be_called_by_its_name(checker: PythonChecker) -> None:
    passes(checker, "def f(x): return sorted(x)", "assert tuple(candidate([2, 1])) == tuple(f([1, 2]))")
    passes(checker, "def f(x): return x", "def check(f):\n    assert f(1) == 1\n\ncheck(f)", name=None)


def test_arguments_change_in_place_and_keep_their_identity(checker: PythonChecker) -> None:
    passes(
        checker,
        "def f(a, d, s):\n    a.sort(); d['k'] = a; s.discard(1); return a",
        "a, d, s = [3, 1], {}, {1, 2}",
        "assert candidate(a, d, s) is a",
        "assert a == [1, 3] and d['k'] is a and s == {2}",
    )


def test_exceptions_arrive_by_their_builtin_name(checker: PythonChecker) -> None:
    program = "class Mine(ValueError): pass\ndef f(x):\n    if x: raise Mine('no', x)\n    raise KeyError('k')"
    passes(
        checker,
        program,
        "try:\n    candidate(1)\n    assert False\nexcept ValueError as error:\n    assert error.args == ('no', 1)",
        "try:\n    candidate(0)\n    assert False\nexcept LookupError: pass",
    )
    assert "ValueError: no · raised by the program" in reason(
        "failed", checker, "def f(): raise ValueError('no')", "assert candidate() == 1"
    )


def test_iterators_arrive_lazily_and_end_as_they_should(checker: PythonChecker) -> None:
    program = "def f(n):\n    i = 0\n    while n is None or i < n:\n        yield i\n        i += 1\n    if n == 3: raise ValueError"
    passes(
        checker,
        program,
        "from itertools import islice",
        "assert list(candidate(70)) == list(range(70))",
        "assert list(islice(candidate(None), 2000)) == list(range(2000))",
        "got = []\ntry:\n    for x in candidate(3): got.append(x)\nexcept ValueError: pass\nassert got == [0, 1, 2]",
        "assert list(candidate(0)) == []",
    )


def test_functions_cross_in_both_directions(checker: PythonChecker) -> None:
    program = "def f(g, xs):\n    return lambda y: [g(x) + y for x in xs]"
    passes(checker, program, "assert candidate(lambda x: x * 10, [1, 2])(5) == [15, 25]")
    passes(checker, "def f(xs, key): return sorted(xs, key=key)", "assert candidate(['bb', 'a'], len) == ['a', 'bb']")
    passes(checker, "def f(g): return g", "g = lambda: 1\nassert candidate(g) is g")


def test_an_error_of_the_tests_function_reaches_the_program(checker: PythonChecker) -> None:
    program = "def f(g):\n    try: return g()\n    except ZeroDivisionError: return 'caught'"
    passes(checker, program, "assert candidate(lambda: 1 // 0) == 'caught'")


def test_objects_can_be_used_but_not_compared(checker: PythonChecker) -> None:
    program = (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x); return self\n"
        "    def __len__(self): return len(self.items)\n    def __eq__(self, other): return True\n"
    )
    passes(
        checker,
        program,
        "s = candidate()\ns.push(1)\nassert s.push(2) is s and len(s) == 2 and s and s.items == [1, 2]",
        name="Stack",
    )
    message = reason("failed", checker, program, "assert candidate() == [1]", name="Stack")
    assert message == "the answer is of a type that cannot be compared: Stack"


def test_no_except_of_the_tests_holds_up_a_fault(checker: PythonChecker) -> None:
    program = "class A:\n    def __eq__(self, other): return True\ndef f(): return A()"
    tests = "try:\n    assert candidate() == 1\nexcept BaseException: pass"
    assert "cannot be compared: A" in reason("failed", checker, program, tests)


@pytest.mark.parametrize(
    "call", ["exit()", "quit()", "sys.exit(0)", "raise SystemExit(0)", "os._exit(0)", "os.abort()"]
)
def test_a_program_that_ends_itself_fails(checker: PythonChecker, call: str) -> None:
    message = reason("failed", checker, f"import os, sys\nimport builtins\ndef f(): {call}", "assert candidate() == 1")
    assert "ended" in message or "killed" in message or "SystemExit" in message or "not defined" in message, message
    assert "ended" in reason("failed", checker, "import os\nos._exit(0)\ndef f(): pass", "pass")


def test_a_missing_entry_point_is_named(checker: PythonChecker) -> None:
    assert reason("failed", checker, "x = 1", "assert candidate() == 1") == "the program does not define f"


def test_an_error_while_loading_is_told_with_its_line(checker: PythonChecker) -> None:
    message = reason("failed", checker, "x = 1\ny = 1 / 0\ndef f(): pass", "assert candidate() == 1")
    assert message == "the program ends while it is loaded: ZeroDivisionError: division by zero (line 2)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(:", "SyntaxError"),
        ("def f():\nreturn", "IndentationError"),
        ("x = '\0'", "null bytes"),
        ("\x7fELF\x02\x01\x01\0\0\x01", "null bytes"),
        ("\ud800", "UnicodeEncodeError"),
        ("(" * 5000, "too many nested parentheses"),
        ("x = 1\n" * (10 * MIB // 6), "allowed: at most"),
        ("return 1", "'return' outside function"),
    ],
    ids=["syntax", "indentation", "nul", "binary", "surrogate", "brackets", "ten-megabytes", "return"],
)
def test_what_is_no_program_is_invalid_with_the_reason(checker: PythonChecker, source: str, expected: str) -> None:
    assert expected in reason("invalid", checker, source, "assert candidate() == 1")


def test_random_bytes_as_text_get_a_verdict(checker: PythonChecker) -> None:
    assert verdict(checker, os.urandom(5000).decode("latin-1"), "assert candidate()").outcome in ("invalid", "failed")


def test_faults_of_the_problem_are_unjudged(checker: PythonChecker) -> None:
    assert "the tests are not Python" in reason("unjudged", checker, "def f(): pass", "assert (")
    assert "prompt cannot be run" in reason("unjudged", checker, "", "pass", prompt="import nothing_of_that_name\n")
    message = reason("unjudged", checker, "def f(x): pass", "import _thread\ncandidate(_thread.allocate_lock())")
    assert message == "an argument cannot be handed to the program: lock is not plain data"


def test_cpu_time_decides_timeout(checker: PythonChecker) -> None:
    message = reason("timeout", checker, "def f():\n    while True: pass", "assert candidate() == 1")
    assert message == "the program used more than 0.4 s of CPU time"
    assert "0.4 s of CPU" in reason("timeout", checker, "while True: pass", "pass")


def test_waiting_is_ended_by_the_clock() -> None:
    with PythonChecker(limits=Limits(cpu_seconds=0.3, wall_seconds=0.4)) as quick:
        message = reason("timeout", quick, "import time\ndef f(): time.sleep(60)", "assert candidate() == 1")
        assert message == "the program had not ended after 0.4 s on the clock"


def test_tests_that_never_end_with_an_answer_are_ended(checker: PythonChecker) -> None:
    program = "def f():\n    while True: yield 1"
    assert verdict(checker, program, "assert sum(candidate()) == 1").outcome == "timeout"
    message = reason("timeout", checker, "def f(): return range(10**18)", "assert sum(1 for _ in candidate()) == 1")
    assert "the tests" in message
    passes(checker, "def f(): return 1", "assert candidate() == 1")


@pytest.mark.slow
def test_an_answer_that_holds_up_the_tests_for_good_is_a_timeout(checker: PythonChecker) -> None:
    message = reason("timeout", checker, "def f(): return range(10**18)", "assert sum(candidate()) == 1")
    assert "did not end" in message
    passes(checker, "def f(): return 1", "assert candidate() == 1")


def test_an_answer_too_large_to_cross_fails(checker: PythonChecker) -> None:
    assert "cannot cross: longer than" in reason("failed", checker, "def f(): return 'x' * 40_000_000", "candidate()")
    assert "cannot cross" in reason(
        "failed", checker, "def f():\n    x = []\n    for _ in range(50_000): x = [x]\n    return x", "candidate()"
    )


def test_a_programs_output_goes_nowhere(checker: PythonChecker) -> None:
    program = "import os, sys\ndef f():\n    print('x' * 9_000_000); sys.stderr.write('y'); os.write(1, b'z'); return input.__name__"
    passes(checker, program, "assert candidate() == 'input'")


def test_memory_beyond_the_limit_is_refused(checker: PythonChecker) -> None:
    assert "MemoryError" in reason(
        "failed", checker, "def f(): return len(bytearray(1 << 30))", "assert candidate() == 1"
    )


def test_the_same_program_gives_the_same_answers(checker: PythonChecker) -> None:
    program = "import random\nn = random.random()\ndef f(): return (n, list({'a', 'b', 'c', 'd'}))"
    reasons = {reason("failed", checker, program, "assert 0, candidate()") for _ in range(4)}
    assert len(reasons) == 1


def test_reasons_are_one_printable_line(checker: PythonChecker) -> None:
    message = reason("failed", checker, "def f(): raise ValueError('a\\nb\\x1b[31m' + 'x' * 5000)", "candidate()")
    assert message.isprintable()
    assert len(message) <= 300


def test_a_closed_generator_leaves_the_checker_usable(checker: PythonChecker) -> None:
    job = PythonJob("", "def f(): return 1", "assert f() == 1", "f")
    verdicts = checker.check([job] * 50)
    assert next(verdicts).passed
    verdicts.close()
    assert [result.passed for result in checker.check([job] * 3)] == [True] * 3


def test_a_broken_worker_is_replaced(checker: PythonChecker) -> None:
    passes(checker, "def f(): return 1", "assert candidate() == 1")
    for part in ("_fork_server", "_tester"):
        getattr(checker._workers[0], part)._process.kill()
        passes(checker, "def f(): return 1", "assert candidate() == 1")


def test_close_while_a_check_runs_ends_it() -> None:
    checker = PythonChecker(limits=Limits(cpu_seconds=5, wall_seconds=60))
    job = PythonJob("", "import time\ntime.sleep(50)", "pass", None)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            list(checker.check([job]))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while checker._workers[0]._fork_server is None:
        pass
    checker.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in str(ended[0])


def test_no_descriptor_is_left_when_a_checker_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with PythonChecker(workers=2, limits=LIMITS) as checker:
            passes(checker, "def f(): return 1", "assert candidate() == 1")
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_sandbox_the_same_verdicts(tmp_path: Path) -> None:
    with PythonChecker(limits=LIMITS, unsafe=True) as bare:
        passes(bare, "def f(x): return x + 1", "assert candidate(1) == 2")
        assert "AssertionError" in reason("failed", bare, "def f(x): return x", "assert candidate(1) == 2")
        assert "CPU time" in reason("timeout", bare, "def f():\n    while True: pass", "assert candidate() == 1")
        orphan = "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid(); time.sleep(99)\n    open('x', 'w').close(); return os.getcwd()"
        folder = reason("failed", bare, orphan, "assert 0, candidate()").split("'")[0].split()[1]
        assert not Path(folder).exists()


def test_the_number_of_workers_is_checked() -> None:
    with pytest.raises(UserError, match="1 to 64"):
        PythonChecker(workers=0)


def test_numpy_is_there_when_it_is_asked_for() -> None:
    with PythonChecker(limits=Limits(cpu_seconds=5), packages=["numpy"]) as checker:
        program = "import numpy\ndef f(x): return numpy.float64(x) / 2, numpy.int64(3), numpy.bool_(True)"
        passes(
            checker,
            program,
            "import numpy as np\nassert np.allclose(candidate(1)[0], 0.5) and candidate(1)[1:] == (3, True)",
        )
        record = "import numpy\ndef f(): return numpy.zeros(1, dtype='i4,i4')"
        assert "cannot be compared: ndarray" in reason("failed", checker, record, "assert candidate() == [(0, 0)]")
